"""Classification losses: upstream's numbers, hand-worked values, extreme logits, slopes."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.losses import classification as losses
from tests.goldens import assert_close, both_modes, golden_cases
from tests.losses.gradients import assert_slopes, gradient

# Upstream's name of a case, without the suffix for its weights -> our part
PARTS = {
    "sigmoid": losses.SigmoidCrossEntropyLoss(),
    "focal_2_0.25": losses.SigmoidFocalLoss(gamma=2.0, alpha=0.25),
    "focal_1.5_none": losses.SigmoidFocalLoss(gamma=1.5, alpha=None),
    "softmax": losses.SoftmaxCrossEntropyLoss(),
    "softmax_scale3": losses.SoftmaxCrossEntropyLoss(logit_scale=3.0),
    "softmax_against_logits": losses.SoftmaxAgainstLogitsLoss(),
    "bootstrapped_soft_0.5": losses.BootstrappedSigmoidLoss(alpha=0.5, bootstrap_type="soft"),
    "bootstrapped_hard_0.5": losses.BootstrappedSigmoidLoss(alpha=0.5, bootstrap_type="hard"),
    "penalty_reduced_focal": losses.PenaltyReducedLogisticFocalLoss(),
    "penalty_reduced_focal_2_4": losses.PenaltyReducedLogisticFocalLoss(alpha=2.0, beta=4.0),
    "dice": losses.DiceLoss(),
    "dice_sq": losses.DiceLoss(squared_normalization=True),
}
SMOOTH = [part for name, part in PARTS.items() if name != "bootstrapped_hard_0.5"]
parts = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())


@golden_cases(*(f"loss/{name}{suffix}" for name in PARTS for suffix in ("", "_w6")))
def test_upstream(case):
    part = PARTS[case.name.removeprefix("loss/").removesuffix("_w6")]
    inputs = [ops.convert_to_tensor(case.inputs[key]) for key in ("prediction", "target", "weights")]
    for call in both_modes(part):
        assert_close(call(*inputs), case.outputs["loss"])


def one(value):
    return np.array([[[value]]], "float32")


def value_of(part, logit, target):
    return float(ops.convert_to_numpy(part(one(logit), one(target), one(1.0))).ravel()[0])


def test_sigmoid_hand_worked():
    # sigmoid(0) = 1/2 costs log 2 either way; sigmoid(log 3) = 3/4 costs -log(3/4) as a positive, -log(1/4) else.
    part = losses.SigmoidCrossEntropyLoss()
    assert value_of(part, 0.0, 1.0) == pytest.approx(math.log(2), abs=1e-6)
    assert value_of(part, math.log(3), 1.0) == pytest.approx(-math.log(3 / 4), abs=1e-6)
    assert value_of(part, math.log(3), 0.0) == pytest.approx(-math.log(1 / 4), abs=1e-6)


def test_focal_hand_worked():
    # p = 3/4: a positive costs 0.25 * (1/4)^2 * -log(3/4), a negative 0.75 * (3/4)^2 * -log(1/4).
    part = losses.SigmoidFocalLoss(gamma=2.0, alpha=0.25)
    assert value_of(part, math.log(3), 1.0) == pytest.approx(0.25 / 16 * -math.log(3 / 4), rel=1e-5)
    assert value_of(part, math.log(3), 0.0) == pytest.approx(0.75 * 9 / 16 * -math.log(1 / 4), rel=1e-5)


def test_focal_without_gamma_and_alpha_is_cross_entropy():
    rng = np.random.default_rng(0)
    logits, targets, weights = rng.normal(size=(3, 2, 5, 4)).astype("float32")
    targets = (targets > 0).astype("float32")
    plain = losses.SigmoidCrossEntropyLoss()(logits, targets, weights)
    assert_close(losses.SigmoidFocalLoss(gamma=0.0, alpha=None)(logits, targets, weights), ops.convert_to_numpy(plain))


def test_softmax_hand_worked():
    # exp of (log 1, log 2, log 5) / 8 = 1/8, 2/8, 5/8; the label is the second: -log(1/4) times the mean weight 2.
    logits = np.log(np.array([[[1.0, 2.0, 5.0]]], "float32"))
    targets, weights = np.array([[[0.0, 1.0, 0.0]]], "float32"), np.array([[[1.0, 2.0, 3.0]]], "float32")
    assert_close(losses.SoftmaxCrossEntropyLoss()(logits, targets, weights), [[2 * math.log(4)]])
    # A temperature of 1/2 doubles the logits: exp gives 1, 4, 25 of 30.
    assert_close(losses.SoftmaxCrossEntropyLoss(logit_scale=0.5)(logits, targets, weights), [[2 * math.log(30 / 4)]])


def test_penalty_reduced_hand_worked():
    # p = 3/4: at a center (1/4)^2 * -log(3/4); at a target of 1/2, (1/2)^4 * (3/4)^2 * -log(1/4).
    part = losses.PenaltyReducedLogisticFocalLoss(alpha=2.0, beta=4.0)
    assert value_of(part, math.log(3), 1.0) == pytest.approx(-math.log(3 / 4) / 16, rel=1e-5)
    assert value_of(part, math.log(3), 0.5) == pytest.approx(-math.log(1 / 4) * 9 / 256, rel=1e-5)


def test_dice_of_nothing_is_one():
    zeros = np.zeros((1, 3, 2), "float32")
    for squared in (False, True):
        part = losses.DiceLoss(squared_normalization=squared, from_logits=False)
        assert_close(part(zeros, zeros, zeros[..., :1] + 1), [[1.0, 1.0]])
        assert np.all(gradient(lambda x, part=part: ops.sum(part(x, zeros, zeros)), zeros) == 0.0)


@parts
def test_extreme_logits_stay_finite(part):
    logits = np.array([-1e4, -100.0, -20.0, -0.0, 0.0, 20.0, 100.0, 1e4], "float32")
    for label in (0.0, 0.3, 1.0):
        x = np.tile(logits[None, :, None], (1, 1, 2)) * np.array([1.0, -1.0], "float32")
        targets, weights = np.full(x.shape, label, "float32"), np.ones((1, 8, 1), "float32")
        for call in both_modes(part):
            assert np.all(np.isfinite(ops.convert_to_numpy(call(x, targets, weights))))
        slope = gradient(lambda x, part=part, t=targets, w=weights: ops.sum(part(x, t, w)), x)
        assert np.all(np.isfinite(slope))


def test_sigmoid_of_huge_logits_is_the_logit():
    part = losses.SigmoidCrossEntropyLoss()
    assert value_of(part, 1e4, 0.0) == 1e4
    assert value_of(part, -1e4, 1.0) == 1e4
    assert value_of(part, 1e4, 1.0) == 0.0


@pytest.mark.parametrize("part", SMOOTH, ids=repr)
def test_slopes(part):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 3, 4)) * 2
    targets = (rng.uniform(size=(2, 3, 4)) < 0.4).astype("float32")
    weights = rng.uniform(0.5, 1.0, size=(2, 3, 1)).astype("float32")
    assert_slopes(lambda x: ops.sum(part(x, targets, weights)), logits, [0, 5, 10, 17, 23])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_slopes(gamma):
    part = losses.SigmoidFocalLoss(gamma=gamma, alpha=None)
    logits, targets = np.array([[[-3.0, -0.5, 0.0, 0.5, 3.0]]]), np.array([[[1.0, 0.0, 1.0, 1.0, 0.0]]], "float32")
    assert_slopes(lambda x: ops.sum(part(x, targets, one(1.0))), logits, [0, 1, 2, 3, 4])


def test_slope_at_zero_is_half():
    # d/dx of log(1 + exp(x)) - x t at 0 is 1/2 - t: a head that starts with zeros must feel both labels.
    part = losses.SigmoidCrossEntropyLoss()
    for target in (0.0, 1.0):
        slope = gradient(lambda x, t=target: ops.sum(part(x, one(t), one(1.0))), one(0.0))
        assert slope.item() == pytest.approx(0.5 - target)


def test_a_softmax_row_without_target_has_no_slope():
    zeros = np.zeros((1, 1, 3), "float32")
    part = losses.SoftmaxCrossEntropyLoss()
    assert np.all(gradient(lambda x: ops.sum(part(x, zeros, zeros + 1.0)), zeros + 0.5) == 0.0)


@parts
def test_low_precision_logits_are_computed_in_float32(part):
    rng = np.random.default_rng(5)
    logits = ops.cast(rng.normal(size=(1, 4, 3)) * 3, "bfloat16")
    targets, weights = np.ones((1, 4, 3), "float32"), np.ones((1, 4, 1), "float32")
    actual = part(logits, targets, weights)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    assert_close(actual, ops.convert_to_numpy(part(ops.cast(logits, "float32"), targets, weights)))


@parts
def test_an_anchor_of_weight_zero_changes_nothing(part):
    rng = np.random.default_rng(7)
    logits, targets = rng.normal(size=(1, 4, 3)).astype("float32"), np.ones((1, 4, 3), "float32")
    weights = np.array([1.0, 1.0, 0.0, 1.0], "float32")[None, :, None]
    moved = logits.copy()
    moved[:, 2] += 50.0
    before, after = (ops.convert_to_numpy(ops.sum(part(x, targets, weights))) for x in (logits, moved))
    assert before == after


@parts
def test_round_trip(part):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(part))
    assert again == part
    assert hash(again) == hash(part)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.SigmoidFocalLoss(gamma=-1.0), "gamma=-1.0"),
        (lambda: losses.SigmoidFocalLoss(alpha=1.5), "alpha=1.5"),
        (lambda: losses.SoftmaxCrossEntropyLoss(logit_scale=0.0), "logit_scale=0.0"),
        (lambda: losses.SoftmaxAgainstLogitsLoss(logit_scale=-1.0), "logit_scale=-1.0"),
        (lambda: losses.BootstrappedSigmoidLoss(alpha=-0.1), "alpha=-0.1"),
        (lambda: losses.BootstrappedSigmoidLoss(bootstrap_type="firm"), "firm"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
