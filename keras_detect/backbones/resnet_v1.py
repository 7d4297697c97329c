"""ResNet V1 (He et al. 2015, arXiv:1512.03385, table 1) with 50, 101 and 152 layers, in three variants.

They differ in convolution biases, in the padding of the first max pooling, in the convolution that has the stride of a
stage's first block, in the batch norm's epsilon and in the pixel scaling; a row of the table says whose arithmetic it
has.
"""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_detect.backbones.backbone import Backbone, level_name, register_backbone
from keras_detect.backbones.torch_arithmetic import BATCH_NORM, scaled_by_deviation
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, fixed_padding
from keras_detect.registry import unknown_name

STEM_FILTERS = 64
STAGE_STRIDES = (1, 2, 2, 2)  # C2 keeps the stride of the pooling before it
STAGE_FILTERS = (64, 128, 256, 512)  # of the inner convolutions in C2...C5; a stage's output is four times as wide
EXPANSION = 4
RGB_MEANS = (123.68, 116.779, 103.939)  # ImageNet


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What implementations of the same ResNet differ in.

    Args:
        conv_bias: whether convolutions have a bias although batch norm follows.
        padded_pool: whether the first max pooling pads one row and column on every side; else as TensorFlow's SAME.
        bgr: whether the network takes its channels in the order blue, green, red.
        batch_norm_momentum, batch_norm_epsilon: used where no `ConvHyperparams` are given.
        middle_stride: whether the 3x3 convolution of a stage's first block has the stride; else the 1x1 before it.
        unit_deviation: whether pixels are divided by ImageNet's deviations.
        checkpoint_family: of the backbone.
    """

    conv_bias: bool
    padded_pool: bool
    bgr: bool
    batch_norm_momentum: float
    batch_norm_epsilon: float
    middle_stride: bool = False
    unit_deviation: bool = False
    checkpoint_family: str = "resnet_v1"


ZOO = Arithmetic(
    conv_bias=False, padded_pool=False, bgr=False, batch_norm_momentum=0.997, batch_norm_epsilon=0.001
)  # upstream's SSD and Faster R-CNN
KERAS_APPLICATIONS = Arithmetic(
    conv_bias=True, padded_pool=True, bgr=True, batch_norm_momentum=0.99, batch_norm_epsilon=1.001e-5
)  # also upstream's CenterNet
TORCHVISION = Arithmetic(
    conv_bias=False,
    padded_pool=True,
    bgr=False,
    middle_stride=True,
    unit_deviation=True,
    checkpoint_family="resnet_v1_torch",
    **BATCH_NORM,
)  # also timm's


@dataclasses.dataclass(frozen=True)
class Variant:
    """A column of table 1: how many blocks the stages C2...C5 have, and whose arithmetic it is."""

    blocks: tuple
    arithmetic: Arithmetic


VARIANTS = {
    "resnet_v1_50": Variant((3, 4, 6, 3), ZOO),
    "resnet_v1_101": Variant((3, 4, 23, 3), ZOO),
    "resnet_v1_152": Variant((3, 8, 36, 3), ZOO),
    "resnet_v1_50_keras": Variant((3, 4, 6, 3), KERAS_APPLICATIONS),
    "resnet_v1_101_keras": Variant((3, 4, 23, 3), KERAS_APPLICATIONS),
    "resnet_v1_152_keras": Variant((3, 8, 36, 3), KERAS_APPLICATIONS),
    "resnet_v1_50_torch": Variant((3, 4, 6, 3), TORCHVISION),
    "resnet_v1_101_torch": Variant((3, 4, 23, 3), TORCHVISION),
    "resnet_v1_152_torch": Variant((3, 8, 36, 3), TORCHVISION),
}


class ResNetV1(Backbone):
    """ResNet V1 without its classifier. Levels C1...C5 with 64, 256, 512, 1024 and 2048 channels.

    Upstream's TensorFlow 1 networks have the stride of a stage in the last block of the stage before it. The numbers
    are the same: what follows is 1x1 convolutions, which see a pixel at a time.

    Args:
        variant: a row of `VARIANTS`.
        hyperparams: `ConvHyperparams` of every convolution; its batch norm settings go before the row's.
        stage_strides: strides of the first blocks of C2...C5, each 1 or 2. A level whose stride is not its usual one
            has it in its name: with `(1, 2, 2, 1)` the last level is `C5_stride_16`.
        dilations: of the 3x3 convolutions in C2...C5.
        sum_activation: behind the sum of each block; default: that of `hyperparams`.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: an unknown variant (similar names are listed), or strides or dilations that are not four such
            numbers.
    """

    checkpoint_family = "resnet_v1"

    def __init__(
        self,
        *,
        variant: str = "resnet_v1_50",
        hyperparams: ConvHyperparams | None = None,
        stage_strides: tuple[int, ...] = STAGE_STRIDES,
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        sum_activation: str | None = None,
        **kwargs,
    ):
        if variant not in VARIANTS:
            raise ValueError(unknown_name("ResNet V1 variant", variant, VARIANTS))
        stage_strides, dilations = _checked_stages(stage_strides, dilations)
        row = VARIANTS[variant]
        hyperparams = hyperparams or default_hyperparams(row.arithmetic)
        inputs = keras.Input((None, None, 3), name="images")
        outputs = {"C1": stem(inputs, row.arithmetic, hyperparams)}
        x = first_pool(outputs["C1"], row.arithmetic)
        strides, total = {"C1": 2}, 4
        stages = zip(row.blocks, STAGE_FILTERS, stage_strides, dilations, strict=True)
        for number, (blocks, filters, stride, dilation) in enumerate(stages, start=2):
            settings = {"dilation_rate": dilation, "sum_activation": sum_activation, "name": f"stage_{number}"}
            x = stage(x, blocks, filters, stride, row.arithmetic, hyperparams, **settings)
            total *= stride
            level = level_name(number, total)
            outputs[level], strides[level] = x, total
        super().__init__(inputs=inputs, outputs=outputs, strides=strides, **kwargs)
        self.variant, self.hyperparams = variant, hyperparams
        self.stage_strides, self.dilations, self.sum_activation = stage_strides, dilations, sum_activation
        self.split_level = list(strides)[3]
        self.checkpoint_family = row.arithmetic.checkpoint_family

    def preprocess(self, images: Any) -> Any:
        """Float RGB pixels 0...255 `[B, H, W, 3]` minus ImageNet's means; keras.applications' rows swap to BGR.

        torchvision's divide by the deviations.
        """
        if VARIANTS[self.variant].arithmetic.unit_deviation:
            return scaled_by_deviation(images)
        centered = images - ops.convert_to_tensor(RGB_MEANS, images.dtype)
        return ops.flip(centered, axis=-1) if VARIANTS[self.variant].arithmetic.bgr else centered

    def get_config(self) -> dict[str, Any]:
        stages: dict[str, Any] = {}
        if self.stage_strides != STAGE_STRIDES or set(self.dilations) != {1}:
            stages = {"stage_strides": list(self.stage_strides), "dilations": list(self.dilations)}
        if self.sum_activation is not None:
            stages["sum_activation"] = self.sum_activation
        return {
            **super().get_config(),
            "variant": self.variant,
            **stages,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


for _name in VARIANTS:
    register_backbone(_name, variant=_name)(ResNetV1)


def _checked_stages(strides, dilations):
    """Both as tuples."""
    strides, dilations = tuple(strides), tuple(dilations)
    if len(strides) != 4 or not set(strides) <= {1, 2} or len(dilations) != 4 or min(dilations) < 1:
        raise ValueError(
            "A ResNet V1 has four stages, each with a stride of 1 or 2 and a dilation of 1 or more. Received: "
            f"stage_strides={strides}, dilations={dilations}"
        )
    return strides, dilations


def default_hyperparams(arithmetic):
    """`ConvHyperparams` with the batch norm of an `Arithmetic`, ReLU and He's initialization."""
    return ConvHyperparams(
        activation="relu",
        batch_norm_momentum=arithmetic.batch_norm_momentum,
        batch_norm_epsilon=arithmetic.batch_norm_epsilon,
    )


