"""InceptionV100: a compact backbone, made to be trained on a few CPU cores or in Colab.

| level | stride | rows | channels |
|-|-|-|-|
| C1 | 2 | 3x3 convolution at stride 2 | 24 |
| C2 | 4 | 3x3 convolution at stride 2 | 64 |
| C3 | 8 | reduction, 2 mixed blocks with branches of 64 | 128 |
| C4 | 16 | reduction, 5 mixed blocks with branches of 96 | 256 |
| C5 | 32 | reduction, 1 mixed block with branches of 160 | 512 |

A mixed block has Inception's branches (Szegedy et al. 2014, arXiv:1409.4842), a window of one, three and five pixels
over squeezed channels, with the 5x5 as two 3x3 (Szegedy et al. 2015, arXiv:1512.00567) and an addition around it
(Szegedy et al. 2016, arXiv:1602.07261). The wider windows continue from the result of the narrower ones, so that three
branches are three convolutions: few and large ones are what a CPU is good at. There is no depthwise convolution.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, initializer

STEM_FILTERS = (24, 64)  # C1 and C2


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the table: channels of the level, of each branch of its mixed blocks, and how many blocks it has."""

    filters: int
    branch: int
    blocks: int


STAGES = {"C3": Stage(128, 64, 2), "C4": Stage(256, 96, 5), "C5": Stage(512, 160, 1)}


@register_backbone("inception_v100")
class InceptionV100(Backbone):
    """InceptionV100 without a classifier: 2.8 million parameters. Levels C1...C5 with 24, 64, 128, 256, 512 channels.

    A two-stage detector cuts it at C4: the reduction and the one block of C5 are its tail, small enough to be applied
    to the RoI features of a hundred proposals. Pixels 0...255 are scaled to -1...1.

    Args:
        width_multiplier: factor on every number of channels; products are rounded down to a multiple of 8, at least 8.
        hyperparams: `ConvHyperparams` of every convolution. Default: ReLU, He's initialization, batch norm that keeps
            0.98 of its statistics in a step, for short trainings.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a width multiplier that is not positive.
    """

    split_level = "C4"

    def __init__(self, *, width_multiplier: float = 1.0, hyperparams: ConvHyperparams | None = None, **kwargs):
        if not width_multiplier > 0:
            raise ValueError(f"width_multiplier must be positive. Received: width_multiplier={width_multiplier!r}")
        hyperparams = hyperparams or ConvHyperparams(
            activation="relu", batch_norm_momentum=0.98, kernel_initializer=initializer("he_normal")
        )

        def width(filters):
            return max(int(filters * width_multiplier) // 8 * 8, 8)

        x = inputs = keras.Input((None, None, 3), name="images")
        outputs = {}
        for level, filters in zip(("C1", "C2"), STEM_FILTERS, strict=True):
            x = conv_bn_act(x, width(filters), 3, strides=2, hyperparams=hyperparams, name=f"stem_{level.lower()}")
            outputs[level] = x
        for level, stage in STAGES.items():
            name = f"stage_{level.lower()}"
            x = reduction(x, width(stage.filters), hyperparams, name=f"{name}_reduction")
            for block in range(stage.blocks):
                x = mixed(x, width(stage.branch), hyperparams, name=f"{name}_mixed_{block}")
            outputs[level] = x
        super().__init__(inputs=inputs, outputs=outputs, strides={f"C{n}": 2**n for n in range(1, 6)}, **kwargs)
        self.width_multiplier, self.hyperparams = width_multiplier, hyperparams

    def preprocess(self, images: Any) -> Any:
        """Scales float pixels 0...255, `[B, H, W, 3]`, to -1...1, as the weights were trained."""
        return images * (2.0 / 255.0) - 1.0

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width_multiplier": self.width_multiplier,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


def reduction(x, filters, hyperparams, *, name):
    """Halves the size of `x` `[B, H, W, C]` and widens it to `filters` > C, without losing its channels.

    The C channels go through max pooling, the others come from a squeezing 1x1 and a 3x3 convolution at stride 2: what
    one convolution to all `filters` costs falls to a fourth (Inception's grid reduction).
    """
    added = filters - x.shape[-1]
    pooled = keras.layers.MaxPooling2D(3, 2, padding="same", name=f"{name}_pool")(x)
    if added <= 0:
        return pooled
    x = conv_bn_act(x, max(added // 2, 8), 1, hyperparams=hyperparams, name=f"{name}_squeeze")
    x = conv_bn_act(x, added, 3, strides=2, hyperparams=hyperparams, name=f"{name}_conv")
    return keras.layers.Concatenate(name=f"{name}_concat")([pooled, x])


def mixed(x, branch, hyperparams, *, name):
    """Windows of 1, 3 and 5 pixels with `branch` channels each, joined to as many channels as `x` has, added to `x`."""
    window_1 = conv_bn_act(x, branch, 1, hyperparams=hyperparams, name=f"{name}_window_1")
    window_3 = conv_bn_act(window_1, branch, 3, hyperparams=hyperparams, name=f"{name}_window_3")
    window_5 = conv_bn_act(window_3, branch, 3, hyperparams=hyperparams, name=f"{name}_window_5")
    joined = keras.layers.Concatenate(name=f"{name}_concat")([window_1, window_3, window_5])
    joined = conv_bn_act(joined, x.shape[-1], 1, hyperparams=hyperparams, name=f"{name}_join", activation=None)
    x = keras.layers.Add(name=f"{name}_add")([x, joined])
    return keras.layers.Activation(hyperparams.activation, name=f"{name}_act")(x)
