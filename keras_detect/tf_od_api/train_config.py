"""`training_config`: how a `pipeline.config` of upstream trains, in our parts and Keras' optimizers."""

import dataclasses
import os
from typing import NamedTuple

import keras

from keras_detect import text_proto
from keras_detect.tf_od_api import build_parts, train_augmentations
from keras_detect.tf_od_api.check_numbers import check_numbers
from keras_detect.training.rms_prop import RMSpropFromOne
from keras_detect.training.schedules import (
    CosineDecayWithWarmup,
    ExponentialDecayWithBurnIn,
    InverseTimeDecay,
    ManualStepping,
)


class DataSource(NamedTuple):
    """What an input reader reads: `label_map_path` ("" if not given) and the tuple `paths`, as the file has them."""

    label_map_path: str
    paths: tuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training half of a `pipeline.config`; weights of the losses are part of the model.

    Attributes:
        batch_size: images in a step, over all devices.
        num_steps: steps to train for; None for no end.
        optimizer: a Keras optimizer, to be compiled into one model.
        augmentations: parts of `keras_detect.transforms`, for `DetectionDataset.batches(augment=...)`.
        approximations: list of `Approximation(path, line, reason)`: what is carried over in nearly the same form.
        fine_tune_checkpoint: path of the checkpoint that training starts from, as given ("" for none).
        fine_tune_checkpoint_type: "classification", "detection", "fine_tune" or "full", as given.
        freeze_variables: patterns of upstream's variable names that do not train, as given.
        update_trainable_variables: patterns of the only ones that do, as given; empty for all.
        max_number_of_boxes: ground-truth rows per image.
        train_data: `DataSource` of the training images.
        eval_data: tuple of `DataSource`, one per evaluation set.
        ignored: list of `Unread(path, line)`: fields that are not carried over.
    """

    batch_size: int
    num_steps: int | None
    optimizer: keras.optimizers.Optimizer
    augmentations: tuple
    approximations: list
    fine_tune_checkpoint: str
    fine_tune_checkpoint_type: str
    freeze_variables: tuple
    update_trainable_variables: tuple
    max_number_of_boxes: int
    train_data: DataSource
    eval_data: tuple
    ignored: list

    @property
    def restore_kind(self) -> str | None:
        """`kind` of `model.restore` for the checkpoint type; None for a checkpoint that has no type.

        "fine_tune" and "full" are upstream's words for all weights but the class head, and all weights.
        """
        kinds = {"classification": "classification"} | dict.fromkeys(("detection", "fine_tune", "full"), "detection")
        return kinds.get(self.fine_tune_checkpoint_type)

    def summary(self) -> str:
        """Several lines of text: what is carried over, what only nearly, what not."""
        optimizer = self.optimizer
        steps = "no end" if self.num_steps is None else f"{self.num_steps} steps"
        clip = f", global norm clipped at {optimizer.global_clipnorm:g}" if optimizer.global_clipnorm else ""
        average = f", weights averaged with {optimizer.ema_momentum:g}" if optimizer.use_ema else ""
        lines = [
            f"batch size {self.batch_size}, {steps}, {type(optimizer).__name__}{clip}{average}",
            *(f"augmentation: {augmentation}" for augmentation in self.augmentations),
            *(f"nearly the same: {path} (line {line}): {reason}" for path, line, reason in self.approximations),
            *(f"ignored: {path} (line {line})" for path, line in self.ignored),
        ]
        return "\n".join(lines)


def training_config(path_or_text: str | os.PathLike[str]) -> TrainingConfig:
    """Reads how a `pipeline.config` of the TensorFlow Object Detection API trains.

    Args:
        path_or_text: path of a `pipeline.config` (or of the folder that holds it), or its text.

    Returns:
        `TrainingConfig`. Fields that have no counterpart are in its `ignored`.

    Raises:
        PipelineConfigError: a `ValueError` that says file, line, field, and what is supported; for an optimizer, a
            schedule or a number that cannot be carried over.
        FileNotFoundError: no such file.
    """
    config = text_proto.read(path_or_text)
    tf1 = build_parts.is_tf1_model(config.message("model"))
    config.ignore("model")  # `from_pipeline_config` reads it
    node = config.message("train_config", required=True)
    check_numbers(node)
    near: list = []
    optimizer = _optimizer(node, near, tf1)
    augmentations = train_augmentations.augmentations(node, near)
    built = {
        "batch_size": _count(node, "batch_size", 32),
        "num_steps": _count(node, "num_steps", 0, least=0) or None,
        "fine_tune_checkpoint": node.scalar("fine_tune_checkpoint", str, ""),
        "fine_tune_checkpoint_type": _checkpoint_type(node),
        "freeze_variables": node.repeated("freeze_variables", str),
        "update_trainable_variables": node.repeated("update_trainable_variables", str),
        "max_number_of_boxes": _count(node, "max_number_of_boxes", 100),
        "train_data": _data_source(config.message("train_input_reader")),
        "eval_data": tuple(_data_source(reader) for reader in config.repeated("eval_input_reader")),
    }
    regularized = node.scalar("add_regularization_loss", bool, True)
    ignored = [*config.unread(), *([] if regularized else node.ignore("add_regularization_loss"))]
    ignored.sort(key=lambda entry: entry.line)
    return TrainingConfig(
        optimizer=optimizer, augmentations=augmentations, approximations=near, ignored=ignored, **built
    )


def _count(node, name, default, least=1):
    number = node.scalar(name, int, default)
    if number < least:
        raise node.error(name, f"found {number}; supported: {least} or more")
    return number


def _checkpoint_type(node):
    """The type as given; where it is not, `from_detection_checkpoint` decides, as in upstream."""
    detection = node.scalar("from_detection_checkpoint", bool, False)
    given = node.scalar("fine_tune_checkpoint_type", str, "")
    return given or ("detection" if detection else "classification" if node.has("fine_tune_checkpoint") else "")


def _data_source(node):
    reader = node.message("tf_record_input_reader")
    return DataSource(node.scalar("label_map_path", str, ""), reader.repeated("input_path", str))


def _optimizer(train, near, tf1):
    """`train_config.optimizer` and the clipping beside it -> a Keras optimizer."""
    node = train.message("optimizer", required=True)
    kind, settings = node.oneof("momentum_optimizer", "rms_prop_optimizer", "adam_optimizer")
    rate = _learning_rate(settings.message("learning_rate", required=True), near)
    clip = train.scalar("gradient_clipping_by_norm", float, 0.0)
    average = node.scalar("use_moving_average", bool, True)
    decay = node.scalar("moving_average_decay", float, 0.9999)
    # upstream clips by the norm over all variables together
    shared = {"global_clipnorm": clip if clip > 0 else None, "use_ema": average}
    if average:
        shared["ema_momentum"] = decay
        reason = "the average starts with its full momentum; upstream's rises to it as (1 + step) / (10 + step)"
        near.append(train_augmentations.Approximation(node.path, node.line, reason))
    momentum = None
    if kind != "adam_optimizer":
        momentum = settings.scalar("momentum_optimizer_value", float, 0.9 if kind == "momentum_optimizer" else 0.0)
    try:
        if kind == "momentum_optimizer":
            optimizer = keras.optimizers.SGD(rate, momentum=momentum, **shared)
        elif kind == "adam_optimizer":
            optimizer = keras.optimizers.Adam(rate, epsilon=settings.scalar("epsilon", float, 1e-8), **shared)
        elif tf1:
            decay, epsilon = settings.scalar("decay", float, 0.9), settings.scalar("epsilon", float, 1.0)
            optimizer = RMSpropFromOne(rate, rho=decay, momentum=momentum, epsilon=epsilon, **shared)
        else:
            # Under TensorFlow 2 upstream hands `decay` to an argument of Keras that divided the rate by
            # 1 + decay * step; the average of squares keeps Keras' own 0.9. The golden trajectory has both.
            rate = InverseTimeDecay(rate, settings.scalar("decay", float, 0.9))
            epsilon = settings.scalar("epsilon", float, 1.0)
            optimizer = keras.optimizers.RMSprop(rate, rho=0.9, momentum=momentum, epsilon=epsilon, **shared)
    except ValueError as error:
        raise settings.error(None, f"cannot be built: {error}") from error
    node.refuse_unread()
    return optimizer


def _learning_rate(node, near):
    """`learning_rate` -> a number or a schedule; the defaults are those of upstream's protos."""
    kinds = {
        "constant_learning_rate": lambda settings, near: settings.scalar("learning_rate", float, 0.002),
        "exponential_decay_learning_rate": _exponential_decay,
        "manual_step_learning_rate": _manual_step,
        "cosine_decay_learning_rate": _cosine_decay,
    }
    kind, settings = node.oneof(*kinds)
    try:
        return kinds[kind](settings, near)
    except text_proto.PipelineConfigError:
        raise
    except ValueError as error:
        raise node.error(kind, f"cannot be built: {error}") from error


