"""One whole evaluation: data, metrics, and a report or a file with the numbers."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_detect.data.inspection import damaged_images_named
from keras_detect.data.load import load_dataset
from keras_detect.evaluation.callback import collect_detections, evaluate_coco
from keras_detect.evaluation.collected import Collected
from keras_detect.evaluation.report import report_folder, write_report
from keras_detect.files import write_json


def evaluate(
    model: Any,
    data: Any,
    split: str | None = None,
    *,
    output: str | os.PathLike | None = None,
    batch_size: int = 8,
    score_threshold: float | None = None,
    details: dict[str, str] | None = None,
    progress: bool = True,
    max_pixels: int | None = None,
    keypoint_sigmas: Sequence[float] | None = None,
) -> dict:
    """COCO's metrics of a detector on annotated images, and a report of them; `keras-detect evaluate` is this function.

    Args:
        model: a detector; see `evaluate_coco`.
        data: a `DetectionDataset`, or a folder or file for `load_dataset`.
        split: split of the folder; None for everything.
        output: a folder for the report of `write_report`, a `.json` file for the numbers alone, or None.
        batch_size: images per batch.
        score_threshold: of the report's confusion matrix and worst images; None for the model's own, 0.3 if it has
            none.
        details: texts shown in the report, beside the data and the split.
        progress: whether to show a progress bar.
        max_pixels: as for `load_dataset`, where `data` is a path.
        keypoint_sigmas: deviations of the keypoints, see `Collected`.

    Returns:
        `{name: float}` of COCO's metrics and `"map_per_class"` `{class name: float}`, as `COCOEvaluator.result`; of
        masks and keypoints too ("mask_map", "keypoint_map" and so on) where the data and the detections have some.

    Raises:
        FileNotFoundError: no such data.
        ValueError: unusable data, class names that the model does not have, or an `output` that is not a report.
    """
    check_output(output)
    dataset = data
    if not hasattr(data, "batches"):
        dataset = load_dataset(data, split, class_names=getattr(model, "class_names", None), max_pixels=max_pixels)
    if output is None or not _is_report(output):
        with damaged_images_named(dataset):
            metrics = evaluate_coco(
                model, dataset, batch_size=batch_size, progress=progress, keypoint_sigmas=keypoint_sigmas
            )
        if output is not None:
            write_json(pathlib.Path(output).expanduser(), metrics)
        return metrics
    collected = Collected(dataset.class_names, keypoint_sigmas)
    with damaged_images_named(dataset):
        collect_detections(model, dataset, collected, batch_size=batch_size, progress=progress)
    details = {**(details or {}), "data": str(data), "split": split or "everything"}
    if score_threshold is None:
        score_threshold = getattr(model, "score_threshold", None)
    score_threshold = 0.3 if score_threshold is None else score_threshold
    report = write_report(collected, output, "Evaluation", details, score_threshold, dataset)
    per_class = {name: values["map"] for name, values in report["coco_per_class"].items()}
    further = {**report.get("coco_masks", {}), **report.get("coco_keypoints", {})}
    return {**report["coco"], **further, "map_per_class": per_class}


def check_output(output):
    """Raises `ValueError` where `evaluate` could not write its report."""
    if _is_report(output):
        report_folder(output)


def _is_report(output):
    return output is not None and pathlib.Path(output).suffix != ".json"
