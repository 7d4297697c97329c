"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, table 2), in the variant of upstream's model zoo.

Every stride-2 convolution pads as TensorFlow's SAME does. A network of keras.applications that was built without a size
pads one row and column behind, which is the same for even sides: for images whose sides are multiples of 32 this is
keras.applications' MobileNetV2.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.backbones.torch_arithmetic import (
    BATCH_NORM,
    PADDINGS,
    TENSORFLOW,
    TORCH,
    checked_arithmetic,
    scaled_by_deviation,
)
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, depthwise_bn_act

STEM_FILTERS = 32
HEAD_FILTERS = 1280


@dataclasses.dataclass(frozen=True)
class Stage:
    """One row of table 2: `repeats` inverted residuals, the first with `stride`."""

    expansion: int
    filters: int
    repeats: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)

# level -> (index of the inverted residual that ends it, its stride); C5 is the head behind the last one. Of the two
# stages of stride 16, CenterNet takes the first.
LEVELS = {"C1": (0, 2), "C2": (2, 4), "C3": (5, 8), "C4_first": (9, 16), "C4": (12, 16)}
EXPANSION_LEVEL = "C4_expansion"  # the widened tensor inside residual 13, before its stride: SSD's first feature map
EXPANSION_BLOCK = 13


@register_backbone("mobilenet_v2")
class MobileNetV2(Backbone):
    """MobileNetV2 without its classifier.

    Levels C1...C5, and of stride 16 also `"C4_first"` (64 channels) and `"C4_expansion"` (576).

    Args:
        width_multiplier: the paper's alpha.
        head_filters: channels of C5; `None` for keras.applications' 1280, or more where `width_multiplier` is above 1.
        min_depth: no layer gets fewer channels.
        hyperparams: `ConvHyperparams` of every convolution.
        explicit_padding: stride-2 convolutions pad one row and column on every side, as with torch's arithmetic.
        arithmetic: "tensorflow", or "torch" for the padding, batch norm and pixel scaling of torchvision and timm.
        **kwargs: Keras' own `name`, `trainable`.
    """

    checkpoint_family = "mobilenet_v2"

    def __init__(
        self,
        *,
        width_multiplier: float = 1.0,
        min_depth: int = 8,
        hyperparams: ConvHyperparams | None = None,
        arithmetic: Any = TENSORFLOW,
        head_filters: int | None = None,
        explicit_padding: bool = False,
        **kwargs,
    ):
        padding = "fixed" if explicit_padding else PADDINGS[checked_arithmetic(arithmetic)]
        batch_norm: dict[str, Any] = BATCH_NORM if arithmetic == TORCH else {}
        hyperparams = hyperparams or ConvHyperparams(activation="relu6", **batch_norm)

        def width(filters):
            return divisible(filters * width_multiplier, min_depth)

        inputs = keras.Input((None, None, 3), name="images")
        shared = {"hyperparams": hyperparams, "padding": padding}
        x = conv_bn_act(inputs, width(STEM_FILTERS), 3, strides=2, name="stem", **shared)
        outputs, index = {}, 0
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                block = inverted_residual(x, stage.expansion, width(stage.filters), stride, index, **shared)
                if index == EXPANSION_BLOCK:
                    outputs[EXPANSION_LEVEL] = block.expanded
                x = block.output
                outputs.update({level: x for level, (last, _) in LEVELS.items() if last == index})
                index += 1
        head = head_filters or max(HEAD_FILTERS, divisible(HEAD_FILTERS * width_multiplier, min_depth))
        outputs["C5"] = conv_bn_act(x, head, 1, hyperparams=hyperparams, name="head")
        strides = {level: stride for level, (_, stride) in LEVELS.items()} | {EXPANSION_LEVEL: 16, "C5": 32}
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.width_multiplier, self.min_depth, self.hyperparams = width_multiplier, min_depth, hyperparams
        self.arithmetic, self.head_filters, self.explicit_padding = arithmetic, head_filters, explicit_padding
        if arithmetic == TORCH:
            self.checkpoint_family = "mobilenet_v2_torch"

    def preprocess(self, images: Any) -> Any:
        """Pixels 0...255 to -1...1; with torch's arithmetic to mean 0 and deviation 1 of ImageNet's."""
        return scaled_by_deviation(images) if self.arithmetic == TORCH else super().preprocess(images)

    def get_config(self) -> dict[str, Any]:
        other = {} if self.arithmetic == TENSORFLOW else {"arithmetic": self.arithmetic}
        other |= {} if self.head_filters is None else {"head_filters": self.head_filters}
        other |= {"explicit_padding": True} if self.explicit_padding else {}
        return {
            **super().get_config(),
            **other,
            "width_multiplier": self.width_multiplier,
            "min_depth": self.min_depth,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


register_backbone("mobilenet_v2_torch", arithmetic=TORCH)(MobileNetV2)


@dataclasses.dataclass(frozen=True)
class Block:
    """The tensors of one inverted residual that other layers take."""

    expanded: keras.KerasTensor
    output: keras.KerasTensor


def inverted_residual(x, expansion, filters, stride, index, *, hyperparams, padding="same"):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection, and the shortcut where the shapes agree (figure 4)."""
    shortcut, name = x, f"block_{index}"
    if expansion > 1:
        x = conv_bn_act(x, expansion * int(x.shape[-1]), 1, hyperparams=hyperparams, name=f"{name}_expand")
    expanded = x
    x = depthwise_bn_act(x, 3, strides=stride, padding=padding, hyperparams=hyperparams, name=name)
    x = conv_bn_act(x, filters, 1, hyperparams=hyperparams, name=f"{name}_project", activation=None)
    if stride == 1 and int(shortcut.shape[-1]) == filters:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return Block(expanded, x)


def divisible(filters, min_depth=8, divisor=8):
    """`filters` rounded to a multiple of `divisor`, at least `min_depth`, and never below 90 % of what was asked."""
    rounded = max(min_depth, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * filters else rounded