def _exponential_decay(node, near):
    return ExponentialDecayWithBurnIn(
        learning_rate_base=node.scalar("initial_learning_rate", float, 0.002),
        decay_steps=node.scalar("decay_steps", int, 4000000),
        factor=node.scalar("decay_factor", float, 0.95),
        burnin_learning_rate=node.scalar("burnin_learning_rate", float, 0.0),
        burnin_steps=node.scalar("burnin_steps", int, 0),
        min_learning_rate=node.scalar("min_learning_rate", float, 0.0),
        staircase=node.scalar("staircase", bool, True),
    )


def _manual_step(node, near):
    steps = node.repeated("schedule")
    if not steps:
        raise node.error("schedule", "is missing; supported: at least one step with its rate")
    initial = node.scalar("initial_learning_rate", float, 0.002)
    rows = [(step.scalar("step", int, 0), step.scalar("learning_rate", float, 0.002)) for step in steps]
    while len(rows) > 1 and rows[0][0] == 0:
        near.append(_from_the_start(steps[len(steps) - len(rows)], initial, rows[0][1]))
        initial, rows = rows[0][1], rows[1:]
    return ManualStepping(
        boundaries=[step for step, _ in rows],
        rates=[initial, *(rate for _, rate in rows)],
        warmup=node.scalar("warmup", bool, False),
    )


def _from_the_start(step, initial, rate):
    what = "is the initial rate" if rate == initial else f"takes the place of the initial rate, {initial:g}"
    return train_augmentations.Approximation(step.path, step.line, f"the rate from step 0 on {what}")


def _cosine_decay(node, near):
    return CosineDecayWithWarmup(
        learning_rate_base=node.scalar("learning_rate_base", float, 0.002),
        total_steps=node.scalar("total_steps", int, 4000000),
        warmup_learning_rate=node.scalar("warmup_learning_rate", float, 0.0002),
        warmup_steps=node.scalar("warmup_steps", int, 10000),
        hold_base_rate_steps=node.scalar("hold_base_rate_steps", int, 0),
    )
