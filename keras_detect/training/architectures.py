"""The architectures that a training run can build, by name."""

from keras_detect.meta_architectures.center_net import CenterNet
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.efficientdet import EfficientDet
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.mask_rcnn import MaskRCNN
from keras_detect.meta_architectures.retinanet import RetinaNet
from keras_detect.meta_architectures.ssd import SSD

#: name -> class with `from_backbone`
ARCHITECTURES = {
    "ssd": SSD,
    "retinanet": RetinaNet,
    "efficientdet": EfficientDet,
    "faster_rcnn": FasterRCNN,
    "mask_rcnn": MaskRCNN,
    "centernet": CenterNet,
}


def architecture_of(model: DetectionModel) -> str:
    """The name of the architecture that `model` is one of; "ssd", one stage, for a class from elsewhere."""
    names = {known: name for name, known in ARCHITECTURES.items()}
    return next((names[cls] for cls in type(model).__mro__ if cls in names), "ssd")
