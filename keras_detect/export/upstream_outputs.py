"""Detections under the names and in the numbers of the TensorFlow Object Detection API, and back."""

import numpy as np
from keras import ops

from keras_detect import schema
from keras_detect.boxes import box_ops
from keras_detect.kernels.gather import gather_class, gather_rows

_CLASSES, _NUMBER = "detection_classes", "num_detections"
_NAMES = {schema.BOXES: "detection_boxes", schema.SCORES: "detection_scores", schema.LABELS: _CLASSES}
_FIRST_CLASS = 1  # upstream counts classes from 1


def name_of(key: str) -> str:
    """Upstream's name of a per-object field: "boxes" is "detection_boxes"."""
    return _NAMES.get(key, f"detection_{key}")


def detect(model, images, true_image_shapes):
    """From preprocessed images to upstream's outputs, all of them float32.

    Args:
        model: a `DetectionModel`.
        images: `[B, h, w, 3]` float32, what `preprocess` returned.
        true_image_shapes: `[B, 3]` int32, likewise.

    Returns:
        `{"detection_boxes" [B, D, 4], "detection_scores" [B, D], "detection_classes" [B, D] (from 1),
        "num_detections" [B]}`, every further field of the model's output; and of a model with a `final_stage`
        `{"raw_detection_boxes" [B, A, 4], "raw_detection_scores" [B, A, C], "detection_multiclass_scores" [B, D, C],
        "detection_anchor_indices" [B, D]}`, scores with the background column where there is one.
    """
    inputs = {schema.IMAGES: images, schema.TRUE_IMAGE_SHAPES: true_image_shapes}
    predictions = model(inputs, training=False)
    if not hasattr(model, "final_stage"):
        return _named(model.postprocess(predictions, true_image_shapes))
    stage = model.final_stage(predictions, true_image_shapes)
    found = stage.select()
    scores = stage.postprocessor.all_scores(stage.class_logits)
    filled = ops.arange(found.scores.shape[1], dtype="int32") < found.num_detections[:, None]
    return {
        **_named(stage.detections(found)),
        "detection_anchor_indices": ops.cast(found.indices, "float32"),
        "detection_multiclass_scores": ops.where(filled[..., None], gather_rows(scores, found.indices), 0.0),
        "raw_detection_boxes": _raw_boxes(stage),
        "raw_detection_scores": scores,
    }


def _named(detections):
    named = {name_of(key): ops.cast(value, "float32") for key, value in detections.items() if key != _NUMBER}
    named[_CLASSES] = ops.maximum(named[_CLASSES], 0.0) + _FIRST_CLASS  # padding rows have upstream's class 0 + 1
    return {**named, _NUMBER: ops.cast(detections[schema.NUM_DETECTIONS], "float32")}


def _raw_boxes(stage):
    """One box per anchor (proposal): where every class has its own, that of the best class."""
    boxes = stage.boxes()
    if boxes.shape[2] == 1:
        boxes = boxes[:, :, 0]
    else:
        logits = stage.class_logits[..., 1:] if stage.postprocessor.has_background else stage.class_logits
        boxes = gather_class(boxes, ops.cast(ops.argmax(logits, axis=-1), "int32"))
    if not stage.raw_boxes_clipped:
        return boxes
    return ops.clip(box_ops.change_coordinate_frame(boxes, stage.window), 0.0, 1.0)


def as_schema(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Upstream's outputs as the detections dict of `schema`: labels from 0, padding rows with `PADDING_LABEL`."""
    number = np.asarray(outputs[_NUMBER]).astype(np.int32)
    found = {schema.NUM_DETECTIONS: number}
    for field in schema.object_fields(schema.DETECTIONS):
        if name_of(field.key) in outputs:
            found[field.key] = np.asarray(outputs[name_of(field.key)])
    labels = found[schema.LABELS].astype(np.int32) - _FIRST_CLASS
    padding = np.arange(labels.shape[1]) >= number[:, None]
    return {**found, schema.LABELS: np.where(padding, schema.PADDING_LABEL, labels).astype(np.int32)}
