"""From which score on a detection is best believed: the threshold of the largest F1, per class and overall."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_detect.evaluation.average_precision import UNDEFINED, by_class
from keras_detect.evaluation.collected import Evaluator
from keras_detect.evaluation.confusion import in_crowds
from keras_detect.evaluation.matching import assign, overlapping, score_ranks


class ScoreThresholds(Evaluator):
    """Finds the score threshold at which F1 is largest.

    By falling score, each detection takes the free object of its class that it overlaps most, with an IoU of at least
    `iou_threshold`: right. The others are false, except those that lie with that share of their area in a crowd of
    their class, which do not count; nor do crowds. Of the detections with a score from the threshold on, F1 = 2 x right
    / (detections + objects). The threshold is midway between the lowest score that is kept and the highest one that
    is not, and is the lowest score itself where all are kept. Of several thresholds with the same F1, the highest.

    Args:
        class_names: the K class names.
        iou_threshold: smallest overlap that counts.
        collected: see `Evaluator`.

    Raises:
        ValueError: an `iou_threshold` outside (0, 1].
    """

    def __init__(self, class_names: Sequence[str], iou_threshold: float = 0.5, collected: Any = None):
        super().__init__(class_names, collected)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1]. Received: iou_threshold={iou_threshold}")
        self.iou_threshold = iou_threshold

    def result(self) -> dict[str, Any]:
        """
        Returns:
            dict: `"score_threshold"` over all classes together, with its `"f1"`; and
            `"score_thresholds_per_class"` `{class name: {"score_threshold", "f1", "precision", "recall"}}`. -1 where
            no detection is right, or there is no object.
        """
        ground_truth, found = self.collected.ground_truth(), self.collected.found()
        pairs = overlapping(ground_truth, found, self.iou_threshold, ~ground_truth.is_crowd)
        same = ground_truth.labels[pairs.ground_truth] == found.labels[pairs.found]
        right = assign(pairs.where(same), score_ranks(found.scores)) >= 0
        counts = right | ~in_crowds(ground_truth, found, self.iou_threshold)
        objects = np.bincount(ground_truth.labels[~ground_truth.is_crowd], minlength=len(self.class_names))
        per_class = {}
        for name, rows, there in zip(
            self.class_names, by_class(found.labels, len(self.class_names)), objects, strict=True
        ):
            rows = rows[counts[rows]]
            per_class[name] = _best(found.scores[rows], right[rows], int(there))
        overall = _best(found.scores[counts], right[counts], int(objects.sum()))
        return {
            "score_threshold": overall["score_threshold"],
            "f1": overall["f1"],
            "score_thresholds_per_class": per_class,
        }


def _best(scores, right, objects):
    """The threshold of the largest F1, with F1, precision and recall there."""
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(scores[1:] < scores[:-1], True)[: len(scores)])  # equal scores stay together
    if not objects or not len(hits) or not hits[-1]:
        return dict.fromkeys(("score_threshold", "f1", "precision", "recall"), UNDEFINED)
    f1 = 2 * hits[last] / (last + 1 + objects)
    best = last[np.argmax(f1)]
    threshold = scores[best]
    if best + 1 < len(scores):
        midway = np.float32((float(threshold) + float(scores[best + 1])) / 2)
        threshold = midway if midway > scores[best + 1] else threshold
    return {
        "score_threshold": float(threshold),
        "f1": float(f1.max()),
        "precision": float(hits[best] / (best + 1)),
        "recall": float(hits[best] / objects),
    }
