"""Backbones by family. Importing the room registers them all by name."""

from keras_detect.backbones import (
    efficientnet,
    inception_resnet_v2,
    inception_v100,
    mobilenet_v1,
    mobilenet_v2,
    resnet_v1,
)

__all__ = ["efficientnet", "inception_resnet_v2", "inception_v100", "mobilenet_v1", "mobilenet_v2", "resnet_v1"]
