"""Metrics on host arrays, and the callback that runs them inside `fit`."""

from keras_detect.evaluation.callback import COCOEvaluation, evaluate_coco
from keras_detect.evaluation.coco import COCO_METRICS, COCOEvaluator
from keras_detect.evaluation.collected import Collected, Evaluator
from keras_detect.evaluation.pascal_voc import OpenImagesEvaluator, PascalVOCEvaluator

__all__ = [
    "COCO_METRICS",
    "COCOEvaluation",
    "COCOEvaluator",
    "Collected",
    "Evaluator",
    "OpenImagesEvaluator",
    "PascalVOCEvaluator",
    "evaluate_coco",
]
