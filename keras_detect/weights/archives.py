"""Safe extraction of tar archives that come from elsewhere: nothing leaves the folder, nothing grows without bound.

An archive is read twice: the first time everything is checked and counted and nothing is written, the second time it is
written. It is read here and not by `tarfile`, which takes extended (PAX) headers whole into memory, copies the global
ones for every member, and cannot be told to stop at either; the format's headers are 512 bytes with a name, a size, a
kind and a checksum (POSIX.1-2024, pax; GNU tar manual, "Basic Tar Format").
"""

import errno
import os
import pathlib
import re
import shutil
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from keras_detect import files
from keras_detect.messages import shown

_BLOCK = 512
_CHUNK = 256 * 1024
_PACKED_CHUNK = 64 * 1024
_GZIP_MEMBERS = 100_000
_SLACK = 64 * 1024**2  # what any archive may unpack to, however small it is
_EXTENDED_BYTES, _EXTENDED_RECORDS, _EXTENDED_HEADERS = 64 * 1024, 100, 4  # of one header; headers of one member
_ALL_EXTENDED_BYTES, _ALL_EXTENDED_RECORDS = 16 * 1024**2, 100_000
_NAME_BYTES, _PART_BYTES, _DEPTH = 1000, 200, 64
_WINDOWS = ("\\", ":")
_UNSHOWN = ("Cc", "Zl", "Zp")  # categories of Unicode: control characters and separators of lines
_FILE, _OLD_FILE, _FOLDER = b"0", b"\0", b"5"
_PAX, _OLD_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_LINK = b"x", b"X", b"g", b"L", b"K"
_EXTENDED = (_PAX, _OLD_PAX, _GLOBAL_PAX, _LONG_NAME, _LONG_LINK)
_OTHER_CONTAINERS = {b"PK": ".zip", b"BZ": ".bz2", b"\xfd7": ".xz", b"7z": ".7z", b"Ra": ".rar", b"\x28\xb5": ".zst"}


class ArchiveError(ValueError):
    """An archive that is broken, truncated, or not safe to extract. One line that names the file."""


class Limits(NamedTuple):
    """Bounds on what an archive may unpack to; the zoo's largest archive stays below a third of each.

    Attributes:
        members: number of files and folders, also of folders that only the names of their files imply.
        member_bytes: size of one file, unpacked.
        total_bytes: size of the whole archive, unpacked, with the members that are not wanted.
        ratio: size of the whole archive, unpacked, by its own size; the first 64 MiB are free.
    """

    members: int = 10_000
    member_bytes: int = 4 * 1024**3
    total_bytes: int = 8 * 1024**3
    ratio: int = 100


class _Member(NamedTuple):
    path: pathlib.PurePosixPath
    is_folder: bool
    size: int


