import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_detect.boxes import box_coders
from tests.goldens import assert_close, both_modes, golden_cases

host = keras.ops.convert_to_numpy

CODERS = {
    "faster_rcnn": box_coders.FasterRcnnBoxCoder(),
    "faster_rcnn_10_10_5_5": box_coders.FasterRcnnBoxCoder(scale_factors=(10, 10, 5, 5)),
    "mean_stddev_0.1": box_coders.MeanStddevBoxCoder(stddev=0.1),
    "square": box_coders.SquareBoxCoder(),
    "square_10_10_5": box_coders.SquareBoxCoder(scale_factors=(10, 10, 5)),
    "keypoint3": box_coders.KeypointBoxCoder(num_keypoints=3),
    "keypoint3_10_10_5_5": box_coders.KeypointBoxCoder(num_keypoints=3, scale_factors=(10, 10, 5, 5)),
}
# anchor centered at (2, 3), 4 high and 2 wide
ANCHOR = np.array([[0.0, 2.0, 4.0, 4.0]], "float32")


def box_of_square_anchor():
    """The square of the anchor's area, at its center (2, 3)."""
    half = math.sqrt(8) / 2
    return [2 - half, 3 - half, 2 + half, 3 + half]


@golden_cases("box_coder/*")
def test_codes_and_boxes_equal_upstream(case):
    coder = CODERS[case.name.removeprefix("box_coder/")]
    boxes, anchors, codes = (case.inputs[name] for name in ("boxes", "anchors", "codes"))
    decoded = case.outputs["decoded"]
    if "keypoints" in case.inputs:
        boxes = np.concatenate([boxes, case.inputs["keypoints"].reshape(len(boxes), -1)], axis=-1)
        decoded = np.concatenate([decoded, case.outputs["decoded_keypoints"].reshape(len(boxes), -1)], axis=-1)
    for encode in both_modes(coder.encode):
        assert_close(encode(boxes, anchors), case.outputs["encoded"])
    for decode in both_modes(coder.decode):
        assert_close(decode(codes, anchors), decoded)
    assert coder.code_size == codes.shape[-1]


def test_faster_rcnn_by_hand():
    # box centered at (3, 3), 2 high and 2 wide: (3 - 2) / 4, 0, log(2 / 4), log(2 / 2); times 10, 10, 5, 5
    coder = box_coders.FasterRcnnBoxCoder(scale_factors=(10, 10, 5, 5))
    codes = np.array([[2.5, 0.0, 5 * math.log(0.5), 0.0]], "float32")
    assert_close(coder.encode([[2.0, 2.0, 4.0, 4.0]], ANCHOR), codes)
    assert_close(coder.decode(codes, ANCHOR), [[2.0, 2.0, 4.0, 4.0]])


def test_square_by_hand():
    # the anchor's square has side sqrt(8); the box is 2 x 8 at center (2, 7), its square has side 4
    side = math.sqrt(8)
    codes = box_coders.SquareBoxCoder().encode([[1.0, 3.0, 3.0, 11.0]], ANCHOR)
    assert_close(codes, [[0.0, 4 / side, math.log(4 / side)]])
    assert_close(box_coders.SquareBoxCoder().decode(codes, ANCHOR), [[0.0, 5.0, 4.0, 9.0]])


def test_mean_stddev_by_hand():
    coder = box_coders.MeanStddevBoxCoder(stddev=0.5)
    assert_close(coder.encode([[1.0, 2.0, 3.0, 7.0]], ANCHOR), [[2.0, 0.0, -2.0, 6.0]])
    assert_close(coder.decode([[2.0, 0.0, -2.0, 6.0]], ANCHOR), [[1.0, 2.0, 3.0, 7.0]])


def test_keypoints_by_hand():
    # keypoint (4, 4): (4 - 2) / 4 and (4 - 3) / 2, times 10
    coder = box_coders.KeypointBoxCoder(num_keypoints=1, scale_factors=(10, 10, 5, 5))
    box = np.concatenate([ANCHOR, [[4.0, 4.0]]], axis=-1)
    assert_close(coder.encode(box, ANCHOR), [[0, 0, 0, 0, 5.0, 5.0]])
    assert_close(coder.decode([[0, 0, 0, 0, 5.0, 5.0]], ANCHOR), box)


