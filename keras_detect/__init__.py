"""keras_detect: object detection models for Keras 3, on TensorFlow, JAX and PyTorch."""

from keras_detect import startup

startup.quiet_tensorflow()
if startup.is_command():
    startup.end_when_stopped()
else:
    from keras_detect import (
        anchors,
        backbones,
        callbacks,
        data,
        evaluation,
        export,  # provides `DetectionModel.export`
        heads,
        inference,  # provides `DetectionModel.detect`
        losses,
        masks,
        metrics,
        necks,
        presets,
        tasks,
        tf_od_api,
        training,
        transforms,
        visualization,
        weights,
    )
    from keras_detect.backbones import Backbone, backbone_names, register_backbone
    from keras_detect.data import DetectionDataset, check_dataset, load_dataset, write_dataset
    from keras_detect.meta_architectures.center_net import CenterNet
    from keras_detect.meta_architectures.detection_model import DetectionModel
    from keras_detect.meta_architectures.efficientdet import EfficientDet
    from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
    from keras_detect.meta_architectures.mask_rcnn import MaskRCNN
    from keras_detect.meta_architectures.retinanet import RetinaNet
    from keras_detect.meta_architectures.rfcn import RFCN
    from keras_detect.meta_architectures.ssd import SSD
    from keras_detect.presets import store  # noqa: F401 - provides `load_preset` and `save_preset`
    from keras_detect.tf_od_api import restore_litert, restore_model  # noqa: F401 - register upstream's files
    from keras_detect.tf_od_api.build import from_pipeline_config

    Model = DetectionModel

__version__ = "0.1.0"

__all__ = [
    "RFCN",
    "SSD",
    "Backbone",
    "CenterNet",
    "DetectionDataset",
    "DetectionModel",
    "EfficientDet",
    "FasterRCNN",
    "MaskRCNN",
    "Model",
    "RetinaNet",
    "anchors",
    "backbone_names",
    "backbones",
    "callbacks",
    "check_dataset",
    "data",
    "evaluation",
    "export",
    "from_pipeline_config",
    "heads",
    "inference",
    "load_dataset",
    "losses",
    "masks",
    "metrics",
    "necks",
    "presets",
    "register_backbone",
    "tasks",
    "tf_od_api",
    "training",
    "transforms",
    "visualization",
    "weights",
    "write_dataset",
]


def __dir__():
    return __all__
