"""Anchors and what becomes of them in training: generators, coders, similarities, matchers, samplers, targets."""

from keras_detect.boxes.anchor_generators import (
    AnchorGenerator,
    FlexibleGridAnchorGenerator,
    GridAnchorGenerator,
    MultiscaleGridAnchorGenerator,
    SsdAnchorGenerator,
    TorchGridAnchorGenerator,
)
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder, KeypointBoxCoder, MeanStddevBoxCoder, SquareBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher, BipartiteMatcher
from keras_detect.boxes.samplers import BalancedPositiveNegativeSampler
from keras_detect.boxes.similarity import (
    IoaSimilarity,
    IouSimilarity,
    NegSquaredDistanceSimilarity,
    ThresholdedIouSimilarity,
)
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.registry import register_anchor_generator, register_matcher

__all__ = [
    "AnchorGenerator",
    "ArgMaxMatcher",
    "BalancedPositiveNegativeSampler",
    "BipartiteMatcher",
    "FasterRcnnBoxCoder",
    "FlexibleGridAnchorGenerator",
    "GridAnchorGenerator",
    "IoaSimilarity",
    "IouSimilarity",
    "KeypointBoxCoder",
    "MeanStddevBoxCoder",
    "MultiscaleGridAnchorGenerator",
    "NegSquaredDistanceSimilarity",
    "SquareBoxCoder",
    "SsdAnchorGenerator",
    "TargetAssigner",
    "ThresholdedIouSimilarity",
    "TorchGridAnchorGenerator",
    "register_anchor_generator",
    "register_matcher",
]


def __dir__():
    return __all__
