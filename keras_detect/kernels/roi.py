"""Feature-map values inside boxes, on grids of one size: the crops that a second stage looks at.

Three ways to lay the grid, all with bilinear samples (`[0, 1]` of a box axis is the extent of the features):

- `crop_and_resize`: n samples from edge to edge, position `y (H - 1)`, one sample per cell.
- `roi_align`: several samples per cell around its center, position `y H - 0.5` (pixel centers at half-integers), mean
  per cell (He et al. 2017, section 3, with the half-pixel offset that detectors agreed on later).
- `roi_align(alignment="corners")`: the same cells, position `y (H - 1)`.
- `roi_align(alignment="unshifted")`: the same cells, position `y H`, and boxes of at least one pixel (He et al. 2017 as
  first published; torchvision's `aligned=False`).

Boxes get no gradient.
"""

import itertools
from typing import Any, NamedTuple

from keras import ops

from keras_detect.kernels import dispatch

OUTSIDE = ("fade", "cut")
ALIGNMENTS = ("half_pixel", "corners", "unshifted")
_FAR_OUTSIDE = -9.0  # where a box that is not finite goes


def crop_and_resize(features, boxes, crop_size, outside="fade"):
    """Crops each box and resizes it bilinearly: one sample per cell, the outermost ones on the box's edges.

    Args:
        features: `[B, H, W, C]` float.
        boxes: `[B, P, 4]`, normalized to the extent of the features; 0 and 1 are the outermost pixels' centers.
        crop_size: `(h, w)`; along an axis of size 1 the sample is in the middle.
        outside: `"fade"`: beyond the outermost pixels the values fall to 0 over one pixel, as if zeros lay there
            (upstream's `use_matmul_crop_and_resize`). `"cut"`: a sample beyond them is 0 at once, be it by rounding,
            which hits some boxes that touch 1.0 (TensorFlow's CropAndResize).

    Returns:
        `[B, P, h, w, C]` of the features' dtype; the gradient goes to the features alone.

    Raises:
        ValueError: for shapes or an `outside` that do not fit.
    """
    return multilevel_crop_and_resize([features], boxes, None, crop_size, outside)


def multilevel_crop_and_resize(feature_maps, boxes, levels, crop_size, outside="fade", pool=(1, 1)):
    """`crop_and_resize`, each box from one of several maps.

    Args:
        feature_maps: list of `[B, h_l, w_l, C]` with one C.
        boxes: `[B, P, 4]`, normalized.
        levels: `[B, P]` int32, the index of each box's map; `None` with one map.
        crop_size: `(h, w)`.
        outside: as in `crop_and_resize`.
        pool: `(size, stride)` of max pooling inside the crop (Keras' "valid"), which then never is in memory whole.

    Returns:
        `[B, P, h, w, C]`, h and w after pooling. Raises `ValueError` as `crop_and_resize` does.
    """
    maps, boxes = checked(feature_maps, boxes)
    grid = _corner_grid(maps, levels, boxes, checked_size(crop_size), checked_outside(outside))
    return _sample(maps, levels, grid, _max_pools(pool))


def roi_align(features, boxes, crop_size, sampling_ratio=2, alignment="half_pixel"):
    """Mean of `sampling_ratio` x `sampling_ratio` bilinear samples in each of `h` x `w` equal cells of a box.

    A sample up to one pixel beyond the features' extent takes the border's value, further out 0.

    Args:
        features: `[B, H, W, C]` float.
        boxes: `[B, P, 4]`, normalized to the extent of the features.
        crop_size: `(h, w)` cells.
        sampling_ratio: samples per cell and axis.
        alignment: "half_pixel": 0 and 1 are the outer borders of the features; "corners": the outermost pixels'
            centers; "unshifted": 0 is the first pixel's center, and 1 lies a pixel behind the last one's.

    Returns:
        `[B, P, h, w, C]` of the features' dtype; the gradient goes to the features alone.

    Raises:
        ValueError: for shapes or a sampling ratio that do not fit.
    """
    return multilevel_roi_align([features], boxes, None, crop_size, sampling_ratio, alignment)


