"""A model with a weight that is NaN or infinite is saved by nothing, and an older file stays."""

import keras
import numpy as np
import pytest

from keras_detect.training import BestModel, TrainingDiverged
from keras_detect.weights.finite import NonFiniteWeightsError, non_finite_weight
from tests import tiny

WAYS = {
    "model.save": lambda model, folder: model.save(folder / "model.keras"),
    "without the optimizer": lambda model, folder: model.save(folder / "model.keras", include_optimizer=False),
    "save_weights": lambda model, folder: model.save_weights(folder / "model.weights.h5"),
    "save_to_preset": lambda model, folder: model.save_to_preset(folder / "preset"),
    "ModelCheckpoint": lambda model, folder: saved_by_keras(model, folder),
}


def saved_by_keras(model, folder):
    callback = keras.callbacks.ModelCheckpoint(str(folder / "model.keras"))
    callback.set_model(model)
    callback.on_epoch_end(0, {})


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_ssd()


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused_and_the_older_file_stays(model, way, value, tmp_path):
    WAYS[way](model, tmp_path)
    before = contents(tmp_path)
    assert before
    weight = next(weight for weight in model.weights if "moving_variance" in weight.path)
    good = np.array(keras.ops.convert_to_numpy(weight))
    bad = good.copy()
    bad[-1] = value
    weight.assign(bad)
    try:
        with pytest.raises(NonFiniteWeightsError, match="is NaN" if np.isnan(value) else "is infinite"):
            WAYS[way](model, tmp_path)
    finally:
        weight.assign(good)
    assert contents(tmp_path) == before


def test_keras_own_save_model_refuses_too(model, tmp_path):
    weight = model.trainable_variables[0]
    good = np.array(keras.ops.convert_to_numpy(weight))
    weight.assign(np.full_like(good, np.nan))
    try:
        with pytest.raises(NonFiniteWeightsError, match=r"kernel is NaN"):
            keras.saving.save_model(model, tmp_path / "model.keras")
    finally:
        weight.assign(good)


def test_averages_are_weights():
    """Of the optimizer, in the model's file; and where they are in the model, in the best model's."""
    model = tiny.tiny_ssd()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True))
    model.optimizer.build(model.trainable_variables)
    assert non_finite_weight(model) is None
    average = next(variable for variable in model.optimizer.variables if "average" in variable.path)
    average.assign(np.full(average.shape, np.inf))
    assert "infinite" in non_finite_weight(model)
    assert non_finite_weight(model, averages=False) is None


def test_the_best_model_is_not_replaced(tmp_path):
    model = tiny.tiny_ssd()
    best = BestModel(tmp_path / "best.keras", monitor=None)
    best.set_model(model)
    best.on_train_begin()
    for epoch in range(2):
        best.on_epoch_begin(epoch)
        best.on_epoch_end(epoch, {"loss": 1.0})
    before = best.path.read_bytes()
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    best.on_epoch_begin(2)
    with pytest.raises(TrainingDiverged, match=r"is NaN in epoch 3.*model of epoch 2 stays in .*best\.keras"):
        best.on_epoch_end(2, {"loss": 1.0})
    assert best.path.read_bytes() == before
