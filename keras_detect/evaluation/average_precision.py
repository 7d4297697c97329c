"""Precision and recall over falling scores, and the area under them as Pascal VOC and COCO take it."""

from typing import Any

import numpy as np

UNDEFINED = -1.0  # COCO's mark of a number without any true object to find
COCO_RECALLS = np.linspace(0.0, 1.0, 101)


def precision_recall(scores: Any, correct: Any, positives: Any) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection, by falling score (equal scores in the order given).

    Args:
        scores: [n] float.
        correct: [n] float: 0 for a false detection, the weight of the object for a right one (1 unless weighted).
        positives: number (or sum of weights) of objects to find, above 0.

    Returns:
        `(precision [n], recall [n])` float64.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    correct = np.asarray(correct, np.float64)[order]
    right, wrong = np.cumsum(correct), np.cumsum(correct <= 0)
    return right / np.maximum(right + wrong, np.finfo(np.float64).tiny), right / positives


def area_under_curve(precision, recall):
    """The area under the precision that no later precision exceeds (Pascal VOC 2010 and later); 0 for no detections."""
    if not len(precision):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def at_coco_recalls(precision, recall):
    """[101] the same envelope at recall 0.00, 0.01, ..., 1.00, 0 past the last one reached; its mean is COCO's AP."""
    if not len(precision):
        return np.zeros(len(COCO_RECALLS))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(recall, COCO_RECALLS, side="left")]


def by_class(labels, count):
    """Row indices of each of the `count` classes, a list of arrays, each in rising order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, count)))


def mean_of_defined(values):
    """The mean of the entries that are not `UNDEFINED`, or `UNDEFINED` where none is."""
    values = np.asarray(values, np.float64)
    values = values[values > UNDEFINED]
    return float(values.mean()) if values.size else UNDEFINED
