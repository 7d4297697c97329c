"""RMSprop as TensorFlow 1 started it."""

import keras
from keras import ops

from keras_detect.registry import serializable


@serializable
class RMSpropFromOne(keras.optimizers.RMSprop):
    """Keras' RMSprop whose average of squared gradients starts at 1 instead of 0, as in TensorFlow 1.

    The first steps are short: with `rho=0.9` and an average that starts at 0, the first gradient would be divided by
    0.3 times its own size.

    Args:
        **settings: as `keras.optimizers.RMSprop`.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        started = self.built
        super().build(variables)
        if not started:
            for variable in self.variables:
                if variable.name.endswith("velocity"):
                    variable.assign(ops.ones(variable.shape, variable.dtype))
