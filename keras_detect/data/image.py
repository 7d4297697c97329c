"""A picture before it is decoded: where it lies, its size, and who decodes it. Every way gives uint8 RGB."""

import dataclasses
import io
import os
import re
import struct

import numpy as np
from absl import logging
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from keras_detect.registry import provide

# The decoders, numbered as the pipeline's switch wants them.
TF_JPEG, TF_PNG, PYTHON = 0, 1, 2

_AXIS_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
# What Pillow raises on bytes that are no picture, or a damaged or an enormous one.
UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, struct.error, Image.DecompressionBombError)
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


@dataclasses.dataclass(frozen=True, eq=False)
class FilePicture:
    """A picture in a file; `height` and `width` are those of what `read` returns.

    `decoder` is `TF_JPEG` or `TF_PNG` where TensorFlow's decoder gives the pixels that Pillow would, else `PYTHON`;
    `upright` says whether the EXIF orientation is applied.
    """

    path: str
    height: int
    width: int
    decoder: int = PYTHON
    upright: bool = True

    def read(self):
        """The pixels, uint8 [height, width, 3]. Raises `ValueError` naming the file if it cannot be decoded."""
        return read_picture(self.path, upright=self.upright)

    def encoded(self):
        """The bytes of the file."""
        with open(self.path, "rb") as file:
            return file.read()


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPicture:
    """A picture inside a TFRecord file: `length` bytes from `offset`; `name` stands in errors. See `FilePicture`."""

    path: str
    offset: int
    length: int
    height: int
    width: int
    name: str
    decoder: int = PYTHON
    upright: bool = True

    def read(self):
        """The pixels, uint8 [height, width, 3]. Raises `ValueError` naming the record if they cannot be decoded."""
        return read_picture(io.BytesIO(self.encoded()), upright=self.upright, name=self.name)

    def encoded(self):
        """The bytes of the picture as they stand in the record. Raises `ValueError` if the file has become shorter."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) < self.length:
            raise ValueError(f"{self.path} has become shorter since it was opened: {self.name} is gone.")
        return content


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayPicture:
    """A picture held in memory, uint8 [H, W, 3]."""

    pixels: np.ndarray
    path: str = ""
    decoder: int = PYTHON

    @property
    def height(self):
        return self.pixels.shape[0]

    @property
    def width(self):
        return self.pixels.shape[1]

    def read(self):
        """The pixels, uint8 [height, width, 3]."""
        return self.pixels


def is_picture_name(name):
    """Whether a file name ends like a picture."""
    return name.lower().endswith(_PICTURE_SUFFIXES)


def find_picture(path, annotated_size=None):
    """Opens a picture's header and returns the `FilePicture`; the pixels stay on disk.

    Args:
        path: the file.
        annotated_size: `(height, width)` in pixels that the boxes were drawn in, or None. It decides whether an EXIF
            rotation is applied: boxes drawn on the stored pixels keep them as they are stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or its size is not the annotated one.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Picture not found: {path}")
    return FilePicture(path=str(path), **_facts(path, path, annotated_size))


def picture_in_record(path, offset, encoded, name, annotated_size=None):
    """The `RecordPicture` of the bytes `encoded`, which stand at `offset` in the TFRecord `path`; see `find_picture`.

    Raises:
        ValueError: not a picture, or its size is not the annotated one.
    """
    facts = _facts(io.BytesIO(encoded), name, annotated_size)
    return RecordPicture(path=str(path), offset=offset, length=len(encoded), name=name, **facts)


def _facts(source, name, annotated_size):
    """Size, decoder and whether to turn upright, from the header of a path or an open file."""
    try:
        with Image.open(source) as image:
            width, height = image.size
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            decoder = _decoder(image, source)
    except UNREADABLE as error:
        raise _unreadable(name, error) from None
    turned = (width, height) if orientation in _AXIS_SWAPPING_ORIENTATIONS else (height, width)
    upright = annotated_size is None or turned == tuple(annotated_size)
    if upright:
        height, width = turned
    elif (height, width) != tuple(annotated_size):
        raise ValueError(
            f"The boxes of {name} were drawn on a picture of {annotated_size[1]} x {annotated_size[0]} pixels "
            f"(width x height). Received a picture of {width} x {height}. Correct the size in the annotation, "
            "or put the original picture back."
        )
    if upright and orientation != 1:
        decoder = PYTHON
    return {"height": height, "width": width, "decoder": decoder, "upright": upright}


