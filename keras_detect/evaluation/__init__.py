"""Metrics on host arrays, and the callback that runs them inside `fit`."""

from keras_detect.evaluation.callback import COCOEvaluation, collect_detections, evaluate_coco
from keras_detect.evaluation.coco import COCO_KEYPOINT_METRICS, COCO_METRICS, COCOEvaluator
from keras_detect.evaluation.collected import Collected, Evaluator
from keras_detect.evaluation.confusion import ConfusionMatrix
from keras_detect.evaluation.errors import ERROR_KINDS, ErrorBreakdown
from keras_detect.evaluation.pascal_voc import OpenImagesEvaluator, PascalVOCEvaluator
from keras_detect.evaluation.report import write_report
from keras_detect.evaluation.run import evaluate
from keras_detect.evaluation.thresholds import ScoreThresholds

__all__ = [
    "COCO_KEYPOINT_METRICS",
    "COCO_METRICS",
    "ERROR_KINDS",
    "COCOEvaluation",
    "COCOEvaluator",
    "Collected",
    "ConfusionMatrix",
    "ErrorBreakdown",
    "Evaluator",
    "OpenImagesEvaluator",
    "PascalVOCEvaluator",
    "ScoreThresholds",
    "collect_detections",
    "evaluate",
    "evaluate_coco",
    "write_report",
]


def __dir__():
    return __all__
