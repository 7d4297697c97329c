"""COCO's metrics of a model over a data set, once or at the end of every epoch."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_detect import schema
from keras_detect.evaluation.annotated import evaluation_batches, without_padding
from keras_detect.evaluation.coco import (
    COCO_KEYPOINT_METRICS,
    COCO_METRICS,
    KEYPOINT_PREFIX,
    MASK_PREFIX,
    COCOEvaluator,
    further_comparisons,
)
from keras_detect.evaluation.collected import Collected, to_host


def evaluate_coco(
    model: Any,
    data: Any,
    class_names: Sequence[str] | None = None,
    progress: bool = True,
    batch_size: int = 8,
    evaluators: Sequence[Any] = (),
    keypoint_sigmas: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Runs a detector over annotated images and computes COCO's metrics, and others where they are wanted.

    Args:
        model: its `predict_on_batch(x)` returns detections `{"boxes" [B, D, 4], "scores" [B, D], "labels" [B, D],
            "num_detections" [B]}`, boxes normalized to the true image, `"masks"` [B, D, h, w] over the boxes where it
            finds masks, and `"keypoints"` [B, D, N, 2] where it finds keypoints.
        data: a `DetectionDataset`, or an iterable of batches `(x, y)` as its `batches` gives them. Where y has no
            `"image_size"`, objects are sorted into small, medium and large by their size in the network's input. Masks
            are compared as a `DetectionDataset` has them annotated; in batches, at the size of the network's input.
        class_names: the K names; default: the model's, else the data set's.
        progress: whether to show a progress bar.
        batch_size: images in a batch where `data` is a `DetectionDataset`.
        evaluators: further `Evaluator`s of the same class names; they forget what they held and look at these images.
        keypoint_sigmas: see `Collected`.

    Returns:
        dict, see `COCOEvaluator.result`, with the same of masks ("mask_map" and so on) and of keypoints ("keypoint_map"
        and so on) where the model finds some and the data have some, and what the `result` of each further evaluator
        holds.

    Raises:
        ValueError: no class names are known, an evaluator has others, or another number of `keypoint_sigmas` than of
            keypoints.
    """
    names = list(_names(model, data, class_names))
    evaluator = COCOEvaluator(names, Collected(names, keypoint_sigmas))
    collect_detections(model, data, evaluator.collected, progress, batch_size)
    result = evaluator.result()
    for compare in further_comparisons(evaluator.collected):
        result |= COCOEvaluator(evaluator.class_names, evaluator.collected, compare=compare).result()
    for other in evaluators:
        other.share(evaluator.collected)
        result.update(other.result())
    return result


def collect_detections(model: Any, data: Any, collected: Any, progress: bool = True, batch_size: int = 8) -> Any:
    """Runs a detector over annotated images and adds ground truth and detections to a `Collected`.

    Args:
        model, data, progress, batch_size: see `evaluate_coco`.
        collected: the `Collected`; the images' sizes are the network's input's where y has no `"image_size"`.
    """
    batches = evaluation_batches(model, data, batch_size)
    largest = 0
    hidden = None if progress else True  # None: tqdm draws in a terminal only
    for x, y in tqdm(batches, desc="evaluate", unit="batch", disable=hidden, total=_length(batches)):
        x = keras.tree.map_structure(to_host, x)
        count = len(keras.tree.flatten(x)[0])
        largest = max(largest, count)
        # A last batch that is smaller would compile the network once more: repeat its last image instead.
        filled = keras.tree.map_structure(functools.partial(_fill, count=largest), x)
        detections = model.predict_on_batch(filled)
        detections = {key: to_host(rows)[:count] for key, rows in detections.items()}
        y = without_padding(x, y) if schema.MASKS in detections else y
        collected.update(y, detections, image_sizes=None if schema.IMAGE_SIZE in y else _sizes(x))


def _names(model, data, class_names):
    names = class_names or getattr(model, "class_names", None) or getattr(data, "class_names", None)
    if not names:
        raise ValueError(
            "COCO's metrics need the class names. Received a model and data without them. Pass class_names=[...]."
        )
    return names


