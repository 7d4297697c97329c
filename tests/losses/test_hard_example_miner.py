import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.boxes.matchers import Match
from keras_detect.kernels import dispatch
from keras_detect.losses.hard_example_miner import HardExampleMiner
from tests import goldens

WAYS = {"default": contextlib.nullcontext, "portable": dispatch.portable_kernels}

# the keyword arguments that the golden's second half recorded as text
SETTINGS = {
    "hard_example_miner/both_64_0.7": {},
    "hard_example_miner/ssd": {
        "num_hard_examples": None,
        "iou_threshold": 1.0,
        "loss_type": "cls",
        "max_negatives_per_positive": 3,
        "min_negatives_per_image": 3,
    },
    "hard_example_miner/cls_10": {
        "num_hard_examples": 10,
        "iou_threshold": 0.99,
        "loss_type": "cls",
        "max_negatives_per_positive": 2.5,
    },
    "hard_example_miner/loc_8": {"num_hard_examples": 8, "iou_threshold": 0.5, "loss_type": "loc"},
}


def match_of(codes):
    """Upstream's codes: a row >= 0, -1 unmatched, -2 ignored."""
    codes = np.asarray(codes)
    return Match(
        ops.convert_to_tensor(np.maximum(codes, 0).astype("int32")),
        *map(ops.convert_to_tensor, (codes >= 0, codes == -2)),
    )


def numbers(values):
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def mine(miner, location, cls, boxes=None, codes=None):
    location, cls = np.atleast_2d(location), np.atleast_2d(cls)
    boxes = np.zeros((*location.shape, 4)) if boxes is None else boxes
    match = None if codes is None else match_of(np.atleast_2d(codes))
    return [float(value) for value in miner(numbers(location), numbers(cls), numbers(boxes), match)]


@pytest.mark.parametrize("way", WAYS)
@goldens.golden_cases("hard_example_miner/*")
def test_golden(case, way):
    assert str(SETTINGS[case.name]) == case.info["kwargs"]
    miner, inputs = HardExampleMiner(**SETTINGS[case.name]), case.inputs
    arguments = [inputs["loc_losses"], inputs["cls_losses"], np.stack([inputs["boxes0"], inputs["boxes1"]])]
    match = match_of(inputs["match"])
    with WAYS[way]():
        for function in goldens.both_modes(lambda *tensors: miner(*tensors, match)):
            location, cls = function(*map(numbers, arguments))
            goldens.assert_close(location, case.outputs["mined_loc"])
            goldens.assert_close(cls, case.outputs["mined_cls"])


def test_ratio_by_hand():
    # By falling loss: 9 (negative), 8 (ignored), 7 (positive), 6 (negative), 5 (negative), 4 (ignored).
    # One positive allows 2 negatives: 9 and 6. The ignored 8 is before they run out, at 5, and remains; 4 does not.
    miner = HardExampleMiner(num_hard_examples=None, iou_threshold=1.0, loss_type="cls", max_negatives_per_positive=2.0)
    cls, codes = [4.0, 9.0, 7.0, 5.0, 8.0, 6.0], [-2, -1, 0, -1, -2, -1]
    location = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert mine(miner, location, cls, codes=codes) == [2 + 16 + 4 + 32, 9 + 8 + 7 + 6]
    # Without a positive min_negatives_per_image counts: 9 and 8 only.
    miner = HardExampleMiner(
        iou_threshold=1.0, loss_type="cls", max_negatives_per_positive=2.0, min_negatives_per_image=2
    )
    assert mine(miner, location, cls, codes=[-1] * 6) == [2 + 16, 9 + 8]


