"""The kinds of error a detector makes and what each costs, as TIDE sorts them (Bolya et al. 2020, arXiv:2008.08115)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_detect.evaluation.average_precision import (
    UNDEFINED,
    at_coco_recalls,
    by_class,
    mean_of_defined,
    precision_recall,
)
from keras_detect.evaluation.coco import MASK_PREFIX, checked_comparison, with_every_mask
from keras_detect.evaluation.collected import Evaluator
from keras_detect.evaluation.confusion import in_crowds
from keras_detect.evaluation.matching import assign, best_pair, first_claims, overlapping, score_ranks

# kind -> what it means; foreground and background thresholds are those of `ErrorBreakdown`
ERROR_KINDS = {
    "classification": "overlaps an object of another class by the foreground threshold or more",
    "localization": "of an object of its class, with an overlap between the two thresholds",
    "both": "overlaps an object of another class between the two thresholds: wrong class and wrong place",
    "duplicate": "of an object of its class that a better-scored detection found already",
    "background": "overlaps every object by less than the background threshold",
    "missed": "an object that no detection found and that no classification or localization error covers",
}
_RIGHT, _IGNORED = "right", "ignored"


@dataclasses.dataclass(frozen=True, eq=False)
class _Outcomes:
    """What became of every detection and object.

    Attributes:
        kind: [n] str, of each detection: "right", "ignored" or one of `ERROR_KINDS`.
        labels, scores: [n] of each detection.
        target: [n] int: for classification and localization errors the object that was meant, else -1.
        mends: [n] bool: a mended detection would be right; it is the best-scored error of a free object.
        true_labels: [m] of each object, crowds excluded.
        missed: [m] bool.
        target_labels: [n] int, the class of `target`.
    """

    kind: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    target: np.ndarray
    mends: np.ndarray
    target_labels: np.ndarray
    true_labels: np.ndarray
    missed: np.ndarray


class ErrorBreakdown(Evaluator):
    """Sorts every false detection and every missed object into one kind, and says what AP each kind costs.

    Up to `max_detections` an image, by falling score, each takes the free object of its class that it overlaps most,
    with an IoU of at least `foreground` (0.5): right. What lies with that share of its area in a crowd of its class
    does not count. Each of the others is the first of these that holds: localization (`background` = 0.1 <= best IoU
    with its own class < 0.5), classification (best IoU with other classes >= 0.5), duplicate (best IoU with its own
    class >= 0.5), background (best IoU with any object < 0.1), both (the rest: 0.1 <= best IoU with other classes <
    0.5). The order is that of TIDE's published program.

    The cost of a kind is the AP50 (mean over classes of COCO's 101 points) that would be won without it alone:
    classification and localization errors take the class or place of the object they meant and become right, the
    best-scored where an object has several, and vanish where it was found already; duplicates, "both" and background
    errors vanish; missed objects need not be found. Costs do not add up. Other than in TIDE's program, a class without
    objects does not enter the mean (as in COCO) and a class whose every object was missed counts 1 without them, if
    nothing false is left in it.

    With `compare="masks"`, overlaps are those of masks, and the names of the results begin with "mask_"; an object
    without a mask is treated as a crowd that fills its box.

    Args:
        class_names: the K class names.
        foreground: IoU from which an object is found.
        background: IoU below which a detection has to do with no object.
        max_detections: detections of an image that take part, by falling score.
        collected: see `Evaluator`.
        compare: "boxes" or "masks".

    Raises:
        ValueError: an unknown `compare`; thresholds other than 0 < background < foreground <= 1.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        foreground: float = 0.5,
        background: float = 0.1,
        max_detections: int = 100,
        collected: Any = None,
        compare: str = "boxes",
    ):
        super().__init__(class_names, collected)
        self.compare = checked_comparison(compare, ("boxes", "masks"))
        if not 0 < background < foreground <= 1:
            raise ValueError(
                "The thresholds need 0 < background < foreground <= 1. "
                f"Received: foreground={foreground}, background={background}"
            )
        self.foreground, self.background, self.max_detections = foreground, background, max_detections

    def result(self) -> dict[str, Any]:
        """
        Returns:
            dict: `"error_ap"` (the AP50 the costs are measured from; -1 without objects), `"error_counts"` and
            `"error_costs"` `{kind: number}`, `"error_counts_per_class"` `{class name: {kind: count}}` (a detection
            counts for the class it was given, a missed object for its own), `"right_detections"`, and
            `"error_thresholds"`. Of masks, the names begin with "mask_".
        """
        outcomes = self._outcomes()
        ap = self._ap(outcomes.labels, outcomes.scores, outcomes.kind, outcomes, np.zeros(len(outcomes.missed), bool))
        rows = {kind: outcomes.labels[outcomes.kind == kind] for kind in ERROR_KINDS}
        rows["missed"] = outcomes.true_labels[outcomes.missed]
        by_kind = {kind: np.bincount(labels, minlength=len(self.class_names)) for kind, labels in rows.items()}
        result = {
            "error_ap": ap,
            "error_counts": {kind: int(counts.sum()) for kind, counts in by_kind.items()},
            # Without any object both are -1; a tiny negative difference comes from reading 101 points.
            "error_costs": {kind: max(0.0, self._mended(outcomes, kind) - ap) for kind in ERROR_KINDS},
            "error_counts_per_class": {
                name: {kind: int(counts[k]) for kind, counts in by_kind.items()}
                for k, name in enumerate(self.class_names)
            },
            "right_detections": int(np.sum(outcomes.kind == _RIGHT)),
            "error_thresholds": {"foreground": self.foreground, "background": self.background},
        }
        prefix = MASK_PREFIX if self.compare == "masks" else ""
        return {prefix + name: value for name, value in result.items()}

    def _outcomes(self):
        ground_truth, found = self.collected.ground_truth(), self._strongest()
        if self.compare == "masks":
            ground_truth = with_every_mask(ground_truth, self.collected.image_sizes())
        objects, ranks = ~ground_truth.is_crowd, score_ranks(found.scores)
        pairs = overlapping(ground_truth, found, self.background, objects, compare=self.compare)
        same = ground_truth.labels[pairs.ground_truth] == found.labels[pairs.found]
        match = assign(pairs.where(same & (pairs.overlap >= self.foreground)), ranks)
        own_object, own = best_pair(pairs.where(same), len(found))
        other_object, other = best_pair(pairs.where(~same), len(found))
        kind = np.select(
            [
                match >= 0,
                in_crowds(ground_truth, found, self.foreground, self.compare),
                (own >= self.background) & (own < self.foreground),
                other >= self.foreground,
                own >= self.foreground,
                np.maximum(own, other) < self.background,
            ],
            [_RIGHT, _IGNORED, "localization", "classification", "duplicate", "background"],
            "both",
        )
        target = np.where(kind == "localization", own_object, np.where(kind == "classification", other_object, -1))
        taken = np.zeros(len(ground_truth) + 1, bool)  # the last stands for "none"
        taken[match[match >= 0]] = True
        free = np.where(taken[target], -1, target)
        covered = np.zeros(len(ground_truth), bool)
        covered[free[free >= 0]] = True
        return _Outcomes(
            kind=kind,
            labels=found.labels,
            scores=found.scores,
            target=target,
            mends=first_claims(free, ranks),
            target_labels=np.append(ground_truth.labels, -1)[target],
            true_labels=ground_truth.labels[objects],
            missed=~taken[:-1][objects] & ~covered[objects],
        )

    def _strongest(self):
        """The `max_detections` best-scored detections of each image."""
        found = self.collected.found()
        order = np.lexsort((-found.scores, found.image))
        image = found.image[order]
        place = np.arange(len(order)) - np.searchsorted(image, image)
        return found.where(np.sort(order[place < self.max_detections]))

    def _mended(self, outcomes, kind):
        """The AP without the errors of a kind."""
        nothing = np.zeros(len(outcomes.missed), bool)
        if kind == "missed":
            return self._ap(outcomes.labels, outcomes.scores, outcomes.kind, outcomes, outcomes.missed)
        of_kind = outcomes.kind == kind
        mends = of_kind & outcomes.mends
        labels = np.where(mends, outcomes.target_labels, outcomes.labels)
        kinds = np.where(mends, _RIGHT, np.where(of_kind, _IGNORED, outcomes.kind))
        return self._ap(labels, outcomes.scores, kinds, outcomes, nothing)

    def _ap(self, labels, scores, kinds, outcomes, excused):
        """Mean over classes of AP at the foreground threshold; `excused` [m] objects need not be found."""
        count = len(self.class_names)
        there = np.bincount(outcomes.true_labels, minlength=count)
        wanted = np.bincount(outcomes.true_labels[~excused], minlength=count)
        correct, counts = (kinds == _RIGHT).astype(np.float64), kinds != _IGNORED
        aps = []
        for k, rows in enumerate(by_class(labels, count)):
            rows = rows[counts[rows]]
            if not there[k]:
                aps.append(UNDEFINED)
            elif not wanted[k]:
                aps.append(float(not len(rows)))
            else:
                curve = precision_recall(scores[rows], correct[rows], wanted[k])
                aps.append(float(at_coco_recalls(*curve).mean()))
        return mean_of_defined(aps)
