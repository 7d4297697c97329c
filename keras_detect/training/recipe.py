"""How a detector is trained: optimizer, schedule, augmentation, averaging, length; what suits a model and its data."""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

from keras_detect.evaluation.callback import COCOEvaluation
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.starting_weights import start_of
from keras_detect.registry import part, unknown_name
from keras_detect.training import recipe_table
from keras_detect.training.architectures import architecture_of
from keras_detect.training.augmentations import augmentations, described
from keras_detect.training.averaged_weights import AveragedWeights
from keras_detect.training.averaging_adamw import AveragingAdamW, without_decay
from keras_detect.training.early_stopping import EarlyStopping
from keras_detect.training.recipe_table import Row
from keras_detect.training.schedules import CosineDecayWithWarmup

LARGEST_LEARNING_RATE = 1.0


@part
class Recipe:
    """AdamW (Loshchilov and Hutter 2019) with linear warm-up, cosine decay, clipped gradients and averaged weights.

    `Recipe.for_model` chooses every setting for a model and its data; the defaults here are plain ones.

    Args:
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: its peak, at most 1: AdamW moves every weight by up to the learning rate in a step.
        warmup_fraction: share of all steps in which the learning rate grows linearly.
        weight_decay: AdamW's decoupled decay; scales, offsets and biases are excluded.
        clip_norm: bound of the global gradient norm.
        ema_momentum: the evaluated and saved weights are an exponential moving average with this momentum, smaller in
            the first steps (`AveragingAdamW`); 0 for none.
        augment: a name out of "none", "flip", "crop", "microscopy", or a sequence of augmentations
            (`keras_detect.transforms`).
        freeze_batchnorm: batch norm keeps its statistics, scales and offsets: True, "backbone" (there alone), or False:
            as the model has it.
        early_stopping: epochs without a new maximum of `val_map` after which training ends; 0 for none.
        localization_weight: weight of a one-stage model's localization loss (`OneStageLoss`), kept in the trained
            model; None: as the model has it.

    Raises:
        ValueError: a count, rate or fraction out of its range, or an unknown augmentation.
    """

    epochs: int = 60
    batch_size: int = Row.batch_size
    learning_rate: float = 1e-3
    warmup_fraction: float = Row.warmup_fraction
    weight_decay: float = Row.weight_decay
    clip_norm: float = Row.clip_norm
    ema_momentum: float = 0.0
    augment: Any = Row.augment
    freeze_batchnorm: bool | str = False
    early_stopping: int = 0
    localization_weight: float | None = None

    def __post_init__(self):
        for name, least, largest in (("epochs", 1, 1_000_000), ("batch_size", 1, 65_536)):
            value = getattr(self, name)
            if not (_is_whole(value) and least <= value <= largest):
                raise ValueError(f"{name} must be a positive integer, at most {largest:,}. Received: {name}={value!r}")
        if not (_is_whole(self.early_stopping) and self.early_stopping >= 0):
            raise ValueError(
                "early_stopping must be a number of epochs, 0 for none. Received: "
                f"early_stopping={self.early_stopping!r}"
            )
        for name, largest in (("learning_rate", LARGEST_LEARNING_RATE), ("clip_norm", 1e6)):
            value = getattr(self, name)
            if not (_is_real(value) and 0 < value <= largest):
                raise ValueError(f"{name} must be positive, at most {largest:g}. Received: {name}={value!r}")
        for name in ("warmup_fraction", "ema_momentum", "weight_decay"):
            value = getattr(self, name)
            if not (_is_real(value) and 0 <= value < 1):
                raise ValueError(f"{name} must be in [0, 1). Received: {name}={value!r}")
        weight = self.localization_weight
        if weight is not None and not (_is_real(weight) and 0 < weight <= 1e6):
            raise ValueError(
                "localization_weight must be positive, at most 1e+06, or None. Received: "
                f"localization_weight={weight!r}"
            )
        augmentations(self.augment)
        if self.freeze_batchnorm not in (True, False, "backbone"):
            raise ValueError(
                "freeze_batchnorm must be True, False or 'backbone'. Received: "
                f"freeze_batchnorm={self.freeze_batchnorm!r}"
            )

    @classmethod
    def for_model(
        cls,
        model: DetectionModel,
        num_images: int,
        batch_size: int | None = None,
        start: str | None = None,
        **settings: Any,
    ) -> "Recipe":
        """The recipe that suits a model and its data; `docs/training.md` states each value and its source.

        The architecture decides the batch size and, with the start, the learning rate at 8 images per step, which grows
        with the square root of the images per step (Malladi et al. 2022, arXiv:2205.10287: the rule for Adam; it would
        be linear for SGD, Goyal et al. 2017). The number of images decides the epochs: few images, more epochs. A batch
        of fewer than 16 images freezes the batch norm that has trained statistics.

        Args:
            model: a detector.
            num_images: how many there are to train on.
            batch_size: images per step; default: the architecture's.
            start: "detector", "backbone" or "random": what is trained of the model already; default: what it says of
                itself (`meta_architectures.starting_weights.start_of`).
            **settings: fields of the recipe that are known; they are taken as they are.

        Raises:
            TypeError: an unknown setting.
            ValueError: an unknown start, no images, or a setting out of its range.
        """
        unknown = next((name for name in settings if name not in cls.__dataclass_fields__), None)
        if unknown is not None:
            raise TypeError(unknown_name("setting of a recipe", unknown, cls.__dataclass_fields__))
        if not (_is_whole(num_images) and num_images >= 1):
            raise ValueError(f"num_images must be a positive integer. Received: num_images={num_images!r}")
        start = start_of(model) if start is None else start
        if start not in recipe_table.STARTS:
            raise ValueError(unknown_name("start", start, recipe_table.STARTS))
        row, column = recipe_table.ROWS[architecture_of(model)], recipe_table.STARTS.index(start)
        batch_size = row.batch_size if batch_size is None else batch_size
        cls(batch_size=batch_size)  # its range
        per_step = min(batch_size, num_images)
        epochs = settings.get("epochs") or _epochs(row.presentations[column], num_images, batch_size)
        chosen = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": _scaled(row.learning_rate[column], per_step),
            "warmup_fraction": row.warmup_fraction,
            "weight_decay": row.weight_decay,
            "clip_norm": row.clip_norm,
            "ema_momentum": row.ema_momentum,
            "augment": row.augment,
            "freeze_batchnorm": _frozen(model, start, per_step),
            "localization_weight": row.localization_weight if _averages_codes(model) else None,
            "early_stopping": math.ceil(row.patience * epochs) if _is_real(epochs) and math.isfinite(epochs) else 0,
        }
        return cls(**{**chosen, **settings})

    def settings(self) -> dict[str, Any]:
        """Every setting by name, the augmentations as text: what JSON can hold."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "augment": described(self.augment)}

    def compile(self, model: Any, steps_per_epoch: int, **options) -> None:
        """Compiles `model` for `epochs * steps_per_epoch` steps; `options` as in Keras' `compile`.

        Where the recipe says so, batch norm is frozen and the localization loss weighted first.

        Raises:
            ValueError: a `localization_weight` for a model without a `OneStageLoss`.
        """
        if self.localization_weight is not None:
            model.detection_loss = _weighted(model, self.localization_weight)
        if self.freeze_batchnorm:
            model.freeze_batch_norm(self.freeze_batchnorm)
        total = max(1, int(steps_per_epoch) * self.epochs)
        optimizer = AveragingAdamW(
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
        optimizer.exclude_from_weight_decay(var_list=without_decay(model.trainable_variables))
        model.compile(optimizer=optimizer, **options)
        return model

    def callbacks(self, validation: Any = None, evaluate_every: int | None = None) -> list[Callable]:
        """What `fit` needs for the averaged weights and, with validation data, for `val_map` and early stopping.

        Args:
            validation: a `DetectionDataset`, or batches as its `batches` gives them, for `COCOEvaluation`.
            evaluate_every: epochs between evaluations; default: as many as make about 25 evaluations of the run.

        Further callbacks that evaluate or save go after them.
        """
        found: list = [AveragedWeights()] if self.ema_momentum else []
        if validation is not None:
            every = evaluate_every or max(1, round(self.epochs / recipe_table.EVALUATIONS))
            found.append(COCOEvaluation(validation, every_n_epochs=every))
            found += [EarlyStopping(self.early_stopping)] if self.early_stopping else []
        return found


def _weighted(model, localization_weight):
    """The model's `OneStageLoss` with another weight of the localization loss."""
    loss = getattr(model, "detection_loss", None)
    if not isinstance(loss, OneStageLoss):
        raise ValueError(
            "localization_weight is for a one-stage model with a OneStageLoss. Received a model whose loss is "
            f"{type(loss).__name__}: leave it at None."
        )
    return dataclasses.replace(loss, localization_weight=localization_weight)


def _averages_codes(model):
    """Whether the localization loss is a mean over the numbers of a box code, where the paper of SSD has their sum."""
    loss = getattr(model, "detection_loss", None)
    return isinstance(loss, OneStageLoss) and loss.normalize_localization_by_code_size


def _scaled(learning_rate, images_per_step):
    return learning_rate * math.sqrt(images_per_step / recipe_table.REFERENCE_BATCH)


def _epochs(presentations, num_images, batch_size):
    """As many as the presentations make, within the bounds of `recipe_table`."""
    epochs = min(max(round(presentations / num_images), recipe_table.LEAST_EPOCHS), recipe_table.MOST_EPOCHS)
    steps = max(1, num_images // batch_size)
    return max(1, min(epochs, recipe_table.MOST_STEPS // steps))


def _frozen(model, start, images_per_step):
    """What of the batch norm to freeze: statistics that nothing has trained yet cannot stay as they are."""
    if images_per_step >= recipe_table.FREEZE_BATCHNORM_BELOW or start == "random":
        return False
    return True if start == "detector" else "backbone"


def _is_whole(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
