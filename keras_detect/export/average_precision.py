"""COCO's AP on annotated images, of a model or of an exported file."""

from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data.image import as_pixels
from keras_detect.evaluation.coco import COCOEvaluator, further_comparisons


def average_precisions(detect: Any, dataset: Any) -> dict[str, float]:
    """COCO's AP of boxes; of masks and keypoints too, where the data set and the detections both have some.

    Args:
        detect: `images [1, H, W, 3]` uint8 -> detections (`schema`): `model.predict_on_batch`, or a `FittedRunner`.
        dataset: `DetectionDataset`.

    Returns:
        `{"boxes": AP (IoU 0.5 to 0.95)}`, with "masks" and "keypoints" where they can be compared.
    """
    evaluator = COCOEvaluator(dataset.class_names)
    ground_truth_keys = {field.key for field in schema.object_fields(schema.GROUND_TRUTH)}
    for example in dataset:
        pixels = as_pixels(example["image"])
        ground_truth = {key: np.asarray(value)[None] for key, value in example.items() if key in ground_truth_keys}
        evaluator.collected.update(ground_truth, detect(pixels[None]), image_sizes=np.asarray([pixels.shape[:2]]))
    found = {"boxes": float(evaluator.result()["map"])}
    for compare in further_comparisons(evaluator.collected):
        result = COCOEvaluator(dataset.class_names, evaluator.collected, compare).result()
        found[compare] = float(next(value for name, value in result.items() if name.endswith("_map")))
    return found
