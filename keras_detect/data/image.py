"""An image before it is decoded: where it is stored, its size, and who decodes it. Every way gives uint8 RGB.

Every image enters through `opened`: by its header, which says how many pixels decoding it would make. More than the
limit are refused before anything is decoded, wherever the image comes from. The limit is `MAX_PIXELS` unless
`pixel_limit`, or the `max_pixels` of a function, says otherwise.
"""

import contextlib
import contextvars
import dataclasses
import io
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from keras_detect.data.paths import FILE, kind_of
from keras_detect.messages import one_line, shown
from keras_detect.registry import provide

# The decoders, numbered as the pipeline's switch expects them.
TF_JPEG, TF_PNG, PYTHON = 0, 1, 2

#: pixels of the largest image that is decoded: 8192 x 8192, 192 MiB as uint8 RGB
MAX_PIXELS = 2**26
#: height or width of the largest image, the most that JPEG has. Resizing holds one side as it is and the other resized:
#: 60,000,000 x 1 pixels of a file of 8 KB took 200 GB
MAX_SIDE = 65_500
_limit: contextvars.ContextVar[int] = contextvars.ContextVar("max_pixels", default=MAX_PIXELS)
_pillows_limit = threading.Lock()

_AXIS_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
_RUN_PROGRAMS = ("EPS", "WMF")  # formats that Pillow hands to other programs
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


class ImageError(ValueError):
    """Not an image, a damaged one, or one with more pixels than the limit; the message says how to fix it."""


@contextlib.contextmanager
def pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Context in which images of up to `max_pixels` pixels (height times width) are opened; None changes nothing.

    An image of a data set keeps the limit under which the data set was read.

    Raises:
        ValueError: `max_pixels` is not a positive integer.
    """
    if max_pixels is None:
        yield
        return
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise ValueError(f"max_pixels must be a positive integer, or None. Received: max_pixels={shown(max_pixels)}")
    token = _limit.set(max_pixels)
    try:
        yield
    finally:
        _limit.reset(token)


@contextlib.contextmanager
def opened(source: Any, name: Any, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Context of the Pillow image of a path or an open file, not decoded yet.

    Args:
        source: what Pillow opens.
        name: what errors call it.
        max_pixels: height times width of the largest image, None for that of `pixel_limit`.

    Raises:
        ImageError: no image, or more pixels than the limit; also for what Pillow raises in the block, where the
            image is decoded.
    """
    with _errors_name(name), _pillow_opens(source) as image:
        _check_opened(image, name, max_pixels)
        yield image


def _check_opened(image, name, max_pixels):
    """Raises `ImageError` for a Pillow image that is not to be decoded."""
    check_pixels(image.size, name, max_pixels)
    if image.format in _RUN_PROGRAMS:
        raise ImageError(f"{shown(name, 400)} is {image.format}, which is not a raster image. Save it as PNG.")


@contextlib.contextmanager
def _errors_name(name):
    """Makes an `ImageError` that names the image, from any exception of a decoder."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(
            f"There is not enough memory to decode {shown(name, 400)}. Downscale the image, or lower max_pixels."
        ) from None
    except Exception as error:  # decoders meet arbitrary bytes, and raise what they like
        raise _unreadable(name, error) from None


def _pillow_opens(source):
    """`Image.open` without Pillow's own limit, which warns, or raises, before ours can say how to raise it."""
    with _pillows_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def check_pixels(size: tuple[int, int], name: Any, max_pixels: int | None = None) -> None:
    """Raises `ImageError` for an image with more pixels than `max_pixels` (None: `pixel_limit`), or too long a side.

    Args:
        size: `(width, height)`, in pixels.
        name: what the error calls the image.
        max_pixels: largest height times width, None for that of `pixel_limit`.
    """
    limit = _limit.get() if max_pixels is None else max_pixels
    width, height = size
    if width * height > limit:
        raise ImageError(
            f"{shown(name, 400)} has {width} x {height} = {width * height:,} pixels (width x height). The limit is "
            f"{limit:,}. Downscale the image, or raise the limit: max_pixels=... (--max_pixels)."
        )
    _check_sides(size, name)


