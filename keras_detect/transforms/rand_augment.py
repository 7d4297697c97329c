"""RandAugment: some operations of one strength, drawn at random."""

from typing import Any

from keras_detect.registry import part
from keras_detect.transforms.affine import RandomRotation, RandomScale, RandomShear, RandomTranslation
from keras_detect.transforms.choice import RandomChoice
from keras_detect.transforms.photometric import RandomColor
from keras_detect.transforms.pixels import (
    RandomBlur,
    RandomCutout,
    RandomEqualize,
    RandomGamma,
    RandomPosterize,
    RandomSolarize,
)

_LARGEST = 10.0


@part
class RandAugment:
    """Applies `num_operations` operations, each drawn from one list (Cubuk et al. 2020, arXiv:1909.13719).

    The list: brightness, contrast, saturation, hue, gamma, equalize, posterize, solarize, blur, cutout and, with
    `geometric`, rotation, scale, translation and shear; `operations()` returns it. Each draws its strength up to the
    one that `magnitude` allows.

    Args:
        num_operations: how many are applied, one after the other.
        magnitude: strength, 0...10.
        geometric: whether operations that move objects take part.

    Raises:
        ValueError: a setting outside its range.
    """

    num_operations: int = 2
    magnitude: float = 5.0
    geometric: bool = True

    def __post_init__(self):
        if self.num_operations < 1 or not 0.0 < self.magnitude <= _LARGEST:
            raise ValueError(
                f"num_operations must be at least 1 and magnitude in (0, {_LARGEST:g}]. Received: "
                f"num_operations={self.num_operations}, magnitude={self.magnitude}"
            )

    def operations(self) -> tuple:
        """The operations to draw from."""
        share = self.magnitude / _LARGEST
        none = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0) | {"probability": 1.0}
        strengths = {"brightness": 0.5, "contrast": 0.9, "saturation": 0.9, "hue": 0.1}
        colors = [RandomColor(**(none | {name: largest * share})) for name, largest in strengths.items()]
        tones = (
            RandomGamma(min_gamma=1.0 / (1.0 + share), max_gamma=1.0 + share, probability=1.0),
            RandomEqualize(probability=1.0),
            RandomPosterize(min_bits=max(1, round(8 - 6 * share)), probability=1.0),
            RandomSolarize(min_threshold=round(256 * (1.0 - share)), probability=1.0),
            RandomBlur(max_sigma=2.0 * share, probability=1.0),
            RandomCutout(max_patches=3, size=0.3 * share),
        )
        moves = (
            RandomRotation(max_angle=30.0 * share, probability=1.0),
            RandomScale(min_scale=1.0 - 0.5 * share, max_scale=1.0 + 0.5 * share, probability=1.0),
            RandomTranslation(max_shift=0.4 * share, probability=1.0),
            RandomShear(max_angle=20.0 * share, probability=1.0),
        )
        return (*colors, *tones, *(moves if self.geometric else ()))

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        one = RandomChoice(operations=self.operations())
        for number in range(self.num_operations):
            example = one(example, tf.random.experimental.stateless_fold_in(seed, number))
        return example
