"""Position-sensitive RoI features: each part of a box looks at channels of its own (Dai et al. 2016, arXiv:1605.06409).

A box is divided into bins, and the channels of the map into as many contiguous groups: bin number i, counted row by
row, is cropped from group i.
"""

from keras import ops

from keras_detect.kernels.roi import crop_and_resize


def position_sensitive_crop(features, boxes, crop_size, bins, pool=True, outside="fade"):
    """The crop of each box, put together from its bins.

    Args:
        features: `[B, H, W, bins_y * bins_x * C]` float.
        boxes: `[B, P, 4]`, normalized as in `crop_and_resize`.
        crop_size: `(h, w)` samples of a box, multiples of the bins; those of a bin lie from edge to edge of it.
        bins: `(bins_y, bins_x)`.
        pool: whether to take the mean over all samples of a box.
        outside: as in `crop_and_resize`.

    Returns:
        `[B, P, C]` with `pool`, else `[B, P, h, w, C]`, of the features' dtype; the gradient goes to the features
        alone.

    Raises:
        ValueError: a crop size or a number of channels that the bins do not divide.
    """
    _check_bins(features.shape[-1], crop_size, bins)
    size = tuple(side // count for side, count in zip(crop_size, bins, strict=True))
    groups = ops.split(ops.convert_to_tensor(features), bins[0] * bins[1], axis=-1)
    crops = [
        crop_and_resize(group, part, size, outside) for group, part in zip(groups, _parts(boxes, bins), strict=True)
    ]
    if pool:
        return sum(ops.mean(crop, axis=(2, 3)) for crop in crops) / float(len(crops))
    rows = [ops.concatenate(crops[start : start + bins[1]], axis=3) for start in range(0, len(crops), bins[1])]
    return ops.concatenate(rows, axis=2)


def _parts(boxes, bins):
    """The bins of `boxes [B, P, 4]` as boxes, row by row."""
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    low, high = boxes[..., :2], boxes[..., 2:]
    step = (high - low) / ops.convert_to_tensor(bins, dtype="float32")
    for row in range(bins[0]):
        for column in range(bins[1]):
            start, end = (ops.convert_to_tensor((row + i, column + i), dtype="float32") for i in (0, 1))
            yield ops.concatenate([low + start * step, low + end * step], axis=-1)


def _check_bins(channels, crop_size, bins):
    count = bins[0] * bins[1]
    if channels % count or any(side % number for side, number in zip(crop_size, bins, strict=True)):
        raise ValueError(
            f"{bins[0]} x {bins[1]} bins divide the crop's sides and the map's channels evenly. Received: "
            f"crop_size={tuple(crop_size)}, a map of {channels} channels."
        )
