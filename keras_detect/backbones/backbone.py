"""What a backbone is: a model from images to named feature levels."""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_detect.registry import Registry, deserialize, resolves

_BACKBONES = Registry("backbone")


def register_backbone(name: str | None, **settings) -> Callable[[type], type]:
    """Class decorator that files a `Backbone` under `name` for `from_backbone` and Keras' own serialization.

    Args:
        name: what `get_backbone` and `from_backbone` know it by.
        **settings: constructor arguments that the name stands for. A family registers one class once per row of its
            table: `register_backbone("resnet_v1_50", variant="resnet_v1_50")(ResNetV1)`.

    Raises:
        ValueError: if another class holds the name.
    """

    return _BACKBONES.register_class(name, **settings)


def backbone_names() -> list[str]:
    """Names of all registered backbones, sorted."""
    return _BACKBONES.names()


def get_backbone(name):
    """The class (or row of a class) registered under `name`: call it with the constructor's arguments.

    Raises `ValueError` with similar names if there is none.
    """
    return _BACKBONES.get(name)


@resolves("registered backbone", role="backbone", names=backbone_names, use="SSD.from_backbone({name!r}, ...)")
def _registered(name):
    return get_backbone(name)(name="backbone")


class Backbone(keras.Model):
    """A functional Keras model from `[B, H, W, 3]` to a dict of feature levels, coarsest last.

    Level `"Cn"` has stride 2**n; its size is `ceil(H / 2**n)`. Other names (an inner tensor that a neck takes) carry
    the stride that the subclass states. A network for SSD and Faster R-CNN has C3, C4 and C5; one all of whose levels
    have stride 4 (`Hourglass`) is for CenterNet alone.

    A subclass builds its graph and calls `super().__init__(inputs=..., outputs={level: tensor}, strides={...})`,
    overrides `preprocess` with its pixel scaling, and returns its constructor's arguments from `get_config`.

    Args:
        inputs: `keras.Input((None, None, 3))`.
        outputs: dict level name -> Keras tensor `[B, h, w, c]`.
        strides: dict with the same keys -> int.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: outputs and strides that differ in names, an output that is not 4-D, a level whose measured
            stride is not the stated one.
    """

    #: names the family in the tables of checkpoints that restore into it ("mobilenet_v2"); None: there is none
    checkpoint_family: str | None = None

    #: the level at which a two-stage detector takes proposals and RoI features, by default
    split_level = "C4"

    def __init__(self, *, inputs: Any, outputs: Any, strides: dict[str, int], **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        _check_levels(type(self).__name__, outputs, strides)
        self._check_strides(strides)
        self.strides = dict(strides)
        self.channels = {level: int(tensor.shape[-1]) for level, tensor in outputs.items()}

    def _check_strides(self, strides):
        side = 8 * max(strides.values())
        try:
            shapes = self.compute_output_shape((1, side, side, 3))
        except (NotImplementedError, TypeError, ValueError):
            return  # a layer that cannot tell its size; the stated strides are not checked
        for level, stride in strides.items():
            # sizes may be a pixel off where a network does not pad
            measured = [2 ** round(math.log2(side / max(size, 1))) for size in shapes[level][1:3]]
            if measured != [stride, stride]:
                raise ValueError(
                    f"{type(self).__name__}: level '{level}' is stated to have stride {stride}. Received a tensor that "
                    f"makes {shapes[level][1]} x {shapes[level][2]} cells of {side} x {side} pixels, stride "
                    f"{measured[0]}. Take the tensor after the right number of stride-2 layers, or state its stride."
                )

    def preprocess(self, images: Any) -> Any:
        """Scales float pixels 0...255, `[B, H, W, 3]`, to what the first convolution expects. Default: -1...1."""
        return images * (2.0 / 255.0) - 1.0

    def split_points(self) -> Any:
        """`{level: Keras tensor}` of one graph, in which the coarser levels are computed from the finer ones.

        What is between two of them runs alone on RoI features. The outputs, unless the subclass has better ones.
        """
        return self.output

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        return cls(**{key: deserialize(value) for key, value in config.items()})


def level_name(number: int, stride: int) -> str:
    """Name of the level behind stage `number`: "C4", or "C4_stride_8" where its stride is another than the name's."""
    return f"C{number}" if stride == 2**number else f"C{number}_stride_{stride}"


def _check_levels(owner, outputs, strides):
    if not isinstance(outputs, dict) or set(outputs) != set(strides):
        received = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise ValueError(
            f"{owner} must state a stride for each of its levels. Received levels {received} and strides for "
            f"{sorted(strides)}."
        )
    for level, tensor in outputs.items():
        if len(tensor.shape) != 4:
            raise ValueError(
                f"{owner}: level '{level}' must be a feature map [B, h, w, c]. Received shape {tuple(tensor.shape)}. "
                "Cut the network before its pooling and dense layers."
            )
        if level[0] == "C" and level[1:].isdigit() and strides[level] != 2 ** int(level[1:]):
            raise ValueError(
                f"{owner}: level '{level}' must have stride {2 ** int(level[1:])}. Received stride {strides[level]}. "
                "Name the level after its stride."
            )
