"""The cache folder: what stands in it under its own name is whole, everything unfinished lies in `.work-*` folders."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time

_WORK = ".work-"
_STALE_SECONDS = 2 * 24 * 3600  # a killed process leaves its folder behind; no download takes two days


class CacheError(OSError):
    """The cache folder cannot be used: one line with the folder, the reason and the variable that moves it."""


def home():
    """The cache folder: `KERAS_DETECT_HOME`, else `keras_detect` in Keras' own folder (`KERAS_HOME` or ~/.keras)."""
    chosen = os.environ.get("KERAS_DETECT_HOME")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    keras_home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return pathlib.Path(keras_home).expanduser() / "keras_detect"


@contextlib.contextmanager
def work_folder():
    """Context of a fresh folder inside the cache (same disk, so that a rename is atomic), removed at the end.

    Raises `CacheError` if the cache cannot be written.
    """
    try:
        home().mkdir(parents=True, exist_ok=True)
        _sweep()
        folder = pathlib.Path(tempfile.mkdtemp(prefix=_WORK, dir=home()))
    except OSError as error:
        raise CacheError(
            f"Cannot write to the cache folder {str(home())!r} ({error.strerror or error}). "
            "Set the environment variable KERAS_DETECT_HOME to a folder that can be written."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cached(key, build):
    """The cache's folder `key`; the first time, `build(folder)` fills an empty folder that is then renamed to it.

    A failure in `build` leaves nothing. Of two processes that build the same key, the first one's folder stays and
    the other's is thrown away. `key` is a plain file name; raises `ValueError` otherwise, `CacheError` if the cache
    cannot be written, and whatever `build` raises.
    """
    if key != os.path.basename(key) or key.startswith(".") or not key:
        raise ValueError(f"A cache key is a plain file name. Received: {key!r}")
    final = home() / key
    if final.is_dir():
        return final
    with work_folder() as work:
        folder = work / key
        folder.mkdir()
        build(folder)
        put_in_place(folder, final)
    return final


def put_in_place(folder, final):
    """Renames `folder` to `final` in one step; if another process was faster, its folder stays."""
    try:
        os.rename(folder, final)
    except OSError:
        if not final.is_dir():
            raise


def _sweep():
    """Removes the work folders of processes that were killed long ago."""
    for folder in home().glob(_WORK + "*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
