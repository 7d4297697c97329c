"""Keras' `.keras` files, read without trust: the archive, the configuration and the weights are checked on the way."""

import json
import os
import pathlib
import re
import zipfile
from typing import Any, NamedTuple

import keras

from keras_detect import compat
from keras_detect.config_bounds import check_config
from keras_detect.messages import one_line, shown
from keras_detect.weights.finite import non_finite_weight

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS = ("model.weights.h5", "model.weights.npz")

MAX_MEMBERS = 1000
MAX_CONFIG = 16 * 1024**2
#: bytes that all members together may unpack to: so many times those of the archive, and so many of any archive. Keras
#: stores its members as they are; packed again, what trained weights and zeros of an optimizer take is a third of it
TIMES_ARCHIVE, ANY_ARCHIVE = 10, 64 * 1024**2
_END, _END_SIZE = b"PK\x05\x06", 22  # the record that ends a zip archive
_LOCATOR, _LOCATOR_SIZE = b"PK\x06\x07", 20  # of a large one, before it
_LARGE_END_SIZE = 56
_CAUSE = "Exception encountered: "  # what Keras writes before the cause of an error
_MESSAGE = 300  # characters of the message of another library

#: bytes that the weights of a model may take: so many times those of its file, and so many for any file
TIMES_FILE, ANY_FILE = 4, 256 * 1024**2


class ModelFileError(ValueError):
    """A model's file that is damaged, unsafe to open, or holds something else. One line that names the file."""


class _Content(NamedTuple):
    config: dict[str, Any]
    weights_bytes: int


def existing_file(source: str | os.PathLike) -> pathlib.Path:
    """`source` as a path, `~` expanded. Raises `FileNotFoundError` if there is no such file."""
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"No such weights file: {path}")
    return path


def load_keras_file(path: pathlib.Path, kind: type | None = None, compile: bool = True) -> keras.Model:
    """The model in a `.keras` file.

    Nothing is built before the archive and its checksums, the class and the numbers of the configuration were checked,
    and no weights are made that take more than `TIMES_FILE` times the bytes that the file holds, plus `ANY_FILE`.

    Args:
        path: of the file, which exists.
        kind: a class that the model must be of; None for any Keras model.
        compile: as in `keras.saving.load_model`.

    Raises:
        ModelFileError: the file is damaged or holds something else: one line.
    """
    content = _read(path)
    try:
        if kind is not None:
            check_class(content.config, kind)
        with compat.limited_variables(weights_limit(content.weights_bytes)):
            model = keras.saving.load_model(path, compile=compile)
        found = non_finite_weight(model)
        if found is not None:
            raise ValueError(f"the weight {found}: its training had diverged")
    except Exception as error:  # any exception of Keras, a layer or HDF5: the file is to blame
        raise ModelFileError(f"{path}: cannot load the model ({reason(error)})") from error
    return model


def weights_limit(stored: int) -> int:
    """How many bytes the weights of a model may take whose file holds `stored` bytes of them."""
    return TIMES_FILE * stored + ANY_FILE


def check_class(config: dict[str, Any], kind: type) -> None:
    """Raises `ValueError` unless a serialized object is of the class `kind` of detectors, or of one below it."""
    name = config.get("registered_name")
    if not isinstance(config.get("class_name"), str):
        raise ValueError("it names no class")
    cls = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if cls is None and not re.match(r"keras(\.|$)", str(config.get("module"))):
        raise ValueError(
            f"its class {shown(config.get('registered_name') or config.get('class_name'))!r} is not known here; import "
            "the module that registers it"
        )
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise ValueError(f"it holds a {shown(config.get('class_name'))}, not a detector of keras_detect")


def reason(error: BaseException) -> str:
    """The first line of an error, clipped, for a message of our own; the kind of error where it says nothing.

    Where Keras tells how it came about, the line is the cause at its end.
    """
    lines = str(error).rpartition(_CAUSE)[2].strip().split("\n", 5)
    first, *others = [line for line in lines if line.strip()] or [""]
    text = one_line(f"{first} {others[0]}" if first.endswith(":") and others else first, _MESSAGE)
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()


def _read(path):
    """Config and size of the weights, after the archive and every checksum in it were checked."""
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            content = _content(archive, path.stat().st_size)
        check_config(content.config)
    except ValueError as error:
        raise ModelFileError(f"{path}: {reason(error)}") from error
    except Exception as error:  # zipfile raises a dozen kinds for a damaged archive
        raise ModelFileError(f"{path}: damaged, not a complete .keras file ({reason(error)})") from error
    return content


def _content(archive, size):
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"it holds {len(members)} members; supported: {MAX_MEMBERS}")
    unpacked, allowed = sum(member.file_size for member in members), ANY_ARCHIVE + TIMES_ARCHIVE * size
    if unpacked > allowed:
        raise ValueError(f"it unpacks to {unpacked} bytes, as a zip bomb does; supported for its size: {allowed}")
    sizes = {member.filename: member.file_size for member in members}
    if len(sizes) < len(members):
        raise ValueError("it holds two members of the same name")
    weights = next((sizes[name] for name in WEIGHTS if name in sizes), None)
    if weights is None or CONFIG not in sizes:
        raise ValueError(f"it lacks {CONFIG if CONFIG not in sizes else WEIGHTS[0]}")
    if sizes[CONFIG] > MAX_CONFIG:
        raise ValueError(f"{CONFIG} has {sizes[CONFIG]} bytes; supported: {MAX_CONFIG}")
    damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {shown(damaged)} does not match")
    try:
        config = json.loads(archive.read(CONFIG))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{CONFIG} is not JSON ({reason(error)})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is not a JSON object")
    return _Content(config, weights)


def _check_directory(path):
    """Refuses what is not a zip archive, and a list of members that would fill the memory before it can be counted."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65536 - _END_SIZE - _LOCATOR_SIZE - _LARGE_END_SIZE))
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or end + _END_SIZE > len(tail):
        raise ValueError("not a .keras file, or truncated; save it again with model.save")
    listed = int.from_bytes(tail[end + 12 : end + 16], "little")
    start = end - _LOCATOR_SIZE - _LARGE_END_SIZE
    if tail[max(0, end - _LOCATOR_SIZE) : end].startswith(_LOCATOR) and start >= 0:
        listed = int.from_bytes(tail[start + 40 : start + 48], "little")
    if listed > MAX_MEMBERS * 1024:
        raise ValueError(f"its list of members has {listed} bytes; supported: {MAX_MEMBERS} members")
