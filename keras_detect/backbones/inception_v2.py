"""Inception V2 (Ioffe and Szegedy 2015, arXiv:1502.03167, figure 5) in upstream's arithmetic.

Every convolution and pooling pads as TensorFlow's SAME, and the first convolution is separable: eight depthwise kernels
per color, then a 1x1 convolution, with one batch norm behind both.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.backbones.inception_resnet_v2 import Conv, Mixed, chain, mixed
from keras_detect.layers.conv_blocks import ConvHyperparams, separable_bn_act

STEM_FILTERS = 64
STEM_KERNELS = 8  # of the depthwise convolution, per color
STEM = (Conv(64, 1), Conv(192, 3))  # C2, between two 3x3 max poolings at stride 2
MIDDLE_LEVEL = "C4_mixed_4c"  # which upstream's SSD takes in the place of C4


def _block(name, *filters, pool="average"):
    """Windows of one, three and five pixels (the last as two 3x3), and a pooling: filters in the order of figure 5."""
    one, three_reduce, three, double_reduce, double, projected = filters
    branches = (
        (Conv(one, 1),),
        (Conv(three_reduce, 1), Conv(three, 3)),
        (Conv(double_reduce, 1), Conv(double, 3), Conv(double, 3)),
        (Conv(projected, 1),),
    )
    return Mixed(name, branches, pool=pool, strides=1)


def _reduction(name, three_reduce, three, double_reduce, double):
    """Half the size: a 3x3, a double 3x3 and a pooling, each at stride 2."""
    branches = (
        (Conv(three_reduce, 1), Conv(three, 3, 2)),
        (Conv(double_reduce, 1), Conv(double, 3), Conv(double, 3, 2)),
        (),
    )
    return Mixed(name, branches, pool="max", strides=2)


#: what makes each level out of the one before it
STAGES = {
    "C3": (_block("mixed_3b", 64, 64, 64, 64, 96, 32), _block("mixed_3c", 64, 64, 96, 64, 96, 64)),
    MIDDLE_LEVEL: (
        _reduction("mixed_4a", 128, 160, 64, 96),
        _block("mixed_4b", 224, 64, 96, 96, 128, 128),
        _block("mixed_4c", 192, 96, 128, 96, 128, 128),
    ),
    "C4": (_block("mixed_4d", 160, 128, 160, 128, 160, 96), _block("mixed_4e", 96, 128, 192, 160, 192, 96)),
    "C5": (
        _reduction("mixed_5a", 128, 192, 192, 256),
        _block("mixed_5b", 352, 192, 320, 160, 224, 128),
        _block("mixed_5c", 352, 192, 320, 192, 224, 128, pool="max"),
    ),
}


@register_backbone("inception_v2")
class InceptionV2(Backbone):
    """Inception V2 without its classifier. Levels C1...C5 with 64, 192, 320, 576 and 1024 channels.

    A level more, `C4_mixed_4c`, is the map in the middle of stride 16 (576 channels).

    Args:
        width_multiplier: factor on every number of channels.
        min_depth: no layer gets fewer channels.
        hyperparams: `ConvHyperparams` of every convolution; `None` for upstream's.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a width multiplier that is not positive.
    """

    checkpoint_family = "inception_v2"

    def __init__(
        self,
        *,
        width_multiplier: float = 1.0,
        min_depth: int = 16,
        hyperparams: ConvHyperparams | None = None,
        **kwargs,
    ):
        if not width_multiplier > 0:
            raise ValueError(f"width_multiplier must be positive. Received: width_multiplier={width_multiplier!r}")
        hyperparams = hyperparams or ConvHyperparams(
            activation="relu", batch_norm_momentum=0.9997, batch_norm_epsilon=0.001
        )

        def width(filters):
            return max(int(filters * width_multiplier), min_depth)

        inputs = keras.Input((None, None, 3), name="images")
        x = separable_bn_act(
            inputs,
            width(STEM_FILTERS),
            7,
            strides=2,
            reach=("depthwise", "pointwise"),
            depth_multiplier=min(int(width(STEM_FILTERS) / 3), STEM_KERNELS),
            hyperparams=hyperparams,
            name="stem",
        )
        outputs = {"C1": x}
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
        x = outputs["C2"] = chain(x, _widened(STEM, width), hyperparams, name="stem_2")
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_2_pool")(x)
        for level, modules in STAGES.items():
            for module in modules:
                branches = tuple(_widened(branch, width) for branch in module.branches)
                x = mixed(x, dataclasses.replace(module, branches=branches), hyperparams)
            outputs[level] = x
        strides = {f"C{n}": 2**n for n in range(1, 6)} | {MIDDLE_LEVEL: 16}
        strides = {level: strides[level] for level in outputs}
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.width_multiplier, self.min_depth, self.hyperparams = width_multiplier, min_depth, hyperparams

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width_multiplier": self.width_multiplier,
            "min_depth": self.min_depth,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


def _widened(convolutions, width):
    return tuple(dataclasses.replace(row, filters=width(row.filters)) for row in convolutions)
