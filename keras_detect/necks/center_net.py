"""Decoders of CenterNet (Zhou et al. 2019, arXiv:1904.07850): backbone levels -> one map of stride 4, called P2.

Both double the coarsest map three times. `CenterNetPyramid` adds a level of the backbone each time, as upstream does
over ResNet V1 and MobileNetV2; `CenterNetDeconvolution` takes the coarsest level alone, as over ResNet V2. The paper's
deformable convolutions are plain ones upstream, and here.
"""

from typing import Any

import keras

from keras_detect import registry
from keras_detect.layers.conv_blocks import (
    ConvHyperparams,
    conv,
    conv_bn_act,
    norm_act,
    separable_bn_act,
)
from keras_detect.layers.upsample_like import CropLike, UpsampleLike

MAP = "P2"
INTERPOLATIONS = ("nearest", "bilinear")
HYPERPARAMS = ConvHyperparams(activation="relu", batch_norm_momentum=0.99, batch_norm_epsilon=0.001)


@registry.register_neck("center_net_pyramid")
@registry.part
class CenterNetPyramid:
    """Levels C2...C5 -> `{"P2": map}`, from the coarsest down: doubled, plus the projected level, convolved.

    Every level is projected by a 1x1 convolution with bias; the 3x3 convolutions that follow the sums have a bias as
    well, although batch norm follows.

    Args:
        levels: backbone levels, finest first; the finest has stride 4, each other half the size of the one before.
        filters: channels of the sums, coarsest first, one for each level but the coarsest; the last is the channels
            of the map.
        separable: depthwise-separable 3x3 convolutions.
        interpolation: "nearest" or "bilinear", how maps are doubled.
        hyperparams: `ConvHyperparams` of all convolutions.
    """

    checkpoint_family = "center_net_pyramid"

    levels: tuple = ("C2", "C3", "C4", "C5")
    filters: tuple = (256, 128, 64)
    separable: bool = False
    interpolation: str = "nearest"
    hyperparams: ConvHyperparams = HYPERPARAMS

    def __post_init__(self):
        if len(self.filters) != len(self.levels) - 1 or not self.filters:
            raise ValueError(
                "CenterNetPyramid has one sum for each of its levels but the coarsest. Received: "
                f"levels={self.levels} and filters={self.filters}. Pass {len(self.levels) - 1} filters."
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"The interpolation must be one of {INTERPOLATIONS}. Received: interpolation={self.interpolation!r}"
            )

    @classmethod
    def for_context(cls, levels: Any, last_level: int, **settings) -> Any:
        """The neck on the backbone levels from C2 to the coarsest of `levels`; its map is P2 for every `last_level`."""
        last = int(levels[-1][1:])
        return cls(**{"levels": tuple(f"C{n}" for n in range(2, last + 1)), **_last_filters(last - 2), **settings})

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> `{"P2": Keras tensor [B, ceil(H / 4), ceil(W / 4), filters[-1]]}`.

        Raises:
            ValueError: if the backbone lacks a level.
        """
        _check_levels(self, self.levels, features)
        x = self._project(features[self.levels[-1]], self.filters[0], "top")
        depths = (*self.filters[1:], self.filters[-1])
        for level, filters, depth in zip(self.levels[-2::-1], self.filters, depths, strict=True):
            lateral = self._project(features[level], filters, level)
            x = keras.layers.Add(name=f"{level}_add")([self._double(x, lateral, level), lateral])
            block = separable_bn_act if self.separable else conv_bn_act
            x = block(x, depth, 3, use_bias=True, hyperparams=self.hyperparams, name=f"{level}_smooth")
        return {MAP: x}

    def _project(self, x, filters, name):
        return conv(self.hyperparams, filters, 1, use_bias=True, name=f"{name}_project")(x)

    def _double(self, x, lateral, level):
        if self.interpolation == "nearest":
            return UpsampleLike(name=f"{level}_upsample")(x, lateral)
        x = keras.layers.UpSampling2D(2, interpolation=self.interpolation, name=f"{level}_upsample")(x)
        return CropLike(name=f"{level}_crop")(x, lateral)


@registry.register_neck("center_net_deconvolution")
@registry.part
class CenterNetDeconvolution:
    """The coarsest level -> `{"P2": map}`: a convolution and a transposed one with stride 2 for each doubling.

    All convolutions have a bias although batch norm follows. A map that comes out larger than the backbone's level of
    the same stride, as for images whose sides are not multiples of 32, loses what is too much.

    Args:
        level: the backbone level to begin with.
        filters: channels of each doubling, coarsest first: three of them from stride 32 to stride 4.
        kernel_size: of the convolution before each transposed one, which is 3x3.
        hyperparams: `ConvHyperparams` of all convolutions.
    """

    checkpoint_family = "center_net_deconvolution"

    level: str = "C5"
    filters: tuple = (256, 128, 64)
    kernel_size: int = 3
    hyperparams: ConvHyperparams = HYPERPARAMS

    @classmethod
    def for_context(cls, levels: Any, last_level: int, **settings) -> Any:
        """The neck on the coarsest of `levels`; its map is P2 for every `last_level`."""
        return cls(**{"level": levels[-1], **_last_filters(int(levels[-1][1:]) - 2), **settings})

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> `{"P2": Keras tensor [B, ceil(H / 4), ceil(W / 4), filters[-1]]}`.

        Raises:
            ValueError: if the backbone lacks the level.
        """
        _check_levels(self, (self.level,), features)
        x = features[self.level]
        for number, filters in zip(range(len(self.filters) + 1, 1, -1), self.filters, strict=True):
            name = f"P{number}"
            x = conv_bn_act(
                x, filters, self.kernel_size, use_bias=True, hyperparams=self.hyperparams, name=f"{name}_before"
            )
            x = self._transposed(filters, f"{name}_conv_transpose")(x)
            x = norm_act(x, hyperparams=self.hyperparams, name=name)
            if f"C{number}" in features:
                x = CropLike(name=f"{name}_crop")(x, features[f"C{number}"])
        return {MAP: x}

    def _transposed(self, filters, name):
        return keras.layers.Conv2DTranspose(
            filters,
            3,
            strides=2,
            padding="same",
            kernel_initializer=self.hyperparams.kernel_initializer.build(),
            bias_initializer=self.hyperparams.bias_initializer.build(),
            kernel_regularizer=self.hyperparams.regularizer(),
            name=name,
        )


def _last_filters(doublings):
    """`{"filters": ...}` of so many doublings: 64 channels at stride 4, twice as many before, up to 256."""
    return {"filters": tuple(min(256, 64 * 2**left) for left in range(doublings - 1, -1, -1))}


def _check_levels(neck, levels, features):
    missing = [level for level in levels if level not in features]
    if missing:
        raise ValueError(
            f"{type(neck).__name__} needs the backbone levels {tuple(levels)}. Received: {list(features)}. Choose its "
            "levels among those, or another backbone."
        )
