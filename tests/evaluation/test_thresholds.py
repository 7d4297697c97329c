"""The best score threshold on hand-worked images, and against trying every score."""

import numpy as np
import pytest

from keras_detect.evaluation import ConfusionMatrix, ScoreThresholds
from tests.evaluation.test_coco import random_images
from tests.evaluation.test_pascal_voc import FAR, LEFT, RIGHT, image

GROUND = [0.5, 0.0, 0.9, 0.3]


def test_the_threshold_lies_midway_below_the_last_detection_that_is_worth_it():
    """Objects: a at LEFT and RIGHT, b at FAR. Detections of a by score: right 0.9, false 0.75, right 0.5, false 0.25.

    F1 of a: 2 x 1 / (1 + 2) = 0.667, 2 x 1 / (2 + 2) = 0.5, 2 x 2 / (3 + 2) = 0.8, 2 x 2 / (4 + 2) = 0.667: from 0.5
    on, midway to 0.25. b: right 0.625, all that there is. Together, of 3 objects: 0.9: 2/4, 0.75: 2/5, 0.625: 4/6,
    0.5: 6/7, 0.25: 6/8.
    """
    metric = ScoreThresholds(["a", "b", "c"])
    metric.update(
        image([LEFT, RIGHT, FAR], [0, 0, 1]),
        image([LEFT, GROUND, RIGHT, GROUND, FAR], [0, 0, 0, 0, 1], [0.9, 0.75, 0.5, 0.25, 0.625]),
    )
    result = metric.result()
    a, b, c = (result["score_thresholds_per_class"][name] for name in "abc")
    assert a == pytest.approx({"score_threshold": 0.375, "f1": 0.8, "precision": 2 / 3, "recall": 1.0})
    assert b == pytest.approx({"score_threshold": 0.625, "f1": 1.0, "precision": 1.0, "recall": 1.0})
    assert set(c.values()) == {-1.0}
    assert (result["score_threshold"], result["f1"]) == pytest.approx((0.375, 6 / 7))


def test_equal_scores_stay_together():
    """Two at 0.5, one of them right, count from there on both. F1: 2 x 1 / (2 + 2); from 0.25 on 2 x 2 / (3 + 2)."""
    metric = ScoreThresholds(["a"])
    metric.update(image([LEFT, FAR], [0, 0]), image([GROUND, LEFT, FAR], [0, 0, 0], [0.5, 0.5, 0.25]))
    assert (metric.result()["score_threshold"], metric.result()["f1"]) == (0.25, 0.8)


def test_of_equal_f1_the_highest_threshold_is_taken():
    """Of three objects: right 0.875: 2 / (1 + 3); three false at 0.5: 2 / (4 + 3); right 0.25: 4 / (5 + 3)."""
    metric = ScoreThresholds(["a"])
    found = image([LEFT, GROUND, GROUND, GROUND, RIGHT], [0] * 5, [0.875, 0.5, 0.5, 0.5, 0.25])
    metric.update(image([LEFT, RIGHT, FAR], [0] * 3), found)
    assert (metric.result()["score_threshold"], metric.result()["f1"]) == (0.6875, 0.5)


def test_crowds_do_not_count():
    inside = [0.1, 0.1, 0.2, 0.2]
    metric = ScoreThresholds(["a"])
    ground_truth = image([LEFT, FAR], [0, 0], is_crowd=[True, False])
    metric.update(ground_truth, image([inside, FAR], [0, 0], [0.9, 0.5]))
    assert metric.result()["score_thresholds_per_class"]["a"]["precision"] == 1.0


def test_adjacent_floats_are_told_apart():
    high = np.float32(0.5)
    low = np.nextafter(high, np.float32(0))
    metric = ScoreThresholds(["a"])
    metric.update(image([LEFT], [0]), image([LEFT, GROUND], [0, 0], [high, low]))
    threshold = metric.result()["score_threshold"]
    assert list(np.array([high, low]) >= threshold) == [True, False]


def test_nothing_found_and_nothing_there_are_undefined():
    metric = ScoreThresholds(["a"])
    assert metric.result()["score_threshold"] == -1.0
    metric.update(image([], []), image([LEFT], [0], [0.5]))
    assert metric.result()["f1"] == -1.0
    metric.update(image([LEFT], [0]), image([FAR], [0], [0.5]))
    assert metric.result()["f1"] == -1.0
    with pytest.raises(ValueError, match="iou_threshold"):
        ScoreThresholds(["a"], iou_threshold=0)


def test_no_other_threshold_is_better():
    names = ["a", "b", "c"]
    metric, matrix = ScoreThresholds(names), ConfusionMatrix(names)
    for ground_truth, detections in random_images(np.random.default_rng(1), 8):
        ground_truth = {**ground_truth, "labels": np.minimum(ground_truth["labels"], 2)}
        metric.update(ground_truth, {**detections, "labels": np.minimum(detections["labels"], 2)})
    matrix.share(metric.collected)

    def f1_at(threshold):
        matrix.score_threshold = threshold
        result = matrix.result()
        precision, recall = max(result["precision"], 0), max(result["recall"], 0)
        return 2 * precision * recall / max(precision + recall, 1e-9)

    result = metric.result()
    scores = np.unique(metric.collected.found().scores)
    assert result["f1"] == pytest.approx(max(f1_at(score) for score in scores))
    assert f1_at(result["score_threshold"]) == pytest.approx(result["f1"])
