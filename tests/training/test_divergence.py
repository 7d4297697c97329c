"""A run that diverges ends at the batch where it does, says which, and leaves the last good model."""

import math

import keras
import numpy as np
import pytest

from keras_detect.callbacks import BestModel, Resume, StopOnDivergence
from keras_detect.data.shapes import shapes_dataset
from keras_detect.training import Recipe, TrainingDiverged
from tests import tiny

NAMES = ["circle", "square"]


class OneWeight:
    """As much of a model as the callbacks look at; `save` writes the weight."""

    steps_per_execution = 1
    optimizer = fit_call = None

    def __init__(self):
        self.weights = [keras.Variable(np.ones(2, "float32"), name="w")]

    def save(self, path):
        path.write_text(str(keras.ops.convert_to_numpy(self.weights[0])))


def epoch(callback, number, losses, logs=None):
    """One epoch as `fit` reports it: running means of the steps' `losses`."""
    callback.on_epoch_begin(number)
    for step in range(len(losses)):
        callback.on_train_batch_begin(step)
        callback.on_train_batch_end(step, {"loss": float(np.mean(losses[: step + 1], dtype="float32"))})
    callback.on_epoch_end(number, {"loss": float(np.mean(losses)), **(logs or {})})


def started(callback, model=None):
    callback.set_model(model or OneWeight())
    callback.on_train_begin()
    return callback


@pytest.mark.parametrize("first", [0.01, 3.0, 400.0])
def test_sound_losses_pass(first):
    """Noise, spikes to fifty times the first loss, a batch without objects (loss 0)."""
    rng = np.random.default_rng(0)
    callback = started(StopOnDivergence())
    for number in range(4):
        losses = first * rng.lognormal(0, 0.7, 40)
        losses[7], losses[9] = 50 * first, 0.0
        epoch(callback, number, [first, *losses])
    assert callback.get_state()["first_loss"] == np.float32(first)
    assert callback.get_state()["seen"] == 41


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.9e13, 5e9, 1e5])
@pytest.mark.parametrize("first", [0.2, 9.0])
def test_the_first_bad_step_is_named(bad, first):
    callback = started(StopOnDivergence())
    epoch(callback, 0, [first] * 20)
    with pytest.raises(TrainingDiverged, match=r"in epoch 2, step 13\.") as raised:
        epoch(callback, 1, [first] * 12 + [bad, first])
    assert (raised.value.epoch, raised.value.step) == (1, 12)
    assert "Lower the learning rate" in str(raised.value)


def test_a_loss_that_is_huge_from_the_start_ends_it_too():
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1"):
        epoch(started(StopOnDivergence()), 0, [2e9])
    with pytest.raises(TrainingDiverged, match="No weight had been trained yet"):
        epoch(started(StopOnDivergence()), 0, [math.nan])


def test_steps_may_be_reported_by_several_threads_and_several_at_once():
    callback = started(StopOnDivergence())
    callback.on_epoch_begin(0)
    means = {step: float(np.mean([1.0] * 3 + [1e6] * (step - 2))) if step > 2 else 1.0 for step in range(5)}
    callback.on_train_batch_end(1, {"loss": means[1]})
    callback.on_train_batch_end(3, {"loss": means[3]})
    callback.on_train_batch_end(0, {"loss": means[0]})
    with pytest.raises(TrainingDiverged, match="step 4"):
        callback.on_train_batch_end(2, {"loss": means[2]})
    model = OneWeight()
    model.steps_per_execution = 4
    callback = started(StopOnDivergence(), model)
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(3, {"loss": 1.0})
    with pytest.raises(TrainingDiverged, match="step 5"):
        callback.on_train_batch_end(7, {"loss": math.inf})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_are_looked_at_though_the_loss_is_finite(value):
    model = OneWeight()
    callback = started(StopOnDivergence(), model)
    epoch(callback, 0, [1.0] * 3)
    callback.on_epoch_begin(1)
    model.weights[0].assign([1.0, value])
    with pytest.raises(TrainingDiverged, match=r"the weight w is (NaN|infinite) in epoch 2, steps? 1"):
        epoch(callback, 1, [1.0] * 3)


