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

CLASS_NAMES = "class_names"
ImageLike = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray


def detect(
    model, images: ImageLike | Sequence[ImageLike], score_threshold: float = 0.3, batch_size: int = 8
) -> dict[str, Any] | list[dict[str, Any]]:
    """Detects in an image, or in a list of images; `DetectionModel.detect` is this function.

    Args:
        model: a `DetectionModel`.
        images: a path, the bytes of an image file, an open binary file, a Pillow image, an array `[H, W, 3]` (uint8, or
            float in 0...255) or `[H, W]` (grey), or a list or tuple of these. Files and Pillow images are turned
            upright as their EXIF orientation says; of an animated image the first frame is used, with a warning.
        score_threshold: detections below it are left out.
        batch_size: how many images of a list the network sees at once, at most. Images whose canvas has another
            size after the model's resizing are not in one batch. No more images than these are in memory.

    Returns:
        For one image a dict of numpy arrays, best first: `{"boxes" [n, 4] float32, normalised yxyx, "scores" [n]
        float32, "labels" [n] int32, "class_names"}`, and every further per-object field of `schema` that the model
        outputs; for a list, a list of such dicts. `"class_names"` is a list of n strings, `None` if the model has no
        class names.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: the path of a folder.
        ValueError: not an image, a URL, an array of another shape, or a `batch_size` below 1.
    """
    if isinstance(images, list | tuple):
        return list(detect_each(model, images, score_threshold, batch_size))
    return next(detect_each(model, [images], score_threshold, 1))


def detect_each(
    model, images: Iterable[ImageLike], score_threshold: float = 0.3, batch_size: int = 8
) -> Iterator[dict[str, Any]]:
    """The detections of each image in turn; any iterable will do, also an endless one. See `detect`."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size}")
    waiting, largest = [], {}
    for image in images:
        waiting.append(_resized(model, image))
        if len(waiting) == batch_size:
            yield from _detect_some(model, waiting, score_threshold, largest)
            waiting = []
    yield from _detect_some(model, waiting, score_threshold, largest)


def _resized(model, image):
    """`(pixels [h, w, 3] float32, true shape [3] int32)` in the size that the model works in.

    Resizing floats, not whole numbers: the model's own resizer in `predict` rounds nothing either.
    """
    pixels = as_pixels(image)
    if pixels.dtype != np.uint8 and 0.0 < pixels.max() <= 1.0:
        logging.warning(
            "The pixels of a floating-point image lie in 0...1, and are taken as 0...255: nearly black. Multiply them "
            "by 255 if they were divided."
        )
    pixels, shape = model.resizer.resize_image(pixels.astype(np.float32))
    return pixels, np.asarray(shape, np.int32)


def _detect_some(model, images, score_threshold, largest):
    """The detections of some resized images, in order; `largest` keeps the largest batch so far of each canvas."""
    canvases = {}
    for index, (pixels, _) in enumerate(images):
        canvases.setdefault(pixels.shape, []).append(index)
    results = [None] * len(images)
    for canvas, indices in canvases.items():
        # Each batch size may be compiled for itself: fill smaller ones up by repeating an image, at most twofold.
        size = len(indices)
        if size < largest.get(canvas, 0):
            size = min(largest[canvas], 1 << (size - 1).bit_length())
        largest[canvas] = max(size, largest.get(canvas, 0))
        chosen = indices + indices[-1:] * (size - len(indices))
        x = {
            schema.IMAGES: np.stack([images[index][0] for index in chosen]),
            schema.TRUE_IMAGE_SHAPES: np.stack([images[index][1] for index in chosen]),
        }
        detections = keras.tree.map_structure(np.asarray, model.predict_on_batch(x))
        for row, index in enumerate(indices):
            results[index] = _result(model, detections, row, score_threshold)
    return results


def _result(model, detections, row, score_threshold):
    """The detections of one image of a batch: a dict of arrays without padding rows."""
    count = int(detections[schema.NUM_DETECTIONS][row])
    keep = detections[schema.SCORES][row, :count] >= score_threshold
    result = {
        field.key: detections[field.key][row, :count][keep]
        for field in schema.object_fields(schema.DETECTIONS)
        if field.key in detections
    }
    names = model.class_names
    result[CLASS_NAMES] = None if names is None else [names[label] for label in result[schema.LABELS]]
    return result
