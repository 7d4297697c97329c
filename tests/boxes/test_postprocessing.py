import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder, KeypointBoxCoder
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from tests import goldens

CODER = FasterRcnnBoxCoder()
WHOLE = np.float32([[0, 0, 1, 1]])


def postprocess(
    postprocessor, encodings, logits, anchors, window=WHOLE, coder=CODER, compiled=goldens.BACKEND == "jax"
):
    def function(encodings, logits):
        return postprocessor(encodings, logits, ops.convert_to_tensor(np.float32(anchors)), coder, window)

    function = goldens.compiled(function) if compiled else function
    found = function(*(ops.convert_to_tensor(np.asarray(value, "float32")) for value in (encodings, logits)))
    return {key: ops.convert_to_numpy(value) for key, value in found.items()}


def nms(**settings):
    return MulticlassNonMaxSuppression(**{"max_total_detections": 3, "score_threshold": 0.05, **settings})


def test_by_hand():
    # Anchor 1 is centered at (0.4, 0.3) and 0.2 x 0.2. Codes (0.5, 0, log 2, 0) move the center by half the height to
    # (0.5, 0.3) and double the height: [0.3, 0.2, 0.7, 0.4]. The true image is the upper left [0, 0, 0.5, 0.4] of the
    # padded one: clipped to [0.3, 0.2, 0.5, 0.4], divided by its size [0.6, 0.5, 1, 1].
    anchors = [[0.0, 0.0, 0.1, 0.1], [0.3, 0.2, 0.5, 0.4]]
    encodings = [[[0, 0, 0, 0], [0.5, 0, np.log(2), 0]]]
    # Background first: its large logit is not reported. sigmoid(0) = 0.5, sigmoid(-9) < 0.05.
    logits = [[[9, -9, -9], [9, -9, 0]]]
    for function in (False, True):
        found = postprocess(
            Postprocessor(nms=nms()), encodings, logits, anchors, np.float32([[0, 0, 0.5, 0.4]]), compiled=function
        )
        assert set(found) == {schema.BOXES, schema.SCORES, schema.LABELS, schema.NUM_DETECTIONS}
        np.testing.assert_allclose(found["boxes"][0], [[0.6, 0.5, 1, 1], [0] * 4, [0] * 4], atol=1e-6)
        np.testing.assert_allclose(found["scores"], [[0.5, 0, 0]], atol=1e-7)
        assert found["labels"].tolist() == [[1, -1, -1]] and found["num_detections"].tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "logits", "score"),
    [
        ({"score_converter": "sigmoid"}, [0.0, np.log(3.0)], 0.75),  # 3 / (3 + 1)
        ({"score_converter": "sigmoid", "logit_scale": 2.0}, [0.0, 2 * np.log(3.0)], 0.75),
        ({"score_converter": "softmax"}, [np.log(2.0), np.log(3.0)], 0.6),  # 3 / (2 + 3)
        ({"score_converter": "identity"}, [7.0, 4.0], 4.0),
        ({"score_converter": "sigmoid", "has_background": False}, [np.log(3.0)], 0.75),
        ({"score_converter": "softmax", "has_background": False}, [0.0, -30.0], 1.0),
    ],
)
def test_score_converters(settings, logits, score):
    found = postprocess(Postprocessor(nms=nms(), **settings), np.zeros((1, 1, 4)), [[logits]], WHOLE)
    np.testing.assert_allclose(found["scores"], [[score, 0, 0]], rtol=1e-6)
    assert found["labels"].tolist() == [[0, -1, -1]]


def test_boxes_per_class_and_anchors_per_image():
    # Class 1 of image 1 moves its anchor by half its height.
    anchors = [[[0, 0, 0.5, 0.5]], [[0.25, 0.25, 0.75, 0.75]]]
    encodings = np.zeros((2, 1, 2, 4))
    encodings[1, 0, 1, 0] = 0.5
    logits = [[[2.0, -9.0]], [[-9.0, 2.0]]]
    found = postprocess(Postprocessor(nms=nms(), has_background=False), encodings, logits, anchors)
    np.testing.assert_allclose(found["boxes"][:, 0], [[0, 0, 0.5, 0.5], [0.5, 0.25, 1, 0.75]], atol=1e-6)
    assert found["labels"][:, 0].tolist() == [0, 1]


