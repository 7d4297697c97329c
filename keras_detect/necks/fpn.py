"""Feature pyramid network (Lin et al. 2017, arXiv:1612.03144) as upstream's one-stage detectors have it."""

import re
from typing import Any

import keras

from keras_detect import registry
from keras_detect.layers.conv_blocks import ConvHyperparams, conv, conv_bn_act, separable_bn_act
from keras_detect.layers.upsample_like import UpsampleLike


@registry.register_neck("fpn")
@registry.part
class FeaturePyramid:
    """Backbone levels C*n* -> maps P*n* of one depth: top-down sums, then coarser maps below them.

    Every level is projected to `depth` by a 1x1 convolution with bias. The coarsest projection is a map as it is,
    without batch norm and activation; each finer one is added to the map above it, doubled in size, and smoothed by a
    3x3 convolution. What is passed down is the smoothed map, where the paper passes the sum before the smoothing. The
    coarse maps come from the coarsest projection by 3x3 convolutions at stride 2.

    Args:
        levels: backbone levels, finest first, each half the size of the one before.
        coarse_levels: how many coarser maps follow: 2 gives P6 and P7 behind C5.
        depth: channels of every map.
        separable: depthwise-separable 3x3 convolutions ("FPNLite").
        pass_sums: pass down the sum before the smoothing, as the paper and upstream's TensorFlow 1 do.
        hyperparams: `ConvHyperparams` of all convolutions.
    """

    checkpoint_family = "fpn"

    levels: tuple = ("C3", "C4", "C5")
    coarse_levels: int = 2
    depth: int = 256
    separable: bool = False
    pass_sums: bool = registry.seldom(False)
    hyperparams: ConvHyperparams = ConvHyperparams()

    def __post_init__(self):
        numbers = [int(level[1:]) if re.fullmatch(r"C\d+", level) else None for level in self.levels]
        if not numbers or None in numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise ValueError(
                "FeaturePyramid takes backbone levels that halve their size from one to the next, such as "
                f"('C3', 'C4', 'C5'). Received: levels={self.levels}"
            )

    @classmethod
    def for_context(cls, levels: Any, last_level: int, **settings) -> Any:
        """The neck on backbone `levels`, finest first; its coarsest map is P`last_level`, an int."""
        return cls(**{"levels": levels, "coarse_levels": max(last_level - int(levels[-1][1:]), 0), **settings})

    @property
    def map_names(self) -> Any:
        """Names of the maps, finest first: `("P3", ..., "P7")`."""
        first = int(self.levels[0][1:])
        return tuple(f"P{number}" for number in range(first, first + len(self.levels) + self.coarse_levels))

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> dict of `len(levels) + coarse_levels` Keras tensors, finest first.

        Raises:
            ValueError: if the backbone lacks a level.
        """
        self.check_levels(features)
        names = dict(zip(self.levels, self.map_names, strict=False))
        projected = {
            name: conv(self.hyperparams, self.depth, 1, use_bias=True, name=f"{name}_project")(features[level])
            for level, name in names.items()
        }
        top = list(projected)[-1]
        maps, x = {top: projected[top]}, projected[top]
        for name in list(projected)[-2::-1]:
            enlarged = UpsampleLike(name=f"{name}_upsample")(x, projected[name])
            x = keras.layers.Add(name=f"{name}_add")([projected[name], enlarged])
            maps[name] = self._conv(x, 1, f"{name}_smooth")
            x = x if self.pass_sums else maps[name]
        x = projected[top]
        for name in self.map_names[len(self.levels) :]:
            x = maps[name] = self._conv(x, 2, name)
        return {name: maps[name] for name in self.map_names}

    def check_levels(self, features: Any) -> Any:
        """Raises `ValueError` unless `features` has the levels."""
        missing = [level for level in self.levels if level not in features]
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs the backbone levels {self.levels}. Received: {sorted(features)}. "
                "Choose `levels` among those."
            )

    def _conv(self, x, strides, name):
        block = separable_bn_act if self.separable else conv_bn_act
        return block(x, self.depth, 3, strides=strides, hyperparams=self.hyperparams, name=name)
