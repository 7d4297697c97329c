"""What `detect` returns for one image."""

from typing import Any

import numpy as np

from keras_detect import schema

CLASS_NAMES = "class_names"


class Detections(dict):
    """The detections of one image: a dict of numpy arrays, best first, and the size of the image.

    Its entries are `"boxes" [n, 4]` float32 (normalised yxyx), `"scores" [n]` float32, `"labels" [n]` int32,
    `"class_names"` (a list of n strings, `None` if the model has no class names) and every further per-object field of
    `schema` that the model outputs.

    Attributes:
        image_size: `(height, width)` of the image in pixels.
    """

    image_size: tuple[int, int]

    def __init__(self, fields: dict[str, Any], image_size: tuple[int, int]):
        super().__init__(fields)
        self.image_size = (int(image_size[0]), int(image_size[1]))


def detections_of(
    detector, batch: dict[str, np.ndarray], row: int, score_threshold: float, image_size: tuple[int, int]
) -> Detections:
    """The detections of one image of a batch, without padding rows.

    Args:
        detector: whose `class_names` name the labels.
        batch: detections of the batch (`schema`), numpy arrays `[B, D, ...]`; boxes are normalised yxyx.
        row: which image of the batch.
        score_threshold: detections below it are left out.
        image_size: `(height, width)` of the image in pixels.
    """
    count = int(batch[schema.NUM_DETECTIONS][row])
    keep = batch[schema.SCORES][row, :count] >= score_threshold
    fields = {
        field.key: batch[field.key][row, :count][keep]
        for field in schema.object_fields(schema.DETECTIONS)
        if field.key in batch
    }
    return named(fields, detector.class_names, image_size)


def named(fields: dict[str, Any], class_names: Any, image_size: tuple[int, int]) -> Detections:
    """`Detections` of per-object fields, with the class name of each label."""
    names = None if class_names is None else [class_names[label] for label in fields[schema.LABELS]]
    return Detections({**fields, CLASS_NAMES: names}, image_size)
