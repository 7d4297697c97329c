"""Geometry of axis-aligned boxes `[ymin, xmin, ymax, xmax]`; the box convention is in `schema.py`.

Every function takes tensors or arrays with any leading axes and works in float32. Degenerate boxes are defined: a
reversed box (`ymax < ymin` or `xmax < xmin`) has area 0 and meets nothing, and an infinite coordinate counts as
`±LARGEST_COORDINATE`. So zero-sized, reversed and infinite boxes never produce NaN, nor do their gradients; only a
NaN coordinate does.
"""

from keras import ops

# Areas and their sums stay below the largest float32 (3.4e38): (2 x 1e18)^2 = 4e36.
LARGEST_COORDINATE = 1e18
# Stands in for smaller areas as a divisor. The square of it, which the gradient of a quotient divides by, must be a
# normal float32 (above 1.2e-38): XLA flushes others to zero.
_SMALLEST_AREA = 1e-18


def area(boxes):
    """Areas: `[..., 4]` boxes to `[...]` float32, in squared units of the boxes; 0 for reversed ones."""
    return _area(_coordinates(boxes))


def intersection(boxes1, boxes2):
    """Pairwise intersection areas: `[..., N, 4]` and `[..., M, 4]` to `[..., N, M]` float32."""
    return _intersection(*_pairs(boxes1, boxes2))


def iou(boxes1, boxes2):
    """Pairwise intersection over union: `[..., N, 4]` and `[..., M, 4]` to `[..., N, M]` float32 in [0, 1].

    Pairs that do not meet have 0, and so has every pair with a box without area. An intersection is never larger,
    rounding included, than either area, so with areas kept above zero the union is positive without a mask.
    """
    first, second = _pairs(boxes1, boxes2)
    shared = _intersection(first, second)
    areas1, areas2 = ops.maximum(_area(first), _SMALLEST_AREA), ops.maximum(_area(second), _SMALLEST_AREA)
    return shared / (areas1 + areas2 - shared)


def ioa(boxes1, boxes2):
    """Pairwise intersection over the area of `boxes2`: `[..., N, 4]` and `[..., M, 4]` to `[..., N, M]` in [0, 1]."""
    first, second = _pairs(boxes1, boxes2)
    return _intersection(first, second) / ops.maximum(_area(second), _SMALLEST_AREA)


def giou(boxes1, boxes2):
    """Pairwise generalized IoU: `[..., N, 4]` and `[..., M, 4]` to `[..., N, M]` float32 in [-1, 1].

    IoU minus the share of the smallest enclosing box that the union leaves empty (Rezatofighi et al. 2019, eq. 1-3);
    two boxes in the same point have 0.
    """
    return _giou(*_pairs(boxes1, boxes2))


def matched_iou(boxes1, boxes2):
    """IoU of corresponding boxes: two `[..., 4]` to `[...]` float32 in [0, 1]."""
    first, second = _coordinates(boxes1), _coordinates(boxes2)
    shared = _intersection(first, second)
    return shared / ops.maximum(_area(first) + _area(second) - shared, _SMALLEST_AREA)


def matched_giou(boxes1, boxes2):
    """Generalized IoU of corresponding boxes: two `[..., 4]` to `[...]` float32 in [-1, 1]; see `giou`."""
    return _giou(_coordinates(boxes1), _coordinates(boxes2))


def squared_distance(boxes1, boxes2):
    """Pairwise squared Euclidean distance of the four coordinates: `[..., N, 4]`, `[..., M, 4]` to `[..., N, M]`."""
    first, second = _pairs(boxes1, boxes2)
    return sum(ops.square(a - b) for a, b in zip(first, second, strict=True))


def l1_distance(boxes1, boxes2):
    """Pairwise sum of absolute differences of center and size: `[..., N, 4]`, `[..., M, 4]` to `[..., N, M]`."""
    first, second = _pairs(to_center_size(boxes1), to_center_size(boxes2))
    return sum(ops.abs(a - b) for a, b in zip(first, second, strict=True))


def to_center_size(boxes):
    """`[..., 4]` corners to `[ycenter, xcenter, height, width]`; a reversed box keeps its negative size."""
    ymin, xmin, ymax, xmax = _coordinates(boxes)
    height, width = ymax - ymin, xmax - xmin
    return ops.stack([ymin + 0.5 * height, xmin + 0.5 * width, height, width], axis=-1)


def to_corners(center_size):
    """`[..., 4]` as `[ycenter, xcenter, height, width]` to corners `[ymin, xmin, ymax, xmax]`."""
    ycenter, xcenter, height, width = _coordinates(center_size)
    return ops.stack(
        [ycenter - 0.5 * height, xcenter - 0.5 * width, ycenter + 0.5 * height, xcenter + 0.5 * width], axis=-1
    )


