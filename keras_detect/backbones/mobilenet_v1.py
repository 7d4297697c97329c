"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861, table 1), in the variant of upstream's model zoo.

Every stride-2 convolution pads as TensorFlow's SAME does, keras.applications one row and column behind: the same thing
for even sides. So this is keras.applications' MobileNet for images whose sides are multiples of 32, not for others.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, depthwise_bn_act

STEM_FILTERS = 32


@dataclasses.dataclass(frozen=True)
class Block:
    """Two rows of table 1: a 3x3 depthwise convolution with `stride`, then a 1x1 convolution to `filters`."""

    filters: int
    stride: int = 1


BLOCKS = (
    Block(64),
    Block(128, stride=2),
    Block(128),
    Block(256, stride=2),
    Block(256),
    Block(512, stride=2),
    *(Block(512),) * 5,
    Block(1024, stride=2),
    Block(1024),
)

# level -> (index of the block that ends it, its stride)
LEVELS = {"C1": (0, 2), "C2": (2, 4), "C3": (4, 8), "C4": (10, 16), "C5": (12, 32)}


@register_backbone("mobilenet_v1")
class MobileNetV1(Backbone):
    """MobileNetV1 without its classifier. Levels C1...C5 with 64, 128, 256, 512 and 1024 channels.

    Args:
        width_multiplier: the paper's alpha.
        min_depth: no layer gets fewer channels.
        hyperparams: `ConvHyperparams` of every convolution.
        explicit_padding: stride-2 convolutions pad one row and column on every side.
        **kwargs: Keras' own `name`, `trainable`.
    """

    checkpoint_family = "mobilenet_v1"

    def __init__(
        self,
        *,
        width_multiplier: float = 1.0,
        min_depth: int = 8,
        hyperparams: ConvHyperparams | None = None,
        explicit_padding: bool = False,
        **kwargs,
    ):
        padding = "fixed" if explicit_padding else "same"
        hyperparams = hyperparams or ConvHyperparams(activation="relu6")

        def width(filters):
            return max(int(filters * width_multiplier), min_depth)

        inputs = keras.Input((None, None, 3), name="images")
        shared = {"hyperparams": hyperparams, "padding": padding}
        x = conv_bn_act(inputs, width(STEM_FILTERS), 3, strides=2, name="stem", **shared)
        outputs = {}
        for index, block in enumerate(BLOCKS):
            name = f"block_{index}"
            x = depthwise_bn_act(x, 3, strides=block.stride, name=name, **shared)
            x = conv_bn_act(x, width(block.filters), 1, hyperparams=hyperparams, name=f"{name}_project")
            outputs.update({level: x for level, (last, _) in LEVELS.items() if last == index})
        strides = {level: stride for level, (_, stride) in LEVELS.items()}
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.width_multiplier, self.min_depth, self.hyperparams = width_multiplier, min_depth, hyperparams
        self.explicit_padding = explicit_padding

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **({"explicit_padding": True} if self.explicit_padding else {}),
            "width_multiplier": self.width_multiplier,
            "min_depth": self.min_depth,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }
