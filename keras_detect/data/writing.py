"""What the writers share: any data as a data set, a folder that appears at once, and images copied into it.

A data set is written into a folder of its own beside the target, flushed to the disk, and takes the target's place by
renaming: a reader sees the older data set or the new one. This holds for every format, also for those that users
register, since it is `new_data_set` that calls their `write`.

What is overwritten: a data set that was written here lists its files in `MANIFEST`, per split. A further split is added
to it; everything else needs `overwrite`, which removes the files listed for the splits that are written again (all of
them where no split is named) and none else. A folder that holds files and no such list is refused.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import encode_png, is_image_name, opened
from keras_detect.data.paths import is_file
from keras_detect.files import replacing_folder, write_file
from keras_detect.messages import shown

MANIFEST = ".keras_detect_data_set"  # JSON: the format, the class names, and the files of each split
_LONGEST_STEM = 200  # bytes of a file's name without its ending; file systems allow 255 in all


def as_dataset(data):
    """A `DetectionDataset` as it is, or one of an iterable of examples with `class_names`."""
    if isinstance(data, DetectionDataset):
        return data
    points = {key: getattr(data, key, ()) for key in ("keypoint_names", "skeleton")}
    points["flip_pairs"] = getattr(data, "flip_pairs", None)
    return DetectionDataset.from_examples(data, data.class_names, **points)


@contextlib.contextmanager
def new_data_set(
    folder: str | os.PathLike,
    format: str,
    write: Callable[..., Any],
    splits: Sequence[str | None] = (None,),
    overwrite: bool = False,
) -> Iterator[Callable[..., Any]]:
    """Context of a function `write_split(dataset, split)`; what it writes appears in `folder` when the block ends.

    If the block raises, `folder` is as it was.

    Args:
        folder: the data set's folder: a new or an empty one, or one that was written here.
        format: name of the format.
        write: the format's `write(dataset, folder, split)`.
        splits: the splits that will be written, None for one without splits.
        overwrite: whether to replace what `folder` holds of them.

    Raises:
        ValueError: `folder` holds other files, or a data set that must not be replaced, or one of other classes.
        OSError: the disk is full, or cannot be written to.
    """
    folder = pathlib.Path(os.path.realpath(pathlib.Path(folder).expanduser()))
    before = _Manifest.of(folder)
    after = before.kept(folder, format, splits, overwrite)
    with replacing_folder(folder) as part, _as_the_user_calls_it(part, folder):
        leave_out = before.listed() - after.listed()
        ours = str(getattr(write, "__module__", "")).startswith("keras_detect.")
        _keep(folder, part, leave_out, by_link=ours)
        yield lambda dataset, split: after.add(part, folder, write, as_dataset(dataset), split)
        write_file(part / MANIFEST, after.text())


class _Manifest:
    """What was written into a folder: `{split: files}`, the format and the class names; nothing as long as None."""

    def __init__(self, format=None, class_names=None, files=None):
        self.format, self.class_names, self.files = format, class_names, files or {}

    @classmethod
    def of(cls, folder):
        """That of a folder. Raises `ValueError` if `folder` cannot be replaced: it has other files, or is a file."""
        if not os.path.lexists(folder):
            return cls()
        if not folder.is_dir():
            raise ValueError(f"A data set is written to a folder. Received a file: {folder}. Choose a new folder.")
        if folder == pathlib.Path(os.path.realpath(os.curdir)) or os.path.ismount(folder):
            raise ValueError(
                f"A data set's folder appears as a whole, and {folder} is the current folder or a disk, which cannot "
                "be exchanged. Choose a new folder in it."
            )
        if is_file(folder / MANIFEST):
            try:
                content = json.loads((folder / MANIFEST).read_bytes())
                files = {entry["split"]: set(map(str, entry["files"])) for entry in content["splits"]}
                return cls(str(content["format"]), list(map(str, content["class_names"])), files)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{folder / MANIFEST}, which lists the files that keras_detect wrote, is damaged, so that "
                    "nothing here can be replaced safely. Choose a new folder."
                ) from error
        others = [name for name in os.listdir(folder) if not name.startswith(".")]
        if others:
            raise ValueError(
                f"{folder} holds files that keras_detect has not written, such as {shown(min(others))}; a data set is "
                "not mixed with others' files. Choose a new folder."
            )
        return cls()

    def kept(self, folder, format, splits, overwrite):
        """What of it stays when `splits` are written. Raises `ValueError` if something would go without `overwrite`."""
        whole = None in splits or None in self.files or self.format not in (None, format)
        going = self.files.keys() if whole else self.files.keys() & set(splits)
        if going and not overwrite:
            names = ", ".join(sorted("all" if split is None else shown(split) for split in self.files))
            raise ValueError(
                f"{folder} holds a data set already ({self.format}; splits: {names}). Choose another one, or replace "
                "it: overwrite=True (--overwrite)."
            )
        files = {split: files for split, files in self.files.items() if split not in going}
        return _Manifest(format, self.class_names if files else None, files)

    def listed(self):
        """Every file of it, relative to the folder."""
        return set().union(*self.files.values())

    def add(self, part, folder, write, dataset, split):
        """Writes a split into `part`, which will be `folder`, lists what changed, and returns what `write` does."""
        if self.class_names is not None and self.class_names != dataset.class_names:
            raise ValueError(
                f"The splits of a data set have the same class names. {folder} has {shown(self.class_names)}. "
                f"Received: {shown(dataset.class_names)}. Choose another folder."
            )
        present = _files(part)
        path = write(dataset, part, split=split)
        written = {name for name, state in _files(part).items() if present.get(name) != state}
        taken = sorted(written & present.keys() - self.listed())
        if taken:
            raise ValueError(
                f"{folder / taken[0]} is a file that keras_detect has not written, and a data set needs its name. "
                "Rename it, or name another folder."
            )
        self.class_names = dataset.class_names
        self.files[split] = written
        return path

    def text(self):
        splits = [{"split": split, "files": sorted(files)} for split, files in self.files.items()]
        return json.dumps({"format": self.format, "class_names": self.class_names, "splits": splits})


def _keep(older, new, leave_out, by_link):
    """Puts the files of the older folder into the new one, but for `leave_out`: links to them, or copies.

    Our own writers replace files and never change one in place, so that a link is as good as a copy.
    """
    for place, folders, names in os.walk(older):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*names, *links):
            source = pathlib.Path(place, name)
            relative = source.relative_to(older)
            if relative.as_posix() in leave_out or relative.as_posix() == MANIFEST:
                continue
            (new / relative).parent.mkdir(parents=True, exist_ok=True)
            try:
                if not by_link and not source.is_symlink():
                    raise OSError
                os.link(source, new / relative, follow_symlinks=False)
            except OSError:  # a disk without links, or another's file
                shutil.copy2(source, new / relative, follow_symlinks=False)


def _files(folder):
    """`{path in the folder: what changes when the file is written}` of all files."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(place, name))
            relative = pathlib.PurePath(os.path.relpath(os.path.join(place, name), folder)).as_posix()
            found[relative] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


