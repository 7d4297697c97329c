"""What the box predictors have in common: number of classes, columns of the logits, hyperparams, configuration."""

import numbers
from typing import Any

import keras

from keras_detect.layers.conv_blocks import ConvHyperparams, initializer

SMALL_NORMAL = ConvHyperparams(kernel_initializer=initializer("random_normal", stddev=0.01))


class BoxPredictor(keras.layers.Layer):
    """A layer whose configuration is its constructor's arguments, kept as attributes of the same names.

    Args:
        hyperparams: `ConvHyperparams`; default: its own defaults.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Attributes:
        settings: names of the constructor's other arguments.
        num_classes: K, background not counted; a subclass sets it.
        background: whether the class logits have a background column at index 0.
    """

    settings: tuple[str, ...] = ()
    background = True

    def __init__(self, *, hyperparams: ConvHyperparams | None = None, **kwargs):
        super().__init__(**kwargs)
        self.hyperparams = hyperparams or ConvHyperparams()

    @property
    def num_columns(self) -> Any:
        """Columns of the class logits: K, or K + 1 with background."""
        return self.num_classes + int(self.background)

    def class_biases(self) -> list[keras.Variable]:
        """The biases of the class logits, each `[anchors * num_columns]` with the columns innermost; once built."""
        return []

    def get_config(self) -> dict[str, Any]:
        hyperparams = keras.saving.serialize_keras_object(self.hyperparams)
        return {
            **super().get_config(),
            **{name: _plain(getattr(self, name)) for name in self.settings},
            "hyperparams": hyperparams,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**{**config, "hyperparams": keras.saving.deserialize_keras_object(config["hyperparams"])})


def checked_num_classes(num_classes):
    """`num_classes` as an int; `ValueError` if it is not an integer, or less than 1."""
    if not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise ValueError(f"A detector needs at least one class. Received: num_classes={num_classes!r}")
    return int(num_classes)


def check_map_count(num_anchors_per_location, input_shapes):
    """Raises `ValueError` unless there is a feature map for each entry of `num_anchors_per_location`."""
    if len(input_shapes) != len(num_anchors_per_location):
        raise ValueError(
            f"The predictor has anchors for {len(num_anchors_per_location)} feature maps. Received "
            f"{len(input_shapes)} feature maps. Build both from one anchor generator."
        )


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