def test_the_best_model_is_of_the_largest_value(tmp_path):
    best = started(BestModel(tmp_path / "best.keras"))
    values = [0.0, 0.0, math.nan, 0.3, 0.2, None, 0.3, 0.4, math.nan, 0.0]
    kept = []
    for number, value in enumerate(values):
        epoch(best, number, [1.0], {} if value is None else {"val_map": value})
        kept.append(best.best_epoch)
    assert kept == [0, 0, 0, 3, 3, 3, 3, 7, 7, 7]


@pytest.mark.parametrize("worthless", [0.0, math.nan])
def test_an_earlier_file_gives_way_to_a_value_above_zero_only(worthless, tmp_path):
    path = tmp_path / "best.keras"
    path.write_text("earlier")
    best = started(BestModel(path))
    epoch(best, 0, [1.0], {"val_map": worthless})
    assert (path.read_text(), best.best_epoch) == ("earlier", None)
    with pytest.raises(TrainingDiverged, match=r"This run saved no model; .* is an earlier one"):
        epoch(best, 1, [1.0, math.nan])
    epoch(best, 1, [1.0], {"val_map": 0.1})
    assert (path.read_text(), best.best_epoch) == ("[1. 1.]", 1)


def test_fit_names_the_files_and_keeps_the_model(tmp_path):
    """SGD at 1e30 from the second epoch on: the first step whose loss is bad is the one after the first update."""
    data = shapes_dataset(8, seed=0, image_size=64, class_names=NAMES)
    model = tiny.tiny_ssd(num_classes=2)
    model.compile(keras.optimizers.SGD(1e-4))
    best = BestModel(tmp_path / "best.keras", monitor=None)
    batches = data.batches(model, 4, shuffle=True, seed=0)

    def rate(epoch, _):
        return 1e30 if epoch == 1 else 1e-4

    with pytest.raises(TrainingDiverged, match="epoch 2, step 2") as raised:
        model.fit(batches, epochs=3, verbose=0, callbacks=[keras.callbacks.LearningRateScheduler(rate), best])
    dealt = batches.epoch_order.of_epoch(1)[4:]
    assert raised.value.files == [data.records[index].file_name for index in dealt]
    assert raised.value.files[0] in str(raised.value)
    assert raised.value.model == best.path
    assert all(np.isfinite(weight).all() for weight in keras.saving.load_model(best.path).get_weights())


def test_a_weight_spoiled_between_two_epochs_names_the_model_that_stays(tmp_path):
    """By another callback, after the model was saved: the checkpoint of the next epoch is where it is seen."""
    data = shapes_dataset(4, seed=0, image_size=64, class_names=NAMES)
    model = tiny.tiny_ssd(num_classes=2)
    model.compile(keras.optimizers.SGD(1e-4))
    best = BestModel(tmp_path / "best.keras", monitor=None)

    def spoil(epoch, _):
        if epoch == 1:
            model.trainable_weights[0].assign(model.trainable_weights[0] * math.inf)

    late = keras.callbacks.LambdaCallback(on_epoch_end=spoil)
    callbacks = [best, late, Resume(tmp_path / "checkpoint.npz", keep=True)]
    with pytest.raises(TrainingDiverged, match=r"when step 1 of epoch 3 began\. The model of epoch 2 stays") as raised:
        model.fit(data.batches(model, 4), epochs=3, verbose=0, callbacks=callbacks)
    assert raised.value.model == best.path and best.path.exists()


@pytest.mark.parametrize("rate", [math.inf, -math.inf, math.nan, -1e-3, 0, 1.5, 1e30, "fast", None, True])
def test_learning_rates_that_are_none(rate):
    with pytest.raises(ValueError, match=r"learning_rate must be positive, at most 1\. Received"):
        Recipe(learning_rate=rate)


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": math.inf},
        {"epochs": 2.5},
        {"epochs": 10**9},
        {"batch_size": 0},
        {"batch_size": math.nan},
        {"weight_decay": math.nan},
        {"weight_decay": -0.1},
        {"clip_norm": math.inf},
        {"clip_norm": math.nan},
        {"ema_momentum": math.nan},
        {"ema_momentum": 1.0},
        {"warmup_fraction": -math.inf},
    ],
)
def test_other_settings_that_are_none(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must"):
        Recipe(**setting)
