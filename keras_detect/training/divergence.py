"""Ends a training run that diverges, and says at which batch."""

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_detect.data.order import order_of
from keras_detect.weights.finite import non_finite_weight

# A step's loss above LARGEST_RATIO times the first step's (or 1, if that is less), or above LARGEST_LOSS, is no
# training any more. Losses of detectors begin between 1 and some hundreds and fall; sound runs have spikes of tens.
LARGEST_RATIO = 1000.0
LARGEST_LOSS = 1e9
_FILES_NAMED = 4
_SHARE_OF_LOOKING = 0.01


class TrainingDiverged(RuntimeError):  # noqa: N818 - the event, as Keras says "terminated"
    """The loss or a weight is not a number any more, or the loss has grown beyond every sound one.

    Attributes:
        epoch: in which it was seen, from 0.
        step: of the epoch, from 0.
        files: names of the images in the batch of that step; empty where the data are not batches as
            `DetectionDataset.batches` gives them.
        model: path of the last good model that this run has saved, or None.
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0, files: Sequence[str] = (), model: Any = None):
        super().__init__(message)
        self.epoch, self.step, self.files, self.model = epoch, step, list(files), model


class StopOnDivergence(keras.callbacks.Callback):
    """Ends `fit` with `TrainingDiverged` at the first batch whose loss is not finite or has exploded.

    The loss of every step is looked at: it must be finite, at most 1000 times the loss of the run's first step (or of
    1, where that is larger), and at most 1e9. The weights, and the averages that the optimizer keeps, are looked at
    when an epoch ends and from time to time within it, for at most one hundredth of the time; they may be NaN while
    the loss is not.
    """

    async_safe = True

    def __init__(self):
        super().__init__()
        self._lock = threading.Lock()
        self._first_loss = None
        self._epoch = self._seen = 0
        self._mean, self._waiting = 0.0, {}
        self._sound_until, self._next_look = 0, 0.0
        self._steps_at_once, self._watched = 1, None

    def get_state(self) -> dict[str, Any]:
        """For `Resume`: what the losses so far were."""
        return {"first_loss": self._first_loss, "seen": self._seen, "mean": self._mean}

    def set_state(self, state: dict[str, Any]) -> None:
        self._first_loss, self._seen, self._mean = state["first_loss"], state["seen"], state["mean"]
        self._sound_until = self._seen

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self._watched = model  # unlike `self.model`, which on JAX moves the weights, for any thread
        self._steps_at_once = getattr(model, "steps_per_execution", None) or 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._seen, self._mean, self._waiting = 0, 0.0, {}
        self._sound_until = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        if batch >= self._seen and now >= self._next_look:
            self._look_at_weights(batch)
            spent = time.monotonic() - now
            self._next_look = now + spent / _SHARE_OF_LOOKING

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """`logs["loss"]` is the mean over the epoch so far. On JAX the calls may come from several threads."""
        mean = (logs or {}).get("loss")
        with self._lock:
            if mean is None or batch < self._seen:
                return
            self._waiting[batch] = float(mean)
            while (following := self._seen + self._steps_at_once - 1) in self._waiting:
                self._look_at_loss(following + 1, self._waiting.pop(following))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        mean = (logs or {}).get("loss")
        if mean is not None and not math.isfinite(mean):
            self._end(f"the mean loss was {mean:.3g}", self._seen - 1)
        self._look_at_weights(self._seen)

    def saved(self) -> tuple[str, Any]:
        """`(what the message says about saved models, the path of the last good one or None)`."""
        return "", None

    def _look_at_loss(self, seen, mean):
        """Takes the loss of the newest step out of the mean of `seen` steps."""
        before = self._seen
        loss = (mean * seen - self._mean * before) / (seen - before) if math.isfinite(mean) else mean
        if self._first_loss is None and math.isfinite(loss):
            self._first_loss = loss
        largest = min(LARGEST_LOSS, LARGEST_RATIO * max(1.0, self._first_loss or 0.0))
        if not math.isfinite(loss):
            self._end(f"the loss was {loss:.3g}", before)
        if loss > largest:
            self._end(f"the loss was {loss:.3g}, after {self._first_loss:.3g} in the first step", before)
        self._seen, self._mean = seen, mean

    def _look_at_weights(self, step):
        found = non_finite_weight(self.model)
        if found is not None:
            self._end(f"the weight {found}", max(0, step - 1), since=self._sound_until)
        self._sound_until = step

    def _end(self, what, step, since=None):
        """Raises `TrainingDiverged`; `since`: the first of the steps that may have done it."""
        step, since = max(step, 0), step if since is None else min(since, step)
        order = order_of(getattr(getattr(self._watched, "fit_call", None), "data", None))
        files = [name for number in range(since, step + 1) for name in order.files(number)] if order else []
        steps = f"step {step + 1}" if since == step else f"steps {since + 1} to {step + 1}"
        sentences = [f"Training diverged: {what} in epoch {self._epoch + 1}, {steps}{_holds(files)}."]
        kept, model = self.saved()
        start = self._first_loss is None and self._epoch == 0 and step == 0
        sentences += [kept] if kept else []
        sentences.append(
            "No weight had been trained yet: look at these images and boxes (keras-detect check), or start from other "
            "weights."
            if start
            else "Lower the learning rate, or look at these images and boxes (keras-detect check)."
        )
        raise TrainingDiverged(" ".join(sentences), self._epoch, step, files, model)


def _holds(files):
    if not files:
        return ""
    more = f" and {len(files) - _FILES_NAMED} more" if len(files) > _FILES_NAMED else ""
    return f" (images {', '.join(files[:_FILES_NAMED])}{more})"
