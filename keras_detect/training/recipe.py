"""Optimizer and schedule that train a detector sanely without tuning."""

import numbers

import keras

from keras_detect.registry import part
from keras_detect.training.averaged_weights import AveragedWeights
from keras_detect.training.schedules import CosineDecayWithWarmup

LARGEST_LEARNING_RATE = 1.0


@part
class Recipe:
    """AdamW (Loshchilov and Hutter 2019) with linear warm-up, cosine decay, clipped gradients and averaged weights.

    Args:
        epochs: passes over the training pictures.
        batch_size: pictures in a step.
        learning_rate: its peak, at most 1: AdamW moves every weight by up to the learning rate in a step.
        warmup_fraction: share of all steps in which the learning rate grows linearly.
        weight_decay: AdamW's decoupled decay; scales, offsets and biases are left out.
        clip_norm: bound of the global gradient norm.
        ema_momentum: the evaluated and saved weights are an exponential moving average with this momentum; 0 for none.

    Raises:
        ValueError: a count, rate or fraction out of its range.
    """

    epochs: int = 60
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_fraction: float = 0.05
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    ema_momentum: float = 0.0

    def __post_init__(self):
        for name, largest in (("epochs", 1_000_000), ("batch_size", 65_536)):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Integral) and not isinstance(value, bool) and 1 <= value <= largest):
                raise ValueError(f"{name} must be positive and whole, at most {largest:,}. Received: {name}={value!r}")
        for name, largest in (("learning_rate", LARGEST_LEARNING_RATE), ("clip_norm", 1e6)):
            value = getattr(self, name)
            if not (_is_real(value) and 0 < value <= largest):
                raise ValueError(f"{name} must be positive, at most {largest:g}. Received: {name}={value!r}")
        for name in ("warmup_fraction", "ema_momentum", "weight_decay"):
            value = getattr(self, name)
            if not (_is_real(value) and 0 <= value < 1):
                raise ValueError(f"{name} must lie in [0, 1). Received: {name}={value!r}")

    def compile(self, model, steps_per_epoch, **options):
        """Compiles `model` for `epochs * steps_per_epoch` steps; `options` as in Keras' `compile`."""
        total = max(1, int(steps_per_epoch) * self.epochs)
        optimizer = keras.optimizers.AdamW(
            learning_rate=CosineDecayWithWarmup(
                learning_rate_base=self.learning_rate,
                total_steps=total,
                warmup_learning_rate=self.learning_rate / 100,
                warmup_steps=int(total * self.warmup_fraction),
            ),
            weight_decay=self.weight_decay,
            global_clipnorm=self.clip_norm,
            use_ema=self.ema_momentum > 0,
            ema_momentum=self.ema_momentum or 0.99,
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        model.compile(optimizer=optimizer, **options)
        return model

    def callbacks(self):
        """Callbacks that must stand in front of the evaluation: the swap to the averaged weights."""
        return [AveragedWeights()] if self.ema_momentum else []


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
