"""Evaluation and saving with the moving average of the weights."""

from typing import Any

import keras
import numpy as np

from keras_detect import compat


class AveragedWeights(keras.callbacks.Callback):
    """Puts the optimizer's averaged weights into the model at the end of an epoch and takes them out at the next.

    Goes before the callbacks that evaluate or save. After the last epoch the averages stay. Unlike Keras'
    `SwapEMAWeights` it works with copies: on JAX, swapped buffers are given away to the next compiled step.

    The optimizer must have `use_ema=True`.
    """

    def __init__(self):
        super().__init__()
        self._trained = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        pairs = compat.moving_averages(self.model.optimizer)
        self._trained = [_copy(variable) for variable, _ in pairs]
        for variable, average in pairs:
            variable.assign(_copy(average))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.take_out()

    def take_out(self) -> None:
        """Puts the trained weights back into the model, if the averages are in it."""
        if self._trained is not None:
            pairs = compat.moving_averages(self.model.optimizer)
            for (variable, _), value in zip(pairs, self._trained, strict=True):
                variable.assign(value)
            self._trained = None


def _copy(variable):
    return np.array(keras.ops.convert_to_numpy(variable), copy=True)
