"""Stacked hourglass networks (Newell et al. 2016, arXiv:1603.06937) as upstream's CenterNet has them.

A stem divides the size by 4. An hourglass then halves it stage by stage, doubles it again, and adds on the way up what
it kept on the way down, so that its output has the size of its input. Hourglass-104 is the network of CenterNet's paper
(Zhou et al. 2019, arXiv:1904.07850): two hourglasses, one behind the other, each with an output of its own.
"""

import dataclasses
from typing import Any

import keras

from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.backbones.keras_models import PixelScaling
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act
from keras_detect.layers.upsample_like import UpsampleLike
from keras_detect.registry import unknown_name

STRIDE = 4


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network.

    Args:
        stem_filters: channels of the first convolution.
        filters: channels of each stage, the widest map first.
        blocks: residual blocks of each stage.
        stacks: how many hourglasses.
    """

    stem_filters: int
    filters: tuple
    blocks: tuple
    stacks: int = 1


VARIANTS = {
    "hourglass_10": Variant(32, (64, 64), (1, 1)),
    "hourglass_20": Variant(48, (96, 96, 144), (1, 2, 2)),
    "hourglass_32": Variant(48, (96, 96, 144, 144), (2, 2, 2, 2)),
    "hourglass_52": Variant(64, (128, 128, 192, 192, 192, 256), (2, 2, 2, 2, 2, 4)),
    "hourglass_104": Variant(128, (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), stacks=2),
}
# of the COCO images, blue first: what upstream's configs give the network
_MEANS, _DEVIATIONS = (104.01362025, 114.03422265, 119.9165958), (73.6027665, 69.89082075, 70.9150767)
COCO_SCALING = PixelScaling(
    scale=tuple(1.0 / deviation for deviation in _DEVIATIONS),
    offset=tuple(-mean / deviation for mean, deviation in zip(_MEANS, _DEVIATIONS, strict=True)),
    bgr=True,
)


class Hourglass(Backbone):
    """Hourglass network: one level `"stack_<i>"` of stride 4 per hourglass, `[B, ceil(H / 4), ceil(W / 4), C]`.

    A detector trains on all of them and takes its detections from the last. No level has another stride, so the necks
    of SSD and Faster R-CNN do not fit; CenterNet takes it as it is.

    Args:
        variant: a row of `VARIANTS`.
        hyperparams: `ConvHyperparams` of every convolution; `None` for upstream's, whose batch norm momentum is 0.1:
            an update keeps a tenth of the old moving statistics.
        scaling: `PixelScaling` of the images; `None` for blue, green, red minus the means and over the deviations of
            COCO's images.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: an unknown variant; similar names are listed.
    """

    checkpoint_family = "hourglass"

    def __init__(
        self,
        *,
        variant: str = "hourglass_104",
        hyperparams: ConvHyperparams | None = None,
        scaling: Any = None,
        **kwargs,
    ):
        if variant not in VARIANTS:
            raise ValueError(unknown_name("hourglass variant", variant, VARIANTS))
        row = VARIANTS[variant]
        hyperparams = hyperparams or ConvHyperparams(
            activation="relu", batch_norm_momentum=0.1, batch_norm_epsilon=1e-5
        )
        inputs = keras.Input((None, None, 3), name="images")
        x = conv_bn_act(inputs, row.stem_filters, 7, strides=2, padding="fixed", hyperparams=hyperparams, name="stem")
        x = residual(x, row.filters[0], 2, skip=True, hyperparams=hyperparams, name="stem_residual")
        outputs: dict[str, Any] = {}
        for index in range(row.stacks):
            name = f"stack_{index}"
            if index:
                x = _joined(x, outputs[f"stack_{index - 1}"], row.filters[0], hyperparams, f"{name}_input")
            top = hourglass(x, row.filters, row.blocks, hyperparams=hyperparams, name=name)
            outputs[name] = conv_bn_act(top, row.filters[0], 3, hyperparams=hyperparams, name=f"{name}_output")
        super().__init__(inputs=inputs, outputs=outputs, strides=dict.fromkeys(outputs, STRIDE), **kwargs)
        self.variant, self.hyperparams, self.scaling = variant, hyperparams, scaling or COCO_SCALING

    def preprocess(self, images: Any) -> Any:
        """Float RGB pixels 0...255 `[B, H, W, 3]` as `scaling` says."""
        return self.scaling(images)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "variant": self.variant,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
            "scaling": keras.saving.serialize_keras_object(self.scaling),
        }


for _name in VARIANTS:
    register_backbone(_name, variant=_name)(Hourglass)


def hourglass(x, filters, blocks, *, hyperparams, name, stage=0):
    """One hourglass from its widest map inward: `[B, h, w, filters[0]]` -> the same shape.

    Args:
        x: Keras tensor.
        filters: channels of this stage and of those inside it; the last is the smallest map.
        blocks: residual blocks of the same stages.
        hyperparams: `ConvHyperparams`.
        name: of the hourglass.
        stage: number of the stage, 0 outermost.
    """
    outer, inner = filters[:2]
    shared, prefix = {"hyperparams": hyperparams}, f"{name}_stage_{stage}"
    kept = residuals(x, [outer] * blocks[0], name=f"{prefix}_keep", **shared)
    x = residuals(x, [inner] * blocks[0], name=f"{prefix}_down", stride=2, **shared)
    if len(filters) > 2:
        x = hourglass(x, filters[1:], blocks[1:], name=name, stage=stage + 1, **shared)
    else:
        x = residuals(x, [inner] * blocks[1], name=f"{name}_bottom", **shared)
    x = residuals(x, [inner] * (blocks[0] - 1) + [outer], name=f"{prefix}_up", **shared)
    x = UpsampleLike(name=f"{prefix}_upsample")(x, kept)
    return keras.layers.Add(name=f"{prefix}_add")([kept, x])


def residuals(x, filters, *, hyperparams, name, stride=1):
    """Residual blocks one behind the other, with `filters` channels each, the first with `stride`."""
    for index, channels in enumerate(filters):
        step = stride if index == 0 else 1
        skip = step > 1 or int(x.shape[-1]) != channels
        x = residual(x, channels, step, skip=skip, hyperparams=hyperparams, name=f"{name}_{index}")
    return x


def residual(x, filters, stride, *, skip, hyperparams, name):
    """Two 3x3 convolutions, the first with `stride`, added to `x`, or with `skip` to a 1x1 convolution of it."""
    shortcut = x
    if skip:
        shortcut = conv_bn_act(
            x, filters, 1, strides=stride, hyperparams=hyperparams, name=f"{name}_skip", activation=None
        )
    x = conv_bn_act(x, filters, 3, strides=stride, padding="fixed", hyperparams=hyperparams, name=f"{name}_first")
    x = conv_bn_act(x, filters, 3, hyperparams=hyperparams, name=f"{name}_second", activation=None)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.Activation(hyperparams.activation, name=f"{name}_act")(x)


def _joined(x, output, filters, hyperparams, name):
    """Input of the next hourglass, of the input and the output of the one before it."""
    settings = {"hyperparams": hyperparams, "activation": None}
    sides = [
        conv_bn_act(x, filters, 1, name=f"{name}_before", **settings),
        conv_bn_act(output, filters, 1, name=f"{name}_behind", **settings),
    ]
    x = keras.layers.Add(name=f"{name}_join_add")(sides)
    x = keras.layers.Activation(hyperparams.activation, name=f"{name}_join_act")(x)
    return residual(x, filters, 1, skip=False, hyperparams=hyperparams, name=name)
