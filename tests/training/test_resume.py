"""`Resume`: an interrupted `fit`, called again, ends with the weights of an uninterrupted one, bit for bit."""

import keras
import numpy as np
import pytest

from keras_detect.callbacks import AveragedWeights, HistoryFile, Resume
from keras_detect.data.shapes import shapes_dataset
from keras_detect.training import AveragingAdamW, ResumeError, TrainingDiverged
from keras_detect.transforms import RandomHorizontalFlip
from tests import tiny

AUGMENT = RandomHorizontalFlip()
DATA = shapes_dataset(12, seed=0, image_size=64, class_names=["circle", "square"])
EPOCHS, STEPS = 3, 3


class Interrupt(keras.callbacks.Callback):
    """Stands last and ends the run as Ctrl-C does, when a step begins."""

    def __init__(self, epoch, step):
        super().__init__()
        self.moment, self.epoch = (epoch, step), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.moment:
            raise KeyboardInterrupt


class Runs:
    """One compiled model, set back to its beginning before each run, so that it is traced once."""

    def __init__(self, model, **optimizer):
        self.model = model
        model.compile(AveragingAdamW(0.01, **optimizer))
        model.optimizer.build(model.trainable_variables)
        self.batches = DATA.batches(model, 4, augment=AUGMENT, shuffle=True, seed=1)
        self.start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self.variables()]

    def variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def run(self, *callbacks):
        """`(variables, history)` after a run from scratch, interrupted or not."""
        for variable, value in zip(self.variables(), self.start, strict=True):
            variable.assign(value)
        self.batches.epoch_order.begin_at(0)
        history = self.model.fit(self.batches, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in self.variables()], history


@pytest.fixture(scope="module")
def runs():
    """A two-stage detector draws proposals at random, from a stream of its own."""
    return Runs(tiny.tiny_faster_rcnn(num_classes=2), use_ema=True, ema_momentum=0.9)


@pytest.fixture(scope="module")
def uninterrupted(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "history.csv"
    variables, history = runs.run(AveragedWeights(), HistoryFile(path))
    return variables, history.history, path.read_text()


@pytest.mark.parametrize(("moment", "every", "goes_on_at"), [((2, 1), None, (2, 0)), ((1, 2), 1, (1, 2))])
def test_it_ends_as_if_nothing_had_happened(runs, uninterrupted, moment, every, goes_on_at, tmp_path):
    def callbacks(*further):
        going_on = Resume(tmp_path / "checkpoint.npz", every_n_steps=every)
        return [AveragedWeights(), HistoryFile(tmp_path / "history.csv"), going_on, *further]

    with pytest.raises(KeyboardInterrupt):
        runs.run(*callbacks(Interrupt(*moment)))
    last = callbacks()
    variables, history = runs.run(*last)
    assert (last[2].epoch, last[2].step) >= goes_on_at
    assert (history.history, history.epoch) == (uninterrupted[1], list(range(EPOCHS)))
    assert (tmp_path / "history.csv").read_text() == uninterrupted[2]
    for ours, theirs in zip(variables, uninterrupted[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (tmp_path / "checkpoint.npz").exists()


def test_an_interrupted_resumption_leaves_nothing_in_the_model(runs, uninterrupted, tmp_path):
    """Not the epoch to begin at, and not the steps to leave out: a next `fit` trains on everything."""
    with pytest.raises(KeyboardInterrupt):
        runs.run(Resume(tmp_path / "checkpoint.npz", every_n_steps=1), Interrupt(1, 2))
    with pytest.raises(KeyboardInterrupt):
        runs.run(Resume(tmp_path / "checkpoint.npz"), Interrupt(1, 1))
    assert runs.run(AveragedWeights())[1].history == uninterrupted[1]


def test_another_run_and_damage_are_refused(runs, tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(KeyboardInterrupt):
        runs.run(Resume(path), Interrupt(0, 0))
    batches = DATA.batches(runs.model, 4, augment=AUGMENT, shuffle=True, seed=2)
    with pytest.raises(ResumeError, match="another data, seed or batch size"):
        runs.model.fit(batches, epochs=1, verbose=0, callbacks=[Resume(path)])
    with pytest.raises(ResumeError, match="another list of callbacks"):
        runs.run(HistoryFile(tmp_path / "history.csv"), Resume(path))
    model = tiny.tiny_ssd(num_classes=2)
    model.compile(AveragingAdamW(0.01, use_ema=True, ema_momentum=0.9))
    batches = DATA.batches(model, 4, augment=AUGMENT, shuffle=True, seed=1)
    with pytest.raises(ResumeError, match="another model"):
        model.fit(batches, epochs=1, verbose=0, callbacks=[Resume(path)])
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(damaged)
        with pytest.raises(ResumeError, match="delete it"):
            runs.run(Resume(path))


@pytest.mark.backend_free
def test_keras_own_callbacks_go_on_too(runs, tmp_path):
    """Without patience for a loss that falls, the run stops after two epochs; the resumed one as well."""

    def stopping():
        return keras.callbacks.EarlyStopping("loss", patience=1, mode="max")

    with pytest.raises(KeyboardInterrupt):
        runs.run(stopping(), Resume(tmp_path / "checkpoint.npz"), Interrupt(1, 1))
    last = stopping()
    runs.run(last, Resume(tmp_path / "checkpoint.npz"))
    assert (last.stopped_epoch, last.wait, last.best_epoch) == (1, 1, 0)


def test_a_checkpoint_of_nan_is_not_written(runs, tmp_path):
    path = tmp_path / "checkpoint.npz"

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            variable = self.model.trainable_variables[0]
            variable.assign(np.full(variable.shape, np.nan))

    with pytest.raises(TrainingDiverged, match="is NaN when step 1 of epoch 2 began"):
        runs.run(Spoil(), Resume(path))
    assert np.load(path)["state"].tobytes().startswith(b'{"format": 1, "epoch": 0')


def test_steps_are_counted_from_one():
    with pytest.raises(ValueError, match="every_n_steps=0"):
        Resume("checkpoint.npz", every_n_steps=0)
