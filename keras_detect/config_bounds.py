"""What a configuration from elsewhere may ask for: bounds of its numbers by name, of its depth and of its length.

One table serves the fields of a `pipeline.config` and the arguments in a model's own config, which mostly have the same
names. It holds what a network or a training run can sensibly have, with a wide margin; what the weights take together
is bounded where they are made (`compat.limited_variables`).
"""

import math
import re
from typing import Any, NamedTuple

from keras_detect.messages import shown

MAX_DEPTH = 100  # levels of dicts and lists; a detector around a wrapped Keras model has 20
MAX_VALUES = 1_000_000
MAX_LIST = 1000  # numbers in one list, such as aspect ratios
MAX_WEIGHTS = 4 * 1024**3  # bytes of all weights of a model, where no file says how many there are
_PACKAGE = "keras_detect>"  # what the registered names of our own classes begin with
_OTHERS = "settings"  # the argument that holds the arguments of a class from elsewhere
_LONGEST, _LONGEST_PATH = 40, 160  # characters of a name or value in a message, and of a place


class ConfigError(ValueError):
    """A configuration that asks for what no detector has. One line."""


class Bound(NamedTuple):
    """The least and the largest value of a number; `above` says that the least one itself is too small."""

    least: float
    most: float
    above: bool = False

    def holds(self, number: float) -> bool:
        """Whether `number` is within; NaN does not."""
        return self.least <= number <= self.most and not (self.above and number == self.least)

    def __str__(self):
        return f"{'more than ' if self.above else ''}{self.least:.12g} to {self.most:.12g}"


ANY = Bound(-1e9, 1e9)
FRACTION = Bound(0, 1)
WEIGHT = Bound(0, 1e6)  # of a loss, a factor or a standard deviation
FACTOR = Bound(0, 1e6, above=True)
RATE = Bound(0, 1e3)  # a learning rate
STEPS = Bound(0, 1e9)
PIXELS = Bound(1, 16384)
STRIDE = Bound(0, 16384, above=True)
OFFSET = Bound(-16384, 16384)
CHANNELS = Bound(0, 16384)
LAYERS = Bound(0, 32)
LEVEL = Bound(0, 12)
KERNEL = Bound(1, 99)
OBJECTS = Bound(0, 100_000)  # classes, boxes, proposals, detections
SCALE = Bound(0, 1000, above=True)  # sides and ratios of anchors

#: name of a field or argument -> bound; "message.field" goes before "field"
BOUNDS = {
    # classes, boxes and detections
    **dict.fromkeys(
        ("max_detections_per_class", "max_total_detections", "max_number_of_boxes", "num_hard_examples",
         "num_anchors_per_location", "min_negatives_per_image", "num_keypoints", "pool_size"),
        OBJECTS,
    ),
    **dict.fromkeys(
        ("first_stage_max_proposals", "first_stage_minibatch_size", "second_stage_batch_size"), Bound(1, 100_000)
    ),
    **dict.fromkeys(
        ("iou_threshold", "score_threshold", "matched_threshold", "unmatched_threshold", "positive_fraction",
         "first_stage_nms_iou_threshold", "first_stage_nms_score_threshold", "first_stage_positive_balance_fraction",
         "second_stage_balance_fraction"),
        FRACTION,
    ),
    "num_classes": Bound(1, 100_000),
    "soft_nms_sigma": WEIGHT,
    "max_negatives_per_positive": WEIGHT,
    # images
    **dict.fromkeys(("height", "width", "min_dimension", "max_dimension", "canonical_size"), PIXELS),
    "pad_to_multiple": Bound(0, 16384),
    "multiple": STRIDE,
    # anchors
    **dict.fromkeys(
        ("aspect_ratios", "scales", "min_scale", "max_scale", "anchor_scale", "base_anchor_height",
         "base_anchor_width"),
        SCALE,
    ),
    "interpolated_scale_aspect_ratio": Bound(0, 1000),
    "base_anchor_size": STRIDE,
    **dict.fromkeys(("anchor_strides", "anchor_stride", "height_stride", "width_stride"), STRIDE),
    **dict.fromkeys(("anchor_offsets", "anchor_offset", "height_offset", "width_offset"), OFFSET),
    "scales_per_octave": Bound(1, 100),
    **dict.fromkeys(("min_level", "max_level", "canonical_level", "coarse_levels"), LEVEL),
    # layers
    **dict.fromkeys(("num_layers", "num_iterations", "num_layers_before_predictor"), LAYERS),
    **dict.fromkeys(
        ("depth", "num_filters", "additional_layer_depth", "first_stage_box_predictor_depth"), Bound(1, 16384)
    ),
    **dict.fromkeys(("min_depth", "max_depth", "extra_depths"), CHANNELS),
    **dict.fromkeys(("kernel_size", "first_stage_box_predictor_kernel_size"), KERNEL),
    **dict.fromkeys(("depth_multiplier", "width_multiplier"), Bound(0, 100, above=True)),
    **dict.fromkeys(("crop_size", "initial_crop_size", "maxpool_kernel_size", "maxpool_stride", "pool_stride"),
                    Bound(0, 1000)),
    "sampling_ratio": Bound(0, 100),
    "box_code_size": Bound(1, 1000),
    **dict.fromkeys(("dropout", "drop_connect_rate", "dropout_keep_probability"), FRACTION),
    **dict.fromkeys(("decay", "batch_norm_momentum"), FRACTION),
    **dict.fromkeys(("epsilon", "batch_norm_epsilon"), Bound(0, 1000, above=True)),
    **dict.fromkeys(("stddev", "l2_weight", "weight"), WEIGHT),
    "mean_stddev_box_coder.stddev": FACTOR,
    "factor": FACTOR,
    # losses and box coders
    **dict.fromkeys(
        ("classification_weight", "localization_weight", "objectness_weight", "negative_class_weight", "gamma",
         "first_stage_localization_loss_weight", "first_stage_objectness_loss_weight",
         "second_stage_localization_loss_weight", "second_stage_classification_loss_weight"),
        WEIGHT,
    ),
    "alpha": WEIGHT,
    **dict.fromkeys(("weighted_sigmoid_focal.alpha", "bootstrapped_sigmoid.alpha"), FRACTION),
    **dict.fromkeys(
        ("delta", "logit_scale", "scale_factors", "x_scale", "y_scale", "width_scale", "height_scale", "length_scale"),
        FACTOR,
    ),
    # training
    "batch_size": Bound(0, 1e6),
    **dict.fromkeys(
        ("num_steps", "total_steps", "decay_steps", "burnin_steps", "warmup_steps", "hold_base_rate_steps", "step"),
        STEPS,
    ),
    **dict.fromkeys(
        ("learning_rate", "learning_rate_base", "initial_learning_rate", "burnin_learning_rate", "min_learning_rate",
         "warmup_learning_rate"),
        RATE,
    ),
    "decay_factor": FACTOR,
    **dict.fromkeys(("momentum_optimizer_value", "moving_average_decay", "probability", "random_coef"), FRACTION),
    "gradient_clipping_by_norm": Bound(0, 1e9),
    "seed": Bound(-(2**64), 2**64),
}  # fmt: skip


