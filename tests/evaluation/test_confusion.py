"""The confusion matrix on hand-worked images."""

import numpy as np
import pytest

from keras_detect.evaluation import ConfusionMatrix
from tests.evaluation.test_pascal_voc import FAR, LEFT, RIGHT, image


def test_right_confused_missed_and_false():
    """a at LEFT is found; b at RIGHT is taken for a; c at FAR is found too weakly: missed; one c on the ground.

    The confused detection has the best score and overlaps nothing of its own class, and LEFT stays free for the right
    one although a detection of b lies on it with a better score: that one is a false alarm, its place being taken.
    """
    ground = [0.5, 0.0, 0.9, 0.3]
    metric = ConfusionMatrix(["a", "b", "c"], score_threshold=0.3)
    ground_truth = image([LEFT, RIGHT, FAR], [0, 1, 2])
    found = image([RIGHT, LEFT, LEFT, FAR, ground], [0, 1, 0, 2, 2], [0.9, 0.8, 0.7, 0.29, 0.6])
    metric.update(ground_truth, found)
    expected = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0]]
    np.testing.assert_array_equal(metric.matrix(), expected)
    result = metric.result()
    assert (result["precision"], result["recall"]) == (1 / 4, 1 / 3)
    assert result["precision_per_class"] == {"a": 0.5, "b": 0.0, "c": 0.0}
    assert result["recall_per_class"] == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_crowds_take_detections_of_their_class_out():
    """Inside the crowd of a: one a (out), one b (a false alarm)."""
    metric = ConfusionMatrix(["a", "b"])
    inside = [0.1, 0.1, 0.2, 0.2]
    metric.update(image([LEFT], [0], is_crowd=[True]), image([inside, inside], [0, 1], [0.9, 0.9]))
    np.testing.assert_array_equal(metric.matrix(), [[0, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_degenerate_inputs_are_defined():
    metric = ConfusionMatrix(["a"])
    np.testing.assert_array_equal(metric.matrix(), np.zeros((2, 2)))
    assert metric.result()["precision"] == metric.result()["recall"] == -1.0
    metric.update(image([], []), image([LEFT], [0], [0.5]))
    metric.update(image([LEFT], [0]), image([], [], []))
    np.testing.assert_array_equal(metric.matrix(), [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="iou_threshold"):
        ConfusionMatrix(["a"], iou_threshold=1.5)
