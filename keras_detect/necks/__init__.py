"""Necks and feature extractors. Importing the package registers the necks by name."""

from keras_detect.necks.bifpn import BiFPN
from keras_detect.necks.center_net import CenterNetDeconvolution, CenterNetPyramid
from keras_detect.necks.center_net_feature_extractor import CenterNetFeatureExtractor
from keras_detect.necks.faster_rcnn_feature_extractor import (
    FasterRCNNFeatureExtractor,
    FPNFeatureExtractor,
    SplitFeatureExtractor,
)
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.pooling_pyramid import PoolingPyramid
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.necks.torch_fpn import TorchFeaturePyramid
from keras_detect.registry import register_neck

__all__ = [
    "BiFPN",
    "CenterNetDeconvolution",
    "CenterNetFeatureExtractor",
    "CenterNetPyramid",
    "FPNFeatureExtractor",
    "FasterRCNNFeatureExtractor",
    "FeaturePyramid",
    "PoolingPyramid",
    "SSDFeatureExtractor",
    "SplitFeatureExtractor",
    "SsdFeatureMaps",
    "TorchFeaturePyramid",
    "register_neck",
]


def __dir__():
    return __all__
