"""Crops of rasters: each box of one of them, on a grid of one size."""

from keras import ops

from keras_detect.kernels.gather import gather_rows


def crop_rasters(rasters, rows, boxes, crop_size):
    """Crops one raster for each box and resizes it bilinearly, the outermost samples on the box's edges.

    The samples lie as in `roi.crop_and_resize`, which upstream crops the targets of its mask head with. No raster is
    copied: of each, the lines that the samples lie on are read.

    Args:
        rasters: `[B, M, H, W]` of any dtype; what is above 0 is 1.
        rows: `[B, P]` int32, which raster of its image belongs to each box.
        boxes: `[B, P, 4]`, normalized to the extent of the rasters; 0 and 1 are the outermost pixels' centers.
        crop_size: `(h, w)`.

    Returns:
        `[B, P, h, w]` float32 in 0...1; beyond the outermost pixels the values fall to 0 over one pixel.
    """
    rasters, boxes = ops.convert_to_tensor(rasters), ops.cast(boxes, "float32")
    batch, count, height, width = ops.shape(rasters)
    number = ops.shape(rows)[1]
    lines = ops.reshape(rasters, (batch, count * height, width))
    total = 0.0
    for index, weight in _neighbors(boxes[..., 0], boxes[..., 2], crop_size[0], height):
        index = ops.reshape(rows[..., None] * height + index, (batch, number * crop_size[0]))
        found = ops.reshape(gather_rows(lines, index) > 0, (batch, number, crop_size[0], width))
        total = total + ops.cast(found, "float32") * weight[..., None]
    crops = 0.0
    for index, weight in _neighbors(boxes[..., 1], boxes[..., 3], crop_size[1], width):
        index = ops.broadcast_to(index[:, :, None], (batch, number, *crop_size))
        crops = crops + ops.take_along_axis(total, index, axis=-1) * weight[:, :, None]
    return crops


def crop_planes(planes, rows, boxes, crop_size):
    """Crops one plane for each box and resizes it bilinearly, the outermost samples on the box's edges.

    The samples lie as in `crop_rasters`. They are two products of matrices, which every format of export has.

    Args:
        planes: `[B, K, h, w]` float32.
        rows: `[B, D]` int32, which plane of its image belongs to each box.
        boxes: `[B, D, 4]`, normalized to the extent of the planes; 0 and 1 are the outermost cells' centers.
        crop_size: `(height, width)`.

    Returns:
        `[B, D, height, width]` float32.
    """
    shape = ops.shape(planes)
    batch, kinds, height, width = shape
    chosen = gather_rows(ops.reshape(planes, (batch, kinds, height * width)), rows)
    chosen = ops.reshape(chosen, (batch, ops.shape(rows)[1], height, width))
    of_rows = _tent(boxes[..., 0], boxes[..., 2], crop_size[0], height)
    of_columns = _tent(boxes[..., 1], boxes[..., 3], crop_size[1], width)
    return ops.matmul(ops.matmul(of_rows, chosen), ops.transpose(of_columns, (0, 1, 3, 2)))


def _tent(low, high, count, size):
    """`[B, D, count, size]` float32: how much each of `size` cells has of `count` samples from `low` to `high`."""
    cells = ops.arange(size, dtype="float32")
    distance = ops.abs(ops.expand_dims(_positions(low, high, count, size), -1) - cells)
    return ops.maximum(1.0 - distance, 0.0)


def _positions(low, high, count, size):
    """`[B, D, count]` float32: samples from `low` to `high` in pixels."""
    last = ops.cast(size, "float32") - 1.0
    if count > 1:
        steps = ops.arange(count, dtype="float32") / float(count - 1)
        return (low[..., None] + (high - low)[..., None] * steps) * last
    return 0.5 * (low + high)[..., None] * last


def _neighbors(low, high, count, size):
    """The two pixels around each of `count` positions from `low` to `high`: `[(index int32, weight), ...]`."""
    last = ops.cast(size, "float32") - 1.0
    position = ops.clip(_positions(low, high, count, size), -1.0, last + 1.0)
    before = ops.floor(position)
    share = position - before
    neighbors = []
    for index, weight in ((before, 1.0 - share), (before + 1.0, share)):
        exists = ops.logical_and(index >= 0.0, index <= last)
        neighbors.append((ops.cast(ops.clip(index, 0.0, last), "int32"), ops.where(exists, weight, 0.0)))
    return neighbors
