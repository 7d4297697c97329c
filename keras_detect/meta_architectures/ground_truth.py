"""What a detector is fed: inputs `x` and ground truth `y` checked, cleaned and brought into the preprocessed frame."""

import numpy as np
from keras import ops

from keras_detect import schema


def split_images(x):
    """`x` as `schema` allows it -> `(images [B, H, W, 3], true_image_shapes [B, 3] or None, resized)`.

    `resized` says that the shapes come as `"resized_image_shapes"`: of images that the model's resizer has resized.
    """
    if not isinstance(x, dict):
        return x, None, False
    if schema.IMAGES not in x:
        raise ValueError(
            f"x must be an image batch or a dict with '{schema.IMAGES}' and optionally '{schema.TRUE_IMAGE_SHAPES}'. "
            f"Received a dict with: {sorted(x)}."
        )
    if schema.RESIZED_IMAGE_SHAPES in x and schema.TRUE_IMAGE_SHAPES in x:
        raise ValueError(
            f"x has either '{schema.TRUE_IMAGE_SHAPES}' or, for images that the model's resizer has resized, "
            f"'{schema.RESIZED_IMAGE_SHAPES}'. Received both."
        )
    resized = schema.RESIZED_IMAGE_SHAPES in x
    return x[schema.IMAGES], x.get(schema.RESIZED_IMAGE_SHAPES if resized else schema.TRUE_IMAGE_SHAPES), resized


def split_inputs(inputs):
    """Images and true shapes of what `preprocess` returned; a bare tensor has no padding."""
    if isinstance(inputs, dict):
        return inputs[schema.IMAGES], inputs[schema.TRUE_IMAGE_SHAPES]
    return inputs, None


def clean_truth(y, sample_weight=None):
    """The one door of the truth: `y` -> `{"boxes" [B, M, 4], "labels" [B, M], "weights" [B, M], "valid" [B, M]}`.

    Rows with a negative label, and rows whose box is not finite, are padding: their box is zeroed, their weight is 0.
    One padding row is added, so that M is never 0, not even where a compiled graph learns M when it runs.
    Crowd rows are kept with weight 0, so that their anchors are neither positive nor negative. `sample_weight [B]`
    multiplies the weights.
    """
    if not isinstance(y, dict):
        raise ValueError(
            f"y must be a dict with '{schema.BOXES}' [B, M, 4] (normalised yxyx) and '{schema.LABELS}' [B, M]. "
            f"Received: {type(y).__name__}."
        )
    labels = y.get(schema.LABELS, y.get(schema.CLASSES))
    boxes = y.get(schema.BOXES)
    if boxes is None or labels is None:
        missing = schema.BOXES if boxes is None else schema.LABELS
        raise ValueError(f"y lacks '{missing}'. Received the keys: {sorted(y)}.")
    boxes = ops.cast(boxes, "float32")
    labels = ops.cast(labels, "int32")
    valid = ops.logical_and(labels >= 0, ops.all(ops.isfinite(boxes), axis=-1))
    boxes = ops.where(valid[..., None], boxes, 0.0)
    weights = ops.cast(valid, "float32")
    if y.get(schema.WEIGHTS) is not None:
        weights = weights * ops.cast(y[schema.WEIGHTS], "float32")
    if y.get(schema.IS_CROWD) is not None:
        weights = weights * (1.0 - ops.cast(ops.cast(y[schema.IS_CROWD], "bool"), "float32"))
    if sample_weight is not None:
        weights = weights * ops.cast(ops.reshape(sample_weight, (-1, 1)), "float32")
    return {
        schema.BOXES: ops.pad(boxes, ((0, 0), (0, 1), (0, 0))),
        schema.LABELS: ops.pad(labels, ((0, 0), (0, 1)), constant_values=schema.PADDING_LABEL),
        schema.WEIGHTS: ops.pad(weights, ((0, 0), (0, 1))),
        "valid": ops.cast(ops.pad(ops.cast(valid, "int32"), ((0, 0), (0, 1))), "bool"),
    }


def check_host_truth(y, num_classes):
    """Raises `ValueError` for numpy truth that would train silently wrong: labels past K, boxes in pixels, NaN."""
    if not isinstance(y, dict):
        return
    labels = y.get(schema.LABELS, y.get(schema.CLASSES))
    boxes = y.get(schema.BOXES)
    if isinstance(labels, np.ndarray) and labels.size and labels.max() >= num_classes:
        raise ValueError(
            f"Labels must lie in [0, {num_classes}), -1 for padding. Received a label {labels.max()}. Labels are "
            "zero-based; build the model with the number of classes of the data, or re-head it "
            "(`from_preset(..., num_classes=n)`)."
        )
    if not isinstance(boxes, np.ndarray) or not isinstance(labels, np.ndarray) or not boxes.size:
        return
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[:2] != labels.shape:
        raise ValueError(
            f"y needs boxes [B, M, 4] and labels [B, M]. Received boxes {boxes.shape} and labels {labels.shape}; pad "
            "each picture's rows to the same M with label -1."
        )
    real = boxes[labels >= 0]
    if not np.isfinite(real).all():
        raise ValueError("y['boxes'] holds NaN or infinite values in rows that are not padding (label >= 0).")
    if real.size and np.abs(real).max() > 4.0:
        raise ValueError(
            "Boxes are [ymin, xmin, ymax, xmax] normalised to 0...1. Received values up to "
            f"{np.abs(real).max():g}: divide pixel boxes by the image's height and width."
        )
