"""Pairs, one-to-one assignment and first claims against plain loops over random overlaps."""

import numpy as np
import pytest

from keras_detect.evaluation import matching
from keras_detect.evaluation.objects import Objects


def tables(rng, images=7, most=6):
    """Random true objects and detections, some images without one or the other."""
    made = []
    for scored in (False, True):
        image = np.repeat(np.arange(images), rng.integers(0, most, images))
        corner = rng.uniform(0, 0.5, (len(image), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, corner.shape)], axis=1).astype(np.float32)
        labels = rng.integers(0, 2, len(image))
        scores = {"scores": rng.uniform(size=len(image)).astype(np.float32)} if scored else {}
        made.append(Objects(image, {"boxes": boxes, "labels": labels} | scores))
    return made


def plain_overlap(a, b, over):
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(height, 0) * max(width, 0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return both / (area_b if over == "found" else area_a + area_b - both)


@pytest.mark.parametrize("over", ["union", "found"])
@pytest.mark.parametrize("at_once", [1, 5, 1 << 20])
def test_pairs_are_what_a_loop_finds(over, at_once, monkeypatch):
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", at_once)
    ground_truth, found = tables(np.random.default_rng(0), images=12)
    rows = ground_truth.labels == 0
    expected = [
        (i, j, plain_overlap(ground_truth.boxes[j].astype(float), found.boxes[i].astype(float), over))
        for i in range(len(found))
        for j in np.flatnonzero(rows)
        if ground_truth.image[j] == found.image[i]
    ]
    expected = [entry for entry in expected if entry[2] >= 0.2]
    pairs = matching.overlapping(ground_truth, found, 0.2, rows, over)
    np.testing.assert_array_equal(np.stack([pairs.found, pairs.ground_truth], 1), np.array([e[:2] for e in expected]))
    np.testing.assert_allclose(pairs.overlap, [entry[2] for entry in expected], atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_assignment_is_what_going_through_the_scores_gives(seed):
    ground_truth, found = tables(np.random.default_rng(seed), most=9)
    pairs = matching.overlapping(ground_truth, found, 0.1)
    expected, free = np.full(len(found), -1), set(range(len(ground_truth)))
    for i in np.argsort(-found.scores):
        own = np.flatnonzero(pairs.found == i)
        options = [(-pairs.overlap[p], pairs.ground_truth[p]) for p in own if pairs.ground_truth[p] in free]
        if options:
            expected[i] = min(options)[1]
            free.discard(expected[i])
    np.testing.assert_array_equal(matching.assign(pairs, matching.score_ranks(found.scores)), expected)


def test_equal_scores_go_to_the_earlier_row():
    np.testing.assert_array_equal(matching.score_ranks(np.array([0.5, 0.9, 0.5])), [1, 0, 2])
    np.testing.assert_array_equal(matching.first_claims(np.array([3, 3, -1, 0]), np.array([1, 0, 2, 3])), [0, 1, 0, 1])


def test_no_rows_at_all():
    rng = np.random.default_rng(0)
    ground_truth, found = tables(rng, images=1, most=1)
    pairs = matching.overlapping(ground_truth, found, 0.5)
    assert len(pairs.found) == 0
    assert matching.assign(pairs, matching.score_ranks(found.scores)).shape == (0,)
    best, overlap = matching.best_pair(pairs, 3)
    assert (best.tolist(), overlap.tolist()) == ([-1] * 3, [0.0] * 3)
