"""Pooling pyramid network (Jin et al. 2018, arXiv:1807.03284): one backbone level, and ever smaller poolings of it."""

from typing import Any

import keras

from keras_detect import registry
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act


@registry.register_neck("ppn")
@registry.part
class PoolingPyramid:
    """A backbone level, and maps that each halve the one before by a 2x2 max pooling; all have one depth.

    Args:
        level: backbone level to start from.
        num_layers: how many maps.
        depth: channels of the maps, by a 1x1 convolution; 0 for the backbone level as it is.
        hyperparams: `ConvHyperparams` of that convolution.

    Raises:
        ValueError: fewer than one map, or a negative depth.
    """

    checkpoint_family = "ppn"

    level: str = "C4"
    num_layers: int = 6
    depth: int = 0
    hyperparams: ConvHyperparams = ConvHyperparams()

    def __post_init__(self):
        if self.num_layers < 1 or self.depth < 0:
            raise ValueError(
                "PoolingPyramid has at least one map, of a depth of 0 (the level's own) or more. Received: "
                f"num_layers={self.num_layers}, depth={self.depth}"
            )

    @classmethod
    def for_context(cls, levels: Any, last_level: int, **settings) -> Any:
        """The neck on the last but one of backbone `levels`, finest first, for every `last_level`."""
        return cls(**{"level": levels[-2:][0], **settings})

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> dict of `num_layers` Keras tensors, finest first.

        Raises:
            ValueError: if the backbone lacks the level.
        """
        if self.level not in features:
            raise ValueError(
                f"PoolingPyramid needs the backbone level {self.level}. Received: {sorted(features)}. Choose `level` "
                "among those."
            )
        x = features[self.level]
        if self.depth:
            x = conv_bn_act(x, self.depth, 1, hyperparams=self.hyperparams, name="base")
        maps = {"pooled_0": x}
        for index in range(1, self.num_layers):
            x = maps[f"pooled_{index}"] = keras.layers.MaxPooling2D(2, padding="same", name=f"pool_{index}")(x)
        return maps
