"""Ends a run whose metric does not rise any more."""

from typing import Any

import keras


class EarlyStopping(keras.callbacks.Callback):
    """Ends `fit` after an epoch whose metric has not risen above its maximum for `patience` epochs.

    Unlike Keras' own it passes over epochs without the metric (an evaluation that runs every few epochs), counts epochs
    and not evaluations, and begins to count at the first value above 0: a detector that starts from random weights
    finds nothing for some epochs. Goes after `COCOEvaluation` in the list of callbacks.

    Args:
        patience: epochs, at least 1.
        monitor: a name in `fit`'s logs, larger is better.

    Attributes:
        best, best_epoch: the largest value so far and its epoch, from 0; None before the first.
        stopped_epoch: the epoch after which training was ended, from 0; None if it was not.

    Raises:
        ValueError: `patience` is less than 1.
    """

    def __init__(self, patience: int, monitor: str = "val_map"):
        super().__init__()
        if patience < 1:
            raise ValueError(f"patience must be at least 1 epoch. Received: patience={patience}")
        self.patience, self.monitor = patience, monitor
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None

    def get_state(self) -> dict[str, Any]:
        """For `Resume`: the best value and epoch so far."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.best = self.best_epoch = self.stopped_epoch = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        if value > (self.best or 0.0):
            self.best, self.best_epoch = float(value), epoch
        elif self.best_epoch is not None and epoch - self.best_epoch >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True
