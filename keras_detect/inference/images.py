"""Detection in images of any size, given as files, bytes, Pillow images or arrays, one by one or as a list."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import keras
import numpy as np
from absl import logging
from PIL import Image

from keras_detect import schema
from keras_detect.data.image import as_pixels
from keras_detect.inference.detections import Detections, detections_of
from keras_detect.inference.tiles import Tiling, detect_tiles
from keras_detect.meta_architectures.detection import threshold_of
from keras_detect.registry import provide

_MOST_PIXELS = 2**24  # of a batch that the network resizes: it holds them as float32
ImageLike = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray


@provide("detect")
def detect(
    model: Any,
    images: ImageLike | Sequence[ImageLike],
    score_threshold: float | None = None,
    batch_size: int = 8,
    max_pixels: int | None = None,
    *,
    tile: int | tuple[int, int] | None = None,
    overlap: float = 0.2,
    whole_image: bool = True,
) -> Detections | list[Detections]:
    """Detects in an image, or in a list of images; `DetectionModel.detect` is this function.

    Args:
        model: a `DetectionModel`.
        images: a path, the bytes of an image file, an open binary file, a Pillow image, an array `[H, W, 3]` (uint8, or
            float in 0...255) or `[H, W]` (gray), or a list or tuple of these. Files and Pillow images are turned
            upright as their EXIF orientation says; of an animated image the first frame is used, with a warning.
        score_threshold: detections below it are skipped; None for `model.score_threshold`, 0.3 if that is None.
        batch_size: how many images of a list the network sees at once, at most. Images whose canvas has another
            size after the model's resizing are not in one batch. No more images than these are in memory.
        max_pixels: height times width of the largest image that is decoded; None for that of
            `keras_detect.data.pixel_limit`, 2**26 (8192 x 8192) unless it says otherwise.
        tile: pixels, an int or `(height, width)`: the image is cut into tiles of this size, in which objects stay large
            that resizing the image would make too small to be found; None for the image as a whole. A side of the
            image that is shorter than the tile's is not cut.
        overlap: least share of a tile that its neighbor has too, from 0 to below 1: an object no larger than that lies
            whole in one of them.
        whole_image: with `tile`: whether the image is also seen as a whole, where objects larger than a tile are found.

    One image, or images of one size, reach the network as they reach it in `predict`, with the same numbers. Images of
    several sizes are resized first, so that they share batches; so are all where XLA compiles, since it would compile
    the network for each size. The numbers are then the same up to the rounding of float32.

    With `tile`, the detections of all tiles and of the whole image are merged by the model's own suppression (its
    `final_suppression`); its limits of number hold per tile. Where a tile's border cuts through an object, the part is
    dropped if a larger detection of the same class covers it. An image that fits into one tile is seen as without
    `tile`.

    Returns:
        For one image `Detections`, a dict of numpy arrays, best first: `{"boxes" [n, 4] float32, normalized yxyx,
        "scores" [n] float32, "labels" [n] int32, "class_names"}`, and every further per-object field of `schema` that
        the model outputs; for a list, a list of such dicts. `"class_names"` is a list of n strings, `None` if the model
        has no class names. The boxes of tiles, too, are normalized to the whole image.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: the path of a folder.
        ValueError: not an image or too large a one (`ImageError`), a URL, an array of another shape, or a `batch_size`
            below 1; a `tile` or an `overlap` out of its range.
    """
    tiling: dict[str, Any] = {"tile": tile, "overlap": overlap, "whole_image": whole_image}
    if isinstance(images, list | tuple):
        return list(detect_each(model, images, score_threshold, batch_size, max_pixels, **tiling))
    size = 1 if tile is None else batch_size
    return next(detect_each(model, [images], score_threshold, size, max_pixels, **tiling))  # type: ignore[list-item]  # not a sequence here


def detect_each(
    model: Any,
    images: Iterable[ImageLike],
    score_threshold: float | None = None,
    batch_size: int = 8,
    max_pixels: int | None = None,
    *,
    tile: int | tuple[int, int] | None = None,
    overlap: float = 0.2,
    whole_image: bool = True,
) -> Iterator[Detections]:
    """The detections of each image in turn; any iterable will do, also an endless one. See `detect`.

    `model` may be a `CompiledDetector`, too.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size}")
    threshold = threshold_of(model, score_threshold)

    def stream(pixels):
        if hasattr(model, "detect_pixels"):
            return model.detect_pixels(pixels, threshold, batch_size)
        return _detect_stream(model, pixels, threshold, batch_size)

    pixels = (pixels_of(image, max_pixels) for image in images)
    if tile is None:
        return stream(pixels)
    return detect_tiles(model, pixels, Tiling.checked(tile, overlap, whole_image), threshold, stream)


