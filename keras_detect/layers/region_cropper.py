"""RoI features: the feature maps inside each proposal, on a grid of one size."""

from keras import ops

from keras_detect.kernels import roi
from keras_detect.registry import part, seldom

METHODS = ("crop_and_resize", "roi_align")


def box_levels(boxes, num_levels, image_shape, canonical_size=224, canonical_level=None):
    """Which of several maps, the finest first, each box is cropped from: one level coarser per doubling of its size.

    Level `canonical_level + floor(log2(sqrt(area) / canonical_size))`, within what there is (Lin et al. 2017, FPN,
    equation 1).

    Args:
        boxes: `[B, P, 4]`, normalized.
        num_levels: how many maps there are.
        image_shape: `(height, width)` in pixels that the boxes are normalized to, ints or a tensor.
        canonical_size: the side in pixels of a square box that belongs to `canonical_level`.
        canonical_level: index of that map; `None`: the last but one, as upstream has it.

    Returns:
        `[B, P]` int32; a box without area belongs to level 0.
    """
    canonical_level = num_levels - 2 if canonical_level is None else canonical_level
    height, width = (ops.cast(image_shape[index], "float32") for index in (0, 1))
    boxes = ops.cast(boxes, "float32")
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    # A level's border is where upstream has it: the same numbers are multiplied before the logarithm.
    size = ops.sqrt(ops.maximum(area, 0.0)) * (ops.sqrt(height * width) / canonical_size)
    steps = ops.floor(ops.log(ops.maximum(size, 1e-6)) / ops.log(ops.convert_to_tensor(2.0, dtype="float32")))
    return ops.cast(ops.clip(steps + canonical_level, 0, num_levels - 1), "int32")


@part
class RegionCropper:
    """RoI features of each proposal: a crop of the feature maps, then max pooling.

    Args:
        crop_size: cells per side, an int or `(h, w)`.
        pool_size: side of the pooling window, 1 for none; windows lie inside the crop (Keras' "valid").
        pool_stride: step of the pooling window.
        method: `"crop_and_resize"` or `"roi_align"`.
        outside: as in `crop_and_resize`.
        sampling_ratio: for `roi_align`.
        canonical_size: as in `box_levels`, for several maps.
        canonical_level: as in `box_levels`, for several maps.
        alignment: as in `roi_align`, for that method.
        num_maps: how many of the maps, the finest first, RoI features come from; `None`: all.

    Raises:
        ValueError: for an unknown method or alignment, a size below 1, a pooling window larger than the crop.
    """

    crop_size: int | tuple = 14
    pool_size: int = 2
    pool_stride: int = 2
    method: str = "crop_and_resize"
    outside: str = "fade"
    sampling_ratio: int = 2
    canonical_size: float = 224
    canonical_level: int | None = None
    alignment: str = seldom("half_pixel")
    num_maps: int | None = seldom(None)

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"The method must be one of {METHODS}. Received: method={self.method!r}")
        roi.checked_outside(self.outside)
        roi.checked_alignment(self.alignment)
        if self.num_maps is not None and self.num_maps < 1:
            raise ValueError(f"num_maps must be at least 1. Received: num_maps={self.num_maps}")
        for name in ("pool_size", "pool_stride", "sampling_ratio", "canonical_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}")
        if self.pool_size > min(roi.checked_size(self.crop_size)):
            raise ValueError(
                "The pooling window must fit into the crop. "
                f"Received: crop_size={self.crop_size}, pool_size={self.pool_size}"
            )

    @property
    def output_size(self):
        """`(h, w)` of the pooled crops."""
        return tuple((side - self.pool_size) // self.pool_stride + 1 for side in roi.checked_size(self.crop_size))

    def __call__(self, feature_maps, boxes, image_shape):
        """Crops and pools.

        Args:
            feature_maps: list of `[B, h_l, w_l, C]`, the finest first.
            boxes: `[B, P, 4]`, normalized to the padded image; `[0, 0, 0, 0]` in padding rows gives finite values.
            image_shape: `(height, width)` of the padded image, ints or a tensor; decides the levels of several maps.

        Returns:
            `[B, P, *output_size, C]` of the features' dtype.
        """
        levels, feature_maps = None, feature_maps[: self.num_maps]
        if len(feature_maps) > 1:
            feature_maps, boxes = roi.checked(feature_maps, boxes)
            levels = box_levels(boxes, len(feature_maps), image_shape, self.canonical_size, self.canonical_level)
        pool = (self.pool_size, self.pool_stride)
        if self.method == "crop_and_resize":
            return roi.multilevel_crop_and_resize(feature_maps, boxes, levels, self.crop_size, self.outside, pool=pool)
        return roi.multilevel_roi_align(
            feature_maps, boxes, levels, self.crop_size, self.sampling_ratio, self.alignment, pool=pool
        )
