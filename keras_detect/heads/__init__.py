"""Prediction heads. Importing the package registers them by name."""

from keras_detect.heads.box_predictor import BoxPredictor
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.mask_predictor import MaskPredictor
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.heads.point_heads import PointHead
from keras_detect.heads.position_sensitive import PositionSensitiveBoxPredictor
from keras_detect.heads.region_proposal import RegionProposalPredictor, SharedRegionProposalPredictor
from keras_detect.heads.weight_shared import GroupNormBoxPredictor, WeightSharedConvolutionalBoxPredictor
from keras_detect.registry import register_head, register_roi_head

__all__ = [
    "BoxPredictor",
    "ConvolutionalBoxPredictor",
    "GroupNormBoxPredictor",
    "MaskPredictor",
    "MaskRCNNBoxPredictor",
    "PointHead",
    "PositionSensitiveBoxPredictor",
    "RegionProposalPredictor",
    "SharedRegionProposalPredictor",
    "WeightSharedConvolutionalBoxPredictor",
    "register_head",
    "register_roi_head",
]


def __dir__():
    return __all__
