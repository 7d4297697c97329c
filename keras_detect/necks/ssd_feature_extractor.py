"""Backbone and neck as one feature extractor for one-stage detectors."""

import math
import re
from typing import Any

import keras

from keras_detect.registry import serializable

PROBE = 512  # side of the image whose map sizes tell the strides


@serializable
class SSDFeatureExtractor(keras.Model):
    """Pixels `[B, H, W, 3]`, scaled, -> list of feature maps `[B, h_l, w_l, c_l]`, finest first.

    Args:
        backbone: a `Backbone`; gives the levels and the pixel scaling.
        neck: a part that turns the backbone's dict of Keras tensors into an ordered dict of feature maps.
        **kwargs: Keras' own `name`, `trainable`.
    """

    def __init__(self, *, backbone: Any, neck: Any, **kwargs):
        inputs = keras.Input((None, None, 3), name="images")
        feature_maps = neck(backbone(inputs))
        super().__init__(inputs=inputs, outputs=list(feature_maps.values()), **kwargs)
        self.backbone, self.neck = backbone, neck
        self.level_names = tuple(feature_maps)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs) -> list[Any]:
        maps = super().call(inputs, training=training, mask=mask, **kwargs)
        return maps if isinstance(maps, list) else [maps]  # Keras gives the one map of a list of one

    @property
    def strides(self) -> Any:
        """One int per feature map: 2**n for a map called C*n* or P*n*, else as its size tells."""
        if all(re.fullmatch(r"[CP]\d+", name) for name in self.level_names):
            return tuple(2 ** int(name[1:]) for name in self.level_names)
        shapes = self.compute_output_shape((1, PROBE, PROBE, 3))
        shapes = shapes if isinstance(shapes, list) else [shapes]
        return tuple(2 ** round(math.log2(PROBE / max(shape[1], 1))) for shape in shapes)

    def preprocess(self, images: Any) -> Any:
        """The backbone's pixel scaling: float 0...255 `[B, H, W, 3]` -> network input."""
        return self.backbone.preprocess(images)

    def weight_groups(self) -> dict[str, Any]:
        """`{group name: layers}` that together hold every weight once."""
        neck = [layer for layer in self.layers if layer is not self.backbone]
        return {"backbone": [self.backbone], "neck": neck}

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "neck": keras.saving.serialize_keras_object(self.neck),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        for key in ("backbone", "neck"):
            config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects)
        return cls(**config)
