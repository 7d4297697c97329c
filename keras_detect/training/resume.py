"""Training that continues where it was interrupted, bit for bit."""

import functools
import json
import os
import pathlib
import time
import zipfile
from typing import Any

import keras
import numpy as np

from keras_detect import compat
from keras_detect.data.order import order_of
from keras_detect.files import replacing_file
from keras_detect.training.averaged_weights import AveragedWeights
from keras_detect.training.divergence import StopOnDivergence, TrainingDiverged
from keras_detect.weights.finite import non_finite_weight

FORMAT = 1
# what Keras' own callbacks count, by class name; ours have `get_state` and `set_state`
_COUNTED = {
    "EarlyStopping": ("wait", "best", "best_epoch"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
    "ModelCheckpoint": ("best",),
}


class ResumeError(ValueError):
    """A training checkpoint that is damaged or belongs to another run. One line that names the file."""


class Resume(keras.callbacks.Callback):
    """Resumes `fit` after an interruption, so that it ends with the weights of an uninterrupted run.

    A checkpoint is written when an epoch begins, and where asked for within it; it replaces the older one whole or not
    at all. It holds the weights and random streams of the model, the optimizer with its averages, the metrics, the
    epoch and step, `History`, and the state of the other callbacks: those of `keras_detect.callbacks`, Keras'
    `EarlyStopping` (without `restore_best_weights`), `ReduceLROnPlateau` and `ModelCheckpoint`, and any with
    `get_state()` (a dict that JSON can hold) and `set_state(state)`. When `fit` begins and the file exists, all that is
    restored, and `fit` continues at that epoch and step; the batches before it are read once more and skipped.

    The data must be what `DetectionDataset.batches` returned, whose order and augmentation depend on the seed and the
    epoch alone, or come in the same order in every run. On one device the weights are the same bit for bit (TensorFlow
    and JAX on CPU); the model, the optimizer and the callbacks must be made as in the first run. It is last in the
    list of callbacks.

    Args:
        path: of the checkpoint, an `.npz` file. Two to four times the size of the weights.
        every_n_steps: steps within an epoch between checkpoints, None for one per epoch.
        keep: leave the file when training has ended; else it is deleted.

    Raises:
        ValueError: in `fit`: the model is no `DetectionModel`.
        ResumeError: in `fit`: the file is damaged, or the model, the optimizer or the data are others.
        TrainingDiverged: in `fit`: a weight is NaN or infinite, and the older checkpoint stays.
    """

    def __init__(self, path: str | os.PathLike, every_n_steps: int | None = None, keep: bool = False):
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1. Received: every_n_steps={every_n_steps}")
        self.path = pathlib.Path(path)
        self.every_n_steps, self.keep = every_n_steps, keep
        self.epoch = self.step = None
        self.seconds = 0.0
        self._restored, self._first_step = None, 0
        self._started, self._current_epoch = 0.0, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if getattr(self.model, "fit_call", None) is None:
            raise ValueError(f"Resume goes with the fit of a DetectionModel. Received: a {type(self.model).__name__}.")
        self._started, self._restored, self._first_step = time.monotonic(), None, 0
        self.seconds = 0.0
        if not self.model.optimizer.built:  # on TensorFlow, only the first step would create its variables
            self.model.optimizer.build(self.model.trainable_variables)
        if self.path.exists():
            arrays, state = read_checkpoint(self.path)
            self._restore(arrays, state)
            compat.begin_fit_at(self.model, state["epoch"])
            self._when_fit_ends(functools.partial(compat.begin_fit_at, self.model, 0))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._current_epoch = epoch
        for callback in self._callbacks():
            if isinstance(callback, AveragedWeights):
                callback.take_out()
        order = self._order()
        if order is not None:
            order.begin_at(epoch)
        if self._restored is None:
            self._first_step = 0
            self._write(epoch, 0)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._restored is not None:
            self._restore_counts(*self._restored)
            self._restored = None
        elif self.every_n_steps and batch > self._first_step and batch % self.every_n_steps == 0:
            self._write(self._current_epoch, batch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.seconds = self._seconds()
        if not self.keep:
            self.path.unlink(missing_ok=True)

    def _kept(self):
        """`(what stays after divergence, path of the last good model or None)`."""
        for callback in self._callbacks():
            if isinstance(callback, StopOnDivergence) and callback.saved()[0]:
                return callback.saved()
        return f"The older checkpoint stays in {self.path}.", None

    # --- writing ---------------------------------------------------------------------------------------------------

    def _write(self, epoch, step):
        model = self.model
        found = non_finite_weight(model)
        if found is not None:
            when = f"when step {step + 1} of epoch {epoch + 1} began"
            kept, saved = self._kept()
            text = f"Training diverged: the weight {found} {when}. {kept} Lower the learning rate."
            raise TrainingDiverged(text, epoch, step, model=saved)
        arrays = {
            f"{group}_{number:05d}": _storable(variable)
            for group, variables in _groups(model).items()
            for number, variable in enumerate(variables)
        }
        history = model.history
        state = {
            "format": FORMAT,
            "epoch": int(epoch),
            "step": int(step),
            "seconds": self._seconds(),
            "history": {name: [float(value) for value in values] for name, values in history.history.items()},
            "epochs": list(history.epoch),
            "callbacks": [_state_of(callback) for callback in self._counting()],
            **self._identity(),
        }
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        with replacing_file(self.path) as part, open(part, "wb") as file:
            np.savez(file, state=text, **arrays)
        self.epoch, self.step = epoch, step

    def _identity(self):
        """What must be the same when a run continues."""
        order = self._order()
        return {
            "optimizer": _lasting(keras.saving.serialize_keras_object(self.model.optimizer)),
            "order": None if order is None else order.signature(),
            "classes": [type(callback).__name__ for callback in self._counting()],
        }

    def _seconds(self):
        """How long this run and those before it have trained."""
        before = self.seconds
        return before + time.monotonic() - self._started

    # --- restoring -------------------------------------------------------------------------------------------------

    def _restore(self, arrays, state):
        """Everything that lasts longer than an epoch's begin: variables; the rest waits for the first step."""
        differing = [name for name, value in self._identity().items() if state.get(name) != value]
        if differing:
            what = {
                "optimizer": "optimizer or schedule",
                "order": "data, seed or batch size",
                "classes": "list of callbacks",
            }
            raise ResumeError(
                f"{self.path} belongs to another run: it was written with another {what[differing[0]]}. Call fit as in "
                "that run, or delete the file to start over."
            )
        groups = _groups(self.model)
        for group, variables in groups.items():
            names = [name for name in arrays if name.startswith(f"{group}_")]
            fits = len(names) == len(variables) and all(
                tuple(arrays[f"{group}_{number:05d}"].shape) == tuple(variable.shape)
                for number, variable in enumerate(variables)
            )
            if not fits:
                raise ResumeError(
                    f"{self.path} belongs to another model: its {group} variables have other shapes. Build the model "
                    "as in that run, or delete the file to start over."
                )
        for group in ("model", "optimizer"):
            for number, variable in enumerate(groups[group]):
                variable.assign(_restorable(arrays[f"{group}_{number:05d}"], variable))
        self.seconds, self.epoch, self.step = state["seconds"], state["epoch"], state["step"]
        self._restored = arrays, state

    def _restore_counts(self, arrays, state):
        """What `fit` and the callbacks reset when training and the epoch begin."""
        model = self.model
        for number, variable in enumerate(model.metrics_variables):
            variable.assign(_restorable(arrays[f"metrics_{number:05d}"], variable))
        model.history.history = {name: list(values) for name, values in state["history"].items()}
        model.history.epoch = list(state["epochs"])
        for callback, saved in zip(self._counting(), state["callbacks"], strict=True):
            if hasattr(callback, "set_state"):
                callback.set_state(saved)
            else:
                vars(callback).update(saved)
        self._first_step = state["step"]
        if state["step"]:
            train = model.train_function
            self._when_fit_ends(lambda: setattr(model, "train_function", train))
            _leave_out(model, state["step"])

    def _when_fit_ends(self, function):
        """However it ends: the model must not carry on what this run has set."""
        self.model.fit_call.undo.append(function)

    def _callbacks(self):
        return [callback for callback in self.model.fit_call.callbacks if callback is not self]

    def _counting(self):
        """The callbacks that have a state."""
        return [callback for callback in self._callbacks() if hasattr(callback, "get_state") or _counts(callback)]

    def _order(self):
        return order_of(self.model.fit_call.data)


def _lasting(config):
    """A config without what differs between equal objects: counted names, and a learning rate that callbacks change."""
    if isinstance(config, dict):
        dropped = {"name", "shared_object_id"}
        dropped |= {"learning_rate"} if isinstance(config.get("learning_rate"), int | float) else set()
        return {key: _lasting(value) for key, value in config.items() if key not in dropped}
    if isinstance(config, list | tuple):
        return [_lasting(value) for value in config]
    return config if isinstance(config, str | int | float | None) else str(config)


def _groups(model):
    """`{group: variables}`; those of the model include the states of its random streams."""
    return {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }


def _counts(callback):
    """The names of what one of Keras' own callbacks counts, or ()."""
    return next((_COUNTED[cls.__name__] for cls in type(callback).__mro__ if cls.__name__ in _COUNTED), ())


def _state_of(callback):
    if hasattr(callback, "get_state"):
        return callback.get_state()
    values = {name: getattr(callback, name) for name in _counts(callback) if hasattr(callback, name)}
    return {name: value if value is None else float(value) for name, value in values.items()}


def _storable(variable):
    """An array whose dtype a `.npy` file knows: bfloat16 as its bits."""
    value = np.asarray(keras.ops.convert_to_numpy(variable))
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _restorable(value, variable):
    if variable.dtype == "bfloat16" and value.dtype == np.uint16:
        return value.view(np.asarray(keras.ops.convert_to_numpy(variable)).dtype)
    return value


def _leave_out(model, steps):
    """Makes the running `fit` read the next `steps` batches without training on them."""
    train, per_call = model.train_function, model.steps_per_execution
    left = steps // per_call

    def read(*args):
        nonlocal left
        left -= 1
        if left == 0:
            model.train_function = train
        if not isinstance(args[-1], list):  # an iterator; on some backends `fit` hands over the batches instead
            for _ in range(per_call):
                next(args[-1])
        return ({}, args[0]) if keras.backend.backend() == "jax" else {}

    model.train_function = read


def read_checkpoint(path):
    """`(arrays, state)` of a checkpoint. Raises `ResumeError`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(arrays.pop("state").tobytes())
        found = state["format"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResumeError(f"{path}: not a training checkpoint, or damaged ({first}); delete it") from error
    if found != FORMAT:
        raise ResumeError(f"{path}: format {found}, and this version reads format {FORMAT}; delete it")
    return arrays, state