def _check_sides(size, name):
    if max(size) > MAX_SIDE:
        raise ImageError(
            f"{shown(name, 400)} has {size[0]} x {size[1]} pixels (width x height). The longest side supported is "
            f"{MAX_SIDE}. Split the image into tiles, or downscale it."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FileImage:
    """An image in a file; `height` and `width` are those of what `read` returns.

    `decoder` is `TF_JPEG` or `TF_PNG` where TensorFlow's decoder gives the pixels that Pillow would, else `PYTHON`;
    `upright` says whether the EXIF orientation is applied; `max_pixels` is the limit that `read` keeps to.
    """

    path: str
    height: int
    width: int
    decoder: int = PYTHON
    upright: bool = True
    max_pixels: int = MAX_PIXELS

    def read(self):
        """The pixels, uint8 [height, width, 3]. Raises `ImageError` naming the file if it cannot be decoded."""
        return read_image(self.path, upright=self.upright, max_pixels=self.max_pixels)

    def encoded(self):
        """The bytes of the file."""
        with open(self.path, "rb") as file:
            return file.read()


@dataclasses.dataclass(frozen=True, eq=False)
class RecordImage:
    """An image inside a TFRecord file: `length` bytes from `offset`; `name` is shown in errors. See `FileImage`."""

    path: str
    offset: int
    length: int
    height: int
    width: int
    name: str
    decoder: int = PYTHON
    upright: bool = True
    max_pixels: int = MAX_PIXELS

    def read(self):
        """The pixels, uint8 [height, width, 3]. Raises `ImageError` naming the record if they cannot be decoded."""
        return read_image(io.BytesIO(self.encoded()), self.upright, self.name, self.max_pixels)

    def encoded(self):
        """The bytes of the image as they are in the record. Raises `ValueError` if the file has become shorter."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.length)
        if len(content) < self.length:
            raise ValueError(f"{self.path} has become shorter since it was opened: {self.name} is gone.")
        return content


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayImage:
    """An image held in memory, uint8 [H, W, 3]."""

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


def is_image_name(name):
    """Whether a file name ends like an image."""
    return name.lower().endswith(_IMAGE_SUFFIXES)


def find_image(path, annotated_size=None):
    """Opens an image's header and returns the `FileImage`; the pixels stay on disk.

    Args:
        path: the file.
        annotated_size: `(height, width)` in pixels that the boxes were drawn in, or None. It decides whether an EXIF
            rotation is applied: boxes drawn on the stored pixels keep them as they are stored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: `ImageError`, `DataPathError`, or a size that is not the annotated one.
    """
    _check_file(path)
    return FileImage(path=str(path), **_facts(path, path, annotated_size))


def image_in_record(path, offset, encoded, name, annotated_size=None):
    """The `RecordImage` of the bytes `encoded`, which are at `offset` in the TFRecord `path`; see `find_image`.

    Raises:
        ValueError: not an image, or its size is not the annotated one.
    """
    facts = _facts(io.BytesIO(encoded), name, annotated_size)
    return RecordImage(path=str(path), offset=offset, length=len(encoded), name=name, **facts)


def _facts(source, name, annotated_size):
    """Size, decoder, limit and whether to turn upright, from the header of a path or an open file."""
    with opened(source, name) as image:
        width, height = image.size
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        decoder = _decoder(image, source)
    turned = (width, height) if orientation in _AXIS_SWAPPING_ORIENTATIONS else (height, width)
    upright = annotated_size is None or turned == tuple(annotated_size)
    if upright:
        height, width = turned
    elif (height, width) != tuple(annotated_size):
        raise ValueError(
            f"The boxes of {shown(name, 400)} were drawn on an image of {shown(annotated_size[1])} x "
            f"{shown(annotated_size[0])} pixels "
            f"(width x height). Received an image of {width} x {height}. Correct the size in the annotation, "
            "or restore the image that was annotated."
        )
    if upright and orientation != 1:
        decoder = PYTHON
    return {"height": height, "width": width, "decoder": decoder, "upright": upright, "max_pixels": _limit.get()}


def read_image(path, upright=True, name=None, max_pixels=None):
    """Reads an image file as uint8 [H, W, 3] RGB.

    Gray, palette, CMYK and 16-bit images are converted (16 bits by their high byte); an alpha channel is dropped.

    Args:
        path: the file, anything Pillow reads; or an open file.
        upright: whether an EXIF orientation is applied.
        name: what errors call it; default: the path.
        max_pixels: height times width of the largest image, None for that of `pixel_limit`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: `ImageError`, or `DataPathError` for a path that names no regular file.
    """
    name = path if name is None else name
    if not hasattr(path, "read"):
        _check_file(path)
    with opened(path, name, max_pixels) as image:
        return _decoded(image, upright, name)


def _check_file(path):
    """Raises unless a path names a regular file."""
    if kind_of(path) != FILE:
        raise FileNotFoundError(f"Image not found: {shown(path, 400)}")


def _decoded(image, upright, name):
    """The pixels of an opened Pillow image, turned as its EXIF orientation says if they shall be upright."""
    if upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    image.load()
    return to_rgb(image, name=name)


def to_rgb(image, name="the image"):
    """A Pillow image of any mode as uint8 [H, W, 3] RGB. Raises `ImageError` for floating-point images."""
    if image.mode == "F":
        raise ImageError(
            "An image must have integer pixels, 8 or 16 bits per channel. Received floating-point pixels in "
            f"{shown(name, 400)}. "
            "Scale them to 0...255 and save them as PNG."
        )
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        gray = np.clip(deep.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _decoder(image, source):
    """TensorFlow's decoders for plain, complete, 8-bit gray or RGB files; Pillow for everything else.

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
    known = not isinstance(error, UnidentifiedImageError)
    reason = one_line(error, 200) or type(error).__name__ if known else "no image format is recognized"
    return ImageError(f"Not a readable image: {shown(name, 400)} ({reason}). Replace or remove the file.")


def tf_decoded(encoded, decoder):
    """uint8 [H, W, 3] of the bytes of an image by TensorFlow's decoder: what the pipeline trains on.

    Args:
        encoded: bytes, or a string tensor.
        decoder: `TF_JPEG` or `TF_PNG`.
    """
    import tensorflow as tf

    if decoder == TF_JPEG:
        return tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE")
    return tf.io.decode_png(encoded, 3)


def check_decodes(image, encoded, name):
    """Decodes an image in every way that this package does: by Pillow, and by TensorFlow where training does.

    Args:
        image: `FileImage`, `RecordImage` or `ArrayImage`.
        encoded: its bytes, None for an image in memory.
        name: what errors call it.

    Raises:
        ImageError: one of the decoders refuses it, or makes another size of it than its header says.
    """
    shapes = [image.read().shape]
    if encoded is not None and image.decoder != PYTHON:
        try:
            shapes.append(tuple(tf_decoded(encoded, image.decoder).shape))
        except MemoryError:
            raise
        except Exception as error:  # TensorFlow's errors, without importing them where it is not used
            raise _unreadable(name, getattr(error, "message", error)) from None
    for shape in shapes:
        if shape != (image.height, image.width, 3):
            raise _unreadable(name, f"decoded as {list(shape[:2])}, its header says {[image.height, image.width]}")


def encode_png(pixels):
    """The bytes of a PNG image of uint8 [H, W, 3] or [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@provide("as_pixels")
def as_pixels(image, max_pixels=None):
    """Any image as RGB pixels [H, W, 3], upright: the one function that drawing, inference and examples read with.

    Args:
        image: a path, the bytes of an image file, an open binary file, a Pillow image, or an array `[H, W, 3]`,
            `[H, W, 4]` (alpha is dropped), `[H, W, 1]` or `[H, W]` in 0...255. An EXIF orientation is applied; of
            several frames the first is taken, with a warning.
        max_pixels: height times width of the largest image that is decoded, None for that of `pixel_limit`; an array
            has been decoded already.

    Returns:
        uint8, or float32 where an array of another dtype was given.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: the path of a folder.
        ValueError: `ImageError`; a URL, a batch, or an array with another number of channels.
    """
    if isinstance(image, str | os.PathLike):
        return _pixels_of_file(_local_file(image), image, max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        return _pixels_of_file(io.BytesIO(bytes(image)), f"{len(image)} bytes", max_pixels)
    if hasattr(image, "read"):
        return _pixels_of_file(image, getattr(image, "name", type(image).__name__), max_pixels)
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "") or "the Pillow image"
        with _errors_name(name):
            _check_opened(image, name, max_pixels)
            return _decoded(image, upright=True, name=name)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or not pixels.size or pixels.dtype.kind not in "biuf":
        received = (
            f"{type(image).__name__} of shape {pixels.shape}. Pass several images as a list."
            if pixels.ndim
            else shown(image)
        )
        raise ValueError(
            "An image is a path, bytes, an open file, a Pillow image, or an array [H, W, 3] in 0...255. "
            f"Received: {received}"
        )
    _check_sides((pixels.shape[1], pixels.shape[0]), "The array")
    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def as_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels in 0...255 of any shape as uint8: others are rounded and clipped, uint8 is returned as it is."""
    return pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _local_file(path):
    """The path of a file as a string. Raises for a URL or a folder, and where there is none."""
    path = os.fspath(path)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        raise ValueError(f"URLs are not supported. Received: {path!r}. Download the image and pass its path or bytes.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"An image is a file. Received a folder: {path!r}. Pass its images as a list.")
    _check_file(path)
    return path


def _pixels_of_file(source, name, max_pixels):
    with opened(source, name, max_pixels) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # photographs with a preview, one image to everybody
            logging.warning("%s has %d frames; the first one is used.", shown(name, 400), frames)
        return _decoded(image, upright=True, name=name)
