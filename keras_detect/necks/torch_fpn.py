"""Feature pyramid network (Lin et al. 2017, arXiv:1612.03144) as the paper and torchvision have it."""

from typing import Any

import keras

from keras_detect import registry
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act
from keras_detect.layers.upsample_like import UpsampleLike
from keras_detect.necks.fpn import FeaturePyramid

COARSE = ("P5", "C5", "pool")
PLAIN = ConvHyperparams(activation=None, batch_norm=False)


@registry.register_neck("fpn_torch")
@registry.part
class TorchFeaturePyramid(FeaturePyramid):
    """Backbone levels C*n* -> maps P*n* of one depth: top-down sums, each then smoothed, and coarser maps behind them.

    Where `FeaturePyramid` follows upstream, this one follows the paper: what is passed down is the sum before the
    smoothing, and the coarsest map is smoothed, too. Convolutions have no activation, and a bias where no batch norm
    follows.

    Args:
        levels: backbone levels, finest first, each half the size of the one before.
        coarse_levels: how many coarser maps follow.
        coarse_from: what they are made of, written for levels up to C5: "P5", the coarsest map, or "C5", the coarsest
            backbone level, by 3x3 convolutions at stride 2 with ReLU between them (RetinaNet); "pool", every second
            pixel of the map before (Faster R-CNN).
        depth: channels of every map.
        hyperparams: `ConvHyperparams`; its activation is not used. Convolutions of coarser maps have no batch norm.
        separable: not supported.

    Raises:
        ValueError: levels that do not follow each other, an unknown `coarse_from`, `separable`.
    """

    checkpoint_family = "fpn_torch"

    coarse_from: str = "P5"
    hyperparams: ConvHyperparams = PLAIN

    def __post_init__(self):
        super().__post_init__()
        if self.coarse_from not in COARSE:
            raise ValueError(f"coarse_from must be one of {COARSE}. Received: coarse_from={self.coarse_from!r}")
        if self.separable:
            raise ValueError("TorchFeaturePyramid supports only full convolutions. Received: separable=True")

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> dict of `len(levels) + coarse_levels` Keras tensors, finest first.

        Raises:
            ValueError: if the backbone lacks a level.
        """
        self.check_levels(features)
        names = dict(zip(self.levels, self.map_names, strict=False))
        x, maps = None, {}
        for level, name in reversed(names.items()):
            lateral = self._block(features[level], 1, f"{name}_project")
            if x is None:
                x = lateral
            else:
                x = keras.layers.Add(name=f"{name}_add")([lateral, UpsampleLike(name=f"{name}_upsample")(x, lateral)])
            maps[name] = self._block(x, 3, f"{name}_smooth")
        top = names[self.levels[-1]]
        x = features[self.levels[-1]] if self.coarse_from == "C5" else maps[top]
        for index, name in enumerate(self.map_names[len(self.levels) :]):
            if self.coarse_from == "pool":
                x = keras.layers.MaxPooling2D(1, 2, name=f"{name}_pool", padding="same")(x)
            else:
                x = keras.layers.Activation("relu", name=f"{name}_relu")(x) if index else x
                x = conv_bn_act(x, self.depth, 3, strides=2, padding="fixed", hyperparams=PLAIN, name=name)
            maps[name] = x
        return {name: maps[name] for name in self.map_names}

    def _block(self, x, kernel_size, name):
        return conv_bn_act(x, self.depth, kernel_size, hyperparams=self.hyperparams, name=name, activation=None)
