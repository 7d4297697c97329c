"""Masks of detections, which lie over their boxes, on the image: as pixels, run lengths or polygons."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_detect.data import masks as instance_masks

METHODS = ("bilinear", "nearest")
THRESHOLD = 0.5
_EDGE = 1e-5  # share of a box by which rounding may put a pixel at its edge outside of it


def paste(
    masks: Any,
    boxes: Any,
    image_shape: Any,
    threshold: float | None = THRESHOLD,
    method: str = "bilinear",
) -> np.ndarray:
    """Masks of one image's detections as masks of the whole image.

    The pixels are sampled as upstream's `reframe_box_masks_to_image_masks` does: the centers of a mask's outermost
    cells are on the edges of its box, and the image's outermost pixels at 0 and 1. What is outside of the box is 0.

    Args:
        masks: `[n, h, w]` in 0...1, over the boxes.
        boxes: `[n, 4]` normalized yxyx. A box without area has an empty mask.
        image_shape: `(height, width)` of the image in pixels.
        threshold: from it on a pixel belongs to the object; `None` returns the values themselves.
        method: "bilinear", or "nearest": each pixel takes the value of one cell.

    Returns:
        `[n, height, width]` uint8, 1 on the object, 0 elsewhere; float32 without a threshold. For many detections of
        many images, `to_rle` and `to_polygons` hold one of them at a time.

    Raises:
        ValueError: shapes that do not fit, or an unknown method.
    """
    masks, boxes, (height, width) = _checked(masks, boxes, image_shape, method)
    pasted = np.zeros((len(masks), height, width), np.float32 if threshold is None else np.uint8)
    for plane, (top, left, block) in zip(pasted, _blocks(masks, boxes, (height, width), method), strict=True):
        plane[top : top + block.shape[0], left : left + block.shape[1]] = (
            block if threshold is None else block >= threshold
        )
    return pasted


def to_rle(masks: Any, boxes: Any, image_shape: Any, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
    """Masks of one image's detections as COCO's compressed run lengths, one pasted mask in memory at a time.

    Args:
        masks, boxes, image_shape, threshold: as in `paste`.

    Returns:
        A list of n dicts `{"size": [height, width], "counts": text}`, ready for JSON.

    Raises:
        ValueError: shapes that do not fit.
    """
    masks, boxes, size = _checked(masks, boxes, image_shape)
    plane, runs = np.zeros(size, np.uint8, order="F"), []
    for top, left, block in _blocks(masks, boxes, size):
        window = plane[top : top + block.shape[0], left : left + block.shape[1]]
        window[:] = block >= threshold
        runs.append(instance_masks.encode(plane))
        window[:] = 0
    return runs


def to_polygons(masks: Any, boxes: Any, image_shape: Any, threshold: float = THRESHOLD) -> list[list[list[float]]]:
    """Masks of one image's detections as polygons, as COCO's "segmentation" has them.

    The polygons follow the threshold between the pixels' centers. Holes are not kept: COCO's polygons have none.

    Args:
        masks, boxes, image_shape, threshold: as in `paste`.

    Returns:
        For each of the n detections a list of polygons `[x0, y0, x1, y1, ...]` in pixels of the image, one for each of
        its parts; a mask without pixels has none.

    Raises:
        ValueError: shapes that do not fit.
    """
    import contourpy

    masks, boxes, size = _checked(masks, boxes, image_shape)
    found = []
    for top, left, block in _blocks(masks, boxes, size):
        polygons: list[list[float]] = []
        if block.size and block.max() >= threshold:
            # The contour closes outside of the block, half a pixel off the pixels at its border.
            framed = np.pad(block, 1)
            lines = contourpy.contour_generator(z=framed, fill_type="OuterOffset").filled(threshold, np.inf)
            for points, offsets in zip(*lines, strict=True):
                outline = points[offsets[0] : offsets[1] - 1].astype(np.float64) + np.array([left - 0.5, top - 0.5])
                outline = np.clip(outline, 0.0, [size[1], size[0]])
                if len(outline) >= 3:
                    polygons.append(np.round(outline, 2).ravel().tolist())
        found.append(polygons)
    return found


def _checked(masks, boxes, image_shape, method="bilinear"):
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float64)
    if masks.ndim != 3 or boxes.shape != (len(masks), 4):
        raise ValueError(
            "Masks of one image's detections are [n, h, w] over boxes [n, 4]. "
            f"Received: masks {masks.shape}, boxes {boxes.shape}"
        )
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}. Received: method={method!r}")
    return masks, boxes, (int(image_shape[0]), int(image_shape[1]))


def _blocks(masks, boxes, size, method="bilinear") -> Iterator[tuple[int, int, np.ndarray]]:
    """`(top, left, values [h, w] float32)` of each mask: the pixels of the image that lie in its box."""
    for mask, (ymin, xmin, ymax, xmax) in zip(masks, boxes, strict=True):
        top, rows = _positions(ymin, ymax, size[0], mask.shape[0], method)
        left, columns = _positions(xmin, xmax, size[1], mask.shape[1], method)
        yield top, left, _between(_between(mask, rows, 0), columns, 1)


def _positions(low, high, length, cells, method):
    """`(first pixel, [pixels] float32)`: where the pixels between `low` and `high` lie in the cells of a mask."""
    nothing = 0, np.zeros(0, np.float32)
    if not np.isfinite([low, high]).all() or high <= low:
        return nothing
    # In upstream's order and precision: rounding decides which of two cells is the nearest.
    low, high, last = np.float32(low), np.float32(high), np.float32(cells - 1)
    start, end = -low / (high - low), (1 - low) / (high - low)
    if length > 1:
        position = start * last + np.arange(length, dtype=np.float32) * ((end - start) * last / np.float32(length - 1))
    else:  # the middle of the image
        position = np.float32([0.5]) * (start + end) * last
    inside = np.flatnonzero((position >= -_EDGE * last) & (position <= (1 + _EDGE) * last))
    if not len(inside):
        return nothing
    position = np.clip(position[inside], np.float32(0), last)
    return int(inside[0]), np.floor(position + np.float32(0.5)) if method == "nearest" else position


def _between(values, positions, axis):
    """`values` at fractional positions of an axis, by linear interpolation."""
    before = positions.astype(np.intp)
    after = np.minimum(before + 1, values.shape[axis] - 1)
    share = np.expand_dims(positions - before, 1 - axis).astype(np.float32)
    first = values.take(before, axis)
    return first + (values.take(after, axis) - first) * share
