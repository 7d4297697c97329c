"""Masks of single objects as annotations hold them, and as pixels.

A mask is one of: a tuple of polygons, each a float64 array (x0, y0, x1, y1, ...) in pixels; a dict `{"size": [H, W],
"counts": ...}`, COCO's run lengths (a list, or their compressed text); bytes, a PNG image, not 0 on the object;
None, an object without a mask. It stays as it was annotated until its pixels are asked for.
"""

import contextlib
import io
from typing import Any

import numpy as np

from keras_detect.data.image import ImageError, encode_png, opened
from keras_detect.messages import shown

# A polygon's corners lie within so many sides of the image: drawing walks along every edge.
FARTHEST = 10


def from_coco(segmentation, size):
    """COCO's "segmentation" as a mask; None where there is none.

    Args:
        segmentation: list of polygons, run-length dict, or None.
        size: `(height, width)` of the image, which run lengths must agree with.

    Raises:
        ValueError: neither, or run lengths of another size.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, dict):
        if segmentation.get("size") not in (list(size), tuple(size)):
            raise ValueError(f"run lengths of size {shown(segmentation.get('size'))} on an image of {list(size)}")
        counts = segmentation.get("counts")
        if not isinstance(counts, str | list | bytes):
            raise ValueError('run lengths without "counts"')
        runs = counts if isinstance(counts, list) else _runs(_text(counts))
        if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
            raise ValueError(f"run lengths that do not make up the {size[0] * size[1]} pixels of the image")
        return {"size": [int(side) for side in size], "counts": counts}
    if not isinstance(segmentation, list):
        raise ValueError(f'"segmentation" of type {type(segmentation).__name__}')
    try:
        polygons = tuple(np.asarray(polygon, np.float64) for polygon in segmentation)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon that is not a list of numbers") from None
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError("a polygon that is not x, y of three corners or more")
        if np.abs(polygon).max() > FARTHEST * max(size):
            raise ValueError("a polygon far outside the image")
    return polygons


def from_png(encoded, size):
    """The bytes of a PNG image as a mask, None for no bytes. Raises `ValueError` for no image or another size."""
    if encoded:
        with _opened(encoded, size):
            pass
    return encoded or None


@contextlib.contextmanager
def _opened(encoded, size):
    """Context of the Pillow image of the bytes, not decoded yet."""
    with opened(io.BytesIO(encoded), "a mask", max_pixels=size[0] * size[1]) as image:
        if image.size != (size[1], size[0]):
            raise ImageError(f"A mask of {image.size[::-1]} belongs to an image of {tuple(size)}.")
        yield image


def to_coco(mask, size):
    """A mask as COCO's "segmentation", ready for JSON."""
    if isinstance(mask, bytes):
        mask = encode(decode(mask, size))
    if isinstance(mask, dict):
        counts = mask["counts"]
        return {"size": list(mask["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}
    return [] if mask is None else [polygon.tolist() for polygon in mask]


def encode(mask: Any) -> dict[str, Any]:
    """[H, W] pixels, not 0 on the object, as COCO's compressed run lengths `{"size": [H, W], "counts": text}`."""
    from faster_coco_eval.core import mask as coco_mask

    runs = coco_mask.encode(np.asfortranarray(np.asarray(mask) != 0, np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": _text(runs["counts"])}


def encode_runs(starts, stops, size):
    """Runs of pixels that do not touch, counted down the columns, as `encode` would give them: compressed run lengths.

    Args:
        starts: [n] integers, ascending.
        stops: [n] integers, the pixels behind the ends of the runs.
        size: `(height, width)` of the image.
    """
    from faster_coco_eval.core import mask as coco_mask

    height, width = (int(side) for side in size)
    edges = np.zeros(2 * len(starts) + 2, np.int64)
    edges[1:-1:2], edges[2:-1:2], edges[-1] = starts, stops, height * width
    counts = np.diff(edges)
    if not counts[-1] and len(counts) > 1:
        counts = counts[:-1]
    runs = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": _text(runs["counts"])}


def decode(mask: Any, size: Any) -> np.ndarray:
    """A mask as annotations and detections.json hold it, as pixels.

    Args:
        mask: COCO's run lengths, a sequence of polygons, the bytes of a PNG image, None, or an array of the image's
            size: pixels, not 0 on the object.
        size: `(height, width)` of the image.

    Returns:
        uint8 [height, width]: 1 on the object, 0 elsewhere; all 0 for None.

    Raises:
        ValueError: a PNG of another size or that cannot be read.
    """
    from faster_coco_eval.core import mask as coco_mask

    height, width = (int(side) for side in size)
    if mask is None:
        return np.zeros((height, width), np.uint8)
    if isinstance(mask, np.ndarray) and mask.shape == (height, width):
        return (mask != 0).astype(np.uint8)
    if isinstance(mask, bytes):
        with _opened(mask, (height, width)) as image:
            return (np.asarray(image.convert("L")) > 0).astype(np.uint8)
    if isinstance(mask, dict):
        runs = mask if not isinstance(mask["counts"], list) else coco_mask.frPyObjects(mask, height, width)
        return coco_mask.decode(runs)
    runs = coco_mask.frPyObjects([np.asarray(polygon).tolist() for polygon in mask], height, width)
    return coco_mask.decode(coco_mask.merge(runs))


def run_lengths(mask: Any, size: Any) -> dict[str, Any] | None:
    """A mask of any kind (see `decode`) as compressed run lengths, as COCO's tools make them; None for none."""
    from faster_coco_eval.core import mask as coco_mask

    if mask is None or isinstance(mask, bytes):
        return None if mask is None else encode(decode(mask, size))
    height, width = (int(side) for side in size)
    if isinstance(mask, dict):
        runs = mask if not isinstance(mask["counts"], list) else coco_mask.frPyObjects(mask, height, width)
    else:
        runs = coco_mask.merge(coco_mask.frPyObjects([np.asarray(polygon).tolist() for polygon in mask], height, width))
    return {"size": [int(side) for side in runs["size"]], "counts": _text(runs["counts"])}


def stack(masks, size):
    """uint8 [n, H, W] of a sequence of masks."""
    if not len(masks):
        return np.zeros((0, *size), np.uint8)
    return np.stack([decode(mask, size) for mask in masks])


def to_png(mask, size):
    """A mask as the bytes of a gray PNG image, 1 on the object, as upstream's tools write it."""
    if isinstance(mask, bytes):
        return mask
    return encode_png(decode(mask, size))


def _text(counts):
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _runs(text):
    """The lengths that COCO's compressed text stands for. The library that decodes it trusts the text.

    Six bits a letter from "0" on: five of the number, the lowest first, and whether more follow; from the fourth number
    on, the difference to the one before the last.
    """
    runs, number, shift = [], 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("invalid compressed run lengths")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (1 << shift) if bits & 16 else 0
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths that end early")
    return runs
