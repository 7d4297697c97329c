"""Files and folders that appear whole or not at all.

A file is written under the name `part_of_NAME` beside its place and renamed into it; a folder is filled in
`.NAME.XXXXXXXX/new` beside its place and exchanged with the older one in one step of the file system. A process that is
killed on the way leaves such a part behind. Its owner held a lock on it, which ends with the process: the next write
into the same place removes every part that no process holds.

Where the file system cannot exchange two folders (`exchange` raises), the older one is renamed to
`.NAME.XXXXXXXX/older` before the new one takes its place. That name is the journal: if the process is killed between
the two renames, `settle`, which readers and the next writer call, puts the new folder, which was whole by then, in its
place.
"""

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import re
import shutil
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from keras_detect.messages import shown

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing swept
    fcntl = None  # type: ignore[assignment]

PART = "part_of_"  # what the names of unfinished files begin with
_PART_MARKS = (PART, *(f"{PART}{number}_" for number in range(2, 7)))  # so many processes may write a file at once
_WHOLE_FILE = struct.pack("hhqqi4x", getattr(fcntl, "F_WRLCK", 0), os.SEEK_SET, 0, 0, 0)  # struct flock
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_CURRENT_FOLDER, _EXCHANGE, _SWAP = -100, 2, 2  # AT_FDCWD, RENAME_EXCHANGE (Linux), RENAME_SWAP (macOS)

_unfinished: set[pathlib.Path] = set()  # folders of `replacing_folder` that this process is filling


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike, flush: bool = True) -> Iterator[pathlib.Path]:
    """Context of a path to write to; the file takes the place of `path` when the block ends, and vanishes if it raises.

    The path has the suffix of the final one, which some writers (Keras' `save`) look at. Missing parent folders are
    created. An `OSError` on the way, a full disk's among them, names `path` in one line. With `flush`, the bytes are on
    the disk before the rename, so that a power failure leaves the older or the new file, too.
    """
    path = pathlib.Path(path)
    with _errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not _unfinished.isdisjoint(path.parents):  # it appears with its folder
        path.unlink(missing_ok=True)  # it may be a link to the older folder's file
        with _removed_on_error(path):
            yield path
        return
    with _errors_name(path):
        part, handle = _own_part(path)
        try:
            yield part
            if flush:
                _flush(part)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def write_file(path: str | os.PathLike, content: str | bytes) -> pathlib.Path:
    """Writes text (UTF-8, line ends as given) or bytes and returns the path; not flushed, being one of many."""
    with replacing_file(path, flush=False) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return pathlib.Path(path)


