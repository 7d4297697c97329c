"""Samplers: which anchors or proposals take part in a loss."""

from typing import Any

import keras
from keras import ops

from keras_detect.registry import part


@part
class BalancedPositiveNegativeSampler:
    """A random choice with at most a given fraction of positives, filled up with negatives.

    Args:
        positive_fraction: in (0, 1]: at most `int(positive_fraction * batch_size)` positives are chosen. Missing
            positives are replaced by negatives, missing negatives by nothing.
    """

    positive_fraction: float = 0.5

    def __post_init__(self):
        if not 0 < self.positive_fraction <= 1:
            raise ValueError(
                "A BalancedPositiveNegativeSampler needs a positive_fraction in (0, 1]. "
                f"Received: positive_fraction={self.positive_fraction}"
            )

    def __call__(self, indicator: Any, labels: Any, batch_size: Any, seed_generator: Any) -> Any:
        """Chooses per image, that is along the last axis.

        Args:
            indicator: `[..., A]` bool: what may be chosen.
            labels: `[..., A]` bool: positives.
            batch_size: number to choose per image, an integer; `None` chooses all positives and as many negatives as
                keep `positive_fraction`.
            seed_generator: `keras.random.SeedGenerator`.

        Returns:
            `[..., A]` bool.
        """
        indicator, labels = ops.cast(indicator, "bool"), ops.cast(labels, "bool")
        positive = ops.logical_and(indicator, labels)
        negative = ops.logical_and(indicator, ops.logical_not(labels))
        num_positive = _count(positive)
        if batch_size is None:
            kept_positive = num_positive
            ratio = (1.0 - self.positive_fraction) / self.positive_fraction
            kept_negative = ops.cast(ops.cast(num_positive, "float32") * ratio, "int32")
        else:
            kept_positive = ops.minimum(num_positive, int(self.positive_fraction * batch_size))
            kept_negative = batch_size - kept_positive
        rank = _random_rank(positive, negative, seed_generator)
        return ops.logical_or(
            ops.logical_and(positive, rank < kept_positive),
            ops.logical_and(negative, rank - num_positive < kept_negative),
        )


def _count(mask):
    return ops.sum(ops.cast(mask, "int32"), axis=-1, keepdims=True)


def _random_rank(positive, negative, seed_generator):
    """Places in a random order with all positives before all negatives, and those before the rest.

    Ranks, not a threshold on the random numbers: two equal numbers at the threshold would break the count.
    """
    draws = keras.random.uniform(ops.shape(positive), seed=seed_generator)
    group = ops.where(positive, 0.0, ops.where(negative, 1.0, 2.0))
    order = ops.argsort(draws + group, axis=-1)
    return ops.cast(ops.argsort(order, axis=-1), "int32")
