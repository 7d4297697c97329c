"""Feature-map values inside boxes, on grids of one size: the crops that a second stage looks at.

Three ways to lay the grid, all with bilinear samples (`[0, 1]` of a box axis is the extent of the features):

- `crop_and_resize`: n samples from edge to edge, position `y (H - 1)`, one sample per cell.
- `roi_align`: several samples per cell around its centre, position `y H - 0.5` (pixel centres at half-integers), mean
  per cell (He et al. 2017, section 3, with the half-pixel offset that detectors agreed on later).
- `roi_align(half_pixel=False)`: the same cells, position `y (H - 1)`.

Boxes get no gradient.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_detect import native_kernels
from keras_detect.registry import part

METHODS = ("crop_and_resize", "roi_align")
OUTSIDE = ("fade", "cut")
_FAR_OUTSIDE = -9.0  # where a box that is not finite goes


def crop_and_resize(features, boxes, crop_size, outside="fade"):
    """Crops each box and resizes it bilinearly: one sample per cell, the outermost ones on the box's edges.

    Args:
        features: `[B, H, W, C]` float.
        boxes: `[B, P, 4]`, normalised to the extent of the features; 0 and 1 are the outermost pixels' centres.
        crop_size: `(h, w)`; along an axis of size 1 the sample lies in the middle.
        outside: `"fade"`: beyond the outermost pixels the values fall to 0 over one pixel, as if zeros lay there (the
            original's `use_matmul_crop_and_resize`). `"cut"`: a sample beyond them is 0 at once, be it by rounding,
            which hits some boxes that touch 1.0 (TensorFlow's CropAndResize).

    Returns:
        `[B, P, h, w, C]` of the features' dtype; the gradient goes to the features alone.

    Raises:
        ValueError: for shapes or an `outside` that do not fit.
    """
    return multilevel_crop_and_resize([features], boxes, None, crop_size, outside)


def multilevel_crop_and_resize(feature_maps, boxes, levels, crop_size, outside="fade"):
    """`crop_and_resize`, each box from one of several maps.

    Args:
        feature_maps: list of `[B, h_l, w_l, C]` with one C.
        boxes: `[B, P, 4]`, normalised.
        levels: `[B, P]` int32, the index of each box's map; `None` with one map.
        crop_size: `(h, w)`.
        outside: as in `crop_and_resize`.

    Returns:
        `[B, P, h, w, C]`. Raises `ValueError` as `crop_and_resize` does.
    """
    maps, boxes = _checked(feature_maps, boxes)
    return _sample(maps, levels, _corner_grid(maps, levels, boxes, _pair(crop_size), _checked_outside(outside)))


def roi_align(features, boxes, crop_size, sampling_ratio=2, half_pixel=True):
    """Mean of `sampling_ratio` x `sampling_ratio` bilinear samples in each of `h` x `w` equal cells of a box.

    A sample up to one pixel beyond the features' extent takes the border's value, further out 0.

    Args:
        features: `[B, H, W, C]` float.
        boxes: `[B, P, 4]`, normalised to the extent of the features.
        crop_size: `(h, w)` cells.
        sampling_ratio: samples per cell and axis.
        half_pixel: whether 0 and 1 are the outer borders of the features; else the outermost pixels' centres.

    Returns:
        `[B, P, h, w, C]` of the features' dtype; the gradient goes to the features alone.

    Raises:
        ValueError: for shapes or a sampling ratio that do not fit.
    """
    return multilevel_roi_align([features], boxes, None, crop_size, sampling_ratio, half_pixel)


def multilevel_roi_align(feature_maps, boxes, levels, crop_size, sampling_ratio=2, half_pixel=True):
    """`roi_align`, each box from one of several maps.

    Args:
        feature_maps: list of `[B, h_l, w_l, C]` with one C.
        boxes: `[B, P, 4]`, normalised.
        levels: `[B, P]` int32, the index of each box's map; `None` with one map.
        crop_size: `(h, w)` cells.
        sampling_ratio: samples per cell and axis.
        half_pixel: as in `roi_align`.

    Returns:
        `[B, P, h, w, C]`. Raises `ValueError` as `roi_align` does.
    """
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio must be at least 1. Received: sampling_ratio={sampling_ratio}")
    maps, boxes = _checked(feature_maps, boxes)
    grid = _cell_grid(maps, levels, boxes, _pair(crop_size), sampling_ratio, half_pixel)
    return _sample(maps, levels, grid, (_Pool(sampling_ratio, sampling_ratio, "average"),))


def box_levels(boxes, num_levels, image_shape, canonical_size=224, canonical_level=None):
    """Which of several maps, the finest first, each box is cropped from: one level coarser per doubling of its size.

    Level `canonical_level + floor(log2(sqrt(area) / canonical_size))`, within what there is (Lin et al. 2017, FPN,
    equation 1).

    Args:
        boxes: `[B, P, 4]`, normalised.
        num_levels: how many maps there are.
        image_shape: `(height, width)` in pixels that the boxes are normalised to, ints or a tensor.
        canonical_size: the side in pixels of a square box that belongs to `canonical_level`.
        canonical_level: index of that map; `None`: the last but one, as the original has it.

    Returns:
        `[B, P]` int32; a box without area belongs to level 0.
    """
    canonical_level = num_levels - 2 if canonical_level is None else canonical_level
    height, width = (ops.cast(image_shape[index], "float32") for index in (0, 1))
    boxes = ops.cast(boxes, "float32")
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    # A level's border is where the original has it: the same numbers are multiplied before the logarithm.
    size = ops.sqrt(ops.maximum(area, 0.0)) * (ops.sqrt(height * width) / canonical_size)
    steps = ops.floor(ops.log(ops.maximum(size, 1e-6)) / ops.log(ops.convert_to_tensor(2.0, dtype="float32")))
    return ops.cast(ops.clip(steps + canonical_level, 0, num_levels - 1), "int32")


@part
class RegionCropper:
    """What the second stage sees of each proposal: a crop of the features, then max pooling.

    Args:
        crop_size: cells per side, an int or `(h, w)`.
        pool_size: side of the pooling window, 1 for none; windows lie inside the crop (Keras' "valid").
        pool_stride: step of the pooling window.
        method: `"crop_and_resize"` or `"roi_align"`.
        outside: as in `crop_and_resize`.
        sampling_ratio: for `roi_align`.
        canonical_size: as in `box_levels`, for several maps.
        canonical_level: as in `box_levels`, for several maps.

    Raises:
        ValueError: for an unknown method, a size below 1, a pooling window larger than the crop.
    """

    crop_size: int | tuple = 14
    pool_size: int = 2
    pool_stride: int = 2
    method: str = "crop_and_resize"
    outside: str = "fade"
    sampling_ratio: int = 2
    canonical_size: float = 224
    canonical_level: int | None = None

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"The method is one of {METHODS}. Received: method={self.method!r}")
        _checked_outside(self.outside)
        for name in ("pool_size", "pool_stride", "sampling_ratio", "canonical_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}")
        if self.pool_size > min(_pair(self.crop_size)):
            raise ValueError(
                "The pooling window must fit into the crop. "
                f"Received: crop_size={self.crop_size}, pool_size={self.pool_size}"
            )

    @property
    def output_size(self):
        """`(h, w)` of the pooled crops."""
        return tuple((side - self.pool_size) // self.pool_stride + 1 for side in _pair(self.crop_size))

    def __call__(self, feature_maps, boxes, image_shape):
        """Crops and pools.

        Args:
            feature_maps: list of `[B, h_l, w_l, C]`, the finest first.
            boxes: `[B, P, 4]`, normalised to the padded image; `[0, 0, 0, 0]` in padding rows gives finite values.
            image_shape: `(height, width)` of the padded image, ints or a tensor; decides the levels of several maps.

        Returns:
            `[B, P, *output_size, C]` of the features' dtype.
        """
        maps, boxes = _checked(feature_maps, boxes)
        levels = None
        if len(maps) > 1:
            levels = box_levels(boxes, len(maps), image_shape, self.canonical_size, self.canonical_level)
        pools = (_Pool(self.pool_size, self.pool_stride, "max"),) if max(self.pool_size, self.pool_stride) > 1 else ()
        if self.method == "crop_and_resize":
            return _sample(maps, levels, _corner_grid(maps, levels, boxes, _pair(self.crop_size), self.outside), pools)
        grid = _cell_grid(maps, levels, boxes, _pair(self.crop_size), self.sampling_ratio, half_pixel=True)
        return _sample(maps, levels, grid, (_Pool(self.sampling_ratio, self.sampling_ratio, "average"), *pools))


# -------------------------------------------------------------------------------------------------- where samples lie


class _Axis(NamedTuple):
    """Evenly spaced sample positions along one axis of the features, in pixels: `first + i step`, i < count.

    Attributes:
        first: `[B, P]` float32.
        step: `[B, P]` float32.
        count: int.
        size: the features' extent in pixels, a float32 scalar or `[B, P]` when each box has its own map.
    """

    first: Any
    step: Any
    count: int
    size: Any


class _Grid(NamedTuple):
    """Where the samples of each box lie.

    Attributes:
        vertical: `_Axis`.
        horizontal: `_Axis`.
        outside: `"cut"` or `"fade"` as in `crop_and_resize`, `"edge"` as in `roi_align`.
        boxes: `[B, P, 4]` when the axes run from edge to edge of these boxes, else `None`.
    """

    vertical: _Axis
    horizontal: _Axis
    outside: str
    boxes: Any = None


def _corner_grid(maps, levels, boxes, crop_size, outside):
    """Samples from edge to edge of the boxes, rounded as TensorFlow's kernel rounds them."""
    axes = []
    for axis, count in enumerate(crop_size):
        size = _sizes(maps, levels, axis)
        low, high, last = boxes[..., axis], boxes[..., axis + 2], size - 1.0
        if count > 1:
            axes.append(_Axis(low * last, (high - low) * last / float(count - 1), count, size))
        else:
            axes.append(_Axis(0.5 * (low + high) * last, 0.0 * low, count, size))
    return _Grid(*axes, outside, boxes)


def _cell_grid(maps, levels, boxes, crop_size, sampling_ratio, half_pixel):
    """`sampling_ratio` samples per axis in each cell, the outer ones half a step off its borders."""
    axes = []
    for axis, cells in enumerate(crop_size):
        count, size = cells * sampling_ratio, _sizes(maps, levels, axis)
        scale, shift = (size, 0.5) if half_pixel else (size - 1.0, 0.0)
        low, high = boxes[..., axis] * scale - shift, boxes[..., axis + 2] * scale - shift
        step = (high - low) / float(count)
        axes.append(_Axis(low + 0.5 * step, step, count, size))
    return _Grid(*axes, "edge")


def _sizes(maps, levels, axis):
    sizes = [ops.cast(ops.shape(features)[1 + axis], "float32") for features in maps]
    return sizes[0] if levels is None else ops.take(ops.stack(sizes), levels)


# --------------------------------------------------------------------------------------------------------- the samples


class _Pool(NamedTuple):
    """Pooling of `size` x `size` neighbours in steps of `stride`, `"max"` or `"average"`."""

    size: int
    stride: int
    mode: str

    def outputs(self, count):
        """How many windows lie inside `count` cells."""
        return (count - self.size) // self.stride + 1


def _sample(maps, levels, grid, pools=()):
    """Samples of the maps at the grid's crossings, pooled: `[B, P, h, w, C]` of the maps' dtype.

    The samples before pooling, `[B, P, 14, 14, C]` say, are four times what remains; no path writes all of them to
    memory when no gradient is asked for (with one pooling).
    """
    shape = ops.shape(grid.vertical.first)
    size = (grid.vertical.count, grid.horizontal.count)
    for pool in pools:
        size = tuple(pool.outputs(count) for count in size)
    dtype, channels = maps[0].dtype, maps[0].shape[-1]
    if native_kernels.use_native("tensorflow"):
        samples = _tf_samples([ops.cast(features, "float32") for features in maps], levels, grid, pools)
    elif native_kernels.use_native("torch"):
        table, cells, weights = _torch_gathers(maps, levels, grid)
        samples = native_kernels.torch_crop(table, cells, weights, pools)
    else:
        samples = _gathered(*_table(maps, levels), grid, pools)
    return ops.cast(ops.reshape(samples, (*shape, *size, channels)), dtype)


def _gathered(table, origin, width, grid, pools):
    """The samples from four gathers each, pooled.

    The first pooling is written as the maximum or mean of whole grids of samples, one per cell of its window: XLA
    fuses gathers, interpolation and pooling into one loop that writes the pooled values only.
    """
    first, *others = pools or (_Pool(1, 1, "max"),)
    picks = [np.arange(first.outputs(axis.count)) * first.stride for axis in grid[:2]]
    combine, total = ops.maximum if first.mode == "max" else ops.add, None
    for offset in itertools.product(range(first.size), repeat=2):
        window = [pick + shift for pick, shift in zip(picks, offset, strict=True)]
        values = 0.0
        for cells, weight in _neighbours(origin, width, grid, window):
            values = values + ops.cast(ops.take(table, cells, axis=0), "float32") * ops.expand_dims(weight, -1)
        total = values if total is None else combine(total, values)
    samples = total / float(first.size**2) if first.mode == "average" else total
    if others:
        samples = ops.reshape(samples, (-1, *samples.shape[2:]))
        for pool in others:
            pooling = ops.max_pool if pool.mode == "max" else ops.average_pool
            samples = pooling(samples, pool.size, pool.stride, padding="valid", data_format="channels_last")
    return samples


def _table(maps, levels):
    """All pixels of the maps, `[N, C]`; the row at which each box's map begins and its width, `[B, P, 1, 1]` or so."""
    shapes = [ops.shape(features) for features in maps]
    tables = [
        ops.reshape(features, (shape[0], shape[1] * shape[2], features.shape[-1]))
        for features, shape in zip(maps, shapes, strict=True)
    ]
    table = tables[0] if levels is None else ops.concatenate(tables, axis=1)
    batch, rows = ops.shape(table)[:2]
    origin, width = ops.expand_dims(ops.arange(batch, dtype="int32") * rows, -1), shapes[0][2]
    if levels is not None:
        starts = [0]
        for shape in shapes[:-1]:
            starts.append(starts[-1] + shape[1] * shape[2])
        origin = origin + ops.take(ops.convert_to_tensor(starts, dtype="int32"), levels)
        width = ops.take(ops.convert_to_tensor([shape[2] for shape in shapes], dtype="int32"), levels)[..., None, None]
    return ops.reshape(table, (batch * rows, table.shape[-1])), origin[..., None, None], width


def _neighbours(origin, width, grid, picks):
    """`(row of the table [B, P, h, w] int32, weight [B, P, h, w])` of the four pixels around each sample."""
    rows = _axis_neighbours(grid.vertical, picks[0], grid.outside)
    columns = _axis_neighbours(grid.horizontal, picks[1], grid.outside)
    for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
        cells = origin + row[..., :, None] * width + column[..., None, :]
        yield cells, row_weight[..., :, None] * column_weight[..., None, :]


def _axis_neighbours(axis, picks, outside):
    """The two pixels around each position and their weights: `[(index [B, P, n] int32, weight [B, P, n]), ...]`."""
    size = ops.expand_dims(axis.size, -1)
    picks = ops.convert_to_tensor(picks, dtype="float32")
    position = ops.expand_dims(axis.first, -1) + picks * ops.expand_dims(axis.step, -1)
    reach = (0.0, size - 1.0) if outside == "cut" else (-1.0, size)
    inside = ops.logical_and(position >= reach[0], position <= reach[1])
    bounds = (0.0, size - 1.0) if outside == "edge" else (-1.0, size)
    position = ops.minimum(ops.maximum(position, bounds[0]), bounds[1])
    low = ops.floor(position)
    fraction = position - low
    neighbours = []
    for index, weight in ((low, 1.0 - fraction), (low + 1.0, fraction)):
        exists = ops.logical_and(ops.logical_and(index >= 0.0, index <= size - 1.0), inside)
        index = ops.cast(ops.minimum(ops.maximum(index, 0.0), size - 1.0), "int32")
        neighbours.append((index, ops.where(exists, weight, 0.0)))
    return neighbours


def _torch_gathers(maps, levels, grid):
    """The table, and for every sample the rows and weights of its four pixels, `[B * P, h, w, 4]` each."""
    table, origin, width = _table(maps, levels)
    picks = [np.arange(axis.count) for axis in (grid.vertical, grid.horizontal)]
    cells, weights = zip(*_neighbours(origin, width, grid, picks), strict=True)
    shape = (-1, *(axis.count for axis in (grid.vertical, grid.horizontal)), 4)
    stacked = (ops.reshape(ops.stack(values, axis=-1), shape) for values in (cells, weights))
    return ops.cast(table, "float32"), *stacked


def _tf_samples(maps, levels, grid, pools):
    """The samples by TensorFlow's CropAndResize, whose samples lie from edge to edge of a box and are cut outside.

    Any other grid is a box of its own on features with one more pixel all around: zeros to fade, copies of the border
    where the border's value goes on.
    """
    boxes = grid.boxes
    if grid.outside != "cut":
        edges = [(axis.first, axis.first + float(axis.count - 1) * axis.step) for axis in grid[:2]]
        scales = [axis.size + 1.0 for axis in grid[:2]]
        corners = [(edges[axis][end] + 1.0) / scales[axis] for end in (0, 1) for axis in (0, 1)]
        boxes = ops.stack(corners, axis=-1)
        mode = {"fade": "constant", "edge": "symmetric"}[grid.outside]
        maps = [ops.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode) for features in maps]
    return native_kernels.tf_crop(maps, boxes, levels, (grid.vertical.count, grid.horizontal.count), pools)


# --------------------------------------------------------------------------------------------------------------- checks


def _checked(feature_maps, boxes):
    """The maps as tensors; the boxes as float32 without gradient, those that are not finite moved outside."""
    maps = [ops.convert_to_tensor(features) for features in feature_maps]
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    fits = all(len(features.shape) == 4 and features.shape[-1] == maps[0].shape[-1] for features in maps)
    if not maps or not fits or len(boxes.shape) != 3 or boxes.shape[-1] != 4:
        raise ValueError(
            "Crops want feature maps [B, H, W, C] with one C, and boxes [B, P, 4]. "
            f"Received: maps {[tuple(features.shape) for features in maps]}, boxes {tuple(boxes.shape)}"
        )
    return maps, ops.stop_gradient(ops.where(ops.isfinite(boxes), boxes, _FAR_OUTSIDE))


def _checked_outside(outside):
    if outside not in OUTSIDE:
        raise ValueError(f"outside is one of {OUTSIDE}. Received: outside={outside!r}")
    return outside


def _pair(size):
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"A crop size is a positive int or two of them. Received: {size!r}")
    return pair
