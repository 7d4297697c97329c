"""The comparison that every format's file has to pass."""

import numpy as np
import pytest

from keras_detect import schema
from keras_detect.export import verification
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from tests import tiny

BOXES = np.asarray([[0.1, 0.1, 0.5, 0.5], [0.2, 0.3, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0]], np.float32)


def detections(boxes=BOXES, scores=(0.9, 0.8, 0.7), labels=(0, 1, 0), room=5):
    missing = room - len(scores)
    return {
        schema.BOXES: np.pad(np.asarray(boxes, np.float32), ((0, missing), (0, 0)))[None],
        schema.SCORES: np.pad(np.asarray(scores, np.float32), (0, missing))[None],
        schema.LABELS: np.pad(np.asarray(labels, np.int32), (0, missing), constant_values=-1)[None],
        schema.NUM_DETECTIONS: np.asarray([len(scores)], np.int32),
    }


def test_equal_detections_in_another_order():
    order = [2, 0, 1]
    scores, labels = np.asarray([0.9, 0.8, 0.7])[order], np.asarray([0, 1, 0])[order]
    found = verification.compare(detections(), detections(BOXES[order], scores, labels), 1e-3)
    assert (found.detections, found.matched, found.missing) == (3, 3, 0)
    assert found.box_difference == 0.0


def test_the_largest_difference_is_reported():
    found = verification.compare(detections(), detections(BOXES + 5e-4, (0.9, 0.8, 0.7004)), 1e-3)
    assert found.missing == 0
    np.testing.assert_allclose((found.box_difference, found.score_difference), (5e-4, 4e-4), rtol=1e-3)


@pytest.mark.parametrize(
    "changed",
    [
        {"boxes": BOXES + 2e-3},
        {"scores": (0.9, 0.8, 0.71)},
        {"labels": (0, 1, 2)},
        {"boxes": BOXES[:2], "scores": (0.9, 0.8), "labels": (0, 1)},
        {"boxes": BOXES[:0], "scores": (), "labels": ()},
    ],
)
def test_a_difference_is_missing_on_one_side_or_both(changed):
    assert verification.compare(detections(), detections(**changed), 1e-3).missing > 0
    assert verification.compare(detections(**changed), detections(), 1e-3).missing > 0


def test_scores_that_all_lie_at_a_cut_excuse_nothing():
    boxes = np.tile([[0.1, 0.1, 0.5, 0.5]], (20, 1)) * np.linspace(0.5, 1.5, 20)[:, None]
    close = detections(boxes, np.full(20, 0.3), np.zeros(20), room=20)
    assert verification.compare(close, close, 1e-3).equal
    other = verification.compare(close, detections(boxes * 0.99, np.full(20, 0.3), np.zeros(20), room=20), 1e-3)
    assert not other.missing and not other.equal


def test_of_two_rivals_of_one_score_either_may_be_reported():
    """As measured on a float16 file: two anchors, the same class, an IoU of 0.8 and scores 4e-4 apart."""
    boxes = np.asarray([[0.01 * i, 0.01 * i, 0.01 * i + 0.3, 0.01 * i + 0.3] for i in range(100)], np.float32)
    scores, labels = np.linspace(0.9, 0.4, 100), np.zeros(100, int)
    moved = boxes.copy()
    moved[50] += [0.03, 0.0, 0.03, 0.0]
    expected, found = (detections(rows, scores, labels, room=101) for rows in (boxes, moved))
    result = verification.compare(expected, found, 1e-2, iou_threshold=0.6)
    assert (result.matched, result.missing, result.swapped, result.equal) == (99, 0, 1, True)
    assert verification.compare(expected, found, 1e-2).missing == 2  # a model without greedy suppression
    assert verification.compare(expected, found, 1e-2, iou_threshold=0.9).missing == 2  # both would be reported
    other_score = detections(moved, np.where(np.arange(100) == 50, 0.2, scores), labels, room=101)
    assert verification.compare(expected, other_score, 1e-2, iou_threshold=0.6).missing == 2
    moved[20] += [0.03, 0.0, 0.03, 0.0]  # two of a hundred are too many
    result = verification.compare(expected, detections(moved, scores, labels, room=101), 1e-2, iou_threshold=0.6)
    assert (result.missing, result.swapped, result.equal) == (0, 2, False)
    few = [detections(rows[50:51], scores[50:51], labels[:1]) for rows in (boxes, moved)]
    assert not verification.compare(*few, 1e-2, iou_threshold=0.6).equal


