"""Records from dicts in memory."""

import os

import numpy as np

from keras_detect import schema
from keras_detect.data import masks
from keras_detect.data.image import ArrayImage, find_image
from keras_detect.data.reading import flag
from keras_detect.data.record import make_record
from keras_detect.registry import unknown_name

# Normalized boxes may leave their image, but not by more than this; boxes in pixels do.
_FARTHEST = 10.0


def record_of_example(example, number, class_names, defects):
    """The `Record` of one dict; `DetectionDataset.from_examples` documents its entries and the errors."""
    missing = [key for key in ("image", schema.LABELS) if key not in example]
    if missing or not (schema.BOXES in example or "boxes_abs" in example):
        wanted = '"image", "labels" and "boxes" (normalized yxyx) or "boxes_abs" (pixels)'
        raise ValueError(f"An example needs {wanted}. Received in example {number}: {sorted(example)}")
    image = _image(example["image"], number)
    sides = np.array([image.height, image.width] * 2, np.float64)
    key = schema.BOXES if schema.BOXES in example else "boxes_abs"
    boxes = _boxes(example[key], key, number) * (sides if key == schema.BOXES else 1.0)
    labels = _labels(example[schema.LABELS], number, class_names)
    if len(labels) != len(boxes):
        raise ValueError(f"Image {number} has {len(boxes)} boxes and {len(labels)} labels.")
    rows = {}
    for field in schema.object_fields(schema.GROUND_TRUTH):
        if field.key not in (schema.BOXES, schema.LABELS) and example.get(field.key) is not None:
            rows[field.key] = _rows(field, example, len(boxes), image, number)
    given = [field.key for field in schema.image_fields() if field.annotated and example.get(field.key) is not None]
    return make_record(
        image=image,
        file_name=str(example.get("file_name") or getattr(image, "path", "") or f"image_{number:06d}"),
        image_id=example.get("image_id", number),
        boxes_abs=boxes,
        labels=labels,
        defects=defects,
        entries={key: np.asarray(example[key]) for key in given},
        **rows,
    )


def _image(image, number):
    if isinstance(image, str | os.PathLike):
        return find_image(os.fspath(image))
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"An image is uint8 [H, W, 3]. Received: images[{number}] {image.dtype} {image.shape}")
    return ArrayImage(image)


def _boxes(boxes, key, number):
    """[n, 4] float64 yxyx as given: normalized under the key "boxes", in pixels under "boxes_abs"."""
    try:
        boxes = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"The {key} of an example are numbers [n, 4]. Received others in example {number}.") from None
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise ValueError(f"The {key} of an example are [n, 4]. Received in example {number}: {list(boxes.shape)}")
    finite = boxes[np.isfinite(boxes)]
    if key == schema.BOXES and np.abs(finite).max(initial=0.0) > _FARTHEST:
        raise ValueError(
            f'The "boxes" of an example are normalized: 0...1. Received up to {np.abs(finite).max():g} in example '
            f'{number}. Give boxes in pixels as "boxes_abs", yxyx.'
        )
    return boxes.reshape(-1, 4)


def _labels(labels, number, class_names):
    labels = np.asarray(labels).reshape(-1)
    if labels.dtype.kind in "US" or labels.dtype == object:
        positions = {str(name): label for label, name in enumerate(class_names)}
        for name in labels:
            if str(name) not in positions:
                raise ValueError(
                    f"Image {number}: {unknown_name('class', name, positions)} Add it to class_names, or rename it."
                )
        return np.array([positions[str(name)] for name in labels], np.int32)
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ValueError(f"Labels must be integers or class names. Received in example {number}: {labels.tolist()}")
    return labels


def _rows(field, example, count, image, number):
    """The values of one per-object field; None where there is no object to have any."""
    key, values = field.key, example[field.key]
    if np.ndim(values) == 0:
        raise ValueError(f"The {key} of an example have one row per box. Received in example {number}: {values!r}")
    if len(values) != count:
        raise ValueError(f"Image {number} has {count} boxes and {len(values)} {key}.")
    if field.moves == schema.AS_RASTER:
        return tuple(_mask(mask, image, number) for mask in values)
    if not count and field.shape:
        return None
    values = _flags(field, values, number) if field.dtype == "bool" and not field.shape else np.asarray(values)
    values = values if field.shape else values.reshape(-1)
    wanted = (count, *field.shape)
    fits = values.ndim == len(wanted) and all(
        isinstance(side, str) or side == values.shape[axis] for axis, side in enumerate(wanted)
    )
    owner = next((other for other in schema.object_fields() if other.visibility == key), None)
    beside = f" beside {owner.key} [n, {', '.join(map(str, owner.shape))}]" if owner is not None else ""
    if owner is not None:
        fits = fits and np.shape(example.get(owner.key, ()))[:2] == values.shape
    if not fits:
        shape = ", ".join(["n", *map(str, field.shape)])
        raise ValueError(
            f"The {key} of an example are [{shape}]{beside}. Received in example {number}: {list(values.shape)}"
        )
    return values


def _flags(field, values, number):
    """Flags as bool [n], from any notation."""
    try:
        return np.array([flag(value) for value in np.asarray(values, object).reshape(-1)], bool)
    except ValueError as error:
        raise ValueError(f"The {field.key} of example {number} are true or false. Received one {error}") from None


def _mask(mask, image, number):
    mask = np.asarray(mask)
    if mask.shape != (image.height, image.width):
        raise ValueError(
            f"A mask is [H, W] like its image, {(image.height, image.width)}. Received in image {number}: {mask.shape}"
        )
    return masks.encode(mask)
