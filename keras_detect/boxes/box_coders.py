"""Box coders: the numbers a network predicts, relative to an anchor, and the boxes they stand for.

A coder has `encode(boxes, anchors)`, `decode(codes, anchors)` and `code_size`. Boxes and anchors are corners in the
same frame, `[..., A, 4]`; leading axes broadcast, so one set of anchors `[A, 4]` serves a batch. Everything is
float32 for codes of any precision.

Degenerate ground truth (zero-sized, reversed or infinite) encodes to finite numbers; every code but NaN decodes to a
finite box.
"""

from typing import Any

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.registry import part, seldom

# Added to sizes before division and logarithm, on encoding only: upstream's targets contain it.
_EPSILON = 1e-8
# exp(60) = 1e26: no anchor needs a box so many times its size, and the product with any anchor is still finite in
# float32, which exp(89) is not.
_LARGEST_LOG_RATIO = 60.0


@part
class FasterRcnnBoxCoder:
    """`[ty, tx, th, tw]`: offset of the center in anchor sizes, logarithm of the size ratio.

    Faster R-CNN (Ren et al. 2015), eq. 2.

    Args:
        scale_factors: four positive numbers (for y, x, height, width) that multiply the codes; `None` for ones.
        largest_log_ratio: decoding bounds the logarithms of the size ratios; torchvision's bound is log(1000 / 16).
    """

    scale_factors: tuple | None = None
    largest_log_ratio: float = seldom(_LARGEST_LOG_RATIO)

    def __post_init__(self):
        _check_scale_factors(self, 4)
        if not 0.0 < self.largest_log_ratio <= _LARGEST_LOG_RATIO:
            raise ValueError(
                f"largest_log_ratio must be positive and at most {_LARGEST_LOG_RATIO:g}. Received: "
                f"largest_log_ratio={self.largest_log_ratio}"
            )

    @property
    def code_size(self) -> int:
        return 4

    def encode(self, boxes: Any, anchors: Any) -> Any:
        """`[..., A, 4]` boxes and anchors to `[..., A, 4]` codes."""
        yc, xc, height, width = _center_size(boxes)
        yc_a, xc_a, height_a, width_a = _center_size(anchors)
        height_a, width_a = height_a + _EPSILON, width_a + _EPSILON
        ty, tx = (yc - yc_a) / height_a, (xc - xc_a) / width_a
        th, tw = ops.log((height + _EPSILON) / height_a), ops.log((width + _EPSILON) / width_a)
        return _scaled([ty, tx, th, tw], self.scale_factors)

    def decode(self, codes: Any, anchors: Any) -> Any:
        """`[..., A, 4]` codes and anchors to `[..., A, 4]` boxes, not clipped."""
        ty, tx, th, tw = _unscaled(codes, self.scale_factors)
        yc_a, xc_a, height_a, width_a = _center_size(anchors)
        height, width = (_exp(ratio, self.largest_log_ratio) for ratio in (th, tw))
        return box_ops.to_corners(
            ops.stack([ty * height_a + yc_a, tx * width_a + xc_a, height * height_a, width * width_a], axis=-1)
        )


@part
class SquareBoxCoder:
    """`[ty, tx, tl]`: boxes as squares of the same area, relative to the square of the anchor's area.

    Args:
        scale_factors: three positive numbers (for y, x, side) that multiply the codes; `None` for ones.
    """

    scale_factors: tuple | None = None

    def __post_init__(self):
        _check_scale_factors(self, 3)

    @property
    def code_size(self) -> int:
        return 3

    def encode(self, boxes: Any, anchors: Any) -> Any:
        """`[..., A, 4]` boxes and anchors to `[..., A, 3]` codes."""
        yc, xc, height, width = _center_size(boxes)
        yc_a, xc_a, height_a, width_a = _center_size(anchors)
        side, side_a = ops.sqrt(height * width) + _EPSILON, ops.sqrt(height_a * width_a) + _EPSILON
        return _scaled([(yc - yc_a) / side_a, (xc - xc_a) / side_a, ops.log(side / side_a)], self.scale_factors)

    def decode(self, codes: Any, anchors: Any) -> Any:
        """`[..., A, 3]` codes and `[..., A, 4]` anchors to square boxes `[..., A, 4]`, not clipped."""
        ty, tx, tl = _unscaled(codes, self.scale_factors)
        yc_a, xc_a, height_a, width_a = _center_size(anchors)
        side_a = ops.sqrt(height_a * width_a)
        side = _exp(tl) * side_a
        return box_ops.to_corners(ops.stack([ty * side_a + yc_a, tx * side_a + xc_a, side, side], axis=-1))


