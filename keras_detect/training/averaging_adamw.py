"""AdamW whose average of the weights follows closely at first."""

from typing import Any

import keras
from keras import ops

from keras_detect.registry import serializable


@serializable
class AveragingAdamW(keras.optimizers.AdamW):
    """Keras' AdamW, with an exponential moving average of the weights that a short run does not lag behind.

    In step t (the first is 0) the average keeps the share `min(ema_momentum, (1 + t) / (10 + t))` of itself; after the
    first step it is the weights themselves. The bound is that of TensorFlow's `ExponentialMovingAverage` with
    `num_updates`: a momentum of 0.998 averages over 500 steps, and in step 100 the bound has it average over 12.

    Args:
        **settings: as `keras.optimizers.AdamW`; the average is kept with `use_ema=True`.

    Loshchilov and Hutter, 2019 (arXiv:1711.05101).
    """

    @property
    def ema_momentum(self) -> Any:
        """The share that the average keeps in this step, a float32 scalar."""
        step = ops.cast(self.iterations, "float32")
        return ops.minimum(self._largest_momentum, (1.0 + step) / (10.0 + step))

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self._largest_momentum = value

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Replaces the weights by their average at the end of `fit`; before the first step there is none."""
        if ops.convert_to_numpy(self.iterations) > 0:
            super().finalize_variable_values(var_list)

    def get_config(self) -> dict:
        return {**super().get_config(), "ema_momentum": self._largest_momentum}


def without_decay(variables: list[keras.Variable]) -> list[keras.Variable]:
    """Those that weight decay leaves out: scales and offsets of norms, biases, and the weights of a BiFPN's fusions."""
    return [variable for variable in variables if len(variable.shape) < 2 or variable.name == "combine_weights"]
