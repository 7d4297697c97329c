"""Backbones by family. Importing the package registers them all by name."""

from keras_detect.backbones.backbone import Backbone, backbone_names, register_backbone
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.backbones.hourglass import Hourglass
from keras_detect.backbones.inception_resnet_v2 import InceptionResNetV2
from keras_detect.backbones.inception_v2 import InceptionV2
from keras_detect.backbones.inception_v3 import InceptionV3
from keras_detect.backbones.inception_v100 import InceptionV100
from keras_detect.backbones.keras_models import KerasBackbone, PixelScaling, from_keras_model
from keras_detect.backbones.mobilenet_v1 import MobileNetV1
from keras_detect.backbones.mobilenet_v2 import MobileNetV2
from keras_detect.backbones.resnet_v1 import ResNetV1
from keras_detect.backbones.resnet_v2 import ResNetV2

__all__ = [
    "Backbone",
    "EfficientNet",
    "Hourglass",
    "InceptionResNetV2",
    "InceptionV2",
    "InceptionV3",
    "InceptionV100",
    "KerasBackbone",
    "MobileNetV1",
    "MobileNetV2",
    "PixelScaling",
    "ResNetV1",
    "ResNetV2",
    "backbone_names",
    "from_keras_model",
    "register_backbone",
]


def __dir__():
    return __all__
