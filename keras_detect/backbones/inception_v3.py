"""Inception V3 (Szegedy et al. 2015, arXiv:1512.00567, table 1) in upstream's arithmetic.

With `padding="valid"` it is the network of keras.applications, whose stem and reductions leave the border out, with
batch norms that have a scale.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.backbones.inception_resnet_v2 import Conv, Mixed, chain, mixed
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act


@dataclasses.dataclass(frozen=True)
class Expanded:
    """A block of the last stage (figure 7): two branches end in a 1x3 and a 3x1 convolution side by side."""

    name: str
    branches: tuple = ((Conv(320, 1),), (Conv(384, 1),), (Conv(448, 1), Conv(384, 3)))
    side: int = 384
    projected: int = 192


STEM = (  # C1, C2; a 3x3 max pooling at stride 2 follows each
    (Conv(32, 3, 2, "valid"), Conv(32, 3, 1, "valid"), Conv(64, 3)),
    (Conv(80, 1), Conv(192, 3, 1, "valid")),
)
SIDES = ("wide", "tall")  # of `Expanded`: 1x3 and 3x1


def _fives(name, projected):
    """Figure 5: windows of one, five and five pixels (the last as two 3x3), and a pooling."""
    branches = (
        (Conv(64, 1),),
        (Conv(48, 1), Conv(64, 5)),
        (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
        (Conv(projected, 1),),
    )
    return Mixed(name, branches, pool="average", strides=1)


def _sevens(name, inner):
    """Figure 6: windows of one, seven and thirteen pixels in rows and columns, and a pooling."""
    wide, tall = (1, 7), (7, 1)
    branches = (
        (Conv(192, 1),),
        (Conv(inner, 1), Conv(inner, wide), Conv(192, tall)),
        (Conv(inner, 1), Conv(inner, tall), Conv(inner, wide), Conv(inner, tall), Conv(192, wide)),
        (Conv(192, 1),),
    )
    return Mixed(name, branches, pool="average", strides=1)


_FIRST_REDUCTION = ((Conv(384, 3, 2),), (Conv(64, 1), Conv(96, 3), Conv(96, 3, 2)), ())
_SECOND_REDUCTION = (
    (Conv(192, 1), Conv(320, 3, 2)),
    (Conv(192, 1), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2)),
    (),
)

#: what makes each level out of the one before it
STAGES = {
    "C3": (_fives("mixed_5b", 32), _fives("mixed_5c", 64), _fives("mixed_5d", 64)),
    "C4": (
        Mixed("mixed_6a", _FIRST_REDUCTION, pool="max", strides=2),
        _sevens("mixed_6b", 128),
        _sevens("mixed_6c", 160),
        _sevens("mixed_6d", 160),
        _sevens("mixed_6e", 192),
    ),
    "C5": (
        Mixed("mixed_7a", _SECOND_REDUCTION, pool="max", strides=2),
        Expanded("mixed_7b"),
        Expanded("mixed_7c"),
    ),
}


@register_backbone("inception_v3")
class InceptionV3(Backbone):
    """Inception V3 without its classifier. Levels C1...C5 with 64, 192, 288, 768 and 2048 channels.

    Args:
        width_multiplier: factor on every number of channels.
        min_depth: no layer gets fewer channels.
        hyperparams: `ConvHyperparams` of every convolution; `None` for upstream's.
        padding: of the stem and the reductions: "same", whose levels have ceil(H / stride) rows, or upstream's "valid",
            whose levels are smaller.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a width multiplier that is not positive; an unknown padding.
    """

    checkpoint_family = "inception_v3"

    def __init__(
        self,
        *,
        width_multiplier: float = 1.0,
        min_depth: int = 16,
        hyperparams: ConvHyperparams | None = None,
        padding: str = "same",
        **kwargs,
    ):
        if not width_multiplier > 0:
            raise ValueError(f"width_multiplier must be positive. Received: width_multiplier={width_multiplier!r}")
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be 'same' or 'valid'. Received: padding={padding!r}")
        hyperparams = hyperparams or ConvHyperparams(
            activation="relu", batch_norm_momentum=0.9997, batch_norm_epsilon=0.001
        )

        def width(filters):
            return max(int(filters * width_multiplier), min_depth)

        def widened(branch):
            return tuple(dataclasses.replace(row, filters=width(row.filters)) for row in branch)

        x = inputs = keras.Input((None, None, 3), name="images")
        outputs = {}
        for number, convolutions in enumerate(STEM, start=1):
            if padding == "same":
                convolutions = tuple(dataclasses.replace(row, padding="same") for row in convolutions)
            x = outputs[f"C{number}"] = chain(x, widened(convolutions), hyperparams, name=f"stem_{number}")
            x = keras.layers.MaxPooling2D(3, strides=2, padding=padding, name=f"stem_{number}_pool")(x)
        for level, modules in STAGES.items():
            for module in modules:
                row = dataclasses.replace(module, branches=tuple(map(widened, module.branches)))
                if isinstance(row, Mixed):
                    x = mixed(x, row, hyperparams, padding=padding)
                else:
                    row = dataclasses.replace(row, side=width(row.side), projected=width(row.projected))
                    x = expanded(x, row, hyperparams)
            outputs[level] = x
        super().__init__(inputs=inputs, outputs=outputs, strides={f"C{n}": 2**n for n in range(1, 6)}, **kwargs)
        self.width_multiplier, self.min_depth, self.hyperparams = width_multiplier, min_depth, hyperparams
        self.padding = padding

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width_multiplier": self.width_multiplier,
            "min_depth": self.min_depth,
            "padding": self.padding,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


def expanded(x, block, hyperparams):
    """Concatenation of the branches of an `Expanded`, the pooling's last."""
    ends = []
    for number, convolutions in enumerate(block.branches):
        name = f"{block.name}_branch_{number}"
        branch = chain(x, convolutions, hyperparams, name=name)
        kernels = zip(SIDES, ((1, 3), (3, 1)), strict=True) if number else ()
        sides = [
            conv_bn_act(branch, block.side, kernel, hyperparams=hyperparams, name=f"{name}_{side}")
            for side, kernel in kernels
        ]
        ends += sides or [branch]
    pooled = keras.layers.AveragePooling2D(3, strides=1, padding="same", name=f"{block.name}_pool")(x)
    last = f"{block.name}_branch_{len(block.branches)}"
    ends.append(chain(pooled, (Conv(block.projected, 1),), hyperparams, name=last))
    return keras.layers.Concatenate(name=f"{block.name}_concatenate")(ends)
