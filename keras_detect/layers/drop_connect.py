"""Drop-connect, also called stochastic depth: whole residual branches are skipped at random while training."""

import keras
from keras import ops

from keras_detect.registry import serializable


@serializable
class DropConnect(keras.layers.Layer):
    """Zeroes whole examples of a batch at random in training and scales up the others, so that the mean stays.

    It is at the end of a residual branch: where it zeroes an example, only the shortcut is left (Huang et al. 2016,
    arXiv:1603.09382, section 3; the kept branches are scaled here in training instead of at inference).

    Args:
        rate: share of the examples that are zeroed, in `[0, 1)`; 0 turns the layer off.
        seed: int, for the same draws in every run; `None` for others each time.
        **kwargs: Keras' own `name`, `dtype`.

    Call arguments:
        inputs: `[B, ...]` float of any rank.
        training: whether to drop; at inference the inputs pass unchanged.

    Raises:
        ValueError: for a rate outside `[0, 1)`.
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"A drop-connect rate must be in [0, 1). Received: rate={rate!r}")
        self.rate, self.seed = float(rate), seed
        if self.rate:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        shape = (ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        keep = 1.0 - self.rate
        kept = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) < keep
        return inputs * ops.cast(ops.where(kept, 1.0 / keep, 0.0), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
