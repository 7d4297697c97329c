"""Inception-ResNet V2 (Szegedy et al. 2016, arXiv:1602.07261, figures 3 and 15 to 19) in upstream's arithmetic.

Every convolution and pooling pads as TensorFlow's SAME, where the paper and keras.applications leave the borders out in
the stem and in the reductions, and the stem is the shorter one of keras.applications. Batch norm has no scale.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.layers.conv_blocks import ConvHyperparams, conv, conv_bn_act


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution: filters, kernel `side` or `(height, width)`, stride."""

    filters: int
    kernel: int | tuple
    strides: int = 1


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
        **kwargs: Keras' own `name`, `trainable`.
    """

    checkpoint_family = "inception_resnet_v2"

    def __init__(self, *, hyperparams: ConvHyperparams | None = None, **kwargs):
        hyperparams = hyperparams or ConvHyperparams(
            activation="relu", batch_norm_momentum=0.9997, batch_norm_epsilon=0.001, batch_norm_scale=False
        )
        x = inputs = keras.Input((None, None, 3), name="images")
        outputs = {}
        for number, convolutions in enumerate(STEM, start=1):
            x = outputs[f"C{number}"] = chain(x, convolutions, hyperparams, name=f"stem_{number}")
            x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name=f"stem_{number}_pool")(x)
        for level, modules in STAGES.items():
            for module in modules:
                build = residual if isinstance(module, Residual) else mixed
                x = build(x, module, hyperparams)
            if level == "C5":
                x = conv_bn_act(x, HEAD.filters, HEAD.kernel, hyperparams=hyperparams, name="head")
            outputs[level] = x
        super().__init__(inputs=inputs, outputs=outputs, strides={f"C{n}": 2**n for n in range(1, 6)}, **kwargs)
        self.hyperparams = hyperparams

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hyperparams": keras.saving.serialize_keras_object(self.hyperparams)}


def chain(x, convolutions, hyperparams, *, name):
    """Convolutions one behind the other, each with batch norm and activation."""
    for index, row in enumerate(convolutions):
        x = conv_bn_act(
            x, row.filters, row.kernel, strides=row.strides, hyperparams=hyperparams, name=f"{name}_{index}"
        )
    return x


def mixed(x, module, hyperparams):
    """Concatenation of the branches of a `Mixed`; the pooling is at the head of the last one."""
    pooling = {"average": keras.layers.AveragePooling2D, "max": keras.layers.MaxPooling2D}[module.pool]
    pooled = pooling(3, strides=module.strides, padding="same", name=f"{module.name}_pool")(x)
    sources = [x] * (len(module.branches) - 1) + [pooled]
    branches = [
        chain(source, convolutions, hyperparams, name=f"{module.name}_branch_{index}")
        for index, (source, convolutions) in enumerate(zip(sources, module.branches, strict=True))
    ]
    return keras.layers.Concatenate(name=f"{module.name}_concatenate")(branches)


def residual(x, module, hyperparams):
    """`repeats` residual blocks; the convolution behind the branches has a bias and no batch norm."""
    for block in range(module.repeats):
        name = f"{module.name}_{block}"
        branches = [
            chain(x, convolutions, hyperparams, name=f"{name}_branch_{index}")
            for index, convolutions in enumerate(module.branches)
        ]
        change = keras.layers.Concatenate(name=f"{name}_concatenate")(branches)
        change = conv(hyperparams, x.shape[-1], 1, use_bias=True, name=f"{name}_up_conv")(change)
        change = keras.layers.Rescaling(module.scale, name=f"{name}_scale")(change)
        x = keras.layers.Add(name=f"{name}_add")([x, change])
        if module.activation:
            x = keras.layers.Activation(hyperparams.activation, name=f"{name}_act")(x)
    return x
