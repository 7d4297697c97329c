"""Networks of keras.applications with ImageNet weights: from Keras' cache, or fetched; offline, an early error."""

import contextlib
import os
import pathlib
import re
import socket
import threading
import urllib.error
import urllib.request

import keras

HOST = "https://storage.googleapis.com/tensorflow/keras-applications/"
_PROBE_SECONDS = 4  # Keras' own download has no time limit, and a name server that is silent has none either
_STALL_SECONDS = 20


class UnavailableWeightsError(OSError):
    """ImageNet weights that are neither in Keras' cache nor can be fetched. One line that says what to do."""


def imagenet_network(name: str, **settings) -> keras.Model:
    """The network `name` of `keras.applications`, without classifier, for images of any size, with ImageNet weights.

    Args:
        name: such as "MobileNetV2".
        **settings: further arguments of the network, such as `alpha`.

    Raises:
        UnavailableWeightsError: the weights are not in Keras' cache and cannot be reached, or a download broke.
    """
    check_available(name)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)
    try:
        return getattr(keras.applications, name)(
            include_top=False, weights="imagenet", input_shape=(None, None, 3), **settings
        )
    except Exception as error:  # get_file raises `Exception`
        raise UnavailableWeightsError(_message(name, str(error).splitlines()[0])) from error
    finally:
        socket.setdefaulttimeout(before)


def check_available(name: str) -> None:
    """Raises `UnavailableWeightsError` where the network's weights are not cached and their host cannot be reached."""
    if not _is_cached(name):
        problem = _probe()
        if problem:
            raise UnavailableWeightsError(_message(name, problem))


def _message(name, problem):
    network = f"keras.applications.{name}" if name else "keras.applications"
    return (
        f"ImageNet weights of {network} cannot be fetched ({problem}). Go online once, or copy their file into "
        f"{str(_cache())!r} from a machine that has it; offline, pass weights='packaged', weights=None or the path of "
        "a weights file, or start from a packaged preset: Model.from_preset('ssd_mobilenet_v2_oidv4')."
    )


def _cache():
    return pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path("~", ".keras").expanduser()) / "models"


def _is_cached(name):
    """Whether Keras' cache holds a file that is called like the network; Keras itself checks its digest."""

    def plain(text):
        return re.sub(r"[^a-z0-9]", "", text.lower())

    # with no name, any file will do: the one that is wanted may be among them
    return _cache().is_dir() and any(plain(file.name).startswith(plain(name)) for file in _cache().iterdir())


def _probe():
    """Why the host of the weights cannot be reached, `None` if it can; proxies are respected."""
    found = ["no answer"]

    def ask():
        try:
            with contextlib.closing(urllib.request.urlopen(HOST, timeout=_PROBE_SECONDS)):
                found[0] = None
        except urllib.error.HTTPError:
            found[0] = None  # an answer, if only that there is not a list of files
        except (OSError, ValueError) as error:
            found[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return found[0]