def bound(name: str, owner: str = "") -> Bound:
    """The bound of the number `name`, in the message `owner` where that matters; `ANY` for an unknown one."""
    return BOUNDS.get(f"{owner}.{name}") or BOUNDS.get(name, ANY)


def check_config(config: Any, own: bool = False) -> None:
    """Refuses a serialized model, as Keras writes it, that is too deep, too long or asks for absurd numbers.

    Args:
        config: dicts, lists and values, as JSON gives them; what is none of these is not looked into.
        own: whether `config` is the inner config of a class of this package, whose arguments the table names. Of other
            classes the numbers are only held to be finite: what they mean is not known here.

    Raises:
        ConfigError: one line that names the place.
    """
    count = 1
    pending: list[tuple[Any, str, str, bool, int]] = [(config, "", "", own, 0)]
    while pending:
        value, name, path, own, depth = pending.pop()
        count += len(value) if isinstance(value, dict | list | tuple) else 0
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ConfigError(
                f"the configuration is nested deeper than {MAX_DEPTH} levels or holds more than {MAX_VALUES} values"
            )
        if isinstance(value, dict):
            _check_array(value, path)
            for key, inner in value.items():
                named = own and key != _OTHERS
                if "class_name" in value:  # beside its config, Keras notes what is its own affair
                    named = key == "config" and str(value.get("registered_name")).startswith(_PACKAGE)
                pending.append((inner, str(key), f"{path}.{shown(key, _LONGEST)}"[-_LONGEST_PATH:], named, depth + 1))
        elif isinstance(value, list | tuple):
            if own and len(value) > MAX_LIST and isinstance(value[0], float | int):
                raise ConfigError(f"{path.lstrip('.')} has {len(value)} numbers; supported: {MAX_LIST}")
            pending.extend((inner, name, path, own, depth + 1) for inner in value)
        elif isinstance(value, float | int) and not isinstance(value, bool):
            _check_number(value, name, path, own)


def _check_number(number, name, path, own):
    if isinstance(number, float) and math.isnan(number):
        raise ConfigError(f"{path.lstrip('.')} is NaN; supported: a number")
    if own and not bound(name).holds(number):
        raise ConfigError(f"{path.lstrip('.')} is {shown(number, _LONGEST)}; supported: {bound(name)}")


def _check_array(config, path):
    """An array in a configuration states its type, which must be one of numbers: a text type can be a gigabyte wide."""
    if config.get("class_name") in ("__numpy__", "__tensor__"):
        dtype = config["config"].get("dtype") if isinstance(config.get("config"), dict) else None
        if not isinstance(dtype, str) or not re.fullmatch(r"(bool|b?float|u?int|complex)[0-9]{0,3}", dtype):
            raise ConfigError(
                f"{path.lstrip('.')} is an array of the type {shown(dtype, _LONGEST)}; supported: types of numbers"
            )
