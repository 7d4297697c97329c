"""Localization losses: upstream's numbers, hand-worked values, degenerate boxes, slopes."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.losses import localization as losses
from tests.goldens import assert_close, both_modes, golden_cases
from tests.losses.gradients import assert_slopes, gradient

PARTS = {
    "smooth_l1": losses.SmoothL1Loss(),
    "smooth_l1_0.3": losses.SmoothL1Loss(delta=0.3),
    "l2": losses.L2Loss(),
    "l1_localization": losses.L1Loss(),
    "iou": losses.IouLoss(),
    "giou": losses.GiouLoss(),
}
parts = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())


@golden_cases(*(f"loss/{name}" for name in PARTS))
def test_upstream(case):
    inputs = [ops.convert_to_tensor(case.inputs[key]) for key in ("prediction", "target", "weights")]
    for call in both_modes(PARTS[case.name.removeprefix("loss/")]):
        # Upstream's IoU loss is flat, ours is [B, A] like the others.
        assert_close(call(*inputs), case.outputs["loss"].reshape(case.inputs["weights"].shape))


@parts
def test_one_value_per_anchor(part):
    # The same box: no loss. With weight 0: no loss however far.
    boxes = np.array([[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]]], "float32")
    assert_close(part(boxes, boxes, np.ones((1, 2), "float32")), [[0.0, 0.0]], 1e-6)
    assert_close(part(boxes, boxes[:, ::-1], np.zeros((1, 2), "float32")), [[0.0, 0.0]])


def test_hand_worked_codes():
    difference, weights = np.array([[[0.5, -2.0, 0.0, 1.0]]], "float32"), np.array([[3.0]], "float32")
    zeros = np.zeros_like(difference)
    # Squares 0.25 + 4 + 0 + 1 = 5.25, half of it, times 3 squared (the weight goes into the square).
    assert_close(losses.L2Loss()(difference, zeros, weights), [[23.625]])
    # Up to 1 the parabola: 0.125, 0, 0.5; beyond it 2 - 0.5 = 1.5. Sum 2.125, times 3.
    assert_close(losses.SmoothL1Loss()(difference, zeros, weights), [[6.375]])
    # delta 2: 0.125 + 2 + 0 + 0.5 = 2.625, times 3.
    assert_close(losses.SmoothL1Loss(delta=2.0)(difference, zeros, weights), [[7.875]])
    # 0.5 + 2 + 0 + 1 = 3.5, times 3.
    assert_close(losses.L1Loss()(difference, zeros, weights), [[10.5]])


def test_hand_worked_boxes():
    # Two 2 x 2 squares, one moved by (1, 1): intersection 1, union 7, hull 9.
    first, second = np.array([[[0.0, 0.0, 2.0, 2.0]]], "float32"), np.array([[[1.0, 1.0, 3.0, 3.0]]], "float32")
    weights = np.array([[2.0]], "float32")
    assert_close(losses.IouLoss()(first, second, weights), [[2 * (1 - 1 / 7)]])
    assert_close(losses.GiouLoss()(first, second, weights), [[2 * (1 - 1 / 7 + 2 / 9)]])


DEGENERATE = np.array(
    [
        [0.5, 0.5, 0.5, 0.5],  # a point
        [0.2, 0.2, 0.2, 0.8],  # a line
        [0.8, 0.8, 0.2, 0.2],  # reversed
        [0.0, 0.0, 0.0, 0.0],  # a padding row
        [0.1, 0.1, 0.4, 0.9],
        [1e6, 1e6, 1e6, 1e6],
    ],
    "float32",
)


@parts
def test_degenerate_boxes_have_finite_values_and_slopes(part):
    predictions, targets = np.repeat(DEGENERATE, 6, axis=0)[None], np.tile(DEGENERATE, (6, 1))[None]
    weights = np.ones((1, 36), "float32")
    for call in both_modes(part):
        assert np.all(np.isfinite(ops.convert_to_numpy(call(predictions, targets, weights))))
    slope = gradient(lambda x: ops.sum(part(x, targets, weights)), predictions)
    assert np.all(np.isfinite(slope))


@parts
def test_slopes(part):
    predictions = np.array([[[0.1, 0.2, 0.65, 0.7], [0.32, 0.3, 0.6, 0.95], [0.2, 0.1, 0.55, 0.4]]])
    targets = np.array([[[0.2, 0.1, 0.5, 0.9], [0.35, 0.25, 0.5, 0.8], [0.05, 0.25, 0.7, 0.5]]], "float32")
    weights = np.array([[1.0, 0.5, 2.0]], "float32")
    assert_slopes(lambda x: ops.sum(part(x, targets, weights)), predictions, list(range(12)), step=2e-3, tolerance=1e-2)


@parts
def test_round_trip(part):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(part))
    assert again == part


def test_low_precision_codes_are_computed_in_float32():
    codes = ops.cast(np.array([[[300.0, 0.1, 0.2, 0.3]]]), "float16")
    # 300 squared is beyond float16's 65504.
    actual = losses.L2Loss()(codes, np.zeros((1, 1, 4), "float32"), np.ones((1, 1), "float32"))
    assert_close(actual, [[45000.07]])


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan")])
def test_bad_delta(delta):
    with pytest.raises(ValueError, match="delta"):
        losses.SmoothL1Loss(delta=delta)
