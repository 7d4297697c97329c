import keras
import numpy as np
import pytest

from keras_detect.boxes import similarity
from tests.goldens import assert_close, both_modes, golden_cases

MEASURES = {
    "iou": similarity.IouSimilarity(),
    "ioa": similarity.IoaSimilarity(),
    "neg_sq_dist": similarity.NegSquaredDistanceSimilarity(),
}


@golden_cases("similarity")
def test_similarities_equal_upstream(case):
    for name, measure in MEASURES.items():
        for function in both_modes(measure):
            assert_close(function(case.inputs["boxes1"], case.inputs["boxes2"]), case.outputs[name], err_msg=name)


@golden_cases("similarity/thresholded_iou_0.3")
def test_thresholded_iou_equals_upstream(case):
    measure = similarity.ThresholdedIouSimilarity(iou_threshold=0.3)
    for function in both_modes(lambda *boxes: measure(*boxes)):
        inputs = (case.inputs[name] for name in ("boxes1", "boxes2", "scores1"))
        assert_close(function(*inputs), case.outputs["sim"])


def test_thresholded_iou_without_scores_counts_pairs():
    # IoU of the unit square with its left half is 0.5 and with its left quarter 0.25.
    boxes2 = [[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.25]]
    measure = similarity.ThresholdedIouSimilarity(iou_threshold=0.3)
    assert_close(measure([[0.0, 0.0, 1.0, 1.0]], boxes2), [[1.0, 0.0]])


@pytest.mark.parametrize("measure", [*MEASURES.values(), similarity.ThresholdedIouSimilarity(iou_threshold=0.3)])
def test_config_round_trip(measure):
    config = keras.saving.serialize_keras_object(measure)
    assert keras.saving.deserialize_keras_object(config) == measure


@pytest.mark.parametrize("measure", MEASURES.values())
def test_apart_is_what_disjoint_boxes_have_at_most(measure):
    value = keras.ops.convert_to_numpy(measure([[0.0, 0.0, 1.0, 1.0]], [[2.0, 2.0, 3.0, 3.0]]))
    assert np.isfinite(value).all()
    assert measure.apart in (value.item(), -np.inf)