def tied(first, count=20, room=20):
    """`count` equal squares of one score, from number `first` on a line of 40 that do not overlap."""
    rows = first + np.arange(count)
    boxes = np.stack([rows / 40, np.zeros(count), (rows + 0.5) / 40, np.full(count, 0.1)], axis=1)
    return detections(boxes, np.full(count, 0.3), np.zeros(count), room=room)


def test_of_candidates_that_all_score_alike_any_may_be_reported():
    """As measured on an EfficientDet that was not trained: all scores are 0.00995."""
    every = tied(0, 40, 40)
    candidates = verification.Candidates(every[schema.BOXES][:, :, None], every[schema.SCORES][..., None])
    options = {"iou_threshold": 0.6, "candidates": candidates}
    result = verification.compare(tied(0), tied(15), 1e-3, **options)
    assert (result.matched, result.tied, result.missing, result.equal) == (5, 15, 0, True)
    assert verification.compare(tied(0), tied(0), 1e-3, **options).tied == 0
    assert not verification.compare(tied(0), tied(15), 1e-3, iou_threshold=0.6).equal
    moved = tied(15)
    moved[schema.BOXES][..., 1::2] += 0.02  # no candidate is there
    assert not verification.compare(tied(0), moved, 1e-3, **options).equal
    assert not verification.compare(moved, tied(0), 1e-3, **options).equal  # nor may predict have another box
    twice = tied(15)
    twice[schema.BOXES][0, 10:] = twice[schema.BOXES][0, :10]  # greedy suppression leaves one of two
    assert not verification.compare(tied(0), twice, 1e-3, **options).equal
    other_class = {**tied(15), schema.LABELS: np.ones((1, 20), np.int32)}
    two = np.stack([every[schema.SCORES], every[schema.SCORES] - 0.1], axis=-1)
    both = verification.Candidates(candidates.boxes, two)
    assert not verification.compare(tied(0), other_class, 1e-3, iou_threshold=0.6, candidates=both).equal
    better = tied(0)
    better[schema.SCORES][0, 0] = 0.4  # one detection is no tie
    result = verification.compare(better, tied(15), 1e-3, **options)
    assert (result.missing, result.equal) == (1, False)


def test_candidates_are_those_of_the_model():
    resizer = KeepAspectRatioResizer(min_dimension=64, max_dimension=64, pad_to_max_dimension=True)
    model = tiny.tiny_ssd(resizer=resizer)
    batch = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), dtype=np.uint8)
    candidates, found = verification.candidates_of(model, batch), verification.predicted(model, batch)
    assert candidates.scores.shape[2] == 3
    for image in range(2):
        for row in range(0, int(found[schema.NUM_DETECTIONS][image]), 5):
            box, score, label = (found[key][image, row] for key in (schema.BOXES, schema.SCORES, schema.LABELS))
            assert candidates.hold(image, box, score, label, 1e-5)
            assert not candidates.hold(image, box + 0.3, score, label, 1e-5)


def test_the_share_of_scores_at_the_lowest():
    assert verification.share_at_cut([tied(0)], 1e-3, 0.0) == 1.0
    assert verification.share_at_cut([detections(room=3)], 1e-3, 0.0) == pytest.approx(1 / 3)
    assert verification.share_at_cut([detections()], 1e-3, 0.0) == 0.0  # rows are left: nothing was cut
    assert verification.share_at_cut([detections()], 1e-3, 0.75) == pytest.approx(1 / 3)


def test_what_a_cut_may_have_taken_is_not_missing():
    weaker = {"boxes": BOXES[:2], "scores": (0.9, 0.8), "labels": (0, 1)}
    close = detections(scores=(0.9, 0.8, 0.3005))
    assert verification.compare(close, detections(**weaker), 1e-3, score_threshold=0.3).missing == 0
    assert verification.compare(close, detections(**weaker), 1e-3, score_threshold=0.2).missing == 1
    full = detections(scores=(0.9, 0.8, 0.8005), labels=(0, 1, 0), room=3)
    assert verification.compare(full, detections(**weaker, room=2), 1e-3).missing == 0
    assert verification.compare(full, detections(**weaker, room=3), 1e-3).missing == 1
