"""The averaged weights are in the model between the end of an epoch and the next beginning, and only then."""

import keras
import numpy as np
import pytest

from keras_detect.training.averaged_weights import AveragedWeights
from keras_detect.training.averaging_adamw import AveragingAdamW
from tests import tiny


class Watch(keras.callbacks.Callback):
    """Keeps one weight as it is after the last batch and at the end of an epoch, and the optimizer's average."""

    def __init__(self):
        super().__init__()
        self.ends, self.averages, self.begins = [], [], []

    def _weight(self):
        return np.array(keras.ops.convert_to_numpy(self.model.trainable_variables[0]))

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(self._weight())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self._weight())
        self.averages.append(np.array(self.model.optimizer._model_variables_moving_average[0]))


def test_averages_are_evaluated_and_training_goes_on_from_the_trained_weights():
    x, y = tiny.tiny_batch()
    runs = []
    for callbacks in ([], [AveragedWeights()]):
        model = tiny.tiny_ssd()
        model.compile(optimizer=keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9))
        watch = Watch()
        model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0, callbacks=[*callbacks, watch])
        runs.append(watch)
    plain, averaged = runs
    np.testing.assert_allclose(averaged.begins, plain.begins, rtol=1e-6)
    np.testing.assert_allclose(averaged.ends, plain.averages, rtol=1e-6)
    assert np.abs(np.subtract(averaged.ends, plain.ends)).max() > 1e-6


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_first_step_leaves_the_weights(error, monkeypatch):
    model = tiny.tiny_ssd()
    model.compile(optimizer=AveragingAdamW(use_ema=True, ema_momentum=0.9))
    before = model.get_weights()

    def interrupted(*args, **kwargs):
        raise error("while the step is traced")

    monkeypatch.setattr(model, "compute_losses", interrupted)
    with pytest.raises(error, match="while the step is traced"):
        model.fit(*tiny.tiny_batch(), batch_size=4, verbose=0)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
