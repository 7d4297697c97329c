"""Which detection meets which true object: overlaps as a sparse list of pairs, and one-to-one assignment, vectorized.

No loop over images: all images' pairs are formed at once, in chunks that bound memory.
"""

import dataclasses

import numpy as np

from keras_detect import schema

_PAIRS_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Detections and true objects of one image that overlap.

    Attributes:
        found: [n] int, row of the detection.
        ground_truth: [n] int, row of the true object.
        overlap: [n] float64.
    """

    found: np.ndarray
    ground_truth: np.ndarray
    overlap: np.ndarray

    def where(self, keep):
        """The pairs of a boolean mask or index array."""
        return Pairs(self.found[keep], self.ground_truth[keep], self.overlap[keep])


def overlapping(ground_truth, found, at_least, ground_truth_rows=None, over="union", compare="boxes"):
    """The pairs of one image whose overlap reaches a positive `at_least`, ordered by detection, then by true object.

    Args:
        ground_truth, found: `Objects`, each in the order of the images.
        at_least: smallest overlap, above 0.
        truth_rows: bool mask or rising indices of the true objects that take part; default: all.
        over: "union" (intersection over union), or "found" (over the detection's own area: how much of it is in
            a crowd or group).
        compare: "boxes", or "masks" where both tables have one for every row.

    Returns:
        `Pairs`; rows count in the whole tables.
    """
    rows = (
        np.arange(len(ground_truth)) if ground_truth_rows is None else np.arange(len(ground_truth))[ground_truth_rows]
    )
    if not len(rows) or not len(found):
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    images = int(max(ground_truth.image[rows[-1]], found.image[-1])) + 1
    per_image = np.bincount(ground_truth.image[rows], minlength=images)
    first = np.concatenate([[0], np.cumsum(per_image)])
    partners = per_image[found.image]
    ends = np.cumsum(partners)
    parts, start = [], 0
    while start < len(found):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        detections = np.repeat(np.arange(start, stop), partners[start:stop])
        within = np.arange(len(detections)) - np.repeat(
            ends[start:stop] - partners[start:stop] - before, partners[start:stop]
        )
        objects = rows[first[found.image[detections]] + within]
        if compare == "masks":
            overlap = _mask_overlap(ground_truth, found, objects, detections, over)
        else:
            overlap = _overlap(ground_truth.boxes[objects], found.boxes[detections], over)
        keep = overlap >= at_least
        parts.append(Pairs(detections[keep], objects[keep], overlap[keep]))
        start = stop
    return Pairs(
        *(np.concatenate([getattr(part, key) for part in parts]) for key in ("found", "ground_truth", "overlap"))
    )


def _overlap(true_boxes, found_boxes, over):
    """[n] intersections of row-wise pairs over their union, or over the detection's area; 0 where that is 0."""
    a, b = true_boxes.astype(np.float64), found_boxes.astype(np.float64)
    sides = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0.0)
    intersection = sides[:, 0] * sides[:, 1]
    whole = _area(b) if over == "found" else _area(a) + _area(b) - intersection
    return np.divide(intersection, whole, out=np.zeros_like(whole), where=whole > 0)


def _mask_overlap(ground_truth, found, objects, detections, over):
    """As `_overlap`, of the masks of pairs of rows."""
    from faster_coco_eval.core import mask as coco_mask

    overlap, image = np.zeros(len(objects)), found.image[detections]
    for number in np.unique(image):
        pairs = np.flatnonzero(image == number)
        mine, mine_of = np.unique(detections[pairs], return_inverse=True)
        theirs, theirs_of = np.unique(objects[pairs], return_inverse=True)
        rows = found[schema.MASKS][mine].tolist(), ground_truth[schema.MASKS][theirs].tolist()
        overlap[pairs] = np.asarray(coco_mask.iou(*rows, [over == "found"] * len(theirs)))[mine_of, theirs_of]
    return overlap


def _area(boxes):
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]


def score_ranks(scores):
    """[n] int: 0 for the highest score; of equal scores the earlier row is the better."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks


def best_pair(pairs, count):
    """`(ground_truth [count] int, overlap [count])` of each detection's largest overlap; the first of equal ones.

    A detection without a pair has `ground_truth` -1 and overlap 0.
    """
    ground_truth, overlap = np.full(count, -1), np.zeros(count)
    order = np.lexsort((pairs.ground_truth, -pairs.overlap, pairs.found))
    found, first = np.unique(pairs.found[order], return_index=True)
    ground_truth[found], overlap[found] = pairs.ground_truth[order][first], pairs.overlap[order][first]
    return ground_truth, overlap


def first_claims(ground_truth, ranks):
    """[n] bool: of the detections that claim one true object, the best-scored; -1 in `ground_truth` [n] claims none."""
    first = np.zeros(len(ground_truth), bool)
    claiming = np.flatnonzero(ground_truth >= 0)
    claiming = claiming[np.argsort(ranks[claiming], kind="stable")]
    first[claiming[np.unique(ground_truth[claiming], return_index=True)[1]]] = True
    return first


def assign(pairs, ranks):
    """One-to-one: by falling score, each detection takes the still free object that it overlaps most.

    Computed for all images at once as a stable matching (Gale and Shapley, 1962): a detection asks for its best
    object, the object keeps the best-scored that asked, the others ask for their next. As all objects rank the
    detections alike there is one stable matching, and it is what going through the scores one by one gives.

    Args:
        pairs: the admissible `Pairs`.
        ranks: [n] int, a detection's place by falling score.

    Returns:
        [n] int: the true object of each detection, -1 for none.
    """
    count = len(ranks)
    order = np.lexsort((pairs.ground_truth, -pairs.overlap, ranks[pairs.found]))
    asks, objects = ranks[pairs.found[order]], pairs.ground_truth[order]
    pointer = np.searchsorted(asks, np.arange(count))
    ends = np.searchsorted(asks, np.arange(count), side="right")
    holder = np.full(int(objects.max()) + 1 if len(objects) else 0, count)
    live = np.flatnonzero(pointer < ends)
    while True:
        np.minimum.at(holder, objects[pointer[live]], live)
        lost = live[holder[objects[pointer[live]]] != live]
        if not len(lost):
            break
        pointer[lost] += 1
        live = live[pointer[live] < ends[live]]
    by_rank = np.full(count, -1)
    by_rank[live] = objects[pointer[live]]
    return by_rank[ranks]
