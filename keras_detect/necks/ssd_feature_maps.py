"""SSD's extra feature maps (Liu et al. 2016, arXiv:1512.02325, figure 2): each halves the one before."""

from typing import Any

from keras_detect import registry
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act


@registry.register_neck("ssd")
@registry.part
class SsdFeatureMaps:
    """Backbone levels as they are, then ever coarser maps by a 1x1 and a 3x3 stride-2 convolution each.

    Args:
        levels: backbone levels to take over, finest first.
        extra_depths: channels of each further map; its 1x1 convolution has half of them.
        min_depth: no layer gets fewer channels.
        depth_multiplier: scales `extra_depths`.
        hyperparams: `ConvHyperparams` of the extra convolutions.
    """

    checkpoint_family = "ssd"

    levels: tuple = ("C4", "C5")
    extra_depths: tuple = (512, 256, 256, 128)
    min_depth: int = 16
    depth_multiplier: float = 1.0
    hyperparams: ConvHyperparams = ConvHyperparams()

    @classmethod
    def for_context(cls, levels: Any, last_level: int, **settings) -> Any:
        """The neck on backbone `levels`, finest first, and as many extra maps as make six, for every `last_level`."""
        return cls(**{"levels": levels, "extra_depths": (512, 256, 256, 128)[: 6 - len(levels)], **settings})

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> dict of `len(levels) + len(extra_depths)` Keras tensors, finest first.

        Raises:
            ValueError: if the backbone lacks a level.
        """
        missing = [level for level in self.levels if level not in features]
        if missing:
            raise ValueError(
                f"SsdFeatureMaps needs the backbone levels {self.levels}. Received: {sorted(features)}. "
                "Choose `levels` among those."
            )
        maps = {level: features[level] for level in self.levels}
        x = features[self.levels[-1]]
        for index, depth in enumerate(self.extra_depths):
            name = f"extra_{index}"
            x = conv_bn_act(x, self._depth(depth // 2), 1, hyperparams=self.hyperparams, name=f"{name}_reduce")
            x = conv_bn_act(x, self._depth(depth), 3, strides=2, hyperparams=self.hyperparams, name=name)
            maps[name] = x
        return maps

    def _depth(self, depth):
        return max(int(depth * self.depth_multiplier), self.min_depth)
