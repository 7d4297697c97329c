"""Safe extraction of tar archives that come from elsewhere: nothing leaves the folder, nothing grows without bound."""

import gzip
import os
import pathlib
import shutil
import tarfile
import tempfile
import zlib
from typing import NamedTuple

_READ_AT_ONCE = 16 * 1024 * 1024  # tarfile reads extended headers whole: a forged size must not fill the memory
_WINDOWS = ("\\", ":")


class ArchiveError(ValueError):
    """An archive that is broken, truncated, or not safe to extract. One line that names the file."""


class Limits(NamedTuple):
    """Bounds on what an archive may unpack to; the zoo's largest archive stays below a third of each.

    Attributes:
        members: number of files and folders.
        member_bytes: size of one file, unpacked.
        total_bytes: size of the whole archive, unpacked, with the members that are not wanted.
    """

    members: int = 10_000
    member_bytes: int = 4 * 1024**3
    total_bytes: int = 8 * 1024**3


def extract(archive, folder, wanted=None, limits=Limits()):  # noqa: B008 - an immutable tuple
    """Extracts a `.tar.gz` or `.tar` into the new folder `folder`, which appears only when it is whole.

    Args:
        archive: path of the archive.
        folder: path that must not exist or be an empty folder.
        wanted: function of a member's relative `PurePosixPath` that says whether to write it (None: all). Members
            that are not wanted are checked all the same.
        limits: `Limits`.

    Returns `folder` as a `pathlib.Path`. Raises `ArchiveError` if the archive is damaged or truncated, if a member is
    no plain file or folder (links, devices), lies outside the folder, or if a limit is passed; `FileNotFoundError` if
    there is no archive.
    """
    archive, folder = pathlib.Path(archive), pathlib.Path(folder)
    if not archive.is_file():
        raise FileNotFoundError(f"No archive at {str(archive)!r}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"An archive is extracted into a new folder. {str(folder)!r} holds something already.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _extract_members(archive, work, wanted, limits)
        work.chmod(0o755)
        if folder.exists():
            folder.rmdir()  # empty; POSIX would replace it, Windows not
        os.replace(work, folder)
    except ArchiveError:
        raise
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        RecursionError,
        ValueError,
        OverflowError,
    ) as error:
        raise ArchiveError(f"{archive}: the archive is truncated or no .tar.gz ({_one_line(error)})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _extract_members(archive, work, wanted, limits):
    with open(archive, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    count = 0
    with (gzip.open if packed else open)(archive, "rb") as stream:
        bounded = _Bounded(stream, archive, limits.total_bytes)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile would keep them all
                count += 1
                if count > limits.members:
                    raise ArchiveError(f"{archive}: more than {limits.members} members")
                path = _checked_path(archive, member, limits)
                if path.parts and (wanted is None or wanted(path)):
                    _write(tar, member, path, archive, work)
            if bounded.block != bytes(tarfile.BLOCKSIZE):  # tarfile stops in silence at a damaged header
                raise ArchiveError(f"{archive}: the archive is truncated or damaged after {count} members")
            bounded.drain()  # to the end, so that the checksum of the whole stream is compared


def _checked_path(archive, member, limits):
    """The member's path inside the folder; raises for whatever is not a plain file or folder inside it."""
    name = member.name
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or any(mark in name for mark in _WINDOWS):
        raise ArchiveError(f"{archive}: member {_shown(name)} would leave the folder")
    if len(name) > 1000 or any(len(part) > 200 for part in path.parts):
        raise ArchiveError(f"{archive}: member {_shown(name)} has too long a name")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise ArchiveError(f"{archive}: member {_shown(name)} is no plain file or folder (a link or a device)")
    if member.size > limits.member_bytes or member.size < 0:
        raise ArchiveError(f"{archive}: member {_shown(name)} unpacks to more than {limits.member_bytes} bytes")
    return path


def _write(tar, member, path, archive, work):
    member.name = str(path)
    member.mode = 0o755 if member.isdir() else 0o644
    try:
        tar.extract(member, work, set_attrs=False, filter="data")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(f"{archive}: member {_shown(path)} is both a file and a folder") from error
    if member.isreg() and (work / path).stat().st_size != member.size:
        raise ArchiveError(f"{archive}: member {_shown(path)} is cut short")


class _Bounded:
    """A read-only stream that refuses to go on past `total` bytes or to hand out too much at once."""

    def __init__(self, stream, archive, total):
        self.stream, self.archive, self.total = stream, archive, total
        self.block = b""  # the last header block

    def read(self, size):
        if not 0 <= size <= _READ_AT_ONCE:
            raise ArchiveError(f"{self.archive}: a header claims {size} bytes")
        data = self.stream.read(size)
        if size == tarfile.BLOCKSIZE:
            self.block = data
        self._check(self.stream.tell())
        return data

    def seek(self, position, whence=0):
        self._check(position)
        return self.stream.seek(position, whence)

    def tell(self):
        return self.stream.tell()

    def drain(self):
        while self.read(1024 * 1024):
            pass

    def _check(self, position):
        if position > self.total:
            raise ArchiveError(f"{self.archive}: unpacks to more than {self.total} bytes")


def _shown(name):
    """A member's name for an error: clipped, without control characters."""
    return repr(str(name)[:100])


def _one_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
