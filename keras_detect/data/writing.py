"""What the writers share: any data as a data set, and images copied into a folder under names of their own."""

import io
import pathlib

from PIL import Image

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import encode_png, is_picture_name
from keras_detect.files import write_file


def as_dataset(data):
    """A `DetectionDataset` as it is, or one of an iterable of examples with `class_names`."""
    if isinstance(data, DetectionDataset):
        return data
    points = {key: getattr(data, key, ()) for key in ("keypoint_names", "skeleton")}
    return DetectionDataset.from_examples(data, data.class_names, **points)


class PictureFolder:
    """A folder that pictures are copied into; no two get the same name or the same stem.

    A picture keeps the bytes of its file where they say all there is to say. One whose stored pixels must not be turned
    upright, or that is held in memory, becomes a PNG.

    Args:
        folder: created if absent.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._names = {}

    def add(self, record):
        """Writes the picture of a record and returns its name in the folder.

        Raises:
            ValueError: the picture cannot be read.
        """
        content, suffix = encoded(record.picture, record.file_name)
        base = pathlib.PurePosixPath(str(record.file_name).replace("\\", "/"))
        stem = base.stem if is_picture_name(base.name) else base.name
        stem, number = stem or "picture", 1
        name = f"{stem}{suffix}"
        # Of another call, such as that of another split: the same picture is the same file, another one is not.
        while stem in self._names or self._differs(name, content):
            number += 1
            stem = f"{base.stem}_{number}"
            name = f"{stem}{suffix}"
        self._names[stem] = name
        write_file(self.folder / name, content)
        return name

    def _differs(self, name, content):
        file = self.folder / name
        return file.is_file() and file.read_bytes() != content


def encoded(picture, file_name):
    """`(bytes, suffix)` of a picture as a file that every reader shows with the same pixels."""
    suffix = pathlib.PurePosixPath(str(file_name)).suffix.lower()
    if hasattr(picture, "encoded") and picture.upright:
        content = picture.encoded()
        return content, suffix if is_picture_name(f"a{suffix}") else f".{_format(content)}"
    return encode_png(picture.read()), ".png"


def _format(content):
    with Image.open(io.BytesIO(content)) as image:
        return {"jpeg": "jpg"}.get(image.format.lower(), image.format.lower())
