"""Augmentations that change single pixels: tones, compression, blur, noise and hidden parts; objects stay."""

import abc
from typing import Any

from keras_detect.registry import part
from keras_detect.transforms.augmentation import check_probability, check_range, draw, sometimes

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, to the digits that TensorFlow's rgb_to_grayscale has


class _Pixels(abc.ABC):
    """Base of the operations here: `_change(image, seed)` with a `probability`."""

    probability: float

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""

        def change(example):
            import tensorflow as tf

            image = example["image"]
            return example | {"image": tf.ensure_shape(self._change(image, seed), image.shape)}

        return sometimes(self.probability, seed, change, example)

    @abc.abstractmethod
    def _change(self, image, seed):
        """The changed image, of the shape and dtype of `image` `[H, W, 3]`."""


@part
class RandomGray(_Pixels):
    """Takes the color away, in all three channels alike: upstream's `random_rgb_to_gray`.

    Args:
        probability: how often.
    """

    probability: float = 0.1

    def __post_init__(self):
        check_probability(self.probability)

    def _change(self, image, seed):
        import tensorflow as tf

        gray = tf.reduce_sum(tf.cast(image, tf.float32) * tf.constant(_LUMA), axis=-1, keepdims=True)
        return tf.tile(_rounded(gray), [1, 1, 3])


@part
class RandomPixelScale(_Pixels):
    """Multiplies every pixel of every channel by a factor of its own: upstream's `random_pixel_value_scale`.

    Args:
        min_factor, max_factor: bounds of the factors.
        probability: how often.

    Raises:
        ValueError: bounds that are negative or not in order.
    """

    min_factor: float = 0.9
    max_factor: float = 1.1
    probability: float = 1.0

    def __post_init__(self):
        check_probability(self.probability)
        check_range(self.min_factor, self.max_factor, min_factor=self.min_factor, max_factor=self.max_factor)

    def _change(self, image, seed):
        import tensorflow as tf

        factors = draw(seed, 1, tf.shape(image), self.min_factor, self.max_factor)
        return _rounded(tf.cast(image, tf.float32) * factors)


@part
class RandomGamma(_Pixels):
    """`255 * gain * (pixel / 255) ** gamma`; with equal bounds: upstream's `adjust_gamma`.

    Args:
        min_gamma, max_gamma: bounds of gamma.
        gain: factor of the result.
        probability: how often.

    Raises:
        ValueError: bounds that are negative or not in order, or a negative gain.
    """

    min_gamma: float = 0.8
    max_gamma: float = 1.25
    gain: float = 1.0
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        check_range(self.min_gamma, self.max_gamma, min_gamma=self.min_gamma, max_gamma=self.max_gamma)
        if self.gain < 0.0:
            raise ValueError(f"gain must not be negative. Received: gain={self.gain}")

    def _change(self, image, seed):
        import tensorflow as tf

        gamma = draw(seed, 1, (), self.min_gamma, self.max_gamma)
        table = 255.0 * self.gain * (tf.range(256.0) / 255.0) ** gamma
        return tf.gather(_rounded(table), tf.cast(image, tf.int32))


