"""Keeps the best model of a training run on disk, whole at every moment."""

import math
import os
import pathlib
from typing import Any

from keras_detect.files import replacing_file
from keras_detect.training.divergence import StopOnDivergence


class BestModel(StopOnDivergence):
    """Saves the model whenever the monitored value reaches a new maximum, or after every epoch without one.

    The file is written under a temporary name and renamed, so that an interrupted run leaves the last whole one. An
    epoch without the monitored value (an evaluation that runs every few epochs) is passed over; a value of 0 or NaN
    never takes the place of a file that was there when `fit` began. A run that diverges ends with `TrainingDiverged`,
    see `StopOnDivergence`: a model with a weight that is NaN or infinite is not saved.

    Args:
        path: the `.keras` file.
        monitor: a name in `fit`'s logs, larger is better, or `None`.

    Attributes:
        best: the largest value so far, None before the first.
        best_epoch: the epoch of the saved model, from 0; None while there is none.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str | None = "val_map"):
        super().__init__()
        self.path = pathlib.Path(path)
        self.monitor = monitor
        self.best = None
        self.best_epoch: int | None = None
        self._earlier = False

    def get_state(self) -> dict[str, Any]:
        """For `Resume`: the best value and epoch so far."""
        own = {"best": self.best, "best_epoch": self.best_epoch, "earlier": self._earlier}
        return {**super().get_state(), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.best, self.best_epoch, self._earlier = state["best"], state["best_epoch"], state["earlier"]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._earlier = self.path.exists()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.monitor is None or self._is_better((logs or {}).get(self.monitor)):
            self.save(epoch)

    def save(self, epoch: int) -> None:
        """Writes the model as that of `epoch`."""
        with replacing_file(self.path) as part:
            self.model.save(part)
        self.best_epoch = epoch

    def saved(self) -> tuple[str, pathlib.Path | None]:
        if self.best_epoch is not None:
            return f"The model of epoch {self.best_epoch + 1} stays in {self.path}.", self.path
        if self.path.exists():
            return f"This run saved no model; {self.path} is an earlier one.", None
        return "No model was saved.", None

    def _is_better(self, value):
        if value is None:
            return False
        value = float(value)
        if value == 0 or not math.isfinite(value):  # nothing found, or nothing to find
            if self.best is not None or self._earlier:
                return False
            value = min(value, 0.0) if math.isfinite(value) else -math.inf
        elif self.best is not None and value <= self.best:
            return False
        self.best = value
        return True
