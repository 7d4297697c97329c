"""Backbone and neck as one feature extractor for CenterNet: maps of stride 4."""

import re
from typing import Any

import keras

from keras_detect.necks.center_net import MAP, CenterNetPyramid
from keras_detect.registry import deserialize, serializable

STRIDE = 4
PROBE = 256  # side of the image whose map sizes tell the strides
#: upstream's neck of MobileNetV2
MOBILENET_PYRAMID = CenterNetPyramid(levels=("C2", "C3", "C4_first", "C5"), filters=(64, 32, 24))
#: `checkpoint_family` of a backbone -> its default neck, where it is one of its own
PYRAMIDS = {"mobilenet_v2": MOBILENET_PYRAMID, "mobilenet_v2_torch": MOBILENET_PYRAMID}


@serializable
class CenterNetFeatureExtractor(keras.Model):
    """Pixels `[B, H, W, 3]`, scaled, -> dict of maps of stride 4, each `[B, ceil(H / 4), ceil(W / 4), C]`.

    One map `"P2"` with a neck; without one the backbone's own maps, `"stack_0"` and `"stack_1"` of a network of two
    hourglasses. Heads run on each map: training uses all, detections come from the last.

    `preprocess` scales pixels as the backbone does. Which channel comes first is part of that: ResNet V1's rows of
    keras.applications and the hourglasses take blue first, the others red.

    Args:
        backbone: a `Backbone`; gives the levels and the pixel scaling.
        neck: a part that turns the backbone's dict of Keras tensors into a dict with the map `"P2"`, such as
            `CenterNetPyramid`; its other maps are left out. `None` for a backbone all of whose levels have stride 4.
        scaling: a part that is called on the pixels before the backbone's own scaling, such as `PixelScaling`: for
            upstream's configs with means and deviations of their own.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a map of another stride than 4; the way out is named.
    """

    checkpoint_family = "center_net"

    def __init__(self, *, backbone: Any, neck: Any = None, scaling: Any = None, **kwargs):
        inputs = keras.Input((None, None, 3), name="images")
        features = backbone(inputs)
        maps = features if neck is None else neck(features)
        maps = {MAP: maps[MAP]} if MAP in maps else dict(maps)
        super().__init__(inputs=inputs, outputs=maps, **kwargs)
        self._check_strides(backbone, neck)
        self.backbone, self.neck, self.scaling = backbone, neck, scaling
        self.map_names = tuple(maps)
        self.channels = {name: int(tensor.shape[-1]) for name, tensor in maps.items()}

    def _check_strides(self, backbone, neck):
        shapes = self.compute_output_shape((1, PROBE, PROBE, 3))
        others = {name: shape for name, shape in shapes.items() if shape[1] != PROBE // STRIDE}
        if not others:
            return
        received = ", ".join(f"{name} with {shape[1]} x {shape[2]} cells" for name, shape in others.items())
        source = f"{type(backbone).__name__} without a neck" if neck is None else type(neck).__name__
        raise ValueError(
            f"CenterNet predicts on maps of stride {STRIDE}: {PROBE // STRIDE} x {PROBE // STRIDE} cells of {PROBE} x "
            f"{PROBE} pixels. Received from {source}: {received}. Pass a neck whose map '{MAP}' has stride {STRIDE}, "
            "such as CenterNetPyramid or CenterNetDeconvolution."
        )

    @property
    def stride(self) -> Any:
        """Of every map: 4."""
        return STRIDE

    def preprocess(self, images: Any) -> Any:
        """Float RGB pixels 0...255 `[B, H, W, 3]` -> network input: `scaling`, then the backbone's own."""
        return self.backbone.preprocess(images if self.scaling is None else self.scaling(images))

    def weight_groups(self) -> dict[str, Any]:
        """`{group name: layers}` that together hold every weight once."""
        neck = [layer for layer in self.layers if layer is not self.backbone]
        return {"backbone": [self.backbone], "neck": neck}

    def get_config(self) -> dict[str, Any]:
        parts = {"backbone": self.backbone, "neck": self.neck, "scaling": self.scaling}
        return {
            "name": self.name,
            "trainable": self.trainable,
            **{key: keras.saving.serialize_keras_object(part) for key, part in parts.items() if part is not None},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        return cls(**{key: deserialize(value, custom_objects) for key, value in config.items()})


def default_neck(backbone):
    """The neck of a backbone where none is given: `None` for the hourglasses, else a `CenterNetPyramid` from C2.

    Raises:
        ValueError: a backbone without a level of stride 4, or without coarser ones that follow it without a gap.
    """
    if set(backbone.strides.values()) == {STRIDE}:
        return None
    if backbone.checkpoint_family in PYRAMIDS:
        return PYRAMIDS[backbone.checkpoint_family]
    return CenterNetPyramid.for_context(pyramid_levels(backbone), last_level=2)


def pyramid_levels(backbone):
    """The levels C2, C3, ... up to C5 of a backbone that follow each other without a gap, finest first.

    Raises:
        ValueError: fewer than two of them.
    """
    numbers = {int(level[1:]) for level in backbone.strides if re.fullmatch(r"C[2-5]", level)}
    levels = [f"C{n}" for n in range(2, 6) if numbers.issuperset(range(2, n + 1))]
    if len(levels) < 2:
        raise ValueError(
            "CenterNet's necks take the backbone levels C2 (stride 4), C3, ... without a gap. Received: "
            f"{list(backbone.strides)} of '{backbone.name}'. Pass a neck part with its own levels, or another backbone."
        )
    return tuple(levels)
