"""Keeps the best model of a training run on disk, whole at every moment."""

import pathlib

import keras

from keras_detect.files import replacing_file


class BestModel(keras.callbacks.Callback):
    """Saves the model whenever the monitored value reaches a new maximum, or after every epoch without one.

    The file is written under a temporary name and renamed, so that an interrupted run leaves the last whole one. An
    epoch without the monitored value (an evaluation that runs every few epochs) is passed over.

    Args:
        path: the `.keras` file.
        monitor: a name in `fit`'s logs, larger is better, or `None`.
    """

    def __init__(self, path, monitor="val_map"):
        super().__init__()
        self.path = pathlib.Path(path)
        self.monitor = monitor
        self.best = None
        self.best_epoch = None

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor is not None:
            value = (logs or {}).get(self.monitor)
            if value is None or (self.best is not None and value <= self.best):
                return
            self.best = float(value)
        self.best_epoch = epoch
        with replacing_file(self.path) as part:
            self.model.save(part)