class COCOEvaluation(keras.callbacks.Callback):
    """Computes COCO's metrics at the end of an epoch and puts them into `fit`'s logs.

    Where it comes first in `callbacks=[...]`, `ModelCheckpoint(monitor="val_map", mode="max")`, `EarlyStopping`
    and `ReduceLROnPlateau` follow the metric; `History` records it. `last_result` holds the full dict of
    `COCOEvaluator.result` and of the further evaluators.

    Args:
        validation_data: a `DetectionDataset`, or batches `(x, y)` as its `batches` gives them.
        prefix: put before each name in the logs.
        every_n_epochs: evaluate after every n-th epoch and after the last one; other epochs get no entry.
        metrics: names out of `COCO_METRICS` that enter the logs, or "all"; of masks and of keypoints too, where the
            model finds some (`val_mask_map`, `val_keypoint_map`).
        class_names: the K names; default: the model's, else the data set's.
        batch_size: images in a batch where `validation_data` is a `DetectionDataset`.
        progress: whether to show a progress bar.
        evaluators: further `Evaluator`s of the same class names, such as `PascalVOCEvaluator(names)`; the floats of
            their results enter the logs too (`val_voc_map`).
        keypoint_sigmas: see `Collected`.

    Raises:
        ValueError: an unknown metric, or `every_n_epochs` below 1.
    """

    def __init__(
        self,
        validation_data: Any,
        prefix: str = "val_",
        every_n_epochs: int = 1,
        metrics: Sequence[str] = ("map", "map_50", "map_75", "mar_100"),
        class_names: Sequence[str] | None = None,
        batch_size: int = 8,
        progress: bool = False,
        evaluators: Sequence[Any] = (),
        keypoint_sigmas: Sequence[float] | None = None,
    ):
        super().__init__()
        names = tuple(COCO_METRICS) if metrics == "all" else tuple(metrics)
        unknown = [name for name in names if name not in COCO_METRICS]
        if unknown:
            raise ValueError(f"Unknown metrics: {', '.join(unknown)}. Known: {', '.join(COCO_METRICS)}, or 'all'.")
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be at least 1. Received: every_n_epochs={every_n_epochs}")
        self.validation_data = validation_data
        self.prefix = prefix
        self.every_n_epochs = every_n_epochs
        self.metrics = names
        of_keypoints = tuple(COCO_KEYPOINT_METRICS) if metrics == "all" else names
        self._further = tuple(MASK_PREFIX + n for n in names) + tuple(KEYPOINT_PREFIX + n for n in of_keypoints)
        self.class_names = class_names
        self.batch_size = batch_size
        self.progress = progress
        self.evaluators = tuple(evaluators)
        self.keypoint_sigmas = keypoint_sigmas
        self.last_result: dict[str, Any] | None = None
        self._batches = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last = epoch + 1 == (self.params or {}).get("epochs")
        if (epoch + 1) % self.every_n_epochs and not last:
            return
        if self._batches is None:
            # One pipeline for all epochs: rebuilding it each time would keep the old graphs alive.
            self._batches = evaluation_batches(self.model, self.validation_data, self.batch_size)
        names = self.class_names or getattr(self.model, "class_names", None)
        names = names or getattr(self.validation_data, "class_names", None)
        result = evaluate_coco(
            self.model,
            self._batches,
            class_names=names,
            progress=self.progress,
            evaluators=self.evaluators,
            keypoint_sigmas=self.keypoint_sigmas,
        )
        if logs is not None:
            further = [name for name in self._further if name in result]
            others = [name for name, value in result.items() if isinstance(value, float) and name not in _KNOWN]
            logs.update({self.prefix + name: result[name] for name in (*self.metrics, *further, *others)})
        self.last_result = result


_KNOWN = {
    *COCO_METRICS,
    *(MASK_PREFIX + name for name in COCO_METRICS),
    *(KEYPOINT_PREFIX + name for name in COCO_KEYPOINT_METRICS),
}


def _fill(rows, count):
    missing = count - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing > 0 else rows


def _sizes(x):
    """[B, 2] true sizes in the network's input."""
    if isinstance(x, dict):
        for key in (schema.RESIZED_IMAGE_SHAPES, schema.TRUE_IMAGE_SHAPES):
            if key in x:
                return x[key][:, :2]
        x = x[schema.IMAGES]
    return np.tile(np.asarray(x.shape[1:3]), (len(x), 1))


def _length(batches):
    try:
        return len(batches)
    except TypeError:
        return None
