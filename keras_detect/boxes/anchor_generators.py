"""Anchor generators: the boxes at every cell of every feature map that predictions are relative to.

A generator is called with the sizes of the feature maps and of the preprocessed image (padding included) and returns
anchors normalized to that image; multiply with `box_ops.to_absolute` for pixels. Anchors are not clipped. Order: levels
as given (finest first), cells row by row, and within a cell all scales of the first aspect ratio, then of the second,
and so on. An aspect ratio is width over height.

Where every size is a Python integer the result is a numpy constant, computed in float64 and cached; where one is a
tensor, the same formula runs through `keras.ops`.
"""

import abc
import functools
import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_detect.registry import part, register_anchor_generator

ANCHOR_SHARE = 0.4  # side of an anchor of scale 1 on a single map, in shares of the image's shorter side


class AnchorGenerator(abc.ABC):
    """What the generators have in common. A subclass defines `num_anchors_per_location` and `_grid`."""

    def __call__(self, feature_map_shapes: Sequence[Any], image_shape: Sequence[Any]) -> Any:
        """Anchors of all levels, concatenated.

        Args:
            feature_map_shapes: one `(height, width)` per level, integers or scalar tensors.
            image_shape: `(height, width)` of the preprocessed image in pixels.

        Returns:
            `[A, 4]` float32, normalized yxyx. A numpy array if all sizes are integers, else a tensor.

        Raises:
            ValueError: if there is not one feature map per level.
        """
        levels = self.levels(feature_map_shapes, image_shape)
        concatenate = np.concatenate if isinstance(levels[0], np.ndarray) else keras.ops.concatenate
        return concatenate(levels, axis=0)

    def levels(self, feature_map_shapes: Sequence[Any], image_shape: Sequence[Any]) -> Any:
        """As `__call__`, as a list of one `[A_l, 4]` per level."""
        shapes = tuple(tuple(_static(side) for side in shape) for shape in feature_map_shapes)
        image = tuple(_static(side) for side in image_shape)
        wanted = len(self.num_anchors_per_location())
        if len(shapes) != wanted:
            raise ValueError(
                f"{type(self).__name__} is set up for {wanted} feature maps. Received: {len(shapes)} with sizes "
                f"{list(shapes)}. Give the generator as many levels as the feature extractor has, or the reverse."
            )
        if all(isinstance(side, int) for shape in (*shapes, image) for side in shape):
            return [level.copy() for level in _constants(self, shapes, image)]
        return self._all_levels(keras.ops, shapes, image)

    def level_numbers(self, feature_map_shapes: Sequence[Any]) -> Any:
        """`[A]` int32: the number of the level that each anchor belongs to; arguments as `__call__`."""
        counts = zip(feature_map_shapes, self.num_anchors_per_location(), strict=True)
        sizes = [shape[0] * shape[1] * anchors for shape, anchors in counts]
        if all(isinstance(size, int) for size in sizes):
            return np.repeat(np.arange(len(sizes), dtype="int32"), sizes)
        levels = [keras.ops.full((size,), level, dtype="int32") for level, size in enumerate(sizes)]
        return keras.ops.concatenate(levels)

    @abc.abstractmethod
    def num_anchors_per_location(self) -> tuple[int, ...]:
        """Anchors per cell, one integer per level."""

    @classmethod
    def for_context(cls, strides: Sequence[int], image_size: tuple[int, int] | None, **settings) -> Any:
        """The generator for feature maps of these strides; a subclass whose settings follow them overrides it.

        Args:
            strides: one int per feature map, finest first.
            image_size: `(height, width)` of the preprocessed image, or `None` where it varies.
            **settings: constructor arguments.
        """
        return cls(**settings)

    def _all_levels(self, xp, shapes, image):
        return [_tile(xp, shape, *self._grid(xp, level, shape, image)) for level, shape in enumerate(shapes)]

    @abc.abstractmethod
    def _grid(self, xp, level, shape, image):
        """Sizes in a cell, cell size, first center: `((height, width), ...)`, `(y, x)`, `(y, x)`, all normalized."""


