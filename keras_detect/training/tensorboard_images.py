"""TensorBoard: the curves of `fit`, and images with what the model finds in them after every epoch."""

import importlib.util
import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_detect.data.dataset import DetectionDataset
from keras_detect.visualization import draw_side_by_side


class TensorBoardImages(keras.callbacks.Callback):
    """Writes the logs of every epoch, and some images with ground truth and detections, for TensorBoard.

    The left half of an image shows the ground truth, the right half the detections. `pip install
    "keras-detect[tensorboard]"` brings TensorBoard; `tensorboard --logdir FOLDER` shows the folder.

    Args:
        folder: the folder to write events into.
        dataset: the images are its first ones; None for curves alone.
        count: how many images.
        score_threshold: detections below it are not drawn.

    Raises:
        ValueError: TensorBoard is not installed, or a negative `count`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        dataset: DetectionDataset | None = None,
        *,
        count: int = 4,
        score_threshold: float = 0.3,
    ):
        super().__init__()
        require_tensorboard()
        if count < 0:
            raise ValueError(f"count must be an integer >= 0. Received: count={count}")
        self.folder, self.score_threshold = pathlib.Path(folder), score_threshold
        self.examples = [] if dataset is None else [dataset[index] for index in range(min(count, len(dataset)))]
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        import tensorflow as tf

        with self._writer.as_default(step=epoch + 1):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value))
            for number, image in enumerate(self._drawn()):
                tf.summary.image(f"image_{number}", np.asarray(image.convert("RGB"))[None])
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._writer.close()

    def _drawn(self):
        images = [example["image"] for example in self.examples]
        found = self.model.detect(images, score_threshold=self.score_threshold) if images else []
        for example, detections in zip(self.examples, found, strict=True):
            names = self.model.class_names
            lines = self.model.skeleton
            yield draw_side_by_side(example["image"], example, detections, names, self.score_threshold, lines)


def require_tensorboard() -> None:
    """Raises `ValueError` with instructions where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            'Events for TensorBoard need the package tensorboard: pip install "keras-detect[tensorboard]". '
            "Received: it is not installed."
        )
