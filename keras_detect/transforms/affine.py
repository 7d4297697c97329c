"""Rotation, scale, translation, shear and perspective: projective maps of the image plane."""

import abc
import math
from typing import Any

from keras_detect.registry import part
from keras_detect.transforms.augmentation import check_probability, check_range, draw, sometimes
from keras_detect.transforms.crops import check_color
from keras_detect.transforms.frames import mean_color, warp


class _Warp(abc.ABC):
    """Base of the operations here: `_matrix(seed, height, width)` maps pixels about the image's center."""

    probability: float
    color: tuple | None
    min_visibility: float

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""

        def change(example):
            import tensorflow as tf

            height, width = tf.unstack(tf.cast(tf.shape(example["image"])[:2], tf.float32))
            matrix = _about(self._matrix(seed, height, width), height / 2.0, width / 2.0)
            fill = mean_color(example["image"]) if self.color is None else tuple(map(float, self.color))
            return warp(example, matrix, fill=fill, min_visibility=self.min_visibility)

        return sometimes(self.probability, seed, change, example)

    @abc.abstractmethod
    def _matrix(self, seed, height, width):
        """float32 `[3, 3]`: maps pixels (x, y, 1), counted from the center, to their new places."""

    def _check(self):
        check_probability(self.probability)
        check_color(self.color)
        if not 0.0 <= self.min_visibility <= 1.0:
            raise ValueError(f"min_visibility must be in [0, 1]. Received: min_visibility={self.min_visibility}")


@part
class RandomRotation(_Warp):
    """Rotates about the image's center.

    Without masks, a box becomes the smallest one around the rotated old one: for an object that does not fill its box
    it is up to `sin(angle)` times the box's other side larger than the object.

    Args:
        max_angle: largest angle in degrees, in both directions, at most 180.
        color: of what is outside the image, three numbers in 0...255; None: the image's mean color.
        min_visibility: an object of whose box a smaller part stays inside is dropped.
        probability: how often.

    Raises:
        ValueError: a setting outside its range.
    """

    max_angle: float = 10.0
    color: tuple | None = (0, 0, 0)
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        self._check()
        if not 0.0 <= self.max_angle <= 180.0:
            raise ValueError(f"max_angle must be in [0, 180] degrees. Received: max_angle={self.max_angle}")

    def _matrix(self, seed, height, width):
        import tensorflow as tf

        angle = draw(seed, 1, (), -self.max_angle, self.max_angle) * (math.pi / 180.0)
        return _linear(tf.cos(angle), tf.sin(angle), -tf.sin(angle), tf.cos(angle))


@part
class RandomScale(_Warp):
    """Zooms into the image's center, or out of it, in an image of the same size.

    Args:
        min_scale, max_scale: of lengths; below 1 the image becomes smaller.
        color, min_visibility, probability: as in `RandomRotation`.

    Raises:
        ValueError: a setting outside its range.
    """

    min_scale: float = 0.75
    max_scale: float = 1.25
    color: tuple | None = (0, 0, 0)
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        self._check()
        check_range(self.min_scale, self.max_scale, 1e-3, min_scale=self.min_scale, max_scale=self.max_scale)

    def _matrix(self, seed, height, width):
        scale = draw(seed, 1, (), self.min_scale, self.max_scale)
        return _linear(scale, 0.0, 0.0, scale)


@part
class RandomTranslation(_Warp):
    """Shifts the image.

    Args:
        max_shift: largest shift in both directions, as a part of height and width.
        color, min_visibility, probability: as in `RandomRotation`.

    Raises:
        ValueError: a setting outside its range.
    """

    max_shift: float = 0.1
    color: tuple | None = (0, 0, 0)
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        self._check()
        if not 0.0 <= self.max_shift < 1.0:
            raise ValueError(f"max_shift must be in [0, 1). Received: max_shift={self.max_shift}")

    def _matrix(self, seed, height, width):
        import tensorflow as tf

        shift = tf.round(draw(seed, 1, (2,), -self.max_shift, self.max_shift) * tf.stack([width, height]))
        return _linear(1.0, 0.0, 0.0, 1.0, shift[0], shift[1])


@part
class RandomShear(_Warp):
    """Shears along both axes. Boxes of objects without masks as in `RandomRotation`.

    Args:
        max_angle: largest angle of either shear in degrees, in both directions, below 45.
        color, min_visibility, probability: as in `RandomRotation`.

    Raises:
        ValueError: a setting outside its range.
    """

    max_angle: float = 5.0
    color: tuple | None = (0, 0, 0)
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        self._check()
        if not 0.0 <= self.max_angle < 45.0:
            raise ValueError(f"max_angle must be in [0, 45) degrees. Received: max_angle={self.max_angle}")

    def _matrix(self, seed, height, width):
        import tensorflow as tf

        shear = tf.tan(draw(seed, 1, (2,), -self.max_angle, self.max_angle) * (math.pi / 180.0))
        return _linear(1.0, shear[0], shear[1], 1.0)


@part
class RandomPerspective(_Warp):
    """Tilts the image plane. Boxes of objects without masks as in `RandomRotation`.

    Args:
        max_tilt: how much nearer or farther an edge of the image becomes, as a part of the distance; below 0.5.
        color, min_visibility, probability: as in `RandomRotation`.

    Raises:
        ValueError: a setting outside its range.
    """

    max_tilt: float = 0.15
    color: tuple | None = (0, 0, 0)
    min_visibility: float = 0.25
    probability: float = 0.5

    def __post_init__(self):
        self._check()
        if not 0.0 <= self.max_tilt < 0.5:
            raise ValueError(f"max_tilt must be in [0, 0.5). Received: max_tilt={self.max_tilt}")

    def _matrix(self, seed, height, width):
        import tensorflow as tf

        # In corner (x, y) = (width / 2, height / 2) both tilts together stay below 1.
        tilt = draw(seed, 1, (2,), -self.max_tilt, self.max_tilt) * 2.0 / tf.stack([width, height])
        rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [tilt[0], tilt[1], 1.0]]
        return tf.stack([tf.stack(row) for row in rows])


def _linear(xx, xy, yx, yy, x=0.0, y=0.0):
    """float32 [3, 3] that maps (x, y) to (xx x + xy y + x, yx x + yy y + y)."""
    import tensorflow as tf

    rows = ((xx, xy, x), (yx, yy, y), (0.0, 0.0, 1.0))
    return tf.stack([tf.stack([tf.cast(value, tf.float32) for value in row]) for row in rows])


def _about(matrix, center_y, center_x):
    """The map with (center_x, center_y) as its origin."""
    import tensorflow as tf

    to, back = _linear(1, 0, 0, 1, -center_x, -center_y), _linear(1, 0, 0, 1, center_x, center_y)
    return tf.linalg.matmul(back, tf.linalg.matmul(matrix, to))