@contextlib.contextmanager
def _as_the_user_calls_it(part, folder):
    """Context whose errors name `folder` where they name the folder `part` that is written in its place."""
    try:
        yield
    except (ValueError, OSError) as error:
        if str(part) not in str(error):
            raise
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(str(error).replace(str(part), str(folder))) from None


class ImageFolder:
    """A folder that images are copied into; no two get the same name or the same stem.

    An image keeps the bytes of its file where they say all there is to say. One whose stored pixels must not be turned
    upright, or that is held in memory, becomes a PNG.

    Args:
        folder: created if absent.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._names = {}

    def add(self, record):
        """Writes the image of a record and returns its name in the folder.

        Raises:
            ValueError: the image cannot be read.
        """
        content, suffix = encoded(record.image, record.file_name)
        base = pathlib.PurePosixPath(str(record.file_name).replace("\\", "/"))
        first = _usable_stem(base.stem if is_image_name(base.name) else base.name)
        stem, number = first, 1
        name = f"{stem}{suffix}"
        # Of another call, such as that of another split: the same image is the same file, another one is not.
        while stem in self._names or self._differs(name, content):
            number += 1
            stem = f"{first}_{number}"
            name = f"{stem}{suffix}"
        self._names[stem] = name
        write_file(self.folder / name, content)
        return name

    def _differs(self, name, content):
        file = self.folder / name
        return os.path.lexists(file) and not (is_file(file) and file.read_bytes() == content)


def _usable_stem(stem):
    """A file's name without its ending, short enough and without what no file's name may hold."""
    stem = re.sub(r"[\0-\x1f\x7f]", "_", stem.encode("utf-8", "replace").decode())
    return stem.encode()[:_LONGEST_STEM].decode("utf-8", "ignore") or "image"


def encoded(image, file_name):
    """`(bytes, suffix)` of an image as a file that every reader shows with the same pixels."""
    if hasattr(image, "encoded") and image.upright:
        content, suffix = image.encoded(), pathlib.PurePosixPath(str(file_name)).suffix.lower()
        suffix = suffix if is_image_name(f"a{suffix}") else _suffix(content)
        if suffix is not None:
            return content, suffix
    return encode_png(image.read()), ".png"


def _suffix(content):
    """The ending of an image's bytes, None where readers know none."""
    with opened(io.BytesIO(content), "the image") as image:
        suffix = {"JPEG": ".jpg", "MPO": ".jpg"}.get(image.format, f".{image.format.lower()}")
    return suffix if is_image_name(f"a{suffix}") else None