def clip_to_window(boxes, window):
    """Boxes cut at the borders of a window.

    Args:
        boxes: `[..., N, 4]`.
        window: `[4]`, or `[..., 4]` with one window per image, in the same frame as the boxes.

    Returns:
        `[..., N, 4]` float32. A box outside the window becomes one without area on its border.
    """
    boxes, window = as_float32(boxes), ops.expand_dims(as_float32(window), -2)
    low, high = window[..., :2], window[..., 2:]
    return ops.clip(boxes, ops.concatenate([low, low], -1), ops.concatenate([high, high], -1))


def change_coordinate_frame(boxes, window):
    """Boxes in the frame in which the window is `[0, 0, 1, 1]`.

    Args:
        boxes: `[..., N, 4]`.
        window: `[4]` or `[..., 4]`, one per image. A window without height (width) gives 0 for every y (x).

    Returns:
        `[..., N, 4]` float32.
    """
    boxes, window = as_float32(boxes), ops.expand_dims(as_float32(window), -2)
    low, size = window[..., :2], window[..., 2:] - window[..., :2]
    return _safe_divide(boxes - ops.concatenate([low, low], -1), ops.concatenate([size, size], -1))


def inside_window(boxes, window):
    """Which boxes lie in the window, borders included: `[..., N, 4]` and `[4]` or `[..., 4]` to `[..., N]` bool."""
    boxes, window = as_float32(boxes), ops.expand_dims(as_float32(window), -2)
    return ops.all(
        ops.logical_and(boxes[..., :2] >= window[..., :2], boxes[..., 2:] <= window[..., 2:]),
        axis=-1,
    )


def overlaps_window(boxes, window):
    """Which boxes have more than a border in common with the window: as `inside_window`, `[..., N]` bool."""
    boxes, window = as_float32(boxes), ops.expand_dims(as_float32(window), -2)
    return ops.all(
        ops.logical_and(boxes[..., :2] < window[..., 2:], boxes[..., 2:] > window[..., :2]),
        axis=-1,
    )


def well_formed(boxes):
    """Finite and not reversed: `[..., 4]` to `[...]` bool."""
    finite = ops.all(ops.isfinite(boxes), axis=-1)
    return ops.logical_and(finite, ops.all(boxes[..., 2:] >= boxes[..., :2], axis=-1))


def normalize(boxes_abs, height, width):
    """Pixels to fractions of an image.

    Args:
        boxes_abs: `[..., N, 4]` in pixels.
        height, width: numbers, or tensors with the boxes' leading axes, one per image. A side of 0 gives 0.

    Returns:
        `[..., N, 4]` float32.
    """
    return _safe_divide(as_float32(boxes_abs), _sides(height, width))


def to_absolute(boxes, height, width):
    """Fractions of an image to pixels; the inverse of `normalize`, with the same arguments."""
    return as_float32(boxes) * _sides(height, width)


def _sides(height, width):
    """`[..., 1, 4]`: height, width, height, width, to scale `[..., N, 4]` boxes."""
    height, width = as_float32(height), as_float32(width)
    return ops.expand_dims(ops.stack([height, width, height, width], axis=-1), -2)


def _safe_divide(value, divisor):
    zero = ops.equal(divisor, 0.0)
    return ops.where(zero, 0.0, value / ops.where(zero, 1.0, divisor))


def as_float32(value):
    """A float32 tensor of anything array-like."""
    return ops.cast(ops.convert_to_tensor(value), "float32")


def _coordinates(boxes):
    """The four coordinates, each `[...]` and finite unless NaN."""
    boxes = ops.clip(as_float32(boxes), -LARGEST_COORDINATE, LARGEST_COORDINATE)
    return tuple(boxes[..., i] for i in range(4))


def _pairs(boxes1, boxes2):
    """Coordinates of the first as `[..., N, 1]`, of the second as `[..., 1, M]`."""
    first = tuple(ops.expand_dims(value, -1) for value in _coordinates(boxes1))
    second = tuple(ops.expand_dims(value, -2) for value in _coordinates(boxes2))
    return first, second


def _area(coordinates):
    ymin, xmin, ymax, xmax = coordinates
    return ops.relu(ymax - ymin) * ops.relu(xmax - xmin)


def _intersection(first, second):
    height = ops.relu(ops.minimum(first[2], second[2]) - ops.maximum(first[0], second[0]))
    width = ops.relu(ops.minimum(first[3], second[3]) - ops.maximum(first[1], second[1]))
    return height * width


def _giou(first, second):
    shared = _intersection(first, second)
    union = _area(first) + _area(second) - shared
    height = ops.relu(ops.maximum(first[2], second[2]) - ops.minimum(first[0], second[0]))
    width = ops.relu(ops.maximum(first[3], second[3]) - ops.minimum(first[1], second[1]))
    hull = height * width
    return shared / ops.maximum(union, _SMALLEST_AREA) - (hull - union) / ops.maximum(hull, _SMALLEST_AREA)