def multilevel_roi_align(feature_maps, boxes, levels, crop_size, sampling_ratio=2, alignment="half_pixel", pool=(1, 1)):
    """`roi_align`, each box from one of several maps.

    Args:
        feature_maps: list of `[B, h_l, w_l, C]` with one C.
        boxes: `[B, P, 4]`, normalized.
        levels: `[B, P]` int32, the index of each box's map; `None` with one map.
        crop_size: `(h, w)` cells.
        sampling_ratio: samples per cell and axis.
        alignment: as in `roi_align`.
        pool: as in `multilevel_crop_and_resize`.

    Returns:
        `[B, P, h, w, C]`, h and w after pooling. Raises `ValueError` as `roi_align` does.
    """
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio must be at least 1. Received: sampling_ratio={sampling_ratio}")
    maps, boxes = checked(feature_maps, boxes)
    grid = _cell_grid(maps, levels, boxes, checked_size(crop_size), sampling_ratio, checked_alignment(alignment))
    return _sample(maps, levels, grid, (_Pool(sampling_ratio, sampling_ratio, "average"), *_max_pools(pool)))


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
    count: int  # type: ignore[assignment]  # hides tuple.count, which is not used
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


def _cell_grid(maps, levels, boxes, crop_size, sampling_ratio, alignment):
    """`sampling_ratio` samples per axis in each cell, the outer ones half a step off its borders."""
    axes = []
    for axis, cells in enumerate(crop_size):
        count, size = cells * sampling_ratio, _sizes(maps, levels, axis)
        scale, shift = {"half_pixel": (size, 0.5), "corners": (size - 1.0, 0.0), "unshifted": (size, 0.0)}[alignment]
        low, high = boxes[..., axis] * scale - shift, boxes[..., axis + 2] * scale - shift
        extent = ops.maximum(high - low, 1.0) if alignment == "unshifted" else high - low
        step = extent / float(count)
        axes.append(_Axis(low + 0.5 * step, step, count, size))
    return _Grid(*axes, "edge")


def _sizes(maps, levels, axis):
    sizes = [ops.cast(ops.shape(features)[1 + axis], "float32") for features in maps]
    return sizes[0] if levels is None else ops.take(ops.stack(sizes), levels)


# --------------------------------------------------------------------------------------------------------- the samples


class _Pool(NamedTuple):
    """Pooling of `size` x `size` neighbors in steps of `stride`, `"max"` or `"average"`."""

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
    count: int  # type: ignore[assignment]  # hides tuple.count, which is not used

    def number(self, index):
        """The sample's number on the axis; index -1 for the last."""
        return self.offset + self.stride * (index % self.count)


def _max_pools(pool):
    return () if tuple(pool) == (1, 1) else (_Pool(*pool, "max"),)


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
    # TensorFlow's kernel cuts whole crops where upstream's are cut: by rounding.
    cut_by_kernel = grid.outside == "cut" and dispatch.use_native("tensorflow")
    if cut_by_kernel or dispatch.use_native("torch"):
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
    if dispatch.use_native("torch"):
        return _torch_pool(samples, pool.size, pool.stride, pool.mode)
    pooling = ops.max_pool if pool.mode == "max" else ops.average_pool
    return pooling(samples, pool.size, pool.stride, padding="valid", data_format="channels_last")


def _sampler(maps, levels, grid):
    """The running backend's way from `_Picks` of both axes to these samples, `[..., h, w, C]` float32."""
    if dispatch.use_native("tensorflow"):
        return _tf_sampler(maps, levels, grid)
    table, origin, width = _table(maps, levels)

    def gather(picks):
        total = 0.0
        for cells, weight in _neighbors(origin, width, grid, picks):
            total = total + ops.cast(ops.take(table, cells, axis=0), "float32") * ops.expand_dims(weight, -1)
        return total

    def torch_gather(picks):
        cells, weights = zip(*_neighbors(origin, width, grid, picks), strict=True)
        return _torch_weighted_rows(table, ops.stack(cells, axis=-1), ops.stack(weights, axis=-1))

    if dispatch.use_native("torch"):
        table = ops.cast(table, "float32")
        return torch_gather
    return gather


