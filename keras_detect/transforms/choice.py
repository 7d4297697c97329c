"""One of several augmentations."""

import dataclasses
from typing import Any

from keras_detect.registry import part
from keras_detect.transforms.augmentation import draw


@part
class RandomChoice:
    """One of several operations, drawn at random; `RandomChoice` of crops is upstream's `ssd_random_crop`.

    Args:
        operations: augmentations of one image.
        weights: how likely each is, by comparison; (): all alike.

    Raises:
        ValueError: no operation, or another number of weights.
    """

    operations: tuple = ()
    weights: tuple = ()

    def __post_init__(self):
        if not self.operations or len(self.weights) not in (0, len(self.operations)):
            raise ValueError(
                "RandomChoice expects at least one operation, and as many weights or none. Received: "
                f"{len(self.operations)} operations, {len(self.weights)} weights"
            )

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """Sides that hold every result, for images of `height` x `width` pixels."""
        sizes = [
            operation.largest_size(height, width) if hasattr(operation, "largest_size") else (height, width)
            for operation in self.operations
        ]
        if any(getattr(operation, "swaps_sides", False) for operation in self.operations):
            sizes.append((max(height, width),) * 2)
        heights, widths = zip(*sizes, strict=True)
        return max(heights), max(widths)

    def fitted_to(self, dataset: Any) -> "RandomChoice":
        """The choice among operations that have what they take from a `DetectionDataset`."""
        fitted = [
            operation.fitted_to(dataset) if hasattr(operation, "fitted_to") else operation
            for operation in self.operations
        ]
        return dataclasses.replace(self, operations=tuple(fitted))

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        import tensorflow as tf

        weights = self.weights or (1.0,) * len(self.operations)
        ends = tf.cumsum(tf.constant(weights, tf.float32))
        number = tf.reduce_sum(tf.cast(draw(seed, 0) * ends[-1] >= ends, tf.int32))
        own = tf.random.experimental.stateless_fold_in(seed, 1)
        branches = [lambda operation=operation: dict(operation(example, own)) for operation in self.operations]
        return tf.switch_case(tf.minimum(number, len(branches) - 1), branches)
