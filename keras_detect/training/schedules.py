"""Learning-rate schedules of upstream, as Keras schedules: give one to an optimizer as its `learning_rate`.

Each maps a step (an int, an int tensor, or an array of them) to float32 rates of the same shape.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_detect.registry import serializable


@serializable
class CosineDecayWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A straight rise, an optional rest at the top, then half a cosine down to 0 at `total_steps`; 0 after it.

    Args:
        learning_rate_base: the rate at the top.
        total_steps: the step at which the rate arrives at 0.
        warmup_learning_rate: the rate at step 0.
        warmup_steps: how many steps the rise takes; 0 for none.
        hold_base_rate_steps: how many steps the rate rests at the top.

    Raises:
        ValueError: for a negative number, a warm-up that starts above the top, or phases longer than `total_steps`.

    Loshchilov and Hutter, 2016 (arXiv:1608.03983), eq. 5 without restarts; warm-up as in Goyal et al., 2017
    (arXiv:1706.02677), section 2.2.
    """

    def __init__(
        self,
        learning_rate_base: float,
        total_steps: int,
        warmup_learning_rate: float = 0.0,
        warmup_steps: int = 0,
        hold_base_rate_steps: int = 0,
    ):
        super().__init__()
        self.settings = {
            "learning_rate_base": learning_rate_base,
            "total_steps": total_steps,
            "warmup_learning_rate": warmup_learning_rate,
            "warmup_steps": warmup_steps,
            "hold_base_rate_steps": hold_base_rate_steps,
        }
        _check_not_negative(self.settings)
        if warmup_steps + hold_base_rate_steps > total_steps or total_steps < 1:
            raise ValueError(
                "warmup_steps and hold_base_rate_steps must fit into total_steps, which must be at least 1. Received: "
                f"warmup_steps={warmup_steps}, hold_base_rate_steps={hold_base_rate_steps}, total_steps={total_steps}. "
                "Shorten them or train longer."
            )
        if warmup_steps and warmup_learning_rate > learning_rate_base:
            raise ValueError(
                "warmup_learning_rate must not exceed learning_rate_base. Received: "
                f"warmup_learning_rate={warmup_learning_rate}, learning_rate_base={learning_rate_base}"
            )

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        top, total, start, warmup, hold = (float(value) for value in self.settings.values())
        fall = max(total - warmup - hold, 1.0)
        # top / 2 * (1 + cos(pi * progress)), written without the difference of two near numbers at the end.
        progress = ops.clip((step - warmup - hold) / fall, 0.0, 1.0)
        rate = top * ops.square(ops.cos(0.5 * math.pi * progress))
        if warmup:
            rate = ops.where(step < warmup, start + (top - start) / warmup * step, rate)
        return ops.where(step < total, rate, 0.0)

    def get_config(self) -> dict[str, Any]:
        return dict(self.settings)


@serializable
class ExponentialDecayWithBurnIn(keras.optimizers.schedules.LearningRateSchedule):
    """A constant rate for the first steps, then `base * factor ** (steps since / decay_steps)`.

    Args:
        learning_rate_base: the rate right after the burn-in.
        decay_steps: after so many steps the rate has been multiplied by `factor` once more.
        factor: in (0, 1].
        burnin_learning_rate: the rate during the burn-in; 0 means `learning_rate_base`.
        burnin_steps: how many steps the burn-in takes.
        min_learning_rate: the rate never falls below it after the burn-in.
        staircase: whether the exponent is cut to a whole number.

    Raises:
        ValueError: for a negative number, `decay_steps` below 1 or a `factor` outside (0, 1].
    """

    def __init__(
        self,
        learning_rate_base: float,
        decay_steps: int,
        factor: float,
        burnin_learning_rate: float = 0.0,
        burnin_steps: int = 0,
        min_learning_rate: float = 0.0,
        staircase: bool = True,
    ):
        super().__init__()
        self.settings = {
            "learning_rate_base": learning_rate_base,
            "decay_steps": decay_steps,
            "factor": factor,
            "burnin_learning_rate": burnin_learning_rate,
            "burnin_steps": burnin_steps,
            "min_learning_rate": min_learning_rate,
        }
        _check_not_negative(self.settings)
        if decay_steps < 1 or not 0 < factor <= 1:
            raise ValueError(
                "decay_steps must be at least 1 and factor in (0, 1]. Received: "
                f"decay_steps={decay_steps}, factor={factor}"
            )
        self.staircase = staircase

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        base, decay_steps, factor, burnin, burnin_steps, lowest = (float(value) for value in self.settings.values())
        exponent = ops.maximum(step - burnin_steps, 0.0) / decay_steps
        if self.staircase:
            exponent = ops.floor(exponent)
        rate = ops.maximum(base * ops.exp(math.log(factor) * exponent), lowest)
        return ops.where(step < burnin_steps, burnin or base, rate)

    def get_config(self) -> dict[str, Any]:
        return {**self.settings, "staircase": self.staircase}


