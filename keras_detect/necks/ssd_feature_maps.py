"""SSD's extra feature maps (Liu et al. 2016, arXiv:1512.02325, figure 2): each halves the one before."""

from typing import Any

from keras_detect import registry
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, depthwise_bn_act


@registry.register_neck("ssd")
@registry.part
class SsdFeatureMaps:
    """Backbone levels as they are, then ever coarser maps by a 1x1 and a 3x3 stride-2 convolution each.

    Args:
        levels: backbone levels to take over, finest first.
        extra_depths: channels of each further map; its 1x1 convolution has half of them.
        min_depth: no layer gets fewer channels.
        depth_multiplier: scales `extra_depths`.
        kernel_sizes: sides of the convolutions at stride 2, one per extra map; empty for 3.
        separable: a depthwise and a 1x1 convolution in the place of each 3x3 one (SSDLite).
        explicit_padding: the 3x3 convolutions pad one row and column on every side, of maps of any size.
        hyperparams: `ConvHyperparams` of the extra convolutions.
    """

    checkpoint_family = "ssd"

    levels: tuple = ("C4", "C5")
    extra_depths: tuple = (512, 256, 256, 128)
    min_depth: int = 16
    depth_multiplier: float = 1.0
    kernel_sizes: tuple = registry.seldom(())
    separable: bool = registry.seldom(False)
    explicit_padding: bool = registry.seldom(False)
    hyperparams: ConvHyperparams = ConvHyperparams()

    def __post_init__(self):
        if self.kernel_sizes and len(self.kernel_sizes) != len(self.extra_depths):
            raise ValueError(
                "SsdFeatureMaps has a kernel size for each extra map, or none. Received: "
                f"kernel_sizes={self.kernel_sizes}, extra_depths={self.extra_depths}"
            )

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
            x = conv_bn_act(x, self.depth(depth // 2), 1, hyperparams=self.hyperparams, name=f"{name}_reduce")
            x = maps[name] = self._halved(x, self.depth(depth), index)
        return maps

    def _halved(self, x, depth, index):
        name, side = f"extra_{index}", self.kernel_sizes[index] if self.kernel_sizes else 3
        settings = {"hyperparams": self.hyperparams, "padding": "fixed" if self.explicit_padding else "same"}
        if not self.separable:
            return conv_bn_act(x, depth, side, strides=2, name=name, **settings)
        x = depthwise_bn_act(x, side, strides=2, name=f"{name}_each", **settings)
        return conv_bn_act(x, depth, 1, hyperparams=self.hyperparams, name=name)

    def depth(self, depth: int) -> int:
        """Channels of a layer that has `depth` of them where `depth_multiplier` is 1."""
        return max(int(depth * self.depth_multiplier), self.min_depth)