def extract(
    archive: str | os.PathLike,
    folder: str | os.PathLike,
    wanted: Callable[[pathlib.PurePosixPath], bool] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - an immutable tuple
    source: str | None = None,
) -> pathlib.Path:
    """Extracts a `.tar.gz` or `.tar` into the new folder `folder`, which appears only when it is whole.

    Args:
        archive: path of the archive.
        folder: path that must not exist or be an empty folder.
        wanted: function of a member's relative `PurePosixPath` that says whether to write it (None: all). Members
            that are not wanted are checked all the same.
        limits: `Limits`.
        source: what messages call the archive: its address, where it was fetched (default: its path).

    Returns `folder` as a `pathlib.Path`. Raises `ArchiveError` if the archive is damaged or truncated, if a member is
    not a regular file or folder (links, devices), is outside the folder, has a name that some disk cannot hold or that
    another member has, or if a limit is passed; nothing was written then. `FileNotFoundError` if there is no archive,
    `OSError` if the disk has not the room.
    """
    archive, folder = pathlib.Path(archive), pathlib.Path(folder)
    if not archive.is_file():
        raise FileNotFoundError(f"No archive at {str(archive)!r}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"An archive is extracted into a new folder. {str(folder)!r} holds something already.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = shown(archive if source is None else source, 300)
    with open(archive, "rb") as file:
        size, free = check(file, limits, source, wanted), shutil.disk_usage(folder.parent).free
        if size > free:
            reason = f"{os.strerror(errno.ENOSPC)}: {source} unpacks to {size:,} bytes, and {free:,} are free"
            raise OSError(errno.ENOSPC, reason, str(folder.parent))
        with files.work_folder(folder.parent, f".{folder.name}.") as work:
            new = work / "new"
            new.mkdir()
            _write_all(_Reader(file, limits, source), new, wanted)
            if folder.exists():
                folder.rmdir()  # empty; POSIX would replace it, Windows not
            os.rename(new, folder)
    return folder


def check(
    file: BinaryIO,
    limits: Limits = Limits(),  # noqa: B008 - an immutable tuple
    source: str = "archive",
    wanted: Callable[[pathlib.PurePosixPath], bool] | None = None,
) -> int:
    """Reads an archive to its end as `extract` does and writes nothing. Returns the bytes of all wanted files."""
    members = _Reader(file, limits, source).members()
    return sum(member.size for member in members if wanted is None or wanted(member.path))


def _write_all(reader, folder, wanted):
    for member in reader.members():
        if not member.path.parts or not (wanted is None or wanted(member.path)):
            continue
        target = folder / member.path
        (target if member.is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        if not member.is_folder:
            with open(target, "xb") as file:
                while chunk := reader.data():
                    file.write(chunk)


class _Reader:
    """The members of an archive, one after the other, each checked before it is handed out."""

    def __init__(self, file, limits, source):
        self.limits, self.source = limits, source
        file.seek(0)
        self.stream = _Stream(file, limits, source)
        self.files, self.folders = set(), set()
        self.left = 0  # bytes of the current member that were not read yet
        self.count = self.extended = self.records = 0

    def members(self) -> Iterator[_Member]:
        while (header := self._next_header()) is not None:
            member = self._checked(*header)
            self.left = 0 if member.is_folder else member.size
            yield member
            while self.data():
                pass
            self._exactly(-member.size % _BLOCK)
        self.stream.drain()  # to the end, so that the checksum of the whole stream is compared

    def data(self) -> bytes:
        """The next bytes of the current member; none at its end."""
        data = self._exactly(min(self.left, _CHUNK))
        self.left -= len(data)
        return data

    def _refusal(self, reason):
        return ArchiveError(f"{self.source}: {reason}")

    def _exactly(self, size):
        data = self.stream.read(size)
        if len(data) < size:
            raise self.stream.damage(f"it ends within member {self.count}")
        return data

    def _next_header(self):
        """`(name, size, kind)` of the next member, its extended headers taken in; None at the end."""
        name = size = None
        for _ in range(_EXTENDED_HEADERS + 1):
            block = self.stream.read(_BLOCK)
            if block == bytes(_BLOCK) and name is None and size is None:
                return None
            header = _parsed(block)
            if header is None:
                if self.count == 0:
                    raise self.stream.damage("no header of a tar archive")
                raise self._refusal(f"the archive is truncated or damaged after {self.count} members")
            own_name, own_size, kind = header
            if kind not in _EXTENDED:
                self.count += 1
                if self.count > self.limits.members:
                    raise self._refusal(f"more than {self.limits.members} members")
                return (own_name if name is None else name), (own_size if size is None else size), kind
            content = self._extended(own_size)
            if kind == _LONG_NAME:
                name = content.split(b"\0")[0]
            elif kind != _LONG_LINK:
                found = self._records(content)
                if kind == _GLOBAL_PAX and found:
                    raise self._refusal(f"a header for all members sets their {' and '.join(found)}")
                name, size = found.get("path", name), found.get("size", size)
        raise self._refusal(f"more than {_EXTENDED_HEADERS} extended headers before one member")

    def _extended(self, size):
        if not 0 <= size <= _EXTENDED_BYTES:
            raise self._refusal(f"an extended header claims {size} bytes, more than {_EXTENDED_BYTES}")
        self.extended += size
        if self.extended > _ALL_EXTENDED_BYTES or self.records > _ALL_EXTENDED_RECORDS:
            bounds = f"{_ALL_EXTENDED_BYTES} bytes or {_ALL_EXTENDED_RECORDS} records"
            raise self._refusal(f"extended headers of more than {bounds}")
        return self._exactly(size + -size % _BLOCK)[:size]

    def _records(self, content):
        """`path` (bytes) and `size` of a PAX header, whose records are "LENGTH KEY=VALUE\\n"."""
        found, start = {}, 0
        for _ in range(_EXTENDED_RECORDS + 1):
            if start == len(content):
                return found
            self.records += 1
            length = re.match(rb"([0-9]{1,5}) ", content[start : start + 6])
            end = start + int(length[1]) if length else 0
            record = content[start + len(length[0]) : end] if length else b""
            key, mark, value = record[:-1].partition(b"=")
            if not mark or end > len(content) or not record.endswith(b"\n"):
                raise self._refusal("an extended header is damaged")
            if key == b"path":
                found["path"] = value
            elif key == b"size":
                found["size"] = int(value) if re.fullmatch(rb"[0-9]{1,18}", value) else -1
            elif key.startswith(b"GNU.sparse."):
                raise self._refusal("a member is not a regular file or folder (a sparse file)")
            start = end
        raise self._refusal(f"more than {_EXTENDED_RECORDS} records in one header")

    def _checked(self, raw, size, kind):
        """The member; raises for everything that is not a plain file or folder inside the folder."""
        name_shown = f"'{shown(raw.decode('utf-8', 'backslashreplace'), 100)}'"
        path = self._checked_path(raw, name_shown)
        is_folder = kind == _FOLDER or (kind in (_FILE, _OLD_FILE) and raw.endswith(b"/"))
        if not is_folder and not path.parts:
            raise self._refusal(f"member {name_shown} is a file without a name")
        if not is_folder and kind not in (_FILE, _OLD_FILE):
            raise self._refusal(f"member {name_shown} is not a regular file or folder (a link or a device)")
        if not 0 <= size <= (0 if is_folder else self.limits.member_bytes):
            most = "a folder with a size" if is_folder else f"unpacks to more than {self.limits.member_bytes} bytes"
            raise self._refusal(f"member {name_shown}: {most}")
        self.stream.expect(size)
        self._claim(path, is_folder, name_shown)
        return _Member(path, is_folder, size)

    def _checked_path(self, raw, name_shown):
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._refusal(f"member {name_shown} has a name that is not UTF-8") from error
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or any(mark in name for mark in _WINDOWS):
            raise self._refusal(f"member {name_shown} would leave the folder")
        if not name or any(unicodedata.category(character) in _UNSHOWN for character in name):
            raise self._refusal(f"member {name_shown} has no name that can be shown")
        if len(raw) > _NAME_BYTES or len(path.parts) > _DEPTH or any(len(p.encode()) > _PART_BYTES for p in path.parts):
            most = f"{_NAME_BYTES} bytes, {_DEPTH} folders and {_PART_BYTES} bytes in each are accepted"
            raise self._refusal(f"member {name_shown} has too long a name: {most}")
        return path

    def _claim(self, path, is_folder, name_shown):
        """Takes the path, and the folders that it implies, for this member. Names that differ in case are the same."""
        name = unicodedata.normalize("NFC", str(path)).casefold()
        if name in (self.folders if not is_folder else self.files):
            raise self._refusal(f"member {name_shown} is both a file and a folder")
        if name in self.files:
            raise self._refusal(f"member {name_shown} is named twice")
        (self.folders if is_folder else self.files).add(name)
        while "/" in name:
            name = name.rpartition("/")[0]
            if name in self.files:
                raise self._refusal(f"member {name_shown} is both a file and a folder")
            if name in self.folders:
                break
            self.folders.add(name)
        if len(self.files) + len(self.folders) > self.limits.members + 1:  # "." is none
            raise self._refusal(f"more than {self.limits.members} members, with the folders that their names imply")


class _Stream:
    """The unpacked bytes of an archive in order, never more than `Limits` allow."""

    def __init__(self, file, limits, source):
        self.file, self.limits, self.source = file, limits, source
        self.total = min(limits.total_bytes, _SLACK + limits.ratio * file.seek(0, os.SEEK_END))
        file.seek(0)
        self.start = file.read(2)
        file.seek(0)
        self.inflater, self.gzip_members, self.packed = None, 0, b""
        self.buffer, self.used, self.position = b"", 0, 0

    def read(self, size):
        """`size` bytes, fewer at the end."""
        pieces, missing = [], size
        while missing > 0:
            if self.used == len(self.buffer):
                self.buffer, self.used = (self._inflated() if self.start == b"\x1f\x8b" else self.file.read(_CHUNK)), 0
                if not self.buffer:
                    break
            piece = self.buffer[self.used : self.used + missing]
            self.used += len(piece)
            pieces.append(piece)
            missing -= len(piece)
        self.expect(size - missing)
        self.position += size - missing
        return b"".join(pieces)

    def expect(self, size):
        """Raises `ArchiveError` if `size` further bytes are too many."""
        if self.position + size > self.total:
            times = (
                "" if self.total == self.limits.total_bytes else f", {self.limits.ratio} times its own size and more"
            )
            raise ArchiveError(f"{self.source}: unpacks to more than {self.total} bytes{times}")

    def damage(self, reason):
        """The error of an archive that cannot be read on."""
        for start, kind in _OTHER_CONTAINERS.items():
            if self.start.startswith(start):
                return ArchiveError(f"{self.source}: a {kind} archive; supported: .tar.gz and .tar")
        return ArchiveError(f"{self.source}: the archive is truncated or no .tar.gz ({reason})")

    def drain(self):
        while self.read(_CHUNK):
            pass

    def _inflated(self):
        """The next unpacked bytes; none at the end of the last gzip member."""
        while True:
            if not self.packed:
                self.packed = self.file.read(_PACKED_CHUNK)
            if self.inflater is None:
                if self.gzip_members:
                    if not self.packed:
                        return b""
                    self.packed = self.packed.lstrip(b"\0")  # zeros may fill up the last block of a tape
                    if not self.packed:
                        continue
                self.gzip_members += 1
                if self.gzip_members > _GZIP_MEMBERS:
                    raise ArchiveError(f"{self.source}: more than {_GZIP_MEMBERS} gzip members")
                self.inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            if not self.packed:
                raise self.damage("the gzip stream ends early")
            try:
                data = self.inflater.decompress(self.packed, _CHUNK)
            except zlib.error as error:
                raise self.damage(error) from error
            self.packed = self.inflater.unconsumed_tail
            if self.inflater.eof:
                self.packed, self.inflater = self.inflater.unused_data, None
            if data:
                return data


def _parsed(block):
    """`(name, size, kind)` of a header block; None if it is none."""
    if len(block) < _BLOCK:
        return None
    if not _has_its_checksum(block):
        return None
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return name, _number(block[124:136]), block[156:157]


def _has_its_checksum(block):
    """The sum of all bytes, the checksum itself read as spaces; some old programs added signed bytes."""
    others = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(others)
    return _number(block[148:156]) in (unsigned, unsigned - 256 * sum(byte > 127 for byte in others))


def _number(field):
    """A header's number, octal or (GNU) base 256; -1 if it is none, or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip(b" ")
    return int(text or b"0", 8) if re.fullmatch(rb"[0-7]*", text) else -1
