"""A further suppression scheme is one function or part: matrix suppression, written here, in a post-processor."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.nms_candidates import SCHEMES, register_suppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.registry import part
from tests import goldens

# IoU of boxes 0 and 1 is 5 / 15 = 1/3, of 1 and 2 as well, of 0 and 2 nothing.
BOXES = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.25, 1.0, 0.75], [0.0, 0.5, 1.0, 1.0]]
SCORES = [[0.9, 0.0], [0.8, 0.7], [0.6, 0.0]]


@register_suppression("tests_matrix")
def matrix(candidates):
    """Linear matrix suppression (Wang et al. 2020, SOLOv2, equation 3): all scores fall at once."""
    pool = candidates.best()
    overlap = box_ops.iou(pool.boxes, pool.boxes) * candidates.rivals(pool)  # of each pair with the better ones
    decay = (1.0 - overlap) / (1.0 - ops.max(overlap, axis=-1)[:, None, :])
    scores = pool.scores * ops.min(decay, axis=-1)
    return candidates.rescored(pool, scores, ops.logical_and(pool.candidate, scores > 0.55))


@part
class LowestIndex:
    """Keeps the first `count` anchors, overlapping or not: a scheme with a setting."""

    count: int = 1

    def __call__(self, candidates):
        pool = candidates.best()
        keep = ops.logical_and(pool.candidate, pool.anchors < self.count)
        return candidates.rescored(pool, pool.scores, keep)


def detections(**settings):
    nms = MulticlassNonMaxSuppression(score_threshold=0.1, max_total_detections=4, **settings)
    postprocessor = Postprocessor(nms=nms, score_converter="identity", has_background=False)

    def function(encodings, scores):
        anchors = ops.convert_to_tensor(np.float32(BOXES))
        window = np.float32([[0, 0, 1, 1]])
        return postprocessor(encodings, scores, anchors, FasterRcnnBoxCoder(), window)

    results = []
    for run in goldens.both_modes(function):
        found = run(ops.zeros((1, 3, 4)), ops.convert_to_tensor(np.float32([SCORES])))
        results.append({key: ops.convert_to_numpy(value)[0] for key, value in found.items()})
    for key, value in results[0].items():
        np.testing.assert_allclose(value, results[-1][key], atol=1e-6)
    return results[0]


def test_a_registered_scheme():
    # Box 1 meets box 0: 0.8 x (1 - 1/3) = 0.533, which goes. Box 2 meets box 1, itself decayed by as much: it stays.
    # In class 1, box 1 is alone.
    found = detections(scheme="tests_matrix")
    np.testing.assert_allclose(found["scores"], [0.9, 0.7, 0.6, 0.0], atol=1e-6)
    assert found["labels"].tolist() == [0, 1, 0, -1] and found["num_detections"] == 3
    np.testing.assert_allclose(found["boxes"][:3], [BOXES[0], BOXES[1], BOXES[2]], atol=1e-6)


def test_a_scheme_as_a_part_travels_with_the_configuration():
    found = detections(scheme=LowestIndex(count=2))
    np.testing.assert_allclose(found["scores"], [0.9, 0.8, 0.7, 0.0], atol=1e-6)
    nms = MulticlassNonMaxSuppression(scheme=LowestIndex(count=2))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(nms))
    assert again == nms and again.scheme.count == 2


def test_the_named_schemes_are_what_the_settings_choose():
    assert {"greedy", "soft"} <= set(SCHEMES.names())
    for named, chosen in (
        ({"scheme": "greedy"}, {}),
        ({"scheme": "soft", "soft_nms_sigma": 0.5}, {"soft_nms_sigma": 0.5}),
    ):
        settings = {"iou_threshold": 0.3}
        named, chosen = detections(**named, **settings), detections(**chosen, **settings)
        for key, value in named.items():
            np.testing.assert_array_equal(value, chosen[key])


def test_a_configuration_without_a_scheme_loads():
    config = MulticlassNonMaxSuppression(iou_threshold=0.4).get_config()
    del config["scheme"]
    assert MulticlassNonMaxSuppression.from_config(config) == MulticlassNonMaxSuppression(iou_threshold=0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "gredy"}, "Did you mean greedy"),
        ({"scheme": "soft"}, "soft_nms_sigma belongs to the scheme 'soft'"),
        ({"scheme": "greedy", "soft_nms_sigma": 0.5}, "scheme='greedy', soft_nms_sigma=0.5"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MulticlassNonMaxSuppression(**settings)
