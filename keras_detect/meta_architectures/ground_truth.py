"""What a detector is fed: inputs `x` and ground truth `y`, cleaned and brought into the preprocessed frame."""

import keras
from keras import ops

from keras_detect import schema
from keras_detect.registry import unknown_name
from keras_detect.transforms.resizing import true_window

NUM_POSITIVES = "num_positives"


def split_images(x):
    """`x` as `schema` allows it -> `(images [B, H, W, 3], true_image_shapes [B, 3] or None, resized)`.

    `resized` says that the shapes come as `"resized_image_shapes"`: of images that the model's resizer has resized.

    Raises:
        ValueError: an entry that is not in `schema.image_fields`, shapes twice, images or shapes of another rank.
    """
    if not isinstance(x, dict):
        _check_images(x)
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
    for key in x.keys() - {field.key for field in schema.image_fields()}:
        raise ValueError(unknown_name("entry of x", key, [field.key for field in schema.image_fields(schema.INPUT)]))
    resized = schema.RESIZED_IMAGE_SHAPES in x
    images = x[schema.IMAGES]
    shapes = x.get(schema.RESIZED_IMAGE_SHAPES if resized else schema.TRUE_IMAGE_SHAPES)
    _check_images(images)
    if shapes is not None and (len(shapes.shape) != 2 or shapes.shape[1] not in (3, None)):
        raise ValueError(
            "Image shapes are [B, 3]: height, width and channels of each image on its canvas. Received shape "
            f"{tuple(shapes.shape)}."
        )
    return images, shapes, resized


def _check_images(images):
    if len(images.shape) != 4:
        raise ValueError(
            f"Images are a batch [B, H, W, 3]. Received shape {tuple(images.shape)}. For one image: `images[None]`, or "
            "`detect`, which takes single images."
        )


def split_inputs(inputs):
    """Images and true shapes of what `preprocess` returned; a bare tensor has no padding."""
    if isinstance(inputs, dict):
        return inputs[schema.IMAGES], inputs[schema.TRUE_IMAGE_SHAPES]
    return inputs, None


def in_padded_frame(y, true_image_shapes, image_shape):
    """Ground truth normalized to the true image -> to the padded image, which anchors and raw boxes refer to.

    Args:
        y: what `clean_ground_truth` returned.
        true_image_shapes: `[B, 3]`, of the preprocessed images.
        image_shape: `[2]` float32, height and width of the preprocessed images.

    Returns:
        `y` with every field that moves as box or as points (`schema.object_fields`) scaled.
    """
    extent = true_window(true_image_shapes, image_shape)[:, 2:]
    moved = dict(y)
    for field in schema.object_fields(schema.GROUND_TRUTH):
        if field.key in y and field.moves in (schema.AS_BOX, schema.AS_POINTS):
            scale = ops.tile(extent, (1, 2)) if field.moves == schema.AS_BOX else extent
            shape = (-1, *(1,) * (len(y[field.key].shape) - 2), scale.shape[-1])
            moved[field.key] = y[field.key] * ops.reshape(scale, shape)
    return moved


def positives_per_image(box_weights):
    """How many anchors or proposals learn a box, per image: float32 scalar of weights `[B, A]`."""
    return ops.mean(ops.sum(ops.cast(box_weights > 0.0, "float32"), axis=1))


