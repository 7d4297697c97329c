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

from keras import ops

from keras_detect.kernels import native
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


class _Picks(NamedTuple):
    """Which samples of an axis: `count` of them, every `stride`-th from number `offset` on."""

    offset: int
    stride: int
    count: int

    def number(self, index):
        """The sample's number on the axis; index -1 for the last."""
        return self.offset + self.stride * (index % self.count)


def _sample(maps, levels, grid, pools=()):
    """Samples of the maps at the grid's crossings, pooled: `[B, P, h, w, C]` of the maps' dtype.

    The first pooling is the maximum or mean of whole grids of samples, one per cell of its window: the samples before
    pooling, four times what remains, never lie in memory at once, and XLA fuses gathers, interpolation and pooling
    into one loop. Measured on two busy cores, 300 boxes, 14 x 14 x 1024 before pooling, against pooling whole crops:
    TensorFlow's kernel 31 and 60 ms, XLA under JAX 56 and 920 ms. Torch's gradient is twice as slow that way.
    """
    dtype, channels = maps[0].dtype, maps[0].shape[-1]
    whole = _Pool(1, 1, "max")
    first, *others = pools or (whole,)
    # TensorFlow's kernel cuts whole crops where the original's are cut: by rounding.
    cut_by_kernel = grid.outside == "cut" and native.use_native("tensorflow")
    if cut_by_kernel or native.use_native("torch"):
        first, others = whole, pools
    at_picks = _sampler(maps, levels, grid)
    size = [first.outputs(axis.count) for axis in grid[:2]]
    combine, samples = ops.maximum if first.mode == "max" else ops.add, None
    for offsets in itertools.product(range(first.size), repeat=2):
        values = at_picks([_Picks(offset, first.stride, count) for offset, count in zip(offsets, size, strict=True)])
        samples = values if samples is None else combine(samples, values)
    if first.mode == "average":
        samples = samples / float(first.size**2)
    samples = ops.reshape(samples, (-1, *size, channels))
    for pool in others:
        samples = _pooled(samples, pool)
    return ops.cast(ops.reshape(samples, (*ops.shape(grid.vertical.first), *samples.shape[1:])), dtype)


def _pooled(samples, pool):
    """`samples [N, h, w, C]` pooled."""
    if native.use_native("torch"):
        return native.torch_pool(samples, pool.size, pool.stride, pool.mode)
    pooling = ops.max_pool if pool.mode == "max" else ops.average_pool
    return pooling(samples, pool.size, pool.stride, padding="valid", data_format="channels_last")


def _sampler(maps, levels, grid):
    """The running backend's way from `_Picks` of both axes to these samples, `[..., h, w, C]` float32."""
    if native.use_native("tensorflow"):
        return _tf_sampler(maps, levels, grid)
    table, origin, width = _table(maps, levels)

    def gather(picks):
        total = 0.0
        for cells, weight in _neighbours(origin, width, grid, picks):
            total = total + ops.cast(ops.take(table, cells, axis=0), "float32") * ops.expand_dims(weight, -1)
        return total

    def torch_gather(picks):
        cells, weights = zip(*_neighbours(origin, width, grid, picks), strict=True)
        return native.torch_weighted_rows(table, ops.stack(cells, axis=-1), ops.stack(weights, axis=-1))

    if native.use_native("torch"):
        table = ops.cast(table, "float32")
        return torch_gather
    return gather


def _tf_sampler(maps, levels, grid):
    """Samples by TensorFlow's CropAndResize, whose samples lie from edge to edge of a box and are cut outside.

    Any other grid is a box of its own on features with one more pixel all around: zeros to fade, copies of the border
    where the border's value goes on.
    """
    maps = [ops.cast(features, "float32") for features in maps]
    if grid.outside == "cut":
        return lambda picks: native.tf_crop(maps, grid.boxes, levels, [pick.count for pick in picks])
    mode = {"fade": "constant", "edge": "symmetric"}[grid.outside]
    maps = [ops.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode) for features in maps]

    def crop(picks):
        ends = [
            [(axis.first + float(pick.number(index)) * axis.step + 1.0) / (axis.size + 1.0) for index in (0, -1)]
            for axis, pick in zip(grid[:2], picks, strict=True)
        ]
        boxes = ops.stack([ends[axis][end] for end in (0, 1) for axis in (0, 1)], axis=-1)
        return native.tf_crop(maps, boxes, levels, [pick.count for pick in picks])

    return crop


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
    numbers = picks.offset + picks.stride * ops.arange(picks.count, dtype="float32")
    position = ops.expand_dims(axis.first, -1) + numbers * ops.expand_dims(axis.step, -1)
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