def _detect_stream(model, images, score_threshold, batch_size):
    """The detections of each array of pixels in turn."""
    window, largest = _Window(model), dict[tuple[int, int], int]()
    for image in images:
        window.add(image)
        if len(window.images) == batch_size:
            yield from _detect_window(model, window, score_threshold, largest)
            window = _Window(model)
    yield from _detect_window(model, window, score_threshold, largest)


def pixels_of(image: ImageLike, max_pixels: int | None = None) -> np.ndarray:
    """The pixels [H, W, 3], uint8 or float32, with a warning where they seem to be scaled already."""
    pixels = as_pixels(image, max_pixels)
    if pixels.dtype != np.uint8 and 0.0 < pixels.max() <= 1.0:
        logging.warning(
            "The pixels of a floating-point image are in 0...1 but read as 0...255 (nearly black). Multiply them "
            "by 255 if they were divided."
        )
    return pixels


class _Window:
    """Images that wait for the network: as they are while they have one size, else resized and with true shapes."""

    def __init__(self, model):
        self.images, self.shapes, self.sizes = [], [], []
        self._resizer, self._resized = model.resizer, model.jit_compile

    def add(self, pixels):
        """Another image; `sizes` keeps the height and width that it came with."""
        self.sizes.append(pixels.shape[:2])
        self._add(pixels)

    def _add(self, pixels):
        if not self._resized and self.images:
            first, count = self.images[0], len(self.images) + 1
            if pixels.shape != first.shape or pixels.dtype != first.dtype or count * first.size > 3 * _MOST_PIXELS:
                self._resized = True
                waiting, self.images, self.shapes = self.images, [], []
                for other in waiting:
                    self._add(other)
        if self._resized:
            # floats, which are not rounded: the model's own resizing in `predict` rounds nothing either
            pixels, shape = self._resizer.resize_image(pixels.astype(np.float32))
            self.shapes.append(np.asarray(shape, np.int32))
        self.images.append(pixels)

    def batch(self, indices):
        """x of the images with these indices."""
        images = np.stack([self.images[index] for index in indices])
        shapes = np.stack([self.shapes[index] for index in indices]) if self._resized else None
        # True shapes would pad what a resizer without a fixed canvas leaves unpadded in `predict`.
        if shapes is None or (shapes[:, :2] == images.shape[1:3]).all():
            return images
        return {schema.IMAGES: images, schema.TRUE_IMAGE_SHAPES: shapes}


def _detect_window(model, window, score_threshold, largest):
    """The detections of the images, in order; `largest` keeps the largest batch so far of each canvas."""
    canvases = {}
    for index, pixels in enumerate(window.images):
        canvases.setdefault(pixels.shape, []).append(index)
    results = [None] * len(window.images)
    for canvas, indices in canvases.items():
        # Each batch size may be compiled for itself: fill smaller ones up by repeating an image, at most twofold.
        size = len(indices)
        if size < largest.get(canvas, 0):
            size = min(largest[canvas], 1 << (size - 1).bit_length())
        largest[canvas] = max(size, largest.get(canvas, 0))
        x = window.batch(indices + indices[-1:] * (size - len(indices)))
        detections = keras.tree.map_structure(np.asarray, model.predict_on_batch(x))
        for row, index in enumerate(indices):
            results[index] = detections_of(model, detections, row, score_threshold, window.sizes[index])
    return results