@serializable
class ManualStepping(keras.optimizers.schedules.LearningRateSchedule):
    """The i-th rate from the i-th boundary on.

    Args:
        boundaries: steps, rising.
        rates: one more than there are boundaries; the first holds before the first boundary.
        warmup: whether the rate rises in a straight line from the first to the second until the first boundary.

    Raises:
        ValueError: for a negative rate, boundaries that do not rise from 1 on, or a wrong number of rates.
    """

    def __init__(self, boundaries: Sequence[int], rates: Sequence[float], warmup: bool = False):
        super().__init__()
        boundaries, rates = [int(boundary) for boundary in boundaries], [float(rate) for rate in rates]
        if boundaries and (boundaries[0] < 1 or sorted(set(boundaries)) != boundaries):
            raise ValueError(f"boundaries must be increasing steps above 0. Received: boundaries={boundaries}")
        if len(rates) != len(boundaries) + 1:
            raise ValueError(
                "There must be one more rate than boundaries: the first rate applies from step 0. Received: "
                f"{len(boundaries)} boundaries and {len(rates)} rates"
            )
        if any(rate < 0 for rate in rates):
            raise ValueError(f"Learning rates must be >= 0. Received: rates={rates}")
        self.boundaries, self.rates, self.warmup = boundaries, rates, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = step * 0.0 + self.rates[0]
        if self.warmup and self.boundaries:
            rate = rate + (self.rates[1] - self.rates[0]) / self.boundaries[0] * step
        for boundary, after in zip(self.boundaries, self.rates[1:], strict=True):
            rate = ops.where(step < boundary, rate, after)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries, "rates": self.rates, "warmup": self.warmup}


def _check_not_negative(settings):
    negative = [f"{name}={value!r}" for name, value in settings.items() if not value >= 0]
    if negative:
        raise ValueError(f"Rates and steps must be >= 0. Received: {', '.join(negative)}")


@serializable
class InverseTimeDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, or a constant rate, divided by `1 + decay_rate * step`.

    Args:
        learning_rate: a rate, or the schedule that is divided.
        decay_rate: 0 or more.

    Raises:
        ValueError: for a negative number.
    """

    def __init__(self, learning_rate: float, decay_rate: float):
        super().__init__()
        if isinstance(learning_rate, dict):  # as `get_config` wrote it
            learning_rate = keras.saving.deserialize_keras_object(learning_rate)
        numbers = {"decay_rate": decay_rate} | ({} if callable(learning_rate) else {"learning_rate": learning_rate})
        _check_not_negative(numbers)
        self.learning_rate, self.decay_rate = learning_rate, decay_rate

    def __call__(self, step: Any) -> Any:
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        return rate / (1.0 + self.decay_rate * ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        rate = self.learning_rate
        rate = keras.saving.serialize_keras_object(rate) if callable(rate) else rate
        return {"learning_rate": rate, "decay_rate": self.decay_rate}
