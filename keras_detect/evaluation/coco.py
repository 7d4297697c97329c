"""COCO's detection metrics on host arrays: the twelve numbers and the average precision of each class.

The counting is faster-coco-eval's; here the house's boxes become COCO's and the results get names.
"""

import keras
import numpy as np

from keras_detect import fields

# name -> (which table, IoU threshold or None for the mean over 0.50...0.95, area range, detections per picture and
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

UNDEFINED = -1.0
_AREAS = ("all", "small", "medium", "large")
_MAX_DETECTIONS = (1, 10, 100)


class COCOEvaluator:
    """Collects truth and detections picture by picture and computes COCO's metrics over all of them.

    What it keeps is small: per picture, the true rows and the detections as float32, no pixels.

    Args:
        class_names: the K class names.
    """

    def __init__(self, class_names):
        self.class_names = list(class_names)
        if not self.class_names:
            raise ValueError("COCO's metrics need the class names. Received an empty list.")
        self.reset()

    def reset(self):
        """Forgets every picture."""
        self._sizes, self._truth, self._detections = [], [], []

    def update(self, truth, detections, image_sizes=None):
        """Adds a batch of pictures.

        Args:
            truth: `y`: `"boxes"` [B, M, 4] normalised yxyx, `"labels"` [B, M] (rows below 0 are padding); optional
                `"is_crowd"` [B, M], `"areas"` [B, M] in pixels (COCO: the mask's area; default: the box's) and
                `"image_size"` [B, 2].
            detections: `"boxes"` [B, D, 4] normalised yxyx, `"scores"` [B, D], `"labels"` [B, D], optional
                `"num_detections"` [B]. Rows past it, with a label below 0 or a score that is no number do not count.
            image_sizes: [B, 2] height and width in pixels, which sort objects into small, medium and large; default:
                `truth["image_size"]`.

        Raises:
            ValueError: no image sizes, other batch sizes, or a label that no class name has.
        """
        truth, detections = _arrays(truth), _arrays(detections)
        sizes = truth.get("image_size") if image_sizes is None else np.asarray(image_sizes)
        if sizes is None:
            raise ValueError(
                "COCO's metrics by object size need the pictures' sizes in pixels. Received y without \"image_size\" "
                "and no image_sizes. Pass image_sizes [B, 2] (height, width)."
            )
        labels = truth[fields.LABELS] if fields.LABELS in truth else truth[fields.CLASSES]
        count = len(labels)
        if not count == len(sizes) == len(detections[fields.SCORES]):
            raise ValueError(
                "Truth, detections and image sizes must cover the same pictures. Received: "
                f"{count} of truth, {len(detections[fields.SCORES])} of detections, {len(sizes)} sizes"
            )
        for i in range(count):
            true_rows, found_rows = _true_rows(truth, labels, i, sizes[i]), _found_rows(detections, i)
            for what, rows in (("truth", true_rows), ("detections", found_rows)):
                if len(rows) and rows[:, 4].max() >= len(self.class_names):
                    raise ValueError(
                        f"Labels must lie in [0, {len(self.class_names)}), one per class name. Received label "
                        f"{int(rows[:, 4].max())} in the {what}."
                    )
            self._sizes.append(tuple(int(side) for side in sizes[i][:2]))
            self._truth.append(true_rows)
            self._detections.append(found_rows)

    def result(self):
        """The metrics over every picture added.

        Returns:
            dict of the twelve floats named in `COCO_METRICS` and `"map_per_class"`: `{class name: AP}`. As COCO does
            it, a number without any true object to find is -1: a class that is absent does not enter the means, an
            area range without objects is -1, and everything is -1 without pictures or without truth. With truth and
            no detections the numbers are 0.
        """
        if not any(len(rows) for rows in self._truth):
            names = dict.fromkeys(COCO_METRICS, UNDEFINED)
            return names | {"map_per_class": dict.fromkeys(self.class_names, UNDEFINED)}
        tables = self._count()
        results = {name: _mean(_select(tables, *spec)) for name, spec in COCO_METRICS.items()}
        precision = _select(tables, *COCO_METRICS["map"])
        per_class = {name: _mean(precision[:, :, k]) for k, name in enumerate(self.class_names)}
        return results | {"map_per_class": per_class}

    def _count(self):
        """faster-coco-eval's tables: precision [T, R, K, areas, maxDets], recall [T, K, areas, maxDets]."""
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(print_function=_silent)
        truth.dataset = {
            "images": [{"id": i + 1, "height": h, "width": w} for i, (h, w) in enumerate(self._sizes)],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(self.class_names)],
            "annotations": _annotations(self._sizes, self._truth, ("area", "iscrowd")),
        }
        truth.createIndex()
        found = COCO(print_function=_silent)
        found.dataset = truth.dataset | {"annotations": _annotations(self._sizes, self._detections, ("score",))}
        found.createIndex()
        evaluation = COCOeval_faster(truth, found, iouType="bbox", print_function=_silent)
        evaluation.params.maxDets = list(_MAX_DETECTIONS)
        evaluation.evaluate()
        evaluation.accumulate()
        thresholds = np.asarray(evaluation.params.iouThrs)
        return {key: np.asarray(evaluation.eval[key]) for key in ("precision", "recall")} | {"thresholds": thresholds}