def read_picture(path, upright=True, name=None):
    """Reads an image file as uint8 [H, W, 3] RGB.

    Grey, palette, CMYK and 16-bit images are converted (16 bits by their high byte); an alpha channel is dropped.

    Args:
        path: the file, anything Pillow reads; or an open file.
        upright: whether an EXIF orientation is applied.
        name: what errors call it; default: the path.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or a damaged one.
    """
    name = path if name is None else name
    if not hasattr(path, "read") and not os.path.isfile(path):
        raise FileNotFoundError(f"Picture not found: {path}")
    try:
        with Image.open(path) as image:
            return _decoded(image, upright, name)
    except UNREADABLE as error:
        raise _unreadable(name, error) from None


def _decoded(image, upright, name):
    """The pixels of an opened Pillow image, turned as its EXIF orientation says if they shall be upright."""
    if upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image.load()
    return to_rgb(image, name=name)


def to_rgb(image, name="the picture"):
    """A Pillow picture of any mode as uint8 [H, W, 3] RGB. Raises `ValueError` for floating-point pictures."""
    if image.mode == "F":
        raise ValueError(
            f"A picture holds whole numbers, 8 or 16 bits a channel. Received floating-point pixels in {name}. "
            "Scale them to 0...255 and save them as PNG."
        )
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        grey = np.clip(deep.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _decoder(image, source):
    """TensorFlow's decoders for plain, complete, 8-bit grey or RGB files; Pillow for everything else.

    A file without its end marker goes to Pillow, whose error names the file.
    """
    if image.mode not in ("RGB", "L"):
        return PYTHON
    if image.format == "JPEG" and _tail(source, 2) == b"\xff\xd9":
        return TF_JPEG
    if image.format == "PNG" and _tail(source, 8)[:4] == b"IEND" and "transparency" not in image.info:
        return TF_PNG
    return PYTHON


def _tail(source, count):
    if hasattr(source, "getvalue"):
        return source.getvalue()[-count:]
    with open(source, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - count, 0))
        return file.read()


def _unreadable(name, error):
    reason = "no picture format is recognised" if isinstance(error, UnidentifiedImageError) else str(error)
    return ValueError(f"Not a readable picture: {name} ({reason}). Replace the file, or remove it with its annotation.")


def encode_png(pixels):
    """The bytes of a PNG image of uint8 [H, W, 3] or [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@provide("as_pixels")
def as_pixels(image):
    """Any image as RGB pixels [H, W, 3], upright: the one function that drawing, inference and examples read with.

    Args:
        image: a path, the bytes of an image file, an open binary file, a Pillow image, or an array `[H, W, 3]`,
            `[H, W, 4]` (alpha is dropped), `[H, W, 1]` or `[H, W]` in 0...255. An EXIF orientation is applied; of
            several frames the first is taken, with a warning.

    Returns:
        uint8, or float32 where an array of another dtype was given.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: the path of a folder.
        ValueError: not an image, a URL, a batch, or an array with another number of channels.
    """
    if isinstance(image, str | os.PathLike):
        return _pixels_of_file(_local_file(image), image)
    if isinstance(image, bytes | bytearray | memoryview):
        return _pixels_of_file(io.BytesIO(bytes(image)), f"{len(image)} bytes")
    if hasattr(image, "read"):
        return _pixels_of_file(image, getattr(image, "name", type(image).__name__))
    if isinstance(image, Image.Image):
        return _decoded(image, upright=True, name="the image")
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or not pixels.size or pixels.dtype.kind not in "biuf":
        raise ValueError(
            "An image is a path, bytes, an open file, a Pillow image, or an array [H, W, 3] in 0...255. "
            f"Received: {type(image).__name__} of shape {pixels.shape}. Pass several images as a list."
        )
    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def _local_file(path):
    """The path of a file as a string. Raises for a URL or a folder, and where there is none."""
    path = os.fspath(path)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        raise ValueError(f"URLs are not fetched. Received: {path!r}. Download the image and pass its path or bytes.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"An image is a file. Received a folder: {path!r}. Pass its images as a list.")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Picture not found: {path}")
    return path


def _pixels_of_file(source, name):
    try:
        with Image.open(source) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # photographs with a preview, one image to everybody
                logging.warning("%s has %d frames; the first one is used.", name, frames)
            return _decoded(image, upright=True, name=name)
    except UNREADABLE as error:
        raise _unreadable(name, error) from None