@register_anchor_generator("grid", scales=(0.25, 0.5, 1.0, 2.0))
@part
class GridAnchorGenerator(AnchorGenerator):
    """One feature map with every combination of scales and aspect ratios (Faster R-CNN without FPN).

    Args:
        scales: factors on the base size.
        aspect_ratios: widths over heights.
        base_anchor_size: `(height, width)` in pixels of an anchor with scale 1 and ratio 1.
        anchor_stride: `(y, x)` distance of neighboring cells in pixels.
        anchor_offset: `(y, x)` of the first cell's center in pixels.
    """

    scales: tuple = (0.5, 1.0, 2.0)
    aspect_ratios: tuple = (0.5, 1.0, 2.0)
    base_anchor_size: tuple = (256.0, 256.0)
    anchor_stride: tuple = (16.0, 16.0)
    anchor_offset: tuple = (0.0, 0.0)

    @classmethod
    def for_context(cls, strides: Sequence[int], image_size: tuple[int, int] | None, **settings) -> Any:
        """An anchor of scale 1 is 0.4 of the shorter side of the image: 256 pixels of 640. See the base class.

        Raises:
            ValueError: several feature maps, or an image size that varies without a `base_anchor_size`.
        """
        if len(strides) != 1:
            raise ValueError(
                f"GridAnchorGenerator is for one feature map. Received: strides={tuple(strides)}. Use "
                "'multiscale_grid' for a pyramid."
            )
        if image_size is None and "base_anchor_size" not in settings:
            raise ValueError(
                "The anchors of one feature map follow the image size, which this resizer does not state. Pass "
                "anchor_generator=GridAnchorGenerator(base_anchor_size=...)."
            )
        stride = (float(strides[0]),) * 2
        side = (ANCHOR_SHARE * min(image_size),) * 2 if image_size else None
        return cls(**{"base_anchor_size": side, "anchor_stride": stride, **settings})

    def __post_init__(self):
        _freeze(self, "scales", "aspect_ratios", "base_anchor_size", "anchor_stride", "anchor_offset")

    def num_anchors_per_location(self) -> tuple[int, ...]:
        return (len(self.scales) * len(self.aspect_ratios),)

    def _grid(self, xp, level, shape, image):
        sizes = _sizes(self.scales, self.aspect_ratios, self.base_anchor_size)
        return _normalized(image, sizes, self.anchor_stride, self.anchor_offset)


