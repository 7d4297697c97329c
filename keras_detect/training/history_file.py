"""The logs of every epoch in a CSV file."""

import csv
import os
import pathlib
from typing import Any

import keras

from keras_detect.files import replacing_file


class HistoryFile(keras.callbacks.Callback):
    """Writes the logs of all epochs to a CSV file after each epoch, whole at every moment.

    Unlike Keras' `CSVLogger`, whose columns are those of the first epoch, it takes in what only some epochs have, such
    as metrics that are evaluated every few epochs; other rows leave the field empty.

    Args:
        path: the `.csv` file; columns "epoch" (from 1, as the console counts) and the names in the logs.
    """

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self.path = pathlib.Path(path)
        self.rows: list[dict[str, Any]] = []

    def get_state(self) -> dict[str, Any]:
        """For `Resume`: the rows written so far."""
        return {"rows": self.rows}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing_file(self.path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
