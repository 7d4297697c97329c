"""Points on feature maps: Gaussian targets, peaks, and values at cells; pure tensor functions, batched.

Coordinates are in cells of the map, y before x; the cell of a point is its floor. `R` is rows of ground truth.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_detect.kernels.gather import gather_rows
from keras_detect.kernels.top_k import top_k

PEAK_TOLERANCE = 1e-6  # a cell is a peak if no neighbor is larger by this much


class Peaks(NamedTuple):
    """The best cells of a heatmap, best first.

    Attributes:
        scores: `[B, D]` float32; 0 where there are no more peaks.
        rows: `[B, D]` int32, y of the cell.
        columns: `[B, D]` int32, x of the cell.
        labels: `[B, D]` int32, channel of the heatmap.
    """

    scores: Any
    rows: Any
    columns: Any
    labels: Any


def gaussian_deviations(heights: Any, widths: Any, min_overlap: float = 0.7) -> Any:
    """Standard deviations of the Gaussians around the centers of boxes, in cells; shapes as `heights` and `widths`.

    A box whose corners are moved by less than three deviations has an IoU of about `min_overlap` with the true one. The
    roots of the three quadratic equations are those of the authors of CenterNet and of upstream, who leave out the
    division by the leading coefficient.
    """
    heights, widths = ops.cast(heights, "float32"), ops.cast(widths, "float32")
    around, area = heights + widths, widths * heights
    moved = _root(1.0, -around, area * ((1.0 - min_overlap) / (1.0 + min_overlap)))
    smaller = _root(4.0, -2.0 * around, (1.0 - min_overlap) * area)
    larger = _root(4.0 * min_overlap, (2.0 * min_overlap) * around, (min_overlap - 1.0) * area)
    distance = ops.minimum(ops.minimum(moved, larger), smaller)
    return (2.0 * ops.maximum(ops.floor(distance), 0.0) + 1.0) / 6.0


def _root(a, b, c):
    return (-b + ops.sqrt(ops.maximum(ops.square(b) - 4.0 * a * c, 0.0))) / 2.0


def gaussian_heatmap(
    points: Any, deviations: Any, channels: Any, weights: Any, *, num_channels: int, size: tuple
) -> Any:
    """Heatmap with a Gaussian around the cell of each point; where several meet, the largest value.

    Args:
        points: `[B, R, 2]` float32.
        deviations: `[B, R]` float32.
        channels: `[B, R]` int32, the channel of each point; any number where the weight is 0.
        weights: `[B, R]` float32, height of each Gaussian.
        num_channels: C.
        size: `(height, width)` of the map.

    Returns:
        `[B, height, width, C]` float32, exactly 1 in the cell of a point of weight 1.
    """
    height, width = size
    shape = ops.shape(points)
    batch, number = shape[0], shape[1]
    rows, columns = _factors(points, deviations, weights, size)
    images = ops.expand_dims(ops.arange(batch, dtype="int32"), -1)
    segments = images * num_channels + ops.clip(ops.cast(channels, "int32"), 0, num_channels - 1)
    planes = ops.expand_dims(rows, -1) * ops.expand_dims(columns, -2)
    planes = ops.reshape(planes, (batch * number, height * width))
    heat = ops.segment_max(planes, ops.reshape(segments, (batch * number,)), num_segments=batch * num_channels)
    heat = ops.reshape(ops.maximum(heat, 0.0), (batch, num_channels, height, width))
    return ops.stop_gradient(ops.transpose(heat, (0, 2, 3, 1)))


def largest_gaussian(points: Any, deviations: Any, weights: Any, size: tuple) -> Any:
    """`[B, height, width]`, as `gaussian_heatmap` for points of one channel."""
    rows, columns = _factors(points, deviations, weights, size)
    heat = ops.max(ops.expand_dims(rows, -1) * ops.expand_dims(columns, -2), axis=1)
    return ops.stop_gradient(ops.maximum(heat, 0.0))


def _factors(points, deviations, weights, size):
    """The Gaussians `[B, R, height]` and `[B, R, width]`, whose products they are in the plane."""
    cells = ops.floor(points)
    scale = 2.0 * ops.expand_dims(ops.square(deviations), -1)
    rows, columns = (
        ops.exp(-ops.square(_range(length) - cells[..., axis : axis + 1]) / scale) for axis, length in enumerate(size)
    )
    return rows * ops.expand_dims(weights, -1), columns


def inside_boxes(boxes: Any, chosen: Any, size: tuple) -> Any:
    """`[B, height, width]` bool: whether a cell lies in one of the `boxes [B, R, 4]` (cells) with `chosen [B, R]`."""
    rows, columns = _range(size[0]), _range(size[1])
    in_rows = ops.logical_and(rows >= boxes[..., 0:1], rows < boxes[..., 2:3])
    in_columns = ops.logical_and(columns >= boxes[..., 1:2], columns < boxes[..., 3:4])
    in_rows = ops.cast(ops.logical_and(in_rows, ops.expand_dims(chosen, -1)), "float32")
    return ops.matmul(ops.transpose(in_rows, (0, 2, 1)), ops.cast(in_columns, "float32")) > 0.0


def true_cells(true_image_shapes: Any, stride: int, size: tuple) -> Any:
    """`[B, height, width]` float32, 1 in the cells of the true image (`true_image_shapes [B, 3]` in pixels), else 0."""
    sizes = ops.ceil(ops.cast(true_image_shapes, "float32") / float(stride))
    rows = ops.cast(_range(size[0]) < sizes[:, 0:1], "float32")
    columns = ops.cast(_range(size[1]) < sizes[:, 1:2], "float32")
    return ops.expand_dims(rows, -1) * ops.expand_dims(columns, -2)


def peaks(heatmap: Any, number: int, pool_size: int = 3) -> Peaks:
    """The `number` largest local maxima of `heatmap [B, h, w, C]`, over all cells and channels.

    Of equal ones the first counts, by row, then column, then channel. A map of fewer cells is filled with score 0.
    """
    batch, height, width, channels = ops.shape(heatmap)
    local = ops.reshape(local_maxima(heatmap, pool_size), (batch, height * width, channels))
    scores, indices = _best_of_cells(local, number)
    cells = indices // channels
    return Peaks(scores, cells // width, cells % width, indices % channels)


def channel_peaks(heatmap: Any, number: int, pool_size: int = 3) -> tuple[Any, Any]:
    """`(scores [B, C, number], cells [B, C, number] int32)`: the local maxima of each channel, cells counted by row."""
    shape = ops.shape(heatmap)
    local = ops.transpose(local_maxima(heatmap, pool_size), (0, 3, 1, 2))
    scores, cells = _best(ops.reshape(local, (shape[0] * shape[3], shape[1] * shape[2])), number)
    result = (shape[0], shape[3], number)
    return ops.reshape(scores, result), ops.reshape(cells, result)


def local_maxima(heatmap: Any, pool_size: int = 3) -> Any:
    """`heatmap [B, h, w, C]` with 0 in each cell that has a larger one of its channel in the window around it."""
    if pool_size <= 1:
        return heatmap
    largest = ops.max_pool(heatmap, pool_size, strides=1, padding="same", data_format="channels_last")
    return ops.where(ops.abs(heatmap - largest) < PEAK_TOLERANCE, heatmap, 0.0)


def values_at(feature_map: Any, rows: Any, columns: Any) -> Any:
    """`feature_map [B, h, w, C]` at `rows` and `columns`, `[B, N]` int32: `[B, N, C]`."""
    shape = ops.shape(feature_map)
    flat = ops.reshape(feature_map, (shape[0], shape[1] * shape[2], shape[3]))
    return gather_rows(flat, rows * shape[2] + columns)


def _best(values, number):
    """`top_k` of `values [B, L]`, filled with zeros where L is smaller."""
    available = values.shape[1]
    count = number if available is None else min(number, available)
    scores, indices = top_k(values, count)
    if count == number:
        return scores, indices
    missing = [[0, 0], [0, number - count]]
    return ops.pad(scores, missing), ops.pad(indices, missing)


def _best_of_cells(values, number):
    """`_best` of all `values [B, L, C]`, by the index into L * C; they lie in the cells whose largest are the best."""
    batch, _, channels = ops.shape(values)
    cells = values.shape[1]
    if cells is None or cells <= number or channels == 1:
        length = -1 if cells is None else cells * channels
        return _best(ops.reshape(values, (batch, length)), number)
    _, chosen = top_k(ops.max(values, axis=-1), number)
    falling, _ = top_k(-ops.cast(chosen, "float32"), number)  # in their order, which decides among equal values
    chosen = ops.cast(-falling, "int32")
    scores, found = top_k(ops.reshape(gather_rows(values, chosen), (batch, number * channels)), number)
    return scores, gather_rows(chosen, found // channels) * channels + found % channels


def _range(length):
    return ops.arange(length, dtype="float32")
