"""ResNet with pre-activation (He et al. 2016, arXiv:1603.05027): ResNet V2, and two small networks of upstream.

Batch norm and activation are before the convolutions, so that nothing stands on the way of the sums. As in
keras.applications, the last block of a stage has the stride, and a block that only changes the size takes every second
pixel of its input as the shortcut.

Upstream's CenterNet calls its networks of 18 and 34 layers ResNet V1; their blocks are pre-activated as well, with one
activation more. keras.applications has no such networks.
"""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.backbones.resnet_v1 import (
    EXPANSION,
    KERAS_APPLICATIONS,
    RGB_MEANS,
    STAGE_FILTERS,
    STEM_FILTERS,
    default_hyperparams,
    first_pool,
)
from keras_detect.layers.conv_blocks import conv, conv_bn_act, fixed_padding, norm_act
from keras_detect.registry import unknown_name

SUM_LEVEL = "C5_sum"  # the last block's output, before the batch norm and the activation that end the network


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network.

    Args:
        blocks: how many each of the four stages has.
        strides: of the last block of each stage.
        basic: two 3x3 convolutions per block, as many channels as inside, and a level at the end of each stage; else
            1x1, 3x3 and 1x1, four times the channels, and a level before each block with a stride.
        caffe: pixels as for ResNet V1 (blue first, minus ImageNet's means); else -1...1.
        checkpoint_family: of the backbone.
    """

    blocks: tuple
    strides: tuple = (2, 2, 2, 1)
    basic: bool = False
    caffe: bool = False
    checkpoint_family: str = "resnet_v2"


_BASIC = Variant((), strides=(1, 2, 2, 2), basic=True, caffe=True, checkpoint_family="resnet_v1_basic")
VARIANTS = {
    "resnet_v1_18": dataclasses.replace(_BASIC, blocks=(2, 2, 2, 2)),
    "resnet_v1_34": dataclasses.replace(_BASIC, blocks=(3, 4, 6, 3)),
    "resnet_v2_50": Variant((3, 4, 6, 3)),
    "resnet_v2_101": Variant((3, 4, 23, 3)),
    "resnet_v2_152": Variant((3, 8, 36, 3)),
}


class ResNetV2(Backbone):
    """ResNet with pre-activation, without its classifier. Levels C1...C5 and `"C5_sum"` (stride 32).

    C2, C3 and C4 are sums of blocks, with 256, 512 and 1024 channels (64, 128 and 256 in the rows of 18 and 34
    layers). C5 is the end of the network, behind its last activation, and `"C5_sum"` the sum before it; both have 2048
    (512) channels.

    Args:
        variant: a row of `VARIANTS`.
        hyperparams: `ConvHyperparams` of every convolution; `None` for those of keras.applications.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: an unknown variant; similar names are listed.
    """

    checkpoint_family = "resnet_v2"

    def __init__(self, *, variant: str = "resnet_v2_50", hyperparams: Any = None, **kwargs):
        if variant not in VARIANTS:
            raise ValueError(unknown_name("ResNet V2 variant", variant, VARIANTS))
        row = VARIANTS[variant]
        hyperparams = hyperparams or default_hyperparams(KERAS_APPLICATIONS)
        inputs = keras.Input((None, None, 3), name="images")
        outputs = {"C1": stem(inputs, hyperparams)}
        x = first_pool(outputs["C1"], KERAS_APPLICATIONS)
        for number, (blocks, stride) in enumerate(zip(row.blocks, row.strides, strict=True), start=2):
            build = basic_block if row.basic else bottleneck
            for index in range(blocks):
                before, last = x, index == blocks - 1
                name = f"stage_{number}_block_{index}"
                filters = STAGE_FILTERS[number - 2]
                x = build(x, filters, stride if last else 1, projected=index == 0, hyperparams=hyperparams, name=name)
            outputs[f"C{number}"] = x if row.basic else before
        outputs[SUM_LEVEL] = x
        del outputs["C5"]
        outputs["C5"] = norm_act(x, hyperparams=hyperparams, name="head")
        strides = {f"C{n}": 2**n for n in range(1, 5)} | {SUM_LEVEL: 32, "C5": 32}
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.variant, self.hyperparams = variant, hyperparams
        self.checkpoint_family = row.checkpoint_family

    def preprocess(self, images: Any) -> Any:
        """Float RGB pixels 0...255 `[B, H, W, 3]` to -1...1.

        The rows of 18 and 34 layers: to blue, green, red minus ImageNet's means.
        """
        if not VARIANTS[self.variant].caffe:
            return super().preprocess(images)
        return ops.flip(images - ops.convert_to_tensor(RGB_MEANS, images.dtype), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "variant": self.variant,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


for _name in VARIANTS:
    register_backbone(_name, variant=_name)(ResNetV2)


def stem(x, hyperparams):
    """7x7 convolution with bias at stride 2, padded evenly: `[B, H, W, 3]` -> `[B, ceil(H / 2), ceil(W / 2), 64]`."""
    x = fixed_padding(x, 7, name="stem_pad")
    return conv(hyperparams, STEM_FILTERS, 7, strides=2, padding="valid", use_bias=True, name="stem_conv")(x)


def bottleneck(x, filters, stride, *, projected, hyperparams, name):
    """Pre-activated 1x1, 3x3 (with the stride) and 1x1 convolution, added to the shortcut (figure 4e)."""
    activated = norm_act(x, hyperparams=hyperparams, name=f"{name}_preact")
    shortcut = _shortcut(x, activated, EXPANSION * filters, stride, projected, hyperparams, name)
    x = conv_bn_act(activated, filters, 1, hyperparams=hyperparams, name=f"{name}_reduce")
    x = conv_bn_act(x, filters, 3, strides=stride, padding="fixed", hyperparams=hyperparams, name=f"{name}_middle")
    x = conv(hyperparams, EXPANSION * filters, 1, use_bias=True, name=f"{name}_expand_conv")(x)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def basic_block(x, filters, stride, *, projected, hyperparams, name):
    """Pre-activated 3x3 and 3x3 (with the stride) convolution, activated once more, added to the shortcut."""
    activated = norm_act(x, hyperparams=hyperparams, name=f"{name}_preact")
    shortcut = _shortcut(x, activated, filters, stride, projected, hyperparams, name)
    x = conv_bn_act(activated, filters, 3, hyperparams=hyperparams, name=f"{name}_first")
    x = conv_bn_act(x, filters, 3, strides=stride, padding="fixed", hyperparams=hyperparams, name=f"{name}_second")
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def _shortcut(x, activated, filters, stride, projected, hyperparams, name):
    if projected:
        layer = conv(hyperparams, filters, 1, strides=stride, use_bias=True, name=f"{name}_shortcut_conv")
        return layer(activated)
    return keras.layers.MaxPooling2D(1, stride, name=f"{name}_shortcut_pool")(x) if stride > 1 else x