def _tf_sampler(maps, levels, grid):
    """Samples by TensorFlow's CropAndResize, whose samples lie from edge to edge of a box and are cut outside.

    Any other grid is a box of its own on features with one more pixel all around: zeros to fade, copies of the border
    where the border's value continues.
    """
    maps = [ops.cast(features, "float32") for features in maps]
    if grid.outside == "cut":
        return lambda picks: _tf_crop(maps, grid.boxes, levels, [pick.count for pick in picks])
    mode = {"fade": "constant", "edge": "symmetric"}[grid.outside]
    maps = [ops.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode) for features in maps]

    def crop(picks):
        ends = [
            [(axis.first + float(pick.number(index)) * axis.step + 1.0) / (axis.size + 1.0) for index in (0, -1)]
            for axis, pick in zip(grid[:2], picks, strict=True)
        ]
        boxes = ops.stack([ends[axis][end] for end in (0, 1) for axis in (0, 1)], axis=-1)
        return _tf_crop(maps, boxes, levels, [pick.count for pick in picks])

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


def _neighbors(origin, width, grid, picks):
    """`(row of the table [B, P, h, w] int32, weight [B, P, h, w])` of the four pixels around each sample."""
    rows = _axis_neighbors(grid.vertical, picks[0], grid.outside)
    columns = _axis_neighbors(grid.horizontal, picks[1], grid.outside)
    for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
        cells = origin + row[..., :, None] * width + column[..., None, :]
        yield cells, row_weight[..., :, None] * column_weight[..., None, :]


def _axis_neighbors(axis, picks, outside):
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
    neighbors = []
    for index, weight in ((low, 1.0 - fraction), (low + 1.0, fraction)):
        exists = ops.logical_and(ops.logical_and(index >= 0.0, index <= size - 1.0), inside)
        index = ops.cast(ops.minimum(ops.maximum(index, 0.0), size - 1.0), "int32")
        neighbors.append((index, ops.where(exists, weight, 0.0)))
    return neighbors


# --------------------------------------------------------------------------------------------------------- native forms


def _tf_crop(maps, boxes, levels, crop_size):
    """TensorFlow's CropAndResize, with a gradient of its own.

    TensorFlow's own gradient kernel adds from several threads without a lock: where many boxes share an image, one run
    in ten lost a quarter of some sums (measured with TensorFlow 2.21 on two cores).

    Args:
        maps: list of `[B, h_l, w_l, C]` float32.
        boxes: `[B, P, 4]` float32, normalized as the kernel has it.
        levels: `[B, P]` int32, the map of each box, or `None` with one map.
        crop_size: `(h, w)`.

    Returns:
        `[B * P, h, w, C]` float32.
    """
    import tensorflow as tf

    shape = tf.shape(boxes)
    images = tf.repeat(tf.range(shape[0]), shape[1])
    boxes = tf.reshape(boxes, [-1, 4])
    if levels is None:
        return _tf_crop_one(maps[0], boxes, images, crop_size)
    # Each map crops its own boxes: as many as there are, which XLA could not compile.
    levels = tf.reshape(levels, [-1])
    numbers = tf.dynamic_partition(tf.range(tf.size(levels)), levels, len(maps))
    crops = [
        _tf_crop_one(features, tf.gather(boxes, rows), tf.gather(images, rows), crop_size)
        for features, rows in zip(maps, numbers, strict=True)
    ]
    return tf.dynamic_stitch(numbers, crops)


def _tf_crop_one(features, boxes, images, crop_size):
    """Crops `boxes [N, 4]` of the images numbered `images [N]` out of one map: `[N, h, w, C]`."""
    import tensorflow as tf

    @tf.custom_gradient
    def crop(features):
        crops = tf.raw_ops.CropAndResize(image=features, boxes=boxes, box_ind=images, crop_size=crop_size)
        return crops, lambda upstream: _tf_crop_gradient(upstream, tf.shape(features), boxes, images)

    return crop(features)


