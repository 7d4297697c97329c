"""What a path in a data set may name, and where it may lie: one check for every reader.

A path names a regular file or a folder, directly or by a link. Pipes, sockets and devices would hang or never end; a
link that leads nowhere says that something is missing. An image that an annotation names (COCO's `file_name`, a column
of a table) is in the folder of the data set; links in it may lead anywhere, since their owner placed them.
Only YOLO's `data.yaml` and its lists name places outside of the folder, absolute or by `..`, as its users do.
"""

import errno
import functools
import os
import pathlib
import stat

from keras_detect.messages import shown

FILE, FOLDER = "file", "folder"
# What the system shows as folders of files and is none.
_OF_THE_SYSTEM = ("/proc", "/sys", "/dev")
MOST_ENTRIES = 5_000_000


class DataPathError(ValueError):
    """A path of a data set that names neither a regular file nor a folder, or that leads out of the data set."""


def kind_of(path: str | os.PathLike, named_in: str | os.PathLike | None = None) -> str | None:
    """What a path names: `FILE`, `FOLDER`, or None where there is nothing of that name.

    Args:
        path: the path; links are followed.
        named_in: the file that names it, for the message.

    Raises:
        DataPathError: a pipe, socket or device, a link that leads nowhere or to itself, or no possible path.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _refused(path, "is a broken link", named_in) from None
        return None
    except NotADirectoryError:
        return None
    except ValueError:
        raise _refused(path, "has a zero byte in its name", named_in) from None
    except OSError as error:
        what = "is a link to itself" if error.errno == errno.ELOOP else f"cannot be opened ({error.strerror})"
        raise _refused(path, what, named_in) from None
    mode = status.st_mode
    if stat.S_ISREG(mode):
        if status.st_dev in _system_disks():
            raise _refused(path, "is not a regular file", named_in)
        return FILE
    if stat.S_ISDIR(mode):
        return FOLDER
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    what = next((words for test, words in kinds if test(mode)), "a device")
    raise _refused(path, f"is {what}", named_in)


def is_file(path: str | os.PathLike) -> bool:
    """Whether a path names a regular file: for looking through folders, where anything else is passed over."""
    try:
        return kind_of(path) == FILE
    except DataPathError:
        return False


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError: no such file.
        DataPathError: not a regular file, or a larger one.
    """
    kind = kind_of(path)
    if kind is None:
        raise FileNotFoundError(f"No such file: {shown(path, 400)}")
    if kind != FILE:
        raise DataPathError(f"{shown(path, 400)} is a folder. Expected a file.")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataPathError(f"{shown(path, 400)} has {os.path.getsize(path)} bytes. Expected a text of at most {most}.")
    return content


def read_text(path: str | os.PathLike, most: int, encoding: str = "utf-8") -> str:
    """The text of a regular file; see `read_bytes`. Raises `UnicodeDecodeError`, too, for bytes that are not text."""
    return read_bytes(path, most).decode(encoding)


def image_path(folder: pathlib.Path, name: str, root: pathlib.Path, named_in: str | os.PathLike) -> pathlib.Path:
    """The path of an image that an annotation names, looked for in `folder`.

    Raises:
        DataPathError: it leads out of `root`, the folder of the data set.
    """
    path = os.path.normpath(os.path.join(folder, name))
    if not _lies_in(path, root):
        raise DataPathError(
            f"{shown(named_in, 400)} names the image {shown(name)}, which is outside the data set's folder, "
            f"{shown(root, 400)}. Move the image into it, or put a link to its folder there."
        )
    return pathlib.Path(path)


def files_below(folder: pathlib.Path, wanted) -> list[pathlib.Path]:
    """The paths under a folder whose names `wanted(name)` takes, sorted; links to folders are not followed.

    Raises:
        DataPathError: a folder of the system, or one with more than `MOST_ENTRIES` entries.
    """
    whole_disk = os.path.realpath(folder) == os.path.abspath(os.sep)
    if whole_disk or os.stat(folder).st_dev in _system_disks():
        raise DataPathError(f"{shown(folder, 400)} is not a folder of images. Name the folder with the images.")
    found, count = [], 0
    for place, folders, names in os.walk(folder):
        found += [pathlib.Path(place, name) for name in names if wanted(name)]
        count += len(folders) + len(names)
        if count > MOST_ENTRIES:
            raise DataPathError(f"{shown(folder, 400)} has more than {MOST_ENTRIES} entries. Name a folder of images.")
    return sorted(found)


@functools.cache
def _system_disks():
    """The device numbers of what only looks like a disk."""
    return {os.stat(place).st_dev for place in _OF_THE_SYSTEM if os.path.ismount(place)}


def _lies_in(path, root):
    """Whether a path is in a folder, as written or once the links above it are followed."""
    if "\0" in path or _is_below(os.path.abspath(path), os.path.abspath(root)):
        return True  # with a zero byte it is not a path at all, which `kind_of` says
    return _is_below(os.path.realpath(os.path.dirname(path)), os.path.realpath(root))


def _is_below(path, folder):
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _refused(path, what, named_in):
    where = f", named in {shown(named_in, 400)}," if named_in is not None else ""
    return DataPathError(f"{shown(path, 400)}{where} {what}. Expected a regular file or a folder.")
