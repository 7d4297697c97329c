"""Masks of detections, which lie over their boxes, on the image: as pixels, run lengths or polygons."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_detect.data import masks as instance_masks

METHODS = ("bilinear", "nearest")
THRESHOLD = 0.5
GROUP = 64  # masks whose runs are found at once
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
        many images use `to_rle` or `to_polygons`, which make no such array.

    Raises:
        ValueError: shapes that do not fit, or an unknown method.
    """
    masks, boxes, (height, width) = _checked(masks, boxes, image_shape, method)
    if threshold is not None and method == "bilinear":
        return _painted(masks, boxes, (height, width), threshold)
    pasted = np.zeros((len(masks), height, width), np.float32 if threshold is None else np.uint8)
    for plane, (top, left, block) in zip(pasted, _blocks(masks, boxes, (height, width), method), strict=True):
        plane[top : top + block.shape[0], left : left + block.shape[1]] = (
            block if threshold is None else block >= threshold
        )
    return pasted


def to_rle(masks: Any, boxes: Any, image_shape: Any, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
    """Masks of one image's detections as COCO's compressed run lengths, without their pixels.

    Args:
        masks, boxes, image_shape, threshold: as in `paste`.

    Returns:
        A list of n dicts `{"size": [height, width], "counts": text}`, ready for JSON.

    Raises:
        ValueError: shapes that do not fit.
    """
    masks, boxes, size = _checked(masks, boxes, image_shape)
    return [instance_masks.encode_runs(starts, stops, size) for starts, stops in _runs(masks, boxes, size, threshold)]


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


def _painted(masks, boxes, size, threshold):
    """`paste` by runs: each is one copy of so many ones, however many pixels it has."""
    planes = np.zeros((len(masks), size[1], size[0]), np.uint8)  # column by column, as the runs go
    ones = memoryview(np.ones(size[0] * size[1], np.uint8))
    for plane, (starts, stops) in zip(planes, _runs(masks, boxes, size, threshold), strict=True):
        pixels = memoryview(plane.reshape(-1))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            pixels[start:stop] = ones[: stop - start]
    return planes.transpose(0, 2, 1)


def _runs(masks, boxes, size, threshold) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`(starts, stops)` of each mask: its runs of pixels from the threshold on, in the order of COCO's run lengths.

    Pixels are counted down the columns, from left to right; a run ends before its stop and does not touch the next.
    """
    for first in range(0, len(masks), GROUP):
        group = slice(first, first + GROUP)
        owner, starts, stops = _runs_of_group(masks[group], boxes[group], size, threshold)
        ends = np.searchsorted(owner, np.arange(len(masks[group]) + 1))
        yield from ((starts[low:high], stops[low:high]) for low, high in itertools.pairwise(ends))


def _runs_of_group(masks, boxes, size, threshold):
    """`(numbers of the masks, starts, stops)` of all runs of some masks.

    Along a column of pixels a mask is linear from cell to cell, so that a run begins or ends where two neighboring
    cells are on different sides of the threshold: nothing is computed pixel by pixel.
    """
    count, height, _ = masks.shape
    down = _positions(boxes[:, 0], boxes[:, 2], size[0], height)
    across = _positions(boxes[:, 1], boxes[:, 3], size[1], masks.shape[2])
    owner = np.repeat(np.arange(count), across.counts)
    column = np.arange(len(owner)) - np.repeat(np.cumsum(across.counts) - across.counts, across.counts)
    values = _columns(masks, owner, across.cells[owner, across.firsts[owner] + column])
    above = np.zeros((len(owner), height + 2), bool)  # nothing is, before the first cell and after the last
    np.greater_equal(values, threshold, out=above[:, 1:-1])
    line, change = np.divmod(np.flatnonzero(above[:, 1:] != above[:, :-1]), height + 1)
    owners, cell = owner[line], np.clip(change - 1, 0, max(height - 2, 0))
    at = line * height + cell
    before, after = values.ravel()[at], values.ravel()[np.minimum(at + 1, values.size - 1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = cell + (threshold - before.astype(np.float64)) / (after - before)
        pixel = (crossing - down.origins[owners]) / down.steps[owners]
    # Every column begins and ends below the threshold; a pixel at the threshold is above it.
    pixel = np.where(np.arange(len(line)) % 2, np.floor(pixel) + 1, np.ceil(pixel))
    lengths = down.counts[owners]
    pixel = np.select([change == 0, change == height], [0, lengths], np.clip(pixel, 0, lengths))
    flat = (across.firsts[owners] + column[line]) * size[0] + down.firsts[owners] + pixel.astype(np.int64)
    return _joined(owners[::2], flat[::2], flat[1::2])


def _columns(masks, owner, positions):
    """`[columns, h]`: the columns of pixels, interpolated between those of the masks; not yet along them."""
    count, height, width = masks.shape
    masks = np.nan_to_num(masks, nan=0.0, posinf=1.0, neginf=0.0)
    cells = np.ascontiguousarray(masks.transpose(0, 2, 1)).reshape(count * width, height)
    before = positions.astype(np.intp)
    values = cells.take(owner * width + before, axis=0)
    step = cells.take(owner * width + np.minimum(before + 1, width - 1), axis=0)
    step -= values
    step *= (positions - before).astype(np.float32)[:, None]
    values += step
    return values


def _joined(owner, starts, stops):
    """Without empty runs, and with those that touch as one."""
    some = starts < stops
    owner, starts, stops = owner[some], starts[some], stops[some]
    apart = (owner[1:] != owner[:-1]) | (starts[1:] != stops[:-1])
    begins, ends = np.ones(len(owner), bool), np.ones(len(owner), bool)
    begins[1:], ends[:-1] = apart, apart
    return owner[begins], starts[begins], stops[ends]


def _blocks(masks, boxes, size, method="bilinear") -> Iterator[tuple[int, int, np.ndarray]]:
    """`(top, left, values [h, w] float32)` of each mask: the pixels of the image that lie in its box."""
    down = _positions(boxes[:, 0], boxes[:, 2], size[0], masks.shape[1])
    across = _positions(boxes[:, 1], boxes[:, 3], size[1], masks.shape[2])
    for i, mask in enumerate(masks):
        rows, columns = down.of(i, method), across.of(i, method)
        yield int(down.firsts[i]), int(across.firsts[i]), _between(_between(mask, rows, 0), columns, 1)


class _Positions(NamedTuple):
    """Where the pixels of one axis lie in the cells of n masks; those within a box are in a row."""

    firsts: np.ndarray  # [n], the first pixel in the box
    counts: np.ndarray  # [n], of the pixels in the box
    cells: np.ndarray  # [n, length] float32, positions in cells, within the mask
    origins: np.ndarray  # [n], position of the first pixel
    steps: np.ndarray  # [n], from one pixel to the next

    def of(self, index, method):
        """Positions of the pixels in the box of one mask."""
        first = self.firsts[index]
        inside = self.cells[index, first : first + self.counts[index]]
        return np.floor(inside + np.float32(0.5)) if method == "nearest" else inside


def _positions(lows, highs, length, cells):
    usable = np.isfinite(lows) & np.isfinite(highs) & (highs > lows)
    # In upstream's order and precision: rounding decides which of two cells is the nearest.
    lows, highs = (np.where(usable, ends, other).astype(np.float32) for ends, other in ((lows, 0), (highs, 1)))
    usable &= highs > lows  # in float32, too
    sides, last = np.where(usable, highs - lows, np.float32(1)), np.float32(cells - 1)
    starts, ends = -lows / sides, (1 - lows) / sides
    if length > 1:
        steps = (ends - starts) * last / np.float32(length - 1)
        positions = (starts * last)[:, None] + np.arange(length, dtype=np.float32) * steps[:, None]
    else:  # the middle of the image
        positions, steps = (np.float32(0.5) * (starts + ends) * last)[:, None], np.ones_like(starts)
    inside = (positions >= -_EDGE * last) & (positions <= (1 + _EDGE) * last) & usable[:, None]
    firsts = inside.argmax(axis=1)
    origins = positions[np.arange(len(lows)), firsts].astype(np.float64)
    return _Positions(firsts, inside.sum(axis=1), np.clip(positions, 0, last), origins, steps.astype(np.float64))


def _between(values, positions, axis):
    """`values` at fractional positions of an axis, by linear interpolation."""
    before = positions.astype(np.intp)
    after = np.minimum(before + 1, values.shape[axis] - 1)
    share = np.expand_dims(positions - before, 1 - axis).astype(np.float32)
    first = values.take(before, axis)
    return first + (values.take(after, axis) - first) * share
