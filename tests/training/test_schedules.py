"""Learning-rate schedules: upstream's numbers, hand-worked steps, use inside an optimizer."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.training.schedules import CosineDecayWithWarmup, ExponentialDecayWithBurnIn, ManualStepping
from tests.goldens import BACKEND, assert_close, both_modes, golden_cases

COSINE = {"learning_rate_base": 0.8, "total_steps": 2000, "warmup_learning_rate": 0.1, "warmup_steps": 100}
EXAMPLES = [
    CosineDecayWithWarmup(**COSINE, hold_base_rate_steps=400),
    ExponentialDecayWithBurnIn(0.5, 200, 0.9, burnin_learning_rate=0.05, burnin_steps=100, staircase=False),
    ManualStepping([100, 1000], [0.1, 0.2, 0.3], warmup=True),
]


@golden_cases("schedule/cosine*")
def test_upstream_cosine(case):
    settings = {key: value for key, value in case.info.items() if key in {*COSINE, "hold_base_rate_steps"}}
    check(case, CosineDecayWithWarmup(**{**COSINE, **settings}))


@golden_cases("schedule/exp_burnin")
def test_upstream_exponential(case):
    burnin_rate, burnin_steps = case.info["burnin"]
    settings = {key: case.info[key] for key in ("learning_rate_base", "decay_steps", "factor")}
    check(case, ExponentialDecayWithBurnIn(**settings, burnin_learning_rate=burnin_rate, burnin_steps=burnin_steps))


@golden_cases("schedule/manual*")
def test_upstream_manual(case):
    check(case, ManualStepping(case.info["boundaries"], case.info["rates"], case.info.get("warmup", False)))


def check(case, schedule):
    steps, expected = case.inputs["steps"].astype("int32"), case.outputs["lr"]
    for call in both_modes(schedule):
        assert_close(call(ops.convert_to_tensor(steps)), expected)
    assert_close([ops.convert_to_numpy(schedule(int(step))) for step in steps], expected)


def test_cosine_hand_worked():
    schedule = CosineDecayWithWarmup(1.0, 110, warmup_learning_rate=0.2, warmup_steps=4, hold_base_rate_steps=6)
    # Rise of 0.8 in 4 steps: 0.2 per step. Top until step 10, then 100 steps down: a quarter of the way, at 35,
    # (1 + cos(45 degrees)) / 2 = 0.8535534; half way, at 60, (1 + cos(90 degrees)) / 2 = 0.5. Nothing from 110 on.
    values = {0: 0.2, 1: 0.4, 3: 0.8, 4: 1.0, 10: 1.0, 35: 0.8535534, 60: 0.5, 110: 0.0, 111: 0.0}
    assert_close([ops.convert_to_numpy(schedule(step)) for step in values], list(values.values()), 1e-6)


def test_cosine_that_only_holds_ends_at_once():
    schedule = CosineDecayWithWarmup(0.5, 3, hold_base_rate_steps=3)
    assert_close([ops.convert_to_numpy(schedule(step)) for step in range(5)], [0.5, 0.5, 0.5, 0.0, 0.0])


def test_exponential_hand_worked():
    smooth = ExponentialDecayWithBurnIn(1.0, 2, 0.25, min_learning_rate=0.1, staircase=False)
    # 0.25 ** (step / 2) = 0.5 ** step, not below 0.1.
    assert_close([ops.convert_to_numpy(smooth(step)) for step in range(5)], [1.0, 0.5, 0.25, 0.125, 0.1])
    # A burn-in rate of 0 means the base rate; stairs of two steps begin at its end.
    stairs = ExponentialDecayWithBurnIn(1.0, 2, 0.5, burnin_steps=1)
    assert_close([ops.convert_to_numpy(stairs(step)) for step in range(6)], [1.0, 1.0, 1.0, 0.5, 0.5, 0.25])


def test_manual_without_boundaries_is_constant():
    assert_close(ManualStepping([], [0.3], warmup=True)(7), np.float32(0.3))


@pytest.mark.parametrize("schedule", EXAMPLES)
def test_round_trip(schedule):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    steps = np.arange(0, 2200, 7)
    np.testing.assert_array_equal(ops.convert_to_numpy(again(steps)), ops.convert_to_numpy(schedule(steps)))
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize("schedule", EXAMPLES)
def test_an_optimizer_follows_it(schedule):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(schedule), loss=lambda y, p: -ops.mean(p))
    # The gradient of -mean(w x) at x = 1 is -1, so the weight becomes the sum of the rates of the steps taken.
    model.fit(np.ones((12, 1)), np.ones((12, 1)), batch_size=4, epochs=2, verbose=0)
    expected = sum(float(schedule(step)) for step in range(6))
    assert_close(model.get_weights()[0][0, 0], np.float32(expected))
    assert_close(model.optimizer.learning_rate, np.float32(schedule(6)))


def test_steps_beyond_float32_halves_stay_finite():
    for schedule in EXAMPLES:
        assert np.isfinite(float(schedule(2**31 - 1))), f"{type(schedule).__name__} on {BACKEND}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineDecayWithWarmup(0.1, 10, warmup_steps=6, hold_base_rate_steps=5), "fit into total_steps"),
        (lambda: CosineDecayWithWarmup(0.1, 0), "at least 1"),
        (lambda: CosineDecayWithWarmup(0.1, 10, warmup_learning_rate=0.2, warmup_steps=2), "must not exceed"),
        (lambda: CosineDecayWithWarmup(-0.1, 10), "learning_rate_base=-0.1"),
        (lambda: CosineDecayWithWarmup(float("nan"), 10), "learning_rate_base=nan"),
        (lambda: ExponentialDecayWithBurnIn(0.1, 0, 0.5), "decay_steps=0"),
        (lambda: ExponentialDecayWithBurnIn(0.1, 10, 1.5), "factor=1.5"),
        (lambda: ManualStepping([10], [0.1]), "1 boundaries and 1 rates"),
        (lambda: ManualStepping([10, 10], [0.1, 0.2, 0.3]), "increasing"),
        (lambda: ManualStepping([0], [0.1, 0.2]), "above 0"),
        (lambda: ManualStepping([10], [0.1, -0.2]), "rates="),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
