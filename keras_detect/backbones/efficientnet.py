"""EfficientNet (Tan and Le 2019, arXiv:1905.11946): B0 to B7 are rows of a table.

Variant. Layers, paddings (TensorFlow's SAME), batch norm (momentum 0.99, epsilon 0.001) and drop-connect are those of
upstream's zoo, and with `taps="stages"` the levels equal those of keras.applications' EfficientNet of the same size
for images whose sides are multiples of 32: for odd feature maps keras.applications pads stride-2 convolutions another
way. Neither the 1x1 convolution behind the last stage nor the classifier is built, since no detector reads them.
"""

import dataclasses
import math
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
from keras_detect.layers.conv_blocks import ConvHyperparams, conv, conv_bn_act, depthwise_bn_act, initializer
from keras_detect.layers.drop_connect import DropConnect
from keras_detect.registry import unknown_name

STEM_FILTERS = 32
SQUEEZE_RATIO = 0.25  # of a block's input channels

# Upstream's convolutions all have these, regardless of its config.
HYPERPARAMS = ConvHyperparams(
    activation="swish",
    kernel_initializer=initializer("variance_scaling", scale=2.0, mode="fan_out", distribution="truncated_normal"),
    l2_weight=1e-5,
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the paper's table 1: `repeats` inverted residuals of B0, the first with `stride`."""

    expansion: int
    kernel_size: int
    filters: int
    repeats: int
    stride: int


STAGES = (
    Stage(1, 3, 16, 1, 1),
    Stage(6, 3, 24, 2, 2),
    Stage(6, 5, 40, 2, 2),
    Stage(6, 3, 80, 3, 2),
    Stage(6, 5, 112, 3, 1),
    Stage(6, 5, 192, 4, 2),
    Stage(6, 3, 320, 1, 1),
)

LEVELS = {"C1": 0, "C2": 1, "C3": 2, "C4": 4, "C5": 6}  # level -> the stage that makes it
TAPS = ("stages", "b0")


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a size grows from B0, and the side of the images it was made for.

    `width` multiplies channels, `depth` multiplies a stage's repeats (the paper's equation 3).
    """

    width: float
    depth: float
    image_size: int

    def filters(self, filters):
        """Channels: a multiple of 8, at least 8, and never below 90 % of what was asked."""
        wanted = filters * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def repeats(self, stage):
        """Blocks of `stage`, rounded up."""
        return math.ceil(self.depth * stage.repeats)


VARIANTS = {
    "b0": Variant(1.0, 1.0, 224),
    "b1": Variant(1.0, 1.1, 240),
    "b2": Variant(1.1, 1.2, 260),
    "b3": Variant(1.2, 1.4, 300),
    "b4": Variant(1.4, 1.8, 380),
    "b5": Variant(1.6, 2.2, 456),
    "b6": Variant(1.8, 2.6, 528),
    "b7": Variant(2.0, 3.1, 600),
}


class EfficientNet(Backbone):
    """EfficientNet without its classifier. Levels C1...C5.

    Args:
        variant: a row of `VARIANTS`, "b0" to "b7".
        taps: where the levels are taken from. "stages": the last block of a stage, as in the EfficientDet paper and
            in keras.applications. "b0": for every size the block that is a stage's last one in B0; upstream's
            detectors were trained so, and the blocks behind the last tap are not built.
        drop_connect_rate: rate at the end of the network; it grows from 0 with the block's number. 0 turns it off.
        hyperparams: `ConvHyperparams` of every convolution; default: `HYPERPARAMS`, with the batch norm of
            `arithmetic`.
        arithmetic: "tensorflow", or "torch" for the padding and batch norm of torchvision and timm.
        seed: int that fixes what drop-connect draws, `None` for other draws each time.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: an unknown variant or tap.
    """

    checkpoint_family = "efficientnet"

    def __init__(
        self,
        *,
        variant: str = "b0",
        taps: str = "stages",
        drop_connect_rate: float = 0.2,
        hyperparams: ConvHyperparams | None = None,
        arithmetic: Any = TENSORFLOW,
        seed: int | None = None,
        **kwargs,
    ):
        if variant not in VARIANTS:
            raise ValueError(unknown_name("EfficientNet variant", variant, VARIANTS))
        if taps not in TAPS:
            raise ValueError(f"Levels are taken from one of {TAPS}. Received: taps={taps!r}")
        padding = PADDINGS[checked_arithmetic(arithmetic)]
        batch_norm: dict[str, Any] = BATCH_NORM if arithmetic == TORCH else {}
        hyperparams = hyperparams or dataclasses.replace(HYPERPARAMS, **batch_norm)
        shared = {"hyperparams": hyperparams, "padding": padding}
        row = VARIANTS[variant]
        inputs = keras.Input((None, None, 3), name="images")
        x = conv_bn_act(inputs, row.filters(STEM_FILTERS), 3, strides=2, name="stem", **shared)
        outputs, index, total = {}, 0, sum(row.repeats(stage) for stage in STAGES)
        for number, stage in enumerate(STAGES):
            ends = {level: _tap(row, number, taps) for level, tapped in LEVELS.items() if tapped == number}
            for block in range(blocks_built(row, number, taps)):
                x = inverted_residual(
                    x,
                    stage,
                    filters=row.filters(stage.filters),
                    stride=stage.stride if block == 0 else 1,
                    drop_rate=drop_connect_rate * index / total,
                    seed=None if seed is None else seed + index,
                    name=f"stage_{number}_block_{block}",
                    **shared,
                )
                outputs.update({level: x for level, end in ends.items() if end == block})
                index += 1
        strides = {level: 2 ** int(level[1:]) for level in LEVELS}
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.variant, self.taps, self.drop_connect_rate = variant, taps, drop_connect_rate
        self.hyperparams, self.arithmetic, self.seed = hyperparams, arithmetic, seed
        if arithmetic == TORCH:
            self.checkpoint_family = "efficientnet_torch"

    def preprocess(self, images: Any) -> Any:
        """Pixels 0...255, `[B, H, W, 3]` RGB, to mean 0 and deviation 1 of ImageNet's pixels."""
        return scaled_by_deviation(images)

    def get_config(self) -> dict[str, Any]:
        other = {} if self.arithmetic == TENSORFLOW else {"arithmetic": self.arithmetic}
        return {
            **super().get_config(),
            **other,
            "variant": self.variant,
            "taps": self.taps,
            "drop_connect_rate": self.drop_connect_rate,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
            "seed": self.seed,
        }


