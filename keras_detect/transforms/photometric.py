"""Augmentations of color; boxes stay where they are."""

import math
from typing import Any

from keras_detect.registry import part
from keras_detect.transforms.augmentation import check_probability, check_range, draw

# RGB to luma and two color differences (YIQ, NTSC 1953, rows rounded as usual): in that space a change of hue is a
# rotation and one of saturation a scaling of the last two axes.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@part
class RandomColor:
    """Changes brightness, contrast, saturation and hue at random.

    The four changes are one 3 x 3 matrix and an offset per image, so the cost does not depend on how many are on.
    Contrast scales about the image's mean color. The result is rounded and clipped to 0...255.

    Args:
        brightness: largest shift, as a part of 255.
        contrast: factor in [1 - contrast, 1 + contrast], or the bounds (low, high) of the factor.
        saturation: factor in [1 - saturation, 1 + saturation], or the bounds (low, high) of the factor.
        hue: largest turn, as a part of the full circle.
        probability: how often.

    Raises:
        ValueError: a setting outside [0, 1], hue above 0.5, or bounds that are negative or not in order.
    """

    brightness: float = 0.125
    contrast: float | tuple = 0.25
    saturation: float | tuple = 0.25
    hue: float = 0.02
    probability: float = 0.8

    def __post_init__(self):
        check_probability(self.probability)
        for name, limit in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            if isinstance(getattr(self, name), tuple) and name in ("contrast", "saturation"):
                low, high = getattr(self, name)
                check_range(low, high, **{f"the bounds of {name}": getattr(self, name)})
            elif not 0.0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} must be in [0, {limit}]. Received: {name}={getattr(self, name)}")

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        changed = lambda: example | {"image": self._change(example["image"], seed)}  # noqa: E731
        return tf.cond(draw(seed, 0) < self.probability, changed, lambda: dict(example))

    def _change(self, image, seed):
        import tensorflow as tf

        shift = draw(seed, 1, (), -self.brightness, self.brightness) * 255.0
        contrast = draw(seed, 2, (), *_bounds(self.contrast))
        saturation = draw(seed, 3, (), *_bounds(self.saturation))
        angle = draw(seed, 4, (), -self.hue, self.hue) * (2.0 * math.pi)
        to_yiq = tf.constant(_TO_YIQ, tf.float32)
        cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
        one, zero = tf.ones(()), tf.zeros(())
        turn = tf.reshape(tf.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos]), (3, 3))
        color = tf.linalg.inv(to_yiq) @ turn @ to_yiq
        pixels = tf.reshape(tf.cast(image, tf.float32), (-1, 3))
        # c (M p + b - m) + m = (c M) p + c b + (1 - c) m, with m = M mean + b the mean of the changed colors
        mean = tf.linalg.matvec(color, tf.reduce_mean(pixels, axis=0)) + shift
        changed = tf.matmul(pixels, contrast * color, transpose_b=True) + contrast * shift + (1.0 - contrast) * mean
        return tf.reshape(tf.saturate_cast(tf.round(changed), tf.uint8), tf.shape(image))


def _bounds(strength):
    return strength if isinstance(strength, tuple) else (1.0 - strength, 1.0 + strength)
