"""Which class is taken for which: the confusion matrix of a detector."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_detect.evaluation.average_precision import UNDEFINED
from keras_detect.evaluation.collected import Evaluator
from keras_detect.evaluation.matching import assign, best_pair, overlapping, score_ranks

BACKGROUND = "background"


class ConfusionMatrix(Evaluator):
    """Counts true classes against found ones, with a row for false alarms and a column for what was missed.

    Detections with a score from `score_threshold` on take part. By falling score, each takes the free object of its
    own class that it overlaps most, with an IoU of at least `iou_threshold`; those left over then take, in the same
    way, the objects left over of other classes: these are the confusions. What then is left of the objects was missed
    (column "background"), what is left of the detections is a false alarm (row "background"), except detections that
    lie with at least `iou_threshold` of their area in a crowd of their class, which do not count; nor do crowds.

    Args:
        class_names: the K class names.
        score_threshold: smallest score that counts.
        iou_threshold: smallest overlap that counts.
        collected: see `Evaluator`.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        score_threshold: float = 0.3,
        iou_threshold: float = 0.5,
        collected: Any = None,
    ):
        super().__init__(class_names, collected)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1]. Received: iou_threshold={iou_threshold}")
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold

    def matrix(self) -> np.ndarray:
        """[K + 1, K + 1] int: entry (i, j) counts objects of class i found as class j; the last is the background."""
        ground_truth, found, kinds = self.collected.ground_truth(), self.collected.found(), len(self.class_names)
        match, alone, missed = self._matched(ground_truth, found)
        matrix = np.zeros((kinds + 1, kinds + 1), np.int64)
        np.add.at(matrix, (ground_truth.labels[match[match >= 0]], found.labels[match >= 0]), 1)
        matrix[kinds, :kinds] = np.bincount(found.labels[alone], minlength=kinds)
        matrix[:kinds, kinds] = np.bincount(ground_truth.labels[missed], minlength=kinds)
        return matrix

    def errors_per_image(self) -> dict[str, np.ndarray]:
        """`{"confused", "false_alarms", "missed": [N] int}`: the entries of `matrix` off its diagonal, per image."""
        ground_truth, found, count = self.collected.ground_truth(), self.collected.found(), self.collected.count
        match, alone, missed = self._matched(ground_truth, found)
        confused = (match >= 0) & (ground_truth.labels[match] != found.labels) if len(ground_truth) else match >= 0
        images = {
            "confused": found.image[confused],
            "false_alarms": found.image[alone],
            "missed": ground_truth.image[missed],
        }
        return {kind: np.bincount(image, minlength=count) for kind, image in images.items()}

    def _matched(self, ground_truth, found):
        """`([n] the object of each detection or -1, [n] bool false alarms, [m] bool missed objects)`."""
        ranks = score_ranks(found.scores)
        pairs = overlapping(ground_truth, found, self.iou_threshold, ~ground_truth.is_crowd)
        pairs = pairs.where(found.scores[pairs.found] >= self.score_threshold)
        same = ground_truth.labels[pairs.ground_truth] == found.labels[pairs.found]
        right = assign(pairs.where(same), ranks)
        taken = np.zeros(len(ground_truth), bool)
        taken[right[right >= 0]] = True
        left = ~same & (right[pairs.found] < 0) & ~taken[pairs.ground_truth]
        match = np.where(right >= 0, right, assign(pairs.where(left), ranks))
        taken[match[match >= 0]] = True
        in_crowd = in_crowds(ground_truth, found, self.iou_threshold)
        alone = (match < 0) & ~in_crowd & (found.scores >= self.score_threshold)
        return match, alone, ~taken & ~ground_truth.is_crowd

    def result(self) -> dict[str, Any]:
        """
        Returns:
            dict: `"precision"` and `"recall"` over all classes at the two thresholds, `"precision_per_class"` and
            `"recall_per_class"` by name (-1 where nothing was found, or nothing was there), `"confusion_matrix"` (see
            `matrix`; lists), `"confusion_names"` of its rows and columns, and `"confusion_thresholds"`.
        """
        matrix = self.matrix()
        right, found, there = matrix.diagonal()[:-1], matrix.sum(axis=0)[:-1], matrix.sum(axis=1)[:-1]
        return {
            "precision": _share(right.sum(), found.sum()),
            "recall": _share(right.sum(), there.sum()),
            "precision_per_class": dict(zip(self.class_names, map(_share, right, found), strict=True)),
            "recall_per_class": dict(zip(self.class_names, map(_share, right, there), strict=True)),
            "confusion_matrix": matrix.tolist(),
            "confusion_names": [*self.class_names, BACKGROUND],
            "confusion_thresholds": {"score": self.score_threshold, "iou": self.iou_threshold},
        }


def in_crowds(ground_truth, found, at_least, compare="boxes"):
    """[n] bool: the detections that lie in a crowd of their own class with that share of their area."""
    pairs = overlapping(ground_truth, found, at_least, ground_truth.is_crowd, over="found", compare=compare)
    pairs = pairs.where(ground_truth.labels[pairs.ground_truth] == found.labels[pairs.found])
    return best_pair(pairs, len(found))[0] >= 0


def _share(part, whole):
    return float(part / whole) if whole else UNDEFINED
