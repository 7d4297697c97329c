"""COCO's AP on annotated images, of a model or of an exported file."""

import numpy as np

from keras_detect import schema
from keras_detect.data.image import as_pixels
from keras_detect.evaluation.coco import COCOEvaluator


def average_precision(detect, dataset) -> float:
    """COCO's AP (IoU 0.5 to 0.95).

    Args:
        detect: `images [1, H, W, 3]` uint8 -> detections (`schema`): `model.predict_on_batch`, or a `FittedRunner`.
        dataset: `DetectionDataset`.
    """
    evaluator = COCOEvaluator(dataset.class_names)
    ground_truth_keys = {field.key for field in schema.object_fields(schema.GROUND_TRUTH)}
    for example in dataset:
        pixels = as_pixels(example["image"])
        ground_truth = {key: np.asarray(value)[None] for key, value in example.items() if key in ground_truth_keys}
        evaluator.collected.update(ground_truth, detect(pixels[None]), image_sizes=np.asarray([pixels.shape[:2]]))
    return float(evaluator.result()["map"])