@part
class MeanStddevBoxCoder:
    """The differences of the four corner coordinates, divided by a standard deviation.

    Args:
        stddev: positive number, in the unit of the boxes.
    """

    stddev: float = 0.01

    def __post_init__(self):
        if not self.stddev > 0:
            raise ValueError(f"A MeanStddevBoxCoder needs a positive stddev. Received: stddev={self.stddev}")

    @property
    def code_size(self) -> int:
        return 4

    def encode(self, boxes: Any, anchors: Any) -> Any:
        """`[..., A, 4]` boxes and anchors to `[..., A, 4]` codes."""
        return (_bounded(boxes) - box_ops.as_float32(anchors)) / self.stddev

    def decode(self, codes: Any, anchors: Any) -> Any:
        """`[..., A, 4]` codes and anchors to `[..., A, 4]` boxes, not clipped."""
        return _bounded(codes) * self.stddev + box_ops.as_float32(anchors)


@part
class KeypointBoxCoder:
    """`[ty, tx, th, tw]` of `FasterRcnnBoxCoder`, then `[ty, tx]` of each keypoint, offsets in anchor sizes.

    A box is `[ymin, xmin, ymax, xmax, y1, x1, y2, x2, ...]`: its keypoints follow the corners.

    Args:
        num_keypoints: keypoints per box.
        scale_factors: four positive numbers; the first two also multiply the keypoints' y and x. `None` for ones.
    """

    num_keypoints: int
    scale_factors: tuple | None = None

    def __post_init__(self):
        if self.num_keypoints < 1:
            raise ValueError(
                f"A KeypointBoxCoder needs at least one keypoint. Received: num_keypoints={self.num_keypoints}. "
                "For boxes alone use FasterRcnnBoxCoder, which gives the same four codes."
            )
        _check_scale_factors(self, 4)

    @property
    def code_size(self) -> int:
        return 4 + 2 * self.num_keypoints

    def encode(self, boxes: Any, anchors: Any) -> Any:
        """`[..., A, 4 + 2N]` boxes and `[..., A, 4]` anchors to `[..., A, 4 + 2N]` codes."""
        boxes, (centers, sizes) = box_ops.as_float32(boxes), self._repeated(anchors)
        keypoints = (_bounded(boxes[..., 4:]) - centers) / (sizes + _EPSILON) * self._keypoint_scale()
        return ops.concatenate([self._corners.encode(boxes[..., :4], anchors), keypoints], axis=-1)

    def decode(self, codes: Any, anchors: Any) -> Any:
        """`[..., A, 4 + 2N]` codes and `[..., A, 4]` anchors to `[..., A, 4 + 2N]` boxes, not clipped."""
        codes, (centers, sizes) = box_ops.as_float32(codes), self._repeated(anchors)
        keypoints = _bounded(codes[..., 4:]) / self._keypoint_scale() * sizes + centers
        return ops.concatenate([self._corners.decode(codes[..., :4], anchors), keypoints], axis=-1)

    @property
    def _corners(self):
        return FasterRcnnBoxCoder(scale_factors=self.scale_factors)

    def _repeated(self, anchors):
        """Centers and sizes of the anchors, `[..., A, 2N]` each, as y, x, y, x, ..."""
        yc, xc, height, width = _center_size(anchors)
        return (
            ops.stack([yc, xc] * self.num_keypoints, axis=-1),
            ops.stack([height, width] * self.num_keypoints, axis=-1),
        )

    def _keypoint_scale(self):
        return ops.convert_to_tensor((self.scale_factors or (1.0, 1.0))[:2] * self.num_keypoints, dtype="float32")


def _check_scale_factors(coder, count):
    factors = coder.scale_factors
    if factors is None:
        return
    factors = tuple(float(factor) for factor in factors)
    if len(factors) != count or not all(factor > 0 for factor in factors):
        raise ValueError(
            f"A {type(coder).__name__} needs {count} positive scale_factors, or None for ones. "
            f"Received: scale_factors={factors}"
        )
    object.__setattr__(coder, "scale_factors", factors)


def _bounded(value):
    return ops.clip(box_ops.as_float32(value), -box_ops.LARGEST_COORDINATE, box_ops.LARGEST_COORDINATE)


def _center_size(boxes):
    """Center and size, each `[..., A]`; a reversed box has size 0, which keeps logarithm and root finite."""
    values = box_ops.to_center_size(boxes)
    return values[..., 0], values[..., 1], ops.relu(values[..., 2]), ops.relu(values[..., 3])


def _scaled(codes, factors):
    codes = ops.stack(codes, axis=-1)
    return codes if factors is None else codes * ops.convert_to_tensor(factors, dtype="float32")


def _unscaled(codes, factors):
    codes = _bounded(codes)
    if factors is not None:
        codes = codes / ops.convert_to_tensor(factors, dtype="float32")
    return tuple(codes[..., i] for i in range(codes.shape[-1]))


def _exp(log_ratio, largest=_LARGEST_LOG_RATIO):
    return ops.exp(ops.minimum(log_ratio, largest))