def stem(x, arithmetic, hyperparams):
    """7x7 convolution at stride 2, padded evenly: `[B, H, W, 3]` -> `[B, ceil(H / 2), ceil(W / 2), 64]`."""
    return conv_bn_act(
        x,
        STEM_FILTERS,
        7,
        strides=2,
        padding="fixed",
        use_bias=arithmetic.conv_bias,
        hyperparams=hyperparams,
        name="stem",
    )


def first_pool(x, arithmetic):
    """3x3 max pooling at stride 2. Its input is not negative, so zeros at the border never win over a pixel."""
    if arithmetic.padded_pool:
        x = fixed_padding(x, 3, name="pool_pad")
    padding = "valid" if arithmetic.padded_pool else "same"
    return keras.layers.MaxPooling2D(3, 2, padding=padding, name="pool")(x)


def stage(x, blocks, filters, stride, arithmetic, hyperparams, *, name, dilation_rate=1, sum_activation=None):
    """`blocks` bottlenecks, the first with `stride` and a projected shortcut."""
    for block in range(blocks):
        x = bottleneck(
            x,
            filters,
            stride if block == 0 else 1,
            projected=block == 0,
            use_bias=arithmetic.conv_bias,
            middle_stride=arithmetic.middle_stride,
            dilation_rate=dilation_rate,
            sum_activation=sum_activation,
            hyperparams=hyperparams,
            name=f"{name}_block_{block}",
        )
    return x


def bottleneck(x, filters, stride, *, projected, use_bias, hyperparams, name, middle_stride=False, **options):
    """1x1, 3x3 and 1x1 convolution, added to the shortcut, then the activation (figure 5, right).

    The first has the stride, or with `middle_stride` the second, which has the `dilation_rate` of the options.
    """
    sum_activation = options.pop("sum_activation", None) or hyperparams.activation
    settings = {"hyperparams": hyperparams, "use_bias": use_bias}
    first, second = (1, stride) if middle_stride else (stride, 1)
    shortcut = x
    if projected:
        shortcut = conv_bn_act(
            x, EXPANSION * filters, 1, strides=stride, name=f"{name}_shortcut", activation=None, **settings
        )
    x = conv_bn_act(x, filters, 1, strides=first, name=f"{name}_reduce", **settings)
    middle = {"strides": second, "padding": "fixed", "name": f"{name}_middle"}
    x = conv_bn_act(x, filters, 3, **middle, **settings, **options)
    x = conv_bn_act(x, EXPANSION * filters, 1, name=f"{name}_expand", activation=None, **settings)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation(sum_activation, name=f"{name}_act")(x)
