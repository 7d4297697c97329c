"""Mean average precision of Pascal VOC, plain and weighted, and of Open Images, as upstream counts it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_detect.evaluation.average_precision import (
    UNDEFINED,
    area_under_curve,
    by_class,
    mean_of_defined,
    precision_recall,
)
from keras_detect.evaluation.collected import Evaluator
from keras_detect.evaluation.matching import best_pair, first_claims, overlapping, score_ranks


class PascalVOCEvaluator(Evaluator):
    """Pascal VOC's average precision (Everingham et al. 2010; the area rule of VOC 2010 and later).

    Of each class, by falling score: a detection belongs to the object it overlaps most, in whole at least
    `iou_threshold`; the first of an object is right, a further one is wrong, as is one without an object. A detection
    that belongs to a difficult object counts neither way, and difficult objects need not be found; crowds are taken as
    difficult. Boxes of detections without an area are skipped.

    Args:
        class_names: the K class names.
        iou_threshold: smallest overlap that counts.
        weighted: the mean AP is that of all classes' detections in one list, so that frequent classes weigh more.
        collected: see `Evaluator`.
    """

    name = "voc"

    def __init__(
        self, class_names: Sequence[str], iou_threshold: float = 0.5, weighted: bool = False, collected: Any = None
    ):
        super().__init__(class_names, collected)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1]. Received: iou_threshold={iou_threshold}")
        self.iou_threshold = iou_threshold
        self.weighted = weighted

    def result(self) -> dict[str, Any]:
        """
        Returns:
            dict of `"voc_map"` and `"voc_map_per_class"` `{class name: AP}` (with `weighted`: `"weighted_voc_map"`,
            ...). A class without an object to find is -1 and does not enter the mean; without any, the mean is -1.
        """
        outcomes, positives = self._outcomes()
        aps = [
            area_under_curve(*precision_recall(rows[0], rows[1], objects)) if objects > 0 else UNDEFINED
            for rows, objects in zip(outcomes, positives, strict=True)
        ]
        mean = mean_of_defined(aps)
        if self.weighted and positives.sum() > 0:
            pooled = [rows for rows, objects in zip(outcomes, positives, strict=True) if objects > 0]
            scores, correct = (np.concatenate(column) for column in zip(*pooled, strict=True))
            mean = area_under_curve(*precision_recall(scores, correct, positives.sum()))
        name = f"weighted_{self.name}_map" if self.weighted else f"{self.name}_map"
        return {name: mean, f"{name}_per_class": dict(zip(self.class_names, aps, strict=True))}

    def _outcomes(self):
        """Per class `(scores, correct)` of the detections that count, and [K] objects to find."""
        ground_truth, found = self.collected.ground_truth(), self._counted()
        difficult = ground_truth.is_difficult | ground_truth.is_crowd
        correct, ignored, _ = self._match_objects(ground_truth, found, np.ones(len(ground_truth), bool), difficult)
        rows = [rows[~ignored[rows]] for rows in by_class(found.labels, len(self.class_names))]
        positives = np.bincount(ground_truth.labels[~difficult], minlength=len(self.class_names))
        return [(found.scores[of], correct[of].astype(np.float64)) for of in rows], positives

    def _counted(self):
        """The detections whose box has an area."""
        found = self.collected.found()
        return found.where((found.boxes[:, :2] < found.boxes[:, 2:]).all(axis=1))

    def _match_objects(self, ground_truth, found, objects, difficult):
        """`(correct, ignored, ranks)` of the detections against the masked `objects`."""
        pairs = overlapping(ground_truth, found, self.iou_threshold, objects)
        pairs = pairs.where(ground_truth.labels[pairs.ground_truth] == found.labels[pairs.found])
        best, _ = best_pair(pairs, len(found))
        ignored = (best >= 0) & difficult[best] if len(ground_truth) else np.zeros(len(found), bool)
        ranks = score_ranks(found.scores)
        return first_claims(np.where(ignored, -1, best), ranks), ignored, ranks


class OpenImagesEvaluator(PascalVOCEvaluator):
    """Open Images' average precision (V2 and the challenge of 2018): VOC's with groups and verified labels.

    A detection that no single object makes right and that lies, with at least `iou_threshold` of its own area, in a
    group-of box of its class belongs to the group and is not false. With `group_of_weight` 0 (V2) groups need not be
    found; with a weight w (the challenge: 1) a group counts as w objects, found by its best detection. Where the ground
    truth has `"verified_labels"`, detections of classes neither annotated nor verified in their image do not count.
    Crowds are taken as groups. Labels are taken as they are: expand them along the class hierarchy beforehand.

    Args:
        class_names: the K class names.
        iou_threshold: smallest overlap that counts, for objects and groups.
        group_of_weight: what a group counts.
        collected: see `Evaluator`.
    """

    name = "open_images"

    def __init__(
        self,
        class_names: Sequence[str],
        iou_threshold: float = 0.5,
        group_of_weight: float = 0.0,
        collected: Any = None,
    ):
        super().__init__(class_names, iou_threshold, collected=collected)
        if group_of_weight < 0:
            raise ValueError(f"group_of_weight must not be negative. Received: group_of_weight={group_of_weight}")
        self.group_of_weight = group_of_weight

    def _outcomes(self):
        ground_truth, found = self.collected.ground_truth(), self._counted()
        verified = self.collected.verified()
        if verified is not None:
            found = found.where(verified[found.image, found.labels])
        groups = ground_truth.is_group_of | ground_truth.is_crowd
        correct, ignored, ranks = self._match_objects(ground_truth, found, ~groups, ground_truth.is_difficult)
        inside = overlapping(ground_truth, found, self.iou_threshold, groups, over="found")
        inside = inside.where(ground_truth.labels[inside.ground_truth] == found.labels[inside.found])
        group, _ = best_pair(inside, len(found))
        group = np.where(correct | ignored, -1, group)
        scores, weights = found.scores, correct.astype(np.float64)
        if self.group_of_weight > 0:
            # A group is found once, with the score of its best detection.
            best = first_claims(group, ranks)
            weights = np.where(best, self.group_of_weight, weights)
            ignored |= (group >= 0) & ~best
        else:
            ignored |= group >= 0
        rows = [rows[~ignored[rows]] for rows in by_class(found.labels, len(self.class_names))]
        count = len(self.class_names)
        positives = np.bincount(ground_truth.labels[~groups & ~ground_truth.is_difficult], minlength=count)
        positives = positives + self.group_of_weight * np.bincount(ground_truth.labels[groups], minlength=count)
        return [(scores[of], weights[of]) for of in rows], positives
