"""What to detect in, as a user names it: image files, folders, globs, videos and a camera."""

import glob
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from keras_detect.data.image import is_image_name
from keras_detect.data.paths import FILE, FOLDER, files_below, kind_of
from keras_detect.messages import shown

_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv")
Name = str | os.PathLike | int


class Sources(NamedTuple):
    """What `find_sources` found: image files, video files, and the index of a camera or `None`."""

    images: list[pathlib.Path]
    videos: list[pathlib.Path]
    camera: int | None = None


def image_files(names: Name | Iterable[Name], recursive: bool = False) -> list[pathlib.Path]:
    """The files among `names`, the images in the folders among them, sorted by name, and those that globs match.

    Args:
        names: files of any name; folders; globs such as "shots/**/*.jpg".
        recursive: whether folders within the folders are searched, too.

    Raises:
        FileNotFoundError: no such file or folder, or nothing that a glob matches.
        ValueError: a folder without images, or `DataPathError` for a pipe, a device or a broken link.
    """
    return [path for name in _each(names) for path in _files(os.fspath(name), is_image_name, "image", recursive, ())]


def find_sources(
    names: Name | Iterable[Name], recursive: bool = False, leave_out: str | os.PathLike | None = None
) -> Sources:
    """The images, videos and the camera among `names`.

    Args:
        names: files, folders, globs such as "shots/**/*.jpg", or the index of a camera (an int, or its digits where no
            file has that name). Folders give their images and videos. A file is a video if its suffix is a video's.
        recursive: whether folders within the folders are searched, too.
        leave_out: a folder whose files are no input, though it is in a folder that is: what an earlier run has drawn.

    Raises:
        FileNotFoundError: no such file or folder, or nothing that a glob matches.
        ValueError: no name at all; a folder without images and videos; two cameras; `DataPathError` for a pipe, a
            device or a broken link.
    """
    output = () if leave_out is None else (pathlib.Path(leave_out).expanduser().absolute(),)
    sources = Sources([], [])
    for name in _each(names):
        if _is_camera(name):
            if sources.camera is not None:
                raise ValueError(f"One camera at a time. Received: {sources.camera} and {name}")
            sources = sources._replace(camera=int(name))
            continue
        for path in _files(os.fspath(name), _is_input, "image or video", recursive, output):
            (sources.videos if is_video_name(path.name) else sources.images).append(path)
    if not any(sources[:2]) and sources.camera is None:
        raise ValueError("No image, video or camera was named.")
    return sources


def is_video_name(name: str) -> bool:
    """Whether a file name ends like a video."""
    return name.lower().endswith(_VIDEO_SUFFIXES)


def _is_input(name):
    return is_image_name(name) or is_video_name(name)


def _each(names):
    return [names] if isinstance(names, str | os.PathLike | int) else names


def _is_camera(name):
    if isinstance(name, str):
        return name.isascii() and name.isdigit() and not os.path.lexists(name)
    return isinstance(name, int) and not isinstance(name, bool)


def _files(name, wanted, kind, recursive, leave_out):
    """The files that one name stands for, in a list that is not empty."""
    path = pathlib.Path(name).expanduser()
    what = kind_of(path)
    if what == FILE:
        return [path]
    if what == FOLDER:
        inside = files_below(path, wanted) if recursive else sorted(e for e in path.iterdir() if wanted(e.name))
        inside = [file for file in inside if not _is_left_out(file, path, leave_out)]
        if not inside:
            deeper = "" if recursive else " The folders in it are searched with recursive=True (--recursive)."
            raise ValueError(f"The folder {shown(path, 400)} holds no {kind}.{deeper}")
        return inside
    if not glob.has_magic(os.fspath(path)):
        raise FileNotFoundError(f"No such image or folder: {shown(path, 400)}")
    matches = (pathlib.Path(match) for match in sorted(glob.glob(os.fspath(path), recursive=True)))
    inside = [match for match in matches if wanted(match.name) and kind_of(match) == FILE]
    inside = [file for file in inside if not _is_left_out(file, None, leave_out)]
    if not inside:
        raise FileNotFoundError(f"No {kind} matches {shown(path, 400)}")
    return inside


def _is_left_out(file, folder, leave_out):
    """Whether a file is in one of the folders to leave out, or in a hidden one, below the folder that was named."""
    named = None if folder is None else folder.absolute()
    below = () if folder is None else file.relative_to(folder).parent.parts
    return any(part.startswith(".") for part in below) or any(
        place != named and place in file.absolute().parents and (named is None or place not in named.parents)
        for place in leave_out
    )
