"""COCO's detection metrics on host arrays: boxes, masks and keypoints, over all and per class, and their curves.

The counting is faster-coco-eval's; here the house's boxes become COCO's and the results get names.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_detect import schema
from keras_detect.data.masks import run_lengths
from keras_detect.evaluation import keypoints
from keras_detect.evaluation.average_precision import UNDEFINED, mean_of_defined
from keras_detect.evaluation.collected import Evaluator
from keras_detect.evaluation.objects import Objects

# name -> (which table, IoU threshold or None for the mean over 0.50...0.95, area range, detections per image and
# class), in the order of COCO's printed summary
COCO_METRICS = {
    "map": ("precision", None, "all", 100),
    "map_50": ("precision", 0.5, "all", 100),
    "map_75": ("precision", 0.75, "all", 100),
    "map_small": ("precision", None, "small", 100),
    "map_medium": ("precision", None, "medium", 100),
    "map_large": ("precision", None, "large", 100),
    "mar_1": ("recall", None, "all", 1),
    "mar_10": ("recall", None, "all", 10),
    "mar_100": ("recall", None, "all", 100),
    "mar_small": ("recall", None, "small", 100),
    "mar_medium": ("recall", None, "medium", 100),
    "mar_large": ("recall", None, "large", 100),
}

_KEYPOINT_DETECTIONS = 20  # per image and class
# the same of keypoints, whose thresholds are of the object keypoint similarity (OKS); there are no small objects
COCO_KEYPOINT_METRICS = {
    "map": ("precision", None, "all", _KEYPOINT_DETECTIONS),
    "map_50": ("precision", 0.5, "all", _KEYPOINT_DETECTIONS),
    "map_75": ("precision", 0.75, "all", _KEYPOINT_DETECTIONS),
    "map_medium": ("precision", None, "medium", _KEYPOINT_DETECTIONS),
    "map_large": ("precision", None, "large", _KEYPOINT_DETECTIONS),
    "mar": ("recall", None, "all", _KEYPOINT_DETECTIONS),
    "mar_50": ("recall", 0.5, "all", _KEYPOINT_DETECTIONS),
    "mar_75": ("recall", 0.75, "all", _KEYPOINT_DETECTIONS),
    "mar_medium": ("recall", None, "medium", _KEYPOINT_DETECTIONS),
    "mar_large": ("recall", None, "large", _KEYPOINT_DETECTIONS),
}

_NO_SIZES = (
    "COCO's metrics by object size need the images' sizes in pixels. Received y without \"image_size\" and no "
    "image_sizes. Pass image_sizes [B, 2] (height, width)."
)
MASK_PREFIX = "mask_"  # of the names of the metrics of masks
KEYPOINT_PREFIX = "keypoint_"  # of those of keypoints


class _Comparison(NamedTuple):
    """What is compared: faster-coco-eval's name, the prefix of the results, the metrics, and the axes of its tables."""

    coco_name: str
    prefix: str
    metrics: dict[str, tuple]
    areas: tuple[str, ...] = ("all", "small", "medium", "large")
    max_detections: tuple[int, ...] = (1, 10, 100)


_COMPARED = {
    "boxes": _Comparison("bbox", "", COCO_METRICS),
    "masks": _Comparison("segm", MASK_PREFIX, COCO_METRICS),
    "keypoints": _Comparison(
        "keypoints", KEYPOINT_PREFIX, COCO_KEYPOINT_METRICS, ("all", "medium", "large"), (_KEYPOINT_DETECTIONS,)
    ),
}