@pytest.mark.parametrize("way", WAYS)
def test_suppression_by_hand(way):
    # IoU of the first two boxes: 8 / 12 = 2/3 > 0.5, so the easier (loss 3) is dropped; the third lies apart. The last
    # is reversed and meets nothing, not even itself.
    boxes = [[[0, 0, 10, 1], [2, 0, 12, 1], [20, 0, 30, 1], [9, 1, 0, 0]]]
    miner = HardExampleMiner(num_hard_examples=3, iou_threshold=0.5, loss_type="cls")
    with WAYS[way]():
        assert mine(miner, [[1.0, 2.0, 4.0, 8.0]], [[3.0, 5.0, 1.0, 2.0]], boxes) == [2 + 8 + 4, 5 + 2 + 1]
        miner = HardExampleMiner(num_hard_examples=2, iou_threshold=0.5, loss_type="cls")
        assert mine(miner, [[1.0, 2.0, 4.0, 8.0]], [[3.0, 5.0, 1.0, 2.0]], boxes) == [2 + 8, 5 + 2]


def test_images_are_mined_apart():
    # Two of each image, although the second image's losses are all larger.
    miner = HardExampleMiner(num_hard_examples=2, iou_threshold=1.0, loss_type="loc")
    location = [[1.0, 2.0, 3.0], [10.0, 30.0, 20.0]]
    assert mine(miner, location, np.ones((2, 3))) == [2 + 3 + 30 + 20, 4]


def test_equal_losses_take_the_first():
    miner = HardExampleMiner(num_hard_examples=2, iou_threshold=1.0, loss_type="cls")
    assert mine(miner, [1.0, 2.0, 4.0, 8.0], [5.0, 5.0, 5.0, 5.0]) == [3.0, 10.0]


def test_gradient_is_one_where_chosen():
    miner = HardExampleMiner(num_hard_examples=1, iou_threshold=0.5, loss_type="both")
    location, cls, boxes = numbers([[1.0, 3.0]]), numbers([[2.0, 1.0]]), numbers([[[0, 0, 1, 1], [0, 0, 1, 2]]])
    # 0.05 x 2 + 0.06 x 1 = 0.16 < 0.05 x 1 + 0.06 x 3 = 0.23: the second anchor.
    gradients = gradient(lambda a, b: sum(miner(a, b, boxes, None)), location, cls)
    for value in gradients:
        np.testing.assert_array_equal(value, [[0.0, 1.0]])


def gradient(function, *tensors):
    if goldens.BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = function(*tensors)
        return [ops.convert_to_numpy(value) for value in tape.gradient(total, tensors)]
    if goldens.BACKEND == "jax":
        import jax

        return [np.asarray(value) for value in jax.jit(jax.grad(function, argnums=(0, 1)))(*tensors)]
    tensors = [tensor.clone().requires_grad_(True) for tensor in tensors]
    function(*tensors).backward()
    return [ops.convert_to_numpy(tensor.grad) for tensor in tensors]


def test_nan_shows_and_infinity_outside_does_not():
    miner = HardExampleMiner(num_hard_examples=1, iou_threshold=1.0, loss_type="cls")
    assert np.isnan(mine(miner, [1.0, 2.0], [np.nan, 3.0])[1])
    # The infinite localization loss belongs to the anchor that is not chosen.
    assert mine(miner, [np.inf, 2.0], [1.0, 3.0]) == [2.0, 3.0]


def test_no_anchors_and_fewer_than_asked():
    miner = HardExampleMiner(num_hard_examples=64, iou_threshold=0.5)
    assert mine(miner, np.zeros((2, 0)), np.zeros((2, 0))) == [0.0, 0.0]
    assert mine(miner, [[1.0]], [[2.0]]) == [1.0, 2.0]


def test_wrong_settings():
    with pytest.raises(ValueError, match="loss_type 'clz'"):
        HardExampleMiner(loss_type="clz")
    with pytest.raises(ValueError, match="num_hard_examples must be at least 1"):
        HardExampleMiner(num_hard_examples=0)
    with pytest.raises(ValueError, match="must not be negative"):
        HardExampleMiner(max_negatives_per_positive=-1)
    with pytest.raises(ValueError, match="needs a match"):
        mine(HardExampleMiner(max_negatives_per_positive=3), [1.0], [1.0])


def test_config_round_trip():
    miner = HardExampleMiner(num_hard_examples=None, loss_type="cls", max_negatives_per_positive=3.0)
    config = keras.saving.serialize_keras_object(miner)
    assert keras.saving.deserialize_keras_object(config) == miner
