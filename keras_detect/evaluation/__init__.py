"""Metrics on host arrays, and the callback that runs them inside `fit`."""

from keras_detect.evaluation.callback import COCOEvaluation, evaluate_coco
from keras_detect.evaluation.coco import COCO_METRICS, COCOEvaluator

__all__ = ["COCO_METRICS", "COCOEvaluation", "COCOEvaluator", "evaluate_coco"]