class COCOEvaluator(Evaluator):
    """Collects ground truth and detections image by image and computes COCO's metrics over all of them.

    Boxes with `"is_crowd"` are handled as COCO does: they need not be found, and a detection that is in one (half of
    its area, at the threshold 0.5) does not count.

    With `compare="masks"`, the overlap is that of masks, and the names of the results begin with "mask_". An object
    without a mask is treated as a crowd that fills its box: it need not be found as a mask, and detections in it do not
    count. Areas that are not annotated are those of the masks.

    With `compare="keypoints"`, the overlap is COCO's object keypoint similarity (OKS), whose deviations are
    `collected.keypoint_sigmas`, and the names of the results begin with "keypoint_". An object without an annotated
    keypoint need not be found, and detections near its box do not count. Areas that are not annotated are those of the
    boxes.

    Args:
        class_names: the K class names.
        collected: see `Evaluator`.
        compare: "boxes", "masks" or "keypoints".

    Raises:
        ValueError: see `Evaluator`; an unknown `compare`.
    """

    def __init__(self, class_names: Sequence[str], collected: Any = None, compare: str = "boxes"):
        super().__init__(class_names, collected)
        self.compare = checked_comparison(compare)
        self._tables, self._counted = None, None

    def update(self, ground_truth: dict[str, Any], detections: dict[str, Any], image_sizes: Any = None) -> None:
        """Adds a batch of images: see `Collected.update`; the sizes of the images are needed.

        Raises:
            ValueError: no image sizes, or what `Collected.update` refuses.
        """
        if image_sizes is None and schema.IMAGE_SIZE not in ground_truth:
            raise ValueError(_NO_SIZES)
        super().update(ground_truth, detections, image_sizes)

    def result(self) -> dict[str, Any]:
        """The metrics over every image added.

        Returns:
            dict of the twelve floats named in `COCO_METRICS` and `"map_per_class"`: `{class name: AP}` ("mask_map" and
            so on where masks are compared; where keypoints are, "keypoint_map" and so on, the ten of
            `COCO_KEYPOINT_METRICS`). As COCO does it, a number without any true object to find is -1: a class that is
            absent does not enter the means, an area range without objects is -1, and everything is -1 without images or
            without ground truth. With ground truth and no detections the numbers are 0.
        """
        per_class = self.result_per_class()
        tables = self._count()
        kind = self._kind
        results = {name: mean_of_defined(_select(tables, kind, *spec)) for name, spec in kind.metrics.items()}
        results["map_per_class"] = {name: values["map"] for name, values in per_class.items()}
        return {kind.prefix + name: value for name, value in results.items()}

    def result_per_class(self) -> dict[str, dict[str, float]]:
        """
        Returns:
            `{class name: {metric: float}}` with the twelve of `COCO_METRICS` (ten of `COCO_KEYPOINT_METRICS`) and the
            class's numbers of `"objects"` (crowds excluded), `"crowds"` and `"detections"`.
        """
        tables, ground_truth, found = self._count(), self.collected.ground_truth(), self.collected.found()
        kinds = len(self.class_names)
        counts = {
            "objects": np.bincount(ground_truth.labels[~ground_truth.is_crowd], minlength=kinds),
            "crowds": np.bincount(ground_truth.labels[ground_truth.is_crowd], minlength=kinds),
            "detections": np.bincount(found.labels, minlength=kinds),
        }
        selected = {name: _select(tables, self._kind, *spec) for name, spec in self._kind.metrics.items()}
        return {
            name: {metric: mean_of_defined(values[..., k]) for metric, values in selected.items()}
            | {key: int(numbers[k]) for key, numbers in counts.items()}
            for k, name in enumerate(self.class_names)
        }

    def curves(self) -> dict[str, Any]:
        """The precision-recall curves of objects of every size, of 100 detections (keypoints: 20) per image and class.

        Returns:
            dict: `"iou"` [10], 0.50 to 0.95; `"recall"` [101], 0.00 to 1.00; `"precision"` [10, 101, K], the largest
            precision at that recall or a higher one, 0 past the last recall reached, -1 for a class without objects.
        """
        tables = self._count()
        return {
            "iou": tables["thresholds"],
            "recall": np.linspace(0.0, 1.0, tables["precision"].shape[1]),
            "precision": _select(tables, self._kind, *self._kind.metrics["map"]),
        }

    @property
    def _kind(self):
        return _COMPARED[self.compare]

    def _count(self):
        """faster-coco-eval's tables: precision [T, R, K, areas, maxDets], recall [T, K, areas, maxDets].

        They are kept until images are added.
        """
        if self._counted is not self.collected.version:
            self._tables, self._counted = self._count_anew(), self.collected.version
        return self._tables

    def _count_anew(self):
        true_rows, found_rows, sizes = (
            self.collected.ground_truth(),
            self.collected.found(),
            self.collected.image_sizes(),
        )
        if not len(true_rows):
            return _empty_tables(len(self.class_names), self._kind)
        if not sizes.all():
            raise ValueError(_NO_SIZES)
        from faster_coco_eval import COCO, COCOeval_faster

        kind, sigmas = self._kind, None
        if self.compare == "keypoints":
            sigmas = keypoints.sigmas_of(true_rows, self.collected.keypoint_sigmas)
        ground_truth = COCO(print_function=_silent)
        ground_truth.dataset = {
            "images": [{"id": i + 1, "height": h, "width": w} for i, (h, w) in enumerate(sizes.tolist())],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(self.class_names)],
            "annotations": _true_annotations(true_rows, sizes, self.compare),
        }
        ground_truth.createIndex()
        found = COCO(print_function=_silent)
        number = true_rows[schema.KEYPOINTS].shape[1]
        annotations = _found_annotations(found_rows, sizes, self.compare, number)
        found.dataset = ground_truth.dataset | {"annotations": annotations}
        found.createIndex()
        evaluation = COCOeval_faster(
            ground_truth, found, iouType=kind.coco_name, print_function=_silent, kpt_oks_sigmas=sigmas
        )
        evaluation.params.maxDets = list(kind.max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        thresholds = np.asarray(evaluation.params.iouThrs)
        return {key: np.asarray(evaluation.eval[key]) for key in ("precision", "recall")} | {"thresholds": thresholds}


def _silent(*args, **kwargs):
    """faster-coco-eval prints to this."""


def _empty_tables(kinds, comparison):
    """The tables of no objects at all: everything undefined."""
    thresholds = np.linspace(0.5, 0.95, 10)
    shape = (len(comparison.areas), len(comparison.max_detections))
    return {
        "precision": np.full((len(thresholds), 101, kinds, *shape), UNDEFINED),
        "recall": np.full((len(thresholds), kinds, *shape), UNDEFINED),
        "thresholds": thresholds,
    }


def checked_comparison(compare, known=tuple(_COMPARED)):
    """`compare`. Raises `ValueError` unless it is one of `known`."""
    if compare not in known:
        raise ValueError(f"compare must be one of {', '.join(known)}. Received: compare={compare!r}")
    return compare


def has_masks(collected):
    """Whether both ground truth and detections have masks to compare."""
    return all(schema.MASKS in rows for rows in (collected.ground_truth(), collected.found()))


def further_comparisons(collected):
    """What can be compared beside boxes: "masks" and "keypoints" where both ground truth and detections have some."""
    compared = {"masks": has_masks(collected), "keypoints": keypoints.has_keypoints(collected)}
    return [name for name, possible in compared.items() if possible]


def _true_annotations(ground_truth, sizes, compare):
    """COCO's annotation dicts of the true objects."""
    boxes, areas = _coco_boxes(ground_truth, sizes)
    further = [{}] * len(ground_truth)
    if compare == "masks":
        ground_truth = with_every_mask(ground_truth, sizes)
        further = [{"segmentation": mask} for mask in ground_truth[schema.MASKS]]
        areas = _mask_areas(list(ground_truth[schema.MASKS]))
    elif compare == "keypoints":
        further = keypoints.true_entries(ground_truth, sizes)
    crowds = ground_truth.is_crowd
    areas = np.where(np.isnan(ground_truth.areas), areas, ground_truth.areas)
    columns = (ground_truth.image, ground_truth.labels, boxes, areas, crowds)
    return [
        {"id": i, "image_id": image + 1, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": int(crowd)}
        | more
        for i, ((image, label, box, area, crowd), more) in enumerate(
            zip(_lists(columns), further, strict=True), start=1
        )
    ]


def with_every_mask(ground_truth, sizes):
    """The true `Objects`, of which those without a mask are crowds that fill their boxes.

    Args:
        ground_truth: `Objects`.
        sizes: [N, 2] int, height and width of the images in pixels.
    """
    runs, crowds = ground_truth[schema.MASKS].copy(), ground_truth.is_crowd.copy()
    boxes, _ = _coco_boxes(ground_truth, sizes)
    of_image = {int(image): mask["size"] for image, mask in zip(ground_truth.image, runs, strict=True) if mask}
    for row in (row for row, mask in enumerate(runs) if mask is None):
        image = int(ground_truth.image[row])
        size = of_image.get(image, sizes[image].tolist())
        left, top, width, height = boxes[row] * np.tile(np.divide(size, sizes[image])[::-1], 2)
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        runs[row], crowds[row] = run_lengths([corners], size), True
    return Objects(ground_truth.image, {**ground_truth.columns, schema.MASKS: runs, schema.IS_CROWD: crowds})


def _mask_areas(runs):
    from faster_coco_eval.core import mask as coco_mask

    return np.asarray(coco_mask.area(runs), np.float64) if len(runs) else np.zeros(0)


def _found_annotations(found, sizes, compare, number):
    """COCO's annotation dicts of the detections; `number` keypoints each where these are compared."""
    boxes, areas = _coco_boxes(found, sizes)
    further = [{}] * len(found)
    if compare == "masks":
        further = [{"segmentation": mask} for mask in found[schema.MASKS]]
        areas = _mask_areas(list(found[schema.MASKS]))
    elif compare == "keypoints":
        further, areas = keypoints.found_entries(found, sizes, number)
    columns = (found.image, found.labels, boxes, areas, found.scores)
    return [
        {"id": i, "image_id": image + 1, "category_id": label + 1, "bbox": box, "area": area, "score": score} | more
        for i, ((image, label, box, area, score), more) in enumerate(
            zip(_lists(columns), further, strict=True), start=1
        )
    ]


def _coco_boxes(rows, sizes):
    """`([n, 4], [n])`: x, y, width and height in pixels, and their area."""
    corners = rows.boxes.astype(np.float64) * np.tile(sizes[rows.image], 2)
    (ymin, xmin, ymax, xmax) = corners.T
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1), (xmax - xmin) * (ymax - ymin)


def _lists(columns):
    return zip(*(column.tolist() for column in columns), strict=True)


def _select(tables, comparison, table, threshold, area, max_detections):
    """The part of a table that a metric averages, with its threshold axis kept."""
    values = tables[table][..., comparison.areas.index(area), comparison.max_detections.index(max_detections)]
    if threshold is not None:
        values = values[np.isclose(tables["thresholds"], threshold)]
    return values
