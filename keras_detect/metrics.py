"""Metrics of detectors, with and without a model, and the report."""

from keras_detect.evaluation import (
    COCO_KEYPOINT_METRICS,
    COCO_METRICS,
    ERROR_KINDS,
    COCOEvaluator,
    Collected,
    ConfusionMatrix,
    ErrorBreakdown,
    Evaluator,
    OpenImagesEvaluator,
    PascalVOCEvaluator,
    collect_detections,
    evaluate,
    evaluate_coco,
    write_report,
)

__all__ = [
    "COCO_KEYPOINT_METRICS",
    "COCO_METRICS",
    "ERROR_KINDS",
    "COCOEvaluator",
    "Collected",
    "ConfusionMatrix",
    "ErrorBreakdown",
    "Evaluator",
    "OpenImagesEvaluator",
    "PascalVOCEvaluator",
    "collect_detections",
    "evaluate",
    "evaluate_coco",
    "write_report",
]


def __dir__():
    return __all__