def _tf_crop_gradient(upstream, shape, boxes, images):
    """What the crops' gradients `[N, h, w, C]` are for a map of that shape: each cell goes to its four pixels."""
    import tensorflow as tf

    rows = tf.shape(upstream)
    y = _tf_neighbors(boxes[:, 0], boxes[:, 2], rows[1], shape[1])
    x = _tf_neighbors(boxes[:, 1], boxes[:, 3], rows[2], shape[2])
    total = tf.zeros([shape[0] * shape[1] * shape[2], shape[3]], upstream.dtype)
    for pixel_y, weight_y in y:
        for pixel_x, weight_x in x:
            pixel = ((images * shape[1])[:, None] + pixel_y)[:, :, None] * shape[2] + pixel_x[:, None]
            share = upstream * (weight_y[:, :, None] * weight_x[:, None])[..., None]
            total += tf.math.unsorted_segment_sum(share, pixel, tf.shape(total)[0])
    return tf.reshape(total, shape)


def _tf_neighbors(low, high, cells, side):
    """The kernel's two pixels along an axis and their weights, `[N, cells]` each: `((before, 1 - d), (after, d))`."""
    import tensorflow as tf

    last = tf.cast(side - 1, "float32")
    steps = tf.cast(tf.range(cells), "float32") / tf.cast(tf.maximum(cells - 1, 1), "float32")
    position = tf.cond(
        cells > 1,
        lambda: low[:, None] * last + steps * ((high - low)[:, None] * last),
        lambda: 0.5 * (low + high)[:, None] * last,
    )
    inside = tf.cast(tf.logical_and(position >= 0.0, position <= last), "float32")
    position = tf.where(inside > 0.0, position, 0.0)
    before = tf.floor(position)
    after = tf.minimum(before + 1.0, last)
    share = position - before
    return (tf.cast(before, "int32"), inside * (1.0 - share)), (tf.cast(after, "int32"), inside * share)


def _torch_weighted_rows(table, rows, weights):
    """Weighted sums of rows by torch's `embedding_bag`, which holds no row but the sums.

    Args:
        table: `[N, C]` float32.
        rows: `[..., n]` int32, the n rows of each sum.
        weights: `[..., n]` float32.

    Returns:
        `[..., C]` float32.
    """
    import torch

    shape = rows.shape
    sums = torch.nn.functional.embedding_bag(
        rows.reshape(-1, shape[-1]), table, mode="sum", per_sample_weights=weights.reshape(-1, shape[-1])
    )
    return sums.reshape(*shape[:-1], table.shape[1])


def _torch_pool(values, size, stride, mode):
    """Pooling, `"max"` or `"average"`, of `values [N, h, w, C]` where they lie; Keras' moves the channels first."""
    import torch

    pooling = torch.nn.functional.max_pool2d if mode == "max" else torch.nn.functional.avg_pool2d
    return pooling(values.permute(0, 3, 1, 2), size, stride).permute(0, 2, 3, 1)


# --------------------------------------------------------------------------------------------------------------- checks


def checked(feature_maps, boxes):
    """The maps as tensors; the boxes as float32 without gradient, coordinates that are not finite far outside.

    Raises `ValueError` for shapes that do not fit.
    """
    maps = [ops.convert_to_tensor(features) for features in feature_maps]
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    fits = all(len(features.shape) == 4 and features.shape[-1] == maps[0].shape[-1] for features in maps)
    if not maps or not fits or len(boxes.shape) != 3 or boxes.shape[-1] != 4:
        raise ValueError(
            "RoI features are sampled from feature maps [B, H, W, C] with one C, for boxes [B, P, 4]. "
            f"Received: maps {[tuple(features.shape) for features in maps]}, boxes {tuple(boxes.shape)}"
        )
    return maps, ops.stop_gradient(ops.where(ops.isfinite(boxes), boxes, _FAR_OUTSIDE))


def checked_outside(outside):
    """`outside`. Raises `ValueError` unless it is one of `OUTSIDE`."""
    if outside not in OUTSIDE:
        raise ValueError(f"outside must be one of {OUTSIDE}. Received: outside={outside!r}")
    return outside


def checked_alignment(alignment):
    """`alignment`. Raises `ValueError` unless it is one of `ALIGNMENTS`."""
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment must be one of {ALIGNMENTS}. Received: alignment={alignment!r}")
    return alignment


def checked_size(size):
    """`(h, w)` of a crop size. Raises `ValueError` unless it is a positive int or two of them."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"A crop size must be a positive int or a pair of them. Received: {size!r}")
    return pair