def test_only_the_box_of_a_longer_code_is_reported():
    found = postprocess(
        Postprocessor(nms=nms()), np.zeros((1, 1, 8)), [[[0.0, 1.0]]], WHOLE, coder=KeypointBoxCoder(num_keypoints=2)
    )
    np.testing.assert_allclose(found["boxes"][0, 0], WHOLE[0], atol=1e-6)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision_predictions_are_processed_in_float32(dtype):
    # 2049 / 4096 and 2051 / 4096 have no float16 or bfloat16; the float32 anchors come through unrounded.
    anchors = np.float32([[0, 0, 2049 / 4096, 1], [0, 0.5, 2051 / 4096, 1.5]])
    found = Postprocessor(nms=nms())(
        ops.zeros((1, 2, 4), dtype), ops.cast([[[0.0, 2.0], [0.0, 1.0]]], dtype), anchors, CODER, WHOLE
    )
    assert keras.backend.standardize_dtype(found["boxes"].dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(found["boxes"])[0, :2, 2], anchors[:, 2], rtol=1e-6)


def test_nan_predictions_are_left_out():
    # Anchor 0 has a NaN code, anchor 1 a NaN logit for class 0 only.
    encodings = [[[np.nan, 0, 0, 0], [0, 0, 0, 0]]]
    logits = [[[3.0, 3.0], [np.nan, 1.0]]]
    found = postprocess(Postprocessor(nms=nms(), has_background=False), encodings, logits, np.tile(WHOLE, (2, 1)))
    assert found["num_detections"].tolist() == [1] and found["labels"].tolist() == [[1, -1, -1]]
    np.testing.assert_allclose(found["boxes"][0, 0], WHOLE[0], atol=1e-6)


def test_golden_detections_of_a_whole_model():
    """Upstream's SSD: the anchors behind its 100 detections, with all their scores, give those detections again.

    A pair that is suppressed is so by a better one, which is itself among the detections; so leaving out all other
    anchors changes nothing.
    """
    path = goldens.golden("ssd_mobilenet_v2_320x320_coco17_tpu-8.npz")
    with np.load(path) as golden:
        data = {key: golden[key] for key in golden.files if not key.startswith("pred/feature_maps")}
    chosen, first = np.unique(data["post/detection_anchor_indices"][0].astype(int), return_index=True)
    coder = FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0))
    postprocessor = Postprocessor(
        nms=MulticlassNonMaxSuppression(score_threshold=1e-8, iou_threshold=0.6), score_converter="identity"
    )
    found = postprocess(
        postprocessor,
        data["pred/box_encodings"][:, chosen],
        data["post/detection_multiclass_scores"][:, first],
        data["pred/anchors"][chosen],
        coder=coder,
        compiled=True,
    )
    goldens.assert_close(found["boxes"], data["post/detection_boxes"])
    goldens.assert_close(found["scores"], data["post/detection_scores"])
    np.testing.assert_array_equal(found["labels"], data["post/detection_classes"])
    np.testing.assert_array_equal(found["num_detections"], data["post/num_detections"])
    boxes = coder.decode(data["pred/box_encodings"], data["pred/anchors"])
    goldens.assert_close(boxes, data["post/raw_detection_boxes"])


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"score converter 'sigmoi'. Did you mean sigmoid"):
        Postprocessor(nms=nms(), score_converter="sigmoi")
    with pytest.raises(ValueError, match="logit_scale must be positive"):
        Postprocessor(nms=nms(), logit_scale=0.0)


def test_config_round_trip():
    postprocessor = Postprocessor(nms=nms(iou_threshold=0.3), score_converter="softmax")
    config = keras.saving.serialize_keras_object(postprocessor)
    assert keras.saving.deserialize_keras_object(config) == postprocessor
