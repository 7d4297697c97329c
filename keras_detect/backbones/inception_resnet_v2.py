"""Inception-ResNet V2 (Szegedy et al. 2016, arXiv:1602.07261, figures 3 and 15 to 19) in upstream's arithmetic.

Every convolution and pooling pads as TensorFlow's SAME, where the paper and keras.applications leave the borders out in
the stem and in the reductions, and the stem is the shorter one of keras.applications. Batch norm has no scale.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, level_name, register_backbone
from keras_detect.layers.conv_blocks import ConvHyperparams, conv, conv_bn_act


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution: filters, kernel `side` or `(height, width)`, stride, padding."""

    filters: int
    kernel: int | tuple
    strides: int = 1
    padding: str = "same"


@dataclasses.dataclass(frozen=True)
class Residual:
    """`repeats` times: branches side by side, a 1x1 convolution to the input's depth, `scale` times that is added."""

    name: str
    branches: tuple
    scale: float
    repeats: int
    activation: bool = True


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Branches side by side, the last of which begins with a 3x3 pooling of the given kind and stride."""

    name: str
    branches: tuple
    pool: str
    strides: int


STEM = (  # C1, C2; a 3x3 max pooling at stride 2 follows each
    (Conv(32, 3, 2), Conv(32, 3), Conv(64, 3)),
    (Conv(80, 1), Conv(192, 3)),
)
INCEPTION_A = Mixed(
    "mixed_5b",
    ((Conv(96, 1),), (Conv(48, 1), Conv(64, 5)), (Conv(64, 1), Conv(96, 3), Conv(96, 3)), (Conv(64, 1),)),
    pool="average",
    strides=1,
)
BLOCK_35 = Residual(
    "block35",
    ((Conv(32, 1),), (Conv(32, 1), Conv(32, 3)), (Conv(32, 1), Conv(48, 3), Conv(64, 3))),
    scale=0.17,
    repeats=10,
)
REDUCTION_A = Mixed(
    "mixed_6a", ((Conv(384, 3, 2),), (Conv(256, 1), Conv(256, 3), Conv(384, 3, 2)), ()), pool="max", strides=2
)
BLOCK_17 = Residual(
    "block17", ((Conv(192, 1),), (Conv(128, 1), Conv(160, (1, 7)), Conv(192, (7, 1)))), scale=0.1, repeats=20
)
REDUCTION_B = Mixed(
    "mixed_7a",
    (
        (Conv(256, 1), Conv(384, 3, 2)),
        (Conv(256, 1), Conv(288, 3, 2)),
        (Conv(256, 1), Conv(288, 3), Conv(320, 3, 2)),
        (),
    ),
    pool="max",
    strides=2,
)
BLOCK_8_BRANCHES = ((Conv(192, 1),), (Conv(192, 1), Conv(224, (1, 3)), Conv(256, (3, 1))))
BLOCK_8 = Residual("block8", BLOCK_8_BRANCHES, scale=0.2, repeats=9)
LAST_BLOCK_8 = Residual("block8_last", BLOCK_8_BRANCHES, scale=1.0, repeats=1, activation=False)
HEAD = Conv(1536, 1)

#: what makes each level out of the one before it
STAGES = {
    "C3": (INCEPTION_A, BLOCK_35),
    "C4": (REDUCTION_A, BLOCK_17),
    "C5": (REDUCTION_B, BLOCK_8, LAST_BLOCK_8),
}


@register_backbone("inception_resnet_v2")
class InceptionResNetV2(Backbone):
    """Inception-ResNet V2 without its classifier. Levels C1...C5 with 64, 192, 320, 1088 and 1536 channels.

    Args:
        hyperparams: `ConvHyperparams` of every convolution; `None` for upstream's.
        atrous: C4 keeps the stride of C3, and its blocks have a dilation of 2 (upstream's "atrous" models). The last
            levels are then called `C4_stride_8` and `C5_stride_16`.
        reduction_padding: of the convolutions and the pooling that make C5 smaller: "same", or "valid" as in
            upstream's TensorFlow 1 models.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a padding that is neither.
    """

    checkpoint_family = "inception_resnet_v2"

    def __init__(
        self,
        *,
        hyperparams: ConvHyperparams | None = None,
        atrous: bool = False,
        reduction_padding: str = "same",
        **kwargs,
    ):
        if reduction_padding not in ("same", "valid"):
            raise ValueError(f"reduction_padding is 'same' or 'valid'. Received: {reduction_padding!r}")
        hyperparams = hyperparams or ConvHyperparams(
            activation="relu", batch_norm_momentum=0.9997, batch_norm_epsilon=0.001, batch_norm_scale=False
        )
        x = inputs = keras.Input((None, None, 3), name="images")
        outputs: dict[str, Any] = {}
        for number, convolutions in enumerate(STEM, start=1):
            x = outputs[f"C{number}"] = chain(x, convolutions, hyperparams, name=f"stem_{number}")
            x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name=f"stem_{number}_pool")(x)
        settings: dict[str, dict[str, Any]] = {"C4": {"stride": 1, "dilation_rate": 2}} if atrous else {}
        settings["C5"] = {"padding": reduction_padding}
        for level, modules in STAGES.items():
            x = run_modules(x, modules, hyperparams, **settings.get(level, {}))
            if level == "C5":
                x = conv_bn_act(x, HEAD.filters, HEAD.kernel, hyperparams=hyperparams, name="head")
            outputs[level] = x
        strides = {level: 2**n // (2 if atrous and n > 3 else 1) for n, level in enumerate(outputs, start=1)}
        names = {level: level_name(int(level[1:]), stride) for level, stride in strides.items()}
        outputs = {names[level]: tensor for level, tensor in outputs.items()}
        strides = {names[level]: stride for level, stride in strides.items()}
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.hyperparams, self.atrous, self.reduction_padding = hyperparams, atrous, reduction_padding
        self.split_level = list(strides)[3]

    def get_config(self) -> dict[str, Any]:
        other: dict[str, Any] = {"atrous": True} if self.atrous else {}
        other |= {} if self.reduction_padding == "same" else {"reduction_padding": self.reduction_padding}
        return {**super().get_config(), **other, "hyperparams": keras.saving.serialize_keras_object(self.hyperparams)}


def run_modules(x, modules, hyperparams, *, stride=2, dilation_rate=1, padding="same"):
    """The modules one behind the other.

    Args:
        x: Keras tensor `[B, H, W, C]`.
        modules: `Mixed` and `Residual`.
        hyperparams: `ConvHyperparams`.
        stride: 1 instead of what makes a `Mixed` smaller.
        dilation_rate: of the convolutions in a `Residual`.
        padding: of what makes a `Mixed` smaller.
    """
    for module in modules:
        if isinstance(module, Residual):
            x = residual(x, module, hyperparams, dilation_rate)
        else:
            x = mixed(x, module, hyperparams, padding, min(stride, module.strides))
    return x


def chain(x, convolutions, hyperparams, *, name, dilation_rate=1):
    """Convolutions one behind the other, each with batch norm and activation."""
    for index, row in enumerate(convolutions):
        settings = {"strides": row.strides, "padding": row.padding, "dilation_rate": dilation_rate}
        x = conv_bn_act(x, row.filters, row.kernel, hyperparams=hyperparams, name=f"{name}_{index}", **settings)
    return x


def mixed(x, module, hyperparams, padding="same", stride=None):
    """Concatenation of the branches of a `Mixed`; the pooling is at the head of the last one.

    `padding` and `stride` are those of the convolutions and the pooling with the module's stride, where it is not 1.
    """
    stride, smaller = stride or module.strides, module.strides > 1
    padding = padding if smaller else "same"
    pooling = {"average": keras.layers.AveragePooling2D, "max": keras.layers.MaxPooling2D}[module.pool]
    pooled = pooling(3, strides=stride, padding=padding, name=f"{module.name}_pool")(x)
    sources = [x] * (len(module.branches) - 1) + [pooled]
    branches = [
        chain(source, _reducing(convolutions, stride, padding), hyperparams, name=f"{module.name}_branch_{index}")
        for index, (source, convolutions) in enumerate(zip(sources, module.branches, strict=True))
    ]
    return keras.layers.Concatenate(name=f"{module.name}_concatenate")(branches)


def _reducing(convolutions, stride, padding):
    """The rows of a branch with this stride and padding where a row has a stride."""
    return [
        dataclasses.replace(row, strides=stride, padding=padding) if row.strides > 1 else row for row in convolutions
    ]


def residual(x, module, hyperparams, dilation_rate=1):
    """`repeats` residual blocks; the convolution behind the branches has a bias and no batch norm."""
    for block in range(module.repeats):
        name = f"{module.name}_{block}"
        branches = [
            chain(x, convolutions, hyperparams, name=f"{name}_branch_{index}", dilation_rate=dilation_rate)
            for index, convolutions in enumerate(module.branches)
        ]
        change = keras.layers.Concatenate(name=f"{name}_concatenate")(branches)
        change = conv(hyperparams, x.shape[-1], 1, use_bias=True, name=f"{name}_up_conv")(change)
        change = keras.layers.Rescaling(module.scale, name=f"{name}_scale")(change)
        x = keras.layers.Add(name=f"{name}_add")([x, change])
        if module.activation:
            x = keras.layers.Activation(hyperparams.activation, name=f"{name}_act")(x)
    return x