def write_json(path: str | os.PathLike, content: Any, indent: int | None = 1) -> pathlib.Path:
    """Writes what JSON can hold. Raises `ValueError` for NaN and infinity, which JSON has no words for."""
    return write_file(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Context of an empty folder to fill; it takes the place of `folder` when the block ends and vanishes if it raises.

    At every moment, `folder` is the older folder or the new one, whole (after `settle` where the file system cannot
    exchange two folders). The older one is removed once the new one is in its place. Raises `NotADirectoryError` if
    `folder` is a file. An `OSError` on the way, a full disk's among them, names `folder` in one line.
    """
    folder = pathlib.Path(folder).absolute()
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "A folder is written here, and this is a file", str(folder))
    with _errors_name(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        settle(folder)
        _sweep_folders(folder.parent, _prefix(folder), only=("new", "older"))
        work, handle = _own_folder(folder.parent, _prefix(folder))
        try:
            new = work / "new"
            new.mkdir()
            _unfinished.add(new)
            try:
                yield new
            finally:
                _unfinished.discard(new)
            flush_folder(new)
            _put_in_place(new, folder, work / "older")
        finally:
            if folder.exists() or not (work / "older").exists():  # else it is the journal
                shutil.rmtree(work, ignore_errors=True)
            _close(handle)


@contextlib.contextmanager
def replacing_files(folder: str | pathlib.Path, last: str) -> Iterator[pathlib.Path]:
    """Context of an empty folder to fill; its files move into `folder` when the block ends, and vanish if it raises.

    Other files of `folder` stay. The file called `last` tells of the others: its older version goes before any of them
    moves, and the new one comes when all have moved. Errors of the disk name `folder` in one line.
    """
    folder = pathlib.Path(folder).absolute()
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with _errors_name(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with work_folder(folder, f"{PART}{last}.") as part:
                yield part
                flush_folder(part)
                (folder / last).unlink(missing_ok=True)
                for file in sorted(part.iterdir(), key=lambda file: file.name == last):
                    os.replace(file, folder / file.name)
        except BaseException:
            with contextlib.suppress(OSError):  # another's file lies there
                for place in made:
                    place.rmdir()
            raise


@contextlib.contextmanager
def work_folder(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
    """Context of a fresh folder `parent/prefixXXXXXXXX`, removed at the end; those that killed processes left go first.

    `prefix` belongs to the caller: every folder of such a name that no process holds is removed.
    """
    _sweep_folders(parent, prefix)
    work, handle = _own_folder(parent, prefix)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        _close(handle)


def check_regular(path: str | os.PathLike) -> None:
    """Raises `ValueError` for a pipe, a socket or a device, which would hang a reader or never end; links are followed.

    A path where nothing lies passes, and so does a name that is not a path.
    """
    try:
        mode = os.stat(os.path.expanduser(path)).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{shown(path, 400)} is a pipe, a socket or a device. Expected a regular file or a folder.")


def settle(folder: str | os.PathLike) -> None:
    """Puts `folder` in its place if a process was killed while it replaced it; does nothing in all other cases."""
    folder = pathlib.Path(folder).absolute()
    if os.path.lexists(folder):
        return
    for work in _folders(folder.parent, _prefix(folder)):
        if (work / "older").is_dir():
            with _abandoned(work) as abandoned:
                if abandoned:
                    whole = work / "new"
                    os.rename(whole if whole.is_dir() else work / "older", folder)
                    return


def exchange(one: str | os.PathLike, other: str | os.PathLike) -> None:
    """Exchanges two paths on one disk, in one step. Raises `OSError` where the system cannot (`ENOSYS`)."""
    library: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    paths = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        status = library.renamex_np(*paths, ctypes.c_uint(_SWAP))
    elif hasattr(library, "renameat2"):
        at = ctypes.c_int(_CURRENT_FOLDER)
        status = library.renameat2(at, paths[0], at, paths[1], ctypes.c_uint(_EXCHANGE))
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def flush_folder(folder: str | pathlib.Path) -> None:
    """Waits until the bytes of all files below `folder` are on the disk: a rename must not get there before them."""
    for root, _, names in os.walk(os.fspath(folder)):
        for path in (os.path.join(root, name) for name in names):
            if stat.S_ISREG(os.lstat(path).st_mode):  # a pipe would wait for its other end
                _flush(path)


def _put_in_place(new, folder, older):
    if not folder.exists():
        os.rename(new, folder)
        return
    try:
        exchange(new, folder)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
    else:
        return
    os.rename(folder, older)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(older, folder)  # if this fails too, `settle` does it
        raise


def _prefix(folder):
    return f".{folder.name}."


def _flush(path):
    with open(path, "rb") as file, contextlib.suppress(OSError):
        os.fsync(file.fileno())


# --- errors ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors_name(path):
    """Names `path`, and not the part beside it, in the errors of the disk; other errors pass."""
    try:
        yield
    except Exception as error:
        number = full_disk(error)
        if number is not None:
            reason = f"{os.strerror(number)}; nothing was written, and the previous content is unchanged"
            raise OSError(number, reason, str(path)) from error
        if isinstance(error, OSError) and error.errno and _is_part_of(error.filename, path):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def full_disk(error: BaseException | None) -> int | None:
    """`ENOSPC`, `EDQUOT` or `EFBIG` if a full disk is behind `error`, which a library may have wrapped; else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for number in _FULL:
            if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
                return number
        error = error.__cause__ or error.__context__
    return None


def _is_part_of(name, path):
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    beside = os.path.relpath(os.path.abspath(os.fsdecode(name)), path.absolute().parent)
    return beside.startswith((PART, _prefix(path)))


@contextlib.contextmanager
def _removed_on_error(path):
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


# --- who owns what lies there ---------------------------------------------------------------------------------------


def _own_part(path):
    """`(part, handle)` of a part of `path` that this process holds; parts that no process holds are removed."""
    folder, name = os.path.split(path)
    own = None
    for mark in _PART_MARKS:
        part = os.path.join(folder, mark + name)
        if own is not None and not os.path.lexists(part):
            continue
        handle = _held_file(part, create=own is None)
        if handle is not None and own is None:
            own = pathlib.Path(part), handle
        elif handle is not None:
            os.unlink(part)
            os.close(handle)
    if own is None:
        raise OSError(errno.EBUSY, f"{len(_PART_MARKS)} other processes are writing this file", str(path))
    return own


def _held_file(part, create):
    """The handle of a regular file that this process holds from now on; None if it is another's, or not there."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | (os.O_CREAT if create else 0)
    while True:
        try:
            handle = os.open(part, flags, 0o666)
        except OSError:
            if create and not os.path.lexists(part):
                raise
            return None
        if not stat.S_ISREG(os.fstat(handle).st_mode) or not _lock(handle, unknown=create):
            os.close(handle)
            return None
        if _is_still(part, handle):
            if create:
                os.ftruncate(handle, 0)
            return handle
        os.close(handle)  # its owner renamed or removed it meanwhile
        if not create:
            return None


def _own_folder(parent, prefix):
    """`(folder, handle)` of a fresh folder that this process holds."""
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        if fcntl is None:
            return folder, None
        with contextlib.suppress(FileNotFoundError):  # another process swept it before it was held
            handle = os.open(folder, os.O_RDONLY)
            if _lock(handle, unknown=True) and _is_still(folder, handle):
                return folder, handle
            os.close(handle)


@contextlib.contextmanager
def _abandoned(folder):
    """Context that says whether no process holds `folder`; this one holds it meanwhile."""
    handle = None
    try:
        with contextlib.suppress(OSError):
            if fcntl is not None:
                handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        yield handle is not None and _lock(handle, unknown=False) and _is_still(folder, handle)
    finally:
        _close(handle)


def _folders(parent, prefix):
    """The folders `prefixXXXXXXXX` below `parent`, as `tempfile.mkdtemp` names them."""
    pattern = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")
    try:
        with os.scandir(parent) as entries:
            return [
                pathlib.Path(entry.path)
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except (OSError, ValueError):  # no such folder, no such name
        return []


def _sweep_folders(parent, prefix, only=None):
    for folder in _folders(parent, prefix):
        with _abandoned(folder) as abandoned:
            if abandoned and (only is None or {child.name for child in folder.iterdir()} <= set(only)):
                shutil.rmtree(folder, ignore_errors=True)


def _lock(handle, unknown):
    """Whether this process holds the file or folder from now on; `unknown` where the file system has no locks."""
    if fcntl is None:
        return unknown
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode) and hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _WHOLE_FILE)  # `flock` is HDF5's, which locks what it opens
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return unknown and error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def _is_still(path, handle):
    """Whether `path` is what `handle` was opened from."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except OSError:
        return False


def _close(handle):
    if handle is not None:
        os.close(handle)
