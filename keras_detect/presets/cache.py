"""The cache folder: what is in it under its own name is whole, everything unfinished is in `.work-*` folders."""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator

from keras_detect import files

_WORK = ".work-"


class CacheError(OSError):
    """The cache folder cannot be used: one line with the folder, the reason and the variable that moves it."""


def home() -> pathlib.Path:
    """The cache folder: `KERAS_DETECT_HOME`, else `keras_detect` in Keras' own folder (`KERAS_HOME` or ~/.keras)."""
    chosen = os.environ.get("KERAS_DETECT_HOME")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    keras_home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return pathlib.Path(keras_home).expanduser() / "keras_detect"


@contextlib.contextmanager
def work_folder() -> Iterator[pathlib.Path]:
    """Context of a fresh folder inside the cache (same disk, so that a rename is atomic), removed at the end.

    Those that killed processes left are removed first. Raises `CacheError` if the cache cannot be written, or if its
    disk is full.
    """
    with contextlib.ExitStack() as stack:
        try:
            home().mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(files.work_folder(home(), _WORK))
        except OSError as error:
            raise _unusable(error.strerror or error) from error
        try:
            yield folder
        except Exception as error:
            number = files.full_disk(error)
            if number is None:
                raise
            raise _unusable(os.strerror(number)) from error


def _unusable(reason):
    return CacheError(
        f"Cannot write to the cache folder {str(home())!r} ({reason}). "
        "Set the environment variable KERAS_DETECT_HOME to a folder that is writable and has free space."
    )


def cached(key: str, build: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """The cache's folder `key`; the first time, `build(folder)` fills an empty folder that is then renamed to it.

    A failure in `build` leaves nothing. Of two processes that build the same key, the first one's folder stays and
    the other's is thrown away. `key` is a plain file name; raises `ValueError` otherwise, `CacheError` if the cache
    cannot be written, and every exception of `build`.
    """
    final = _place(key)
    if final.is_dir():
        return final
    with work_folder() as work:
        folder = work / key
        folder.mkdir()
        build(folder)
        files.flush_folder(folder)
        put_in_place(folder, final)
    return final


def _place(key):
    if key != os.path.basename(key) or key.startswith(".") or not key:
        raise ValueError(f"A cache key is a plain file name. Received: {key!r}")
    return home() / key


def put_in_place(folder: pathlib.Path, final: pathlib.Path) -> None:
    """Renames `folder` to `final` in one step; if another process was faster, its folder stays."""
    try:
        os.rename(folder, final)
    except OSError:
        if not final.is_dir():
            raise


def entries(known: tuple[str, ...], content: tuple[str, ...]) -> dict[str, int]:
    """`{key: bytes}` of the cached folders, sorted.

    Only what the cache can have written counts: a folder called as one of `known`, or as an address's `cache_key`, that
    holds files named in `content` and nothing else. `KERAS_DETECT_HOME` may be a folder with other things in it.
    """
    found = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for folder in sorted(home().iterdir()):
            ours = folder.name in known or re.fullmatch(r"[A-Za-z0-9_.-]+-[0-9a-f]{12}", folder.name)
            if ours and folder.is_dir() and not folder.is_symlink():
                children = list(folder.iterdir())
                if all(child.name in content and child.is_file() for child in children):
                    found[folder.name] = sum(child.lstat().st_size for child in children)
    return found


def remove(key: str) -> None:
    """Removes the cached folder `key`: it is gone under its name in one step, then deleted."""
    final = _place(key)
    with work_folder() as work:
        os.rename(final, work / key)