def clean_ground_truth(y, sample_weight=None):
    """`y` as `fit` receives it -> as `compute_losses` receives it.

    Rows with a negative label, and rows whose box is not finite, are padding: they hold each field's padding value,
    their weight is 0 and `"valid" [B, M]` is False. One padding row is added, so that M is never 0, not even where a
    compiled graph learns M when it runs. Crowd rows are kept with weight 0, so that their anchors are neither positive
    nor negative. `sample_weight [B]` multiplies the weights.

    Args:
        y: dict with `"boxes"` and `"labels"` (or `"classes"`) and any other field of `schema.object_fields`.
        sample_weight: `[B]` or `None`.

    Returns:
        dict with `"boxes" [B, M + 1, 4]`, `"labels"`, `"weights"` and `"valid"` `[B, M + 1]`, and every other entry of
        `y`: per-object fields with their row of padding, entries per image as they are.

    Raises:
        ValueError: `y` is not a dict, lacks boxes or labels, or has a field of another shape than the table says;
            `sample_weight` with more than one number per image.
    """
    if not isinstance(y, dict):
        raise ValueError(
            f"y must be a dict with '{schema.BOXES}' [B, M, 4] (normalized yxyx) and '{schema.LABELS}' [B, M]. "
            f"Received: {type(y).__name__}."
        )
    labels = y.get(schema.LABELS, y.get(schema.CLASSES))
    boxes = y.get(schema.BOXES)
    if boxes is None or labels is None:
        missing = schema.BOXES if boxes is None else schema.LABELS
        raise ValueError(f"y lacks '{missing}'. Received the keys: {sorted(y)}.")
    boxes = ops.cast(boxes, "float32")
    labels = ops.cast(labels, "int32")
    _check_rows(y, labels)
    valid = ops.logical_and(labels >= 0, ops.all(ops.isfinite(boxes), axis=-1))
    weights = ops.cast(valid, "float32")
    if y.get(schema.WEIGHTS) is not None:
        weights = weights * ops.cast(y[schema.WEIGHTS], "float32")
    if y.get(schema.IS_CROWD) is not None:
        weights = weights * (1.0 - ops.cast(ops.cast(y[schema.IS_CROWD], "bool"), "float32"))
    if sample_weight is not None:
        if isinstance(sample_weight, dict):  # of arrays, Keras makes one for each entry of y
            sample_weight = keras.tree.flatten(sample_weight)[0]
        sample_weight = ops.convert_to_tensor(sample_weight)
        if any(isinstance(side, int) and side != 1 for side in sample_weight.shape[1:]):
            raise ValueError(
                f"sample_weight is one number per image, [B]. Received shape {tuple(sample_weight.shape)}. Weights of "
                f"objects are y['{schema.WEIGHTS}'] [B, M]."
            )
        weights = weights * ops.cast(ops.reshape(sample_weight, (-1, 1)), "float32")
    cleaned = {key: value for key, value in y.items() if key != schema.CLASSES}
    given = {**cleaned, schema.BOXES: boxes, schema.LABELS: labels, schema.WEIGHTS: weights}
    for field in schema.object_fields(schema.GROUND_TRUTH):
        if given.get(field.key) is not None:
            mask = None if field.key in (schema.LABELS, schema.WEIGHTS) else valid
            cleaned[field.key] = _with_padding_row(given[field.key], field, mask)
    cleaned["valid"] = ops.cast(ops.pad(ops.cast(valid, "int32"), ((0, 0), (0, 1))), "bool")
    return cleaned


def _check_rows(y, labels):
    """Raises `ValueError` unless every field has one row per label; sizes that are not static are not looked at."""
    for field in schema.object_fields(schema.GROUND_TRUTH):
        shape = getattr(y.get(field.key), "shape", None)
        if shape is None:
            continue
        axes = (*labels.shape, *(size if isinstance(size, int) else None for size in field.shape))
        if len(shape) != len(axes) or any(
            isinstance(side, int) and isinstance(axis, int) and side != axis
            for side, axis in zip(shape, axes, strict=True)
        ):
            wanted = ", ".join(["B", "M", *map(str, field.shape)])
            raise ValueError(
                f"y['{field.key}'] is [{wanted}], one row per object. Received shape {tuple(shape)} beside labels of "
                f"shape {tuple(labels.shape)}."
            )


def _with_padding_row(values, field, valid):
    """`[B, M, ...]` -> `[B, M + 1, ...]` in the field's dtype; `valid [B, M]` says which rows are not padding."""
    dtype = "int32" if field.dtype == "bool" else field.dtype  # XLA pads no booleans on every backend
    values = ops.cast(values, dtype)
    if valid is not None:
        mask = ops.reshape(valid, (*ops.shape(valid), *(1,) * (len(values.shape) - 2)))
        values = ops.where(mask, values, ops.cast(field.padding, dtype))
    widths = ((0, 0), (0, 1), *((0, 0),) * (len(values.shape) - 2))
    return ops.cast(ops.pad(values, widths, constant_values=field.padding), field.dtype)