_coordinate, _side = st.floats(-1, 2, width=32), st.floats(1 / 64, 2, width=32)
_box = st.tuples(_coordinate, _coordinate, _side, _side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


@pytest.mark.parametrize("name", [name for name in CODERS if not name.startswith("square")])
@settings(max_examples=15, deadline=None)
@given(boxes=st.lists(_box, min_size=4, max_size=4), anchors=st.lists(_box, min_size=4, max_size=4))
def test_decoding_undoes_encoding(name, boxes, anchors):
    coder = CODERS[name]
    extra = np.linspace(-1, 2, coder.code_size - 4) * np.ones((4, 1))
    boxes = np.concatenate([np.array(boxes), extra], axis=-1).astype("float32")
    anchors = np.array(anchors, "float32")
    # Smallest anchor 1/64, largest distance 5: float32 loses up to 5 x 64 x 1e-7 anchor sizes.
    assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes, 1e-4)


@pytest.mark.parametrize("name", ["square", "square_10_10_5"])
def test_square_decoding_keeps_center_and_area(name):
    boxes = np.array([[0.1, 0.2, 0.5, 0.3], [0.0, 0.0, 1.0, 1.0]], "float32")
    decoded = host(CODERS[name].decode(CODERS[name].encode(boxes, ANCHOR), ANCHOR))
    assert_close(decoded[:, :2] + decoded[:, 2:], boxes[:, :2] + boxes[:, 2:])
    sizes, wanted = decoded[:, 2:] - decoded[:, :2], np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    assert_close(np.prod(sizes, axis=-1), wanted)
    assert_close(sizes[:, 0], sizes[:, 1])


@pytest.mark.parametrize("name", CODERS)
def test_degenerate_ground_truth_has_finite_codes(name):
    inf = np.inf
    boxes = np.array(
        [[0.2, 0.1, 0.2, 0.5], [0.3] * 4, [0.6, 0.5, 0.2, 0.1], [-inf, -inf, inf, inf], [0, 0, inf, 0], [inf] * 4],
        "float32",
    )
    coder = CODERS[name]
    boxes = np.concatenate([boxes, np.full((len(boxes), coder.code_size - 4), inf)], -1) if "key" in name else boxes
    anchors = np.concatenate([np.repeat(ANCHOR, 5, axis=0), [[0.5] * 4]])  # the last anchor has no size
    for encode in both_modes(coder.encode):
        assert np.isfinite(host(encode(boxes.astype("float32"), anchors.astype("float32")))).all()


@pytest.mark.parametrize("name", CODERS)
def test_huge_codes_decode_to_finite_boxes(name):
    coder = CODERS[name]
    values = np.array([[0, 1e3, 1e30, np.inf, -1e3, -np.inf]], "float32").T
    for decode in both_modes(coder.decode):
        boxes = host(decode(np.repeat(values, coder.code_size, axis=1), ANCHOR))
        assert np.isfinite(boxes).all()
        assert_close(boxes[0, :4], ANCHOR[0] if "square" not in name else box_of_square_anchor())


@pytest.mark.parametrize("name", CODERS)
def test_anchors_serve_a_batch_and_half_precision_is_raised(name):
    coder = CODERS[name]
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(2, 3, coder.code_size)).astype("float16")
    anchors = np.array([[0, 0, 1, 1], [0.2, 0.1, 0.6, 0.9], [-0.5, 0, 0.5, 2]], "float32")
    boxes = host(coder.decode(codes, anchors))
    assert boxes.dtype == np.float32
    for image in range(2):
        np.testing.assert_array_equal(boxes[image], host(coder.decode(codes[image], anchors)))
    again = host(coder.encode(boxes, np.stack([anchors, anchors])))
    if not name.startswith("mean"):  # its boxes may come out reversed, the others' never
        assert_close(again, codes, 1e-3)


@pytest.mark.parametrize("name", CODERS)
def test_config_round_trip(name):
    config = keras.saving.serialize_keras_object(CODERS[name])
    assert keras.saving.deserialize_keras_object(config) == CODERS[name]


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"needs 4 positive scale_factors.*\(10.0, 10.0\)"):
        box_coders.FasterRcnnBoxCoder(scale_factors=(10, 10))
    with pytest.raises(ValueError, match="needs 3 positive"):
        box_coders.SquareBoxCoder(scale_factors=[1, 1, 0])
    with pytest.raises(ValueError, match="stddev=0"):
        box_coders.MeanStddevBoxCoder(stddev=0)
    with pytest.raises(ValueError, match="num_keypoints=0"):
        box_coders.KeypointBoxCoder(num_keypoints=0)