@part
class RandomEqualize(_Pixels):
    """Spreads the values of each channel so that all are about equally frequent, as Pillow's `ImageOps.equalize`.

    Args:
        probability: how often.
    """

    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)

    def _change(self, image, seed):
        import tensorflow as tf

        def equalized(channel):
            values = tf.cast(channel, tf.int32)
            counts = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
            last = counts[tf.reduce_max(values)]
            step = (tf.reduce_sum(counts) - last) // 255
            table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
            table = tf.where(step > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
            return tf.gather(tf.cast(table, tf.uint8), values)

        return tf.stack([equalized(image[..., channel]) for channel in range(3)], axis=-1)


@part
class RandomPosterize(_Pixels):
    """Keeps only the first bits of each value.

    Args:
        min_bits, max_bits: how many, in 1...8.
        probability: how often.

    Raises:
        ValueError: bounds outside 1...8 or not in order.
    """

    min_bits: int = 4
    max_bits: int = 8
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        if not 1 <= self.min_bits <= self.max_bits <= 8:
            raise ValueError(
                "min_bits and max_bits must be in order in 1...8. Received: "
                f"min_bits={self.min_bits}, max_bits={self.max_bits}"
            )

    def _change(self, image, seed):
        import tensorflow as tf

        bits = self.min_bits + tf.cast(draw(seed, 1) * (self.max_bits - self.min_bits + 1), tf.int32)
        step = tf.bitwise.left_shift(1, 8 - bits)
        return tf.cast(tf.cast(image, tf.int32) // step * step, tf.uint8)


@part
class RandomSolarize(_Pixels):
    """Inverts the values from a threshold on.

    Args:
        min_threshold: smallest threshold in 0...256; 256 inverts none.
        probability: how often.

    Raises:
        ValueError: a threshold outside 0...256.
    """

    min_threshold: int = 128
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        if not 0 <= self.min_threshold <= 256:
            raise ValueError(f"min_threshold must be in 0...256. Received: min_threshold={self.min_threshold}")

    def _change(self, image, seed):
        import tensorflow as tf

        threshold = tf.cast(draw(seed, 1, (), self.min_threshold, 257.0), tf.int32)
        return tf.where(tf.cast(image, tf.int32) >= threshold, 255 - image, image)


@part
class RandomJpegQuality(_Pixels):
    """Encodes and decodes the image as JPEG: upstream's `random_jpeg_quality`.

    Args:
        min_quality, max_quality: of the encoder, 0...100.
        probability: how often.

    Raises:
        ValueError: bounds outside 0...100 or not in order.
    """

    min_quality: int = 30
    max_quality: int = 100
    probability: float = 0.5

    def __post_init__(self):
        check_probability(self.probability)
        if not 0 <= self.min_quality <= self.max_quality <= 100:
            raise ValueError(
                "min_quality and max_quality must be in order in 0...100. Received: "
                f"min_quality={self.min_quality}, max_quality={self.max_quality}"
            )

    def _change(self, image, seed):
        import tensorflow as tf

        quality = self.min_quality + tf.cast(draw(seed, 1) * (self.max_quality - self.min_quality + 1), tf.int32)
        return tf.image.adjust_jpeg_quality(image, tf.minimum(quality, self.max_quality))


@part
class RandomBlur(_Pixels):
    """Blurs with a Gaussian.

    Args:
        max_sigma: largest standard deviation, in pixels.
        probability: how often.

    Raises:
        ValueError: a `max_sigma` outside (0, 10].
    """

    max_sigma: float = 1.5
    probability: float = 0.25

    def __post_init__(self):
        check_probability(self.probability)
        if not 0.0 < self.max_sigma <= 10.0:
            raise ValueError(f"max_sigma must be in (0, 10]. Received: max_sigma={self.max_sigma}")

    def _change(self, image, seed):
        import tensorflow as tf

        radius = int(3 * self.max_sigma + 0.5)
        sigma = draw(seed, 1, (), 0.1, max(self.max_sigma, 0.1001))
        weights = tf.exp(-(tf.range(-float(radius), radius + 1.0) ** 2) / (2.0 * sigma**2))
        weights /= tf.reduce_sum(weights)
        # Beyond the image its outermost pixels go on, however small it is.
        rows, columns = (
            tf.clip_by_value(tf.range(-radius, tf.shape(image)[axis] + radius), 0, tf.shape(image)[axis] - 1)
            for axis in (0, 1)
        )
        pixels = tf.cast(tf.gather(tf.gather(image, rows, axis=0), columns, axis=1), tf.float32)[None]
        for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
            kernel = tf.tile(tf.reshape(weights, shape), [1, 1, 3, 1])
            pixels = tf.nn.depthwise_conv2d(pixels, kernel, [1, 1, 1, 1], "VALID")
        return _rounded(pixels[0])


@part
class RandomNoise(_Pixels):
    """Adds Gaussian noise to every value.

    Args:
        max_stddev: largest standard deviation, as a part of 255.
        probability: how often.

    Raises:
        ValueError: a `max_stddev` outside [0, 1].
    """

    max_stddev: float = 0.05
    probability: float = 0.25

    def __post_init__(self):
        check_probability(self.probability)
        if not 0.0 <= self.max_stddev <= 1.0:
            raise ValueError(f"max_stddev must be in [0, 1]. Received: max_stddev={self.max_stddev}")

    def _change(self, image, seed):
        stddev = draw(seed, 1, (), 0.0, self.max_stddev)
        return _noisy(image, seed, stddev)


@part
class RandomPatchNoise(_Pixels):
    """Gaussian noise in one square of the image (Lopes et al. 2019): upstream's `random_patch_gaussian`.

    Args:
        min_size, max_size: side of the square in pixels, the second one excluded.
        min_stddev, max_stddev: of the noise, as a part of 255.
        probability: how often.

    Raises:
        ValueError: bounds that are not in order, or below 1 pixel.
    """

    min_size: int = 1
    max_size: int = 250
    min_stddev: float = 0.0
    max_stddev: float = 1.0
    probability: float = 1.0

    def __post_init__(self):
        check_probability(self.probability)
        check_range(self.min_size, self.max_size, 1, min_size=self.min_size, max_size=self.max_size)
        check_range(self.min_stddev, self.max_stddev, min_stddev=self.min_stddev, max_stddev=self.max_stddev)

    def _change(self, image, seed):
        import tensorflow as tf

        whole = tf.cast(tf.shape(image)[:2], tf.float32)
        side = tf.floor(draw(seed, 1, (), float(self.min_size), float(max(self.max_size, self.min_size + 1))))
        start = tf.floor(draw(seed, 2, (2,)) * whole) - tf.floor(side / 2.0)
        inside = _square(tf.shape(image), start, side)
        noisy = _noisy(image, seed, draw(seed, 3, (), self.min_stddev, self.max_stddev))
        return tf.where(inside[..., None], noisy, image)


@part
class RandomCutout(_Pixels):
    """Hides parts of the image behind squares (DeVries and Taylor 2017): upstream's `random_black_patches`.

    Args:
        max_patches: how often a square is tried.
        patch_probability: how often it is there.
        size: its side, as a part of the image's shorter one.
        color: three numbers in 0...255.
        probability: how often the operation is applied at all.

    Raises:
        ValueError: a setting outside its range.
    """

    max_patches: int = 10
    patch_probability: float = 0.5
    size: float = 0.1
    color: tuple = (0, 0, 0)
    probability: float = 1.0

    def __post_init__(self):
        check_probability(self.probability)
        check_probability(self.patch_probability)
        if self.max_patches < 0 or not 0.0 <= self.size <= 1.0:
            raise ValueError(
                "max_patches must not be negative and size be in [0, 1]. Received: "
                f"max_patches={self.max_patches}, size={self.size}"
            )

    def _change(self, image, seed):
        import tensorflow as tf

        shape = tf.shape(image)
        side = tf.floor(self.size * tf.cast(tf.reduce_min(shape[:2]), tf.float32))
        starts = draw(seed, 1, (self.max_patches, 2)) * (1.0 - self.size) * tf.cast(shape[:2], tf.float32)
        there = draw(seed, 2, (self.max_patches,)) <= self.patch_probability
        starts = tf.floor(tf.where(there[:, None], starts, tf.cast(shape[:2], tf.float32)))
        rows, columns = (_between(shape[axis], starts[:, axis], side) for axis in (0, 1))
        hidden = tf.einsum("nh,nw->hw", tf.cast(rows, tf.float32), tf.cast(columns, tf.float32)) > 0.0
        return tf.where(hidden[..., None], tf.cast(tf.constant(self.color), tf.uint8), image)


@part
class GridMask(_Pixels):
    """Hides the squares of a regular grid (Chen et al. 2020, arXiv:2001.04086).

    Args:
        min_unit, max_unit: distance of the squares, as a part of the image's shorter side.
        ratio: side of a square, as a part of that distance.
        color: three numbers in 0...255.
        probability: how often.

    Raises:
        ValueError: a setting outside its range.
    """

    min_unit: float = 0.15
    max_unit: float = 0.4
    ratio: float = 0.4
    color: tuple = (0, 0, 0)
    probability: float = 0.3

    def __post_init__(self):
        check_probability(self.probability)
        check_range(self.min_unit, self.max_unit, 0.01, min_unit=self.min_unit, max_unit=self.max_unit)
        if not 0.0 <= self.ratio < 1.0:
            raise ValueError(f"ratio must be in [0, 1). Received: ratio={self.ratio}")

    def _change(self, image, seed):
        import tensorflow as tf

        shape = tf.shape(image)
        unit = draw(seed, 1, (), self.min_unit, self.max_unit) * tf.cast(tf.reduce_min(shape[:2]), tf.float32)
        unit = tf.maximum(unit, 2.0)
        offsets = draw(seed, 2, (2,)) * unit
        hidden = [(tf.range(tf.cast(shape[axis], tf.float32)) + offsets[axis]) % unit for axis in (0, 1)]
        rows, columns = (place < self.ratio * unit for place in hidden)
        covered = rows[:, None] & columns[None, :]
        return tf.where(covered[..., None], tf.cast(tf.constant(self.color), tf.uint8), image)


def _rounded(values):
    import tensorflow as tf

    return tf.saturate_cast(tf.round(values), tf.uint8)


def _noisy(image, seed, stddev):
    import tensorflow as tf

    own = tf.random.experimental.stateless_fold_in(seed, 4)
    noise = tf.random.stateless_normal(tf.shape(image), own, stddev=255.0 * stddev)
    return _rounded(tf.cast(image, tf.float32) + noise)


def _between(length, starts, side):
    """[n, length] bool: the pixels from each start [n] on, `side` of them."""
    import tensorflow as tf

    place = tf.range(tf.cast(length, tf.float32))[None]
    return (place >= starts[:, None]) & (place < starts[:, None] + side)


def _square(shape, start, side):
    rows, columns = (_between(shape[axis], start[axis : axis + 1], side)[0] for axis in (0, 1))
    return rows[:, None] & columns[None, :]
