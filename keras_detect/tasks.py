"""What a CenterNet predicts: objects, and what else there is at their centers. Parts of `CenterNet(tasks=[...])`."""

from keras_detect.boxes.heatmaps import Peaks
from keras_detect.heads.point_heads import PointHead
from keras_detect.meta_architectures.center_net_keypoints import KeypointCandidates, KeypointTask
from keras_detect.meta_architectures.center_net_masks import MaskTask
from keras_detect.meta_architectures.center_net_tasks import Centers, Frame, ObjectTask, Task

__all__ = [
    "Centers",
    "Frame",
    "KeypointCandidates",
    "KeypointTask",
    "MaskTask",
    "ObjectTask",
    "Peaks",
    "PointHead",
    "Task",
]


def __dir__():
    return __all__