for _variant in VARIANTS:
    register_backbone(f"efficientnet_{_variant}", variant=_variant)(EfficientNet)
register_backbone("efficientnet_b0_torch", variant="b0", arithmetic=TORCH)(EfficientNet)


def blocks_built(row, number, taps):
    """Blocks of stage `number` that a level needs: all, but of the last stage only those up to its tap."""
    repeats = row.repeats(STAGES[number])
    return repeats if number + 1 < len(STAGES) else _tap(row, number, taps) + 1


def _tap(row, number, taps):
    """Index of the block of stage `number` that a level is taken from."""
    return (STAGES[number].repeats if taps == "b0" else row.repeats(STAGES[number])) - 1


def inverted_residual(x, stage, *, filters, stride, drop_rate, seed, hyperparams, name, padding="same"):
    """1x1 expansion, depthwise convolution, squeeze and excitation, linear 1x1 projection, shortcut (section 4).

    Drop-connect takes `drop_rate` and `seed` where there is a shortcut. `x` and the result are Keras tensors
    `[B, H, W, C]`.
    """
    shortcut, channels = x, int(x.shape[-1])
    if stage.expansion > 1:
        x = conv_bn_act(x, stage.expansion * channels, 1, hyperparams=hyperparams, name=f"{name}_expand")
    # upstream's depthwise kernels do not decay
    undecayed = dataclasses.replace(hyperparams, l2_weight=0.0)
    x = depthwise_bn_act(x, stage.kernel_size, strides=stride, padding=padding, hyperparams=undecayed, name=name)
    x = squeeze_excite(x, max(1, int(channels * SQUEEZE_RATIO)), hyperparams=hyperparams, name=f"{name}_se")
    x = conv_bn_act(x, filters, 1, hyperparams=hyperparams, name=f"{name}_project", activation=None)
    if stride == 1 and channels == filters:
        x = DropConnect(drop_rate, seed=seed, name=f"{name}_drop")(x) if drop_rate else x
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def squeeze_excite(x, filters, *, hyperparams, name):
    """Scales the channels of `x` `[B, H, W, C]` by what two 1x1 convolutions make of their means (Hu et al. 2018).

    `filters` is the width between the two. Their biases decay too.
    """
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    for step, width, activation in (("reduce", filters, "swish"), ("expand", int(x.shape[-1]), "sigmoid")):
        layer = conv(hyperparams, width, 1, use_bias=True, name=f"{name}_{step}_conv")
        layer.bias_regularizer = hyperparams.regularizer()
        gate = keras.layers.Activation(activation, name=f"{name}_{step}_act")(layer(gate))
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])