@register_anchor_generator("ssd", min_scale=0.1, reduce_boxes_in_lowest_layer=False)
@part
class SsdAnchorGenerator(AnchorGenerator):
    """The anchors of SSD (Liu et al. 2016, section 2.2): scales grow from level to level.

    Scales are fractions of the shorter side of the image, evenly spaced from `min_scale` to `max_scale`. A level has
    one anchor per aspect ratio, then one of `interpolated_scale_aspect_ratio` between its scale and the next (1.0
    after the last).

    Args:
        num_layers: number of feature maps; taken from `scales` if that is given.
        min_scale, max_scale: scale of the first and the last level.
        scales: one scale per level in place of `min_scale` and `max_scale`.
        aspect_ratios: widths over heights, of every level.
        interpolated_scale_aspect_ratio: ratio of the additional anchor; 0 for none.
        base_anchor_size: `(height, width)` that scales multiply, in units of the shorter side.
        reduce_boxes_in_lowest_layer: give the first level three anchors only: (scale 0.1, ratio 1) and its own scale
            with ratios 2 and 0.5.
        anchor_strides: `(y, x)` in pixels per level; `None`: the image divided by the feature map's size.
        anchor_offsets: `(y, x)` of the first center in pixels per level; `None`: half a stride.
    """

    num_layers: int = 6
    min_scale: float = 0.2
    max_scale: float = 0.95
    scales: tuple | None = None
    aspect_ratios: tuple = (1.0, 2.0, 3.0, 1.0 / 2, 1.0 / 3)
    interpolated_scale_aspect_ratio: float = 1.0
    base_anchor_size: tuple = (1.0, 1.0)
    reduce_boxes_in_lowest_layer: bool = True
    anchor_strides: tuple | None = None
    anchor_offsets: tuple | None = None

    @classmethod
    def for_context(cls, strides: Sequence[int], image_size: tuple[int, int] | None, **settings) -> Any:
        """One level per stride. See the base class."""
        return cls(**{"num_layers": len(strides), **settings})

    def __post_init__(self):
        _freeze(self, "scales", "aspect_ratios", "base_anchor_size", "anchor_strides", "anchor_offsets")
        if self.scales is not None:
            object.__setattr__(self, "num_layers", len(self.scales))
        for name in ("anchor_strides", "anchor_offsets"):
            _check_levels(self, name, self.num_layers)

    def num_anchors_per_location(self) -> tuple[int, ...]:
        return tuple(len(self._scales_and_ratios(level)) for level in range(self.num_layers))

    def _scales_and_ratios(self, level):
        scales = self.scales
        if scales is None:
            step = (self.max_scale - self.min_scale) / max(self.num_layers - 1, 1)
            scales = tuple(self.min_scale + step * i for i in range(self.num_layers))
        scale, following = (*scales, 1.0)[level : level + 2]
        if level == 0 and self.reduce_boxes_in_lowest_layer:
            return [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        pairs = [(scale, ratio) for ratio in self.aspect_ratios]
        if self.interpolated_scale_aspect_ratio > 0:
            pairs.append((math.sqrt(scale * following), self.interpolated_scale_aspect_ratio))
        return pairs

    def _grid(self, xp, level, shape, image):
        shorter = xp.minimum(1.0 * image[0], 1.0 * image[1])
        base = [size * shorter for size in self.base_anchor_size]
        sizes = [_size(scale, ratio, base) for scale, ratio in self._scales_and_ratios(level)]
        stride = [side / cells for side, cells in zip(image, shape, strict=True)]
        if self.anchor_strides is not None:
            stride = self.anchor_strides[level]
        offset = [0.5 * side for side in stride] if self.anchor_offsets is None else self.anchor_offsets[level]
        return _normalized(image, sizes, stride, offset)


@register_anchor_generator("multiscale_grid")
@part
class MultiscaleGridAnchorGenerator(AnchorGenerator):
    """The anchors of RetinaNet and EfficientDet (Lin et al. 2017, section 4): level l has stride 2^l.

    The first center lies half a stride from the border on an axis whose image side is a multiple of the stride, and at
    0 otherwise; an axis whose side is a tensor always has half a stride. Upstream's checkpoints need both.

    Args:
        min_level, max_level: first and last level.
        anchor_scale: anchor side of the first octave scale in strides.
        aspect_ratios: widths over heights.
        scales_per_octave: scales 2^(0/n), 2^(1/n), ... up to the next level's.
    """

    min_level: int = 3
    max_level: int = 7
    anchor_scale: float = 4.0
    aspect_ratios: tuple = (1.0, 2.0, 0.5)
    scales_per_octave: int = 2

    @classmethod
    def for_context(cls, strides: Sequence[int], image_size: tuple[int, int] | None, **settings) -> Any:
        """The levels of these strides. See the base class.

        Raises:
            ValueError: strides that do not double from map to map.
        """
        levels = [int(stride).bit_length() - 1 for stride in strides]
        if [2**level for level in range(levels[0], levels[0] + len(levels))] != list(strides):
            raise ValueError(
                "MultiscaleGridAnchorGenerator is for maps whose stride doubles from one to the next. Received: "
                f"strides={tuple(strides)}"
            )
        return cls(**{"min_level": levels[0], "max_level": levels[-1], **settings})

    def __post_init__(self):
        _freeze(self, "aspect_ratios")
        if self.max_level < self.min_level:
            raise ValueError(
                "A MultiscaleGridAnchorGenerator needs max_level >= min_level. "
                f"Received: min_level={self.min_level}, max_level={self.max_level}"
            )

    def num_anchors_per_location(self) -> tuple[int, ...]:
        levels = self.max_level - self.min_level + 1
        return (len(self.aspect_ratios) * self.scales_per_octave,) * levels

    def _grid(self, xp, level, shape, image):
        stride = 2 ** (self.min_level + level)
        scales = [2 ** (octave / self.scales_per_octave) for octave in range(self.scales_per_octave)]
        sizes = _sizes(scales, self.aspect_ratios, (self.anchor_scale * stride,) * 2)
        offset = [stride / 2 if not isinstance(side, int) or side % stride == 0 else 0.0 for side in image]
        return _normalized(image, sizes, (stride, stride), offset)


@part
class TorchGridAnchorGenerator(AnchorGenerator):
    """The anchors of torchvision's detectors: corners rounded to whole pixels, the first center at 0.

    The distance of neighboring cells is the image's side divided by the map's, without remainder; it is no power of
    two on coarse maps of images whose sides are not multiples of their strides.

    Args:
        sizes: per level, sides of the anchors of aspect ratio 1, in pixels.
        aspect_ratios: widths over heights, of every level. torchvision's own are heights over widths.
    """

    sizes: tuple = tuple(tuple(int(side * 2 ** (third / 3)) for third in range(3)) for side in (32, 64, 128, 256, 512))
    aspect_ratios: tuple = (2.0, 1.0, 0.5)

    def __post_init__(self):
        _freeze(self, "sizes", "aspect_ratios")

    def num_anchors_per_location(self) -> tuple[int, ...]:
        return tuple(len(sides) * len(self.aspect_ratios) for sides in self.sizes)

    def _grid(self, xp, level, shape, image):
        # in float32: where half a side is between two pixels, the precision decides
        roots = np.sqrt(np.float32(1.0) / np.asarray(self.aspect_ratios, "float32"))
        sides = np.asarray(self.sizes[level], "float32")
        heights, widths = (2.0 * np.round(np.outer(ratios, sides) / 2) for ratios in (roots, np.float32(1.0) / roots))
        sizes = list(zip(heights.ravel().tolist(), widths.ravel().tolist(), strict=True))
        stride = [xp.floor(1.0 * side / cells) for side, cells in zip(image, shape, strict=True)]
        return _normalized(image, sizes, stride, (0.0, 0.0))


@part
class FlexibleGridAnchorGenerator(AnchorGenerator):
    """Every level with its own list of anchors, in pixels.

    Args:
        base_sizes: per level, the square root of each anchor's area.
        aspect_ratios: per level, width over height of each anchor; as many as base sizes.
        anchor_strides: per level, a number or `(y, x)`.
        anchor_offsets: per level, a number or `(y, x)`: the first center.
    """

    base_sizes: tuple
    aspect_ratios: tuple
    anchor_strides: tuple
    anchor_offsets: tuple

    def __post_init__(self):
        _freeze(self, "base_sizes", "aspect_ratios", "anchor_strides", "anchor_offsets")
        for name in ("aspect_ratios", "anchor_strides", "anchor_offsets"):
            _check_levels(self, name, len(self.base_sizes))
        sizes, ratios = ([len(level) for level in lists] for lists in (self.base_sizes, self.aspect_ratios))
        if sizes != ratios:
            raise ValueError(
                "A FlexibleGridAnchorGenerator pairs base_sizes with aspect_ratios on every level. Received: "
                f"{sizes} base sizes and {ratios} aspect ratios per level."
            )

    def num_anchors_per_location(self) -> tuple[int, ...]:
        return tuple(len(sizes) for sizes in self.base_sizes)

    def _grid(self, xp, level, shape, image):
        pairs = zip(self.base_sizes[level], self.aspect_ratios[level], strict=True)
        sizes = [_size(1.0, ratio, (base, base)) for base, ratio in pairs]
        return _normalized(image, sizes, _pair(self.anchor_strides[level]), _pair(self.anchor_offsets[level]))


@functools.lru_cache(maxsize=64)
def _constants(generator, shapes, image):
    return tuple(level.astype("float32") for level in generator._all_levels(np, shapes, image))


def _tile(xp, shape, sizes, stride, offset):
    """`[h * w * n, 4]`: the `n` sizes at every cell of an `(h, w)` grid."""
    low_high = []  # per axis: [cells, n] each
    for axis, cells in enumerate(shape):
        centers = xp.arange(cells, dtype="float64" if xp is np else "float32") * stride[axis] + offset[axis]
        halves = 0.5 * xp.stack([size[axis] for size in sizes])
        low_high.append((centers[:, None] - halves, centers[:, None] + halves))
    (ymin, ymax), (xmin, xmax) = low_high
    zeros = xp.zeros_like(ymin[:, None] + xmin[None])  # [h, w, n]
    coordinates = [ymin[:, None] + zeros, xmin[None] + zeros, ymax[:, None] + zeros, xmax[None] + zeros]
    return xp.reshape(xp.stack(coordinates, axis=-1), (-1, 4))


def _sizes(scales, aspect_ratios, base):
    """Ratios are the outer loop, scales the inner one."""
    return [_size(scale, ratio, base) for ratio in aspect_ratios for scale in scales]


def _size(scale, ratio, base):
    """`(height, width)` of area `scale^2 * base area` and, for a square base, width over height `ratio`."""
    root = math.sqrt(ratio)
    return scale / root * base[0], scale * root * base[1]


def _normalized(image, sizes, stride, offset):
    return [_divided(size, image) for size in sizes], _divided(stride, image), _divided(offset, image)


def _divided(pair, image):
    return tuple(value / side for value, side in zip(pair, image, strict=True))


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _static(side):
    """Python integers as they are, from any integer type; a tensor as float32, to compute with."""
    return int(side) if isinstance(side, numbers.Integral) else keras.ops.cast(side, "float32")


def _freeze(generator, *names):
    """Lists as tuples, so that a generator can be hashed and compared."""
    for name in names:
        object.__setattr__(generator, name, _tuples(getattr(generator, name)))


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _check_levels(generator, name, count):
    value = getattr(generator, name)
    if value is not None and len(value) != count:
        raise ValueError(
            f"{type(generator).__name__} needs one entry of {name} per level, {count} in all. "
            f"Received: {len(value)} in {name}={value}"
        )
