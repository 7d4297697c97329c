"""keras_detect: object detection models for Keras 3, on TensorFlow, JAX and PyTorch."""

from keras_detect import inference, training  # noqa: F401 - inference provides `detect`
from keras_detect.backbones.backbone import Backbone, backbone_names, register_backbone
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.backbones.inception_v100 import InceptionV100
from keras_detect.backbones.mobilenet_v1 import MobileNetV1
from keras_detect.backbones.mobilenet_v2 import MobileNetV2
from keras_detect.backbones.resnet_v1 import ResNetV1
from keras_detect.data.check import check_dataset
from keras_detect.data.convert import write_dataset
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.load import load_dataset
from keras_detect.evaluation import callback as callbacks
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.presets import store  # noqa: F401 - provides `load_preset` and `save_preset`
from keras_detect.tf_od_api import restore_model  # noqa: F401 - provides `restore_checkpoint`
from keras_detect.tf_od_api.build import from_pipeline_config

Model = DetectionModel
__version__ = "0.1.0"

__all__ = [
    "SSD",
    "Backbone",
    "DetectionDataset",
    "DetectionModel",
    "EfficientNet",
    "FasterRCNN",
    "InceptionV100",
    "MobileNetV1",
    "MobileNetV2",
    "Model",
    "ResNetV1",
    "backbone_names",
    "callbacks",
    "check_dataset",
    "from_pipeline_config",
    "load_dataset",
    "register_backbone",
    "training",
    "write_dataset",
]