def _silent(*args, **kwargs):
    """faster-coco-eval prints to this."""


def to_host(tensor):
    """A numpy array of a tensor of the running backend, of tf.data or of anything array-like."""
    return np.asarray(keras.ops.convert_to_numpy(tensor) if keras.ops.is_tensor(tensor) else tensor)


def _arrays(tensors):
    return {key: to_host(value) for key, value in tensors.items()}


def _true_rows(truth, labels, i, size):
    """[n, 7] float32: box, label, area in pixels, crowd."""
    keep = labels[i] >= 0
    boxes = truth[fields.BOXES][i][keep].astype(np.float32)
    height, width = (float(side) for side in size[:2])
    box_areas = (boxes[:, 2] - boxes[:, 0]) * height * (boxes[:, 3] - boxes[:, 1]) * width
    areas = truth["areas"][i][keep] if "areas" in truth else box_areas
    crowd = truth[fields.IS_CROWD][i][keep] if fields.IS_CROWD in truth else np.zeros(len(boxes))
    return np.column_stack([boxes, labels[i][keep], areas, crowd]).astype(np.float32)


def _found_rows(detections, i):
    """[n, 6] float32: box, label, score."""
    scores, labels = detections[fields.SCORES][i].astype(np.float32), detections[fields.LABELS][i]
    keep = (labels >= 0) & np.isfinite(scores)
    if fields.NUM_DETECTIONS in detections:
        keep &= np.arange(len(scores)) < int(np.reshape(detections[fields.NUM_DETECTIONS][i], ()))
    boxes = detections[fields.BOXES][i][keep].astype(np.float32)
    return np.column_stack([boxes, labels[keep], scores[keep]]).astype(np.float32)


def _annotations(sizes, rows_of_images, extras):
    """COCO's annotation dicts; `rows` are box, label and the columns named by `extras`."""
    annotations = []
    for i, ((height, width), rows) in enumerate(zip(sizes, rows_of_images, strict=True)):
        boxes = rows[:, :4].astype(np.float64) * np.array([height, width] * 2)
        for (ymin, xmin, ymax, xmax), row in zip(boxes.tolist(), rows.tolist(), strict=True):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": i + 1,
                "category_id": int(row[4]) + 1,
                "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                "area": (xmax - xmin) * (ymax - ymin),
                "iscrowd": 0,
            }
            annotation.update(zip(extras, row[5:], strict=True))
            annotation["iscrowd"] = int(annotation["iscrowd"])
            annotations.append(annotation)
    return annotations


def _select(tables, table, threshold, area, max_detections):
    """The part of a table that a metric averages, with its threshold axis kept."""
    values = tables[table][..., _AREAS.index(area), _MAX_DETECTIONS.index(max_detections)]
    if threshold is not None:
        values = values[np.isclose(tables["thresholds"], threshold)]
    return values


def _mean(values):
    """The mean of the defined entries (COCO marks the others with -1), or -1 where none is."""
    values = values[values > UNDEFINED]
    return float(values.mean()) if values.size else UNDEFINED
