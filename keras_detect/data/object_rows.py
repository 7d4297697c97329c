"""Objects as JSON has them: one dict per object, whatever fields the table of `schema` has."""

import math
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data import masks


def json_value(field: schema.ObjectField, value: Any) -> Any:
    """One object's value as JSON can hold it: numbers and lists, null for NaN, COCO's run lengths for a raster.

    Args:
        field: row of `schema.object_fields`.
        value: array of the field's shape.
    """
    if field.moves == schema.AS_RASTER:
        return masks.encode(np.asarray(value) >= 0.5)
    return _without_nan(np.asarray(value, field.dtype).tolist())


def _without_nan(value):
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def detection_rows(detections: dict, class_names: Any = None, score_threshold: float = 0.0) -> list[dict]:
    """The detections of one image as a list of dicts that JSON can hold, in the order given.

    Args:
        detections: what `detect` returns for an image, or one image of a batch: rows of `schema.object_fields`
            (`"boxes"` [n, 4] normalised yxyx, `"scores"` [n], `"labels"` [n], and any others such as `"masks"`
            [n, H, W]) and optionally `"num_detections"`.
        class_names: names by label, added as `"class_name"`; default: `detections["class_names"]` (one per detection),
            if there.
        score_threshold: detections with a lower score are left out.

    Returns:
        A dict per detection that is no padding (label below 0, or past `"num_detections"`), under the `singular` of
        each field: `{"box": [ymin, xmin, ymax, xmax], "score": ..., "label": ..., "class_name": ...}`. Masks are COCO's
        run lengths of whatever is 0.5 or more.

    Raises:
        ValueError: fields with different numbers of rows.
    """
    fields = [field for field in schema.object_fields(schema.DETECTIONS) if field.key in detections]
    columns = {field.key: np.asarray(detections[field.key]) for field in fields}
    counts = {key: len(column) for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"Every field needs one row per detection. Received: {counts}")
    keep = np.ones(next(iter(counts.values()), 0), bool)
    if schema.NUM_DETECTIONS in detections:
        keep &= np.arange(len(keep)) < int(np.reshape(detections[schema.NUM_DETECTIONS], -1)[0])
    if schema.LABELS in columns:
        keep &= columns[schema.LABELS] >= 0
    if schema.SCORES in columns:
        keep &= columns[schema.SCORES] >= score_threshold
    own_names = detections.get("class_names")
    rows = []
    for i in np.flatnonzero(keep):
        row = {field.singular: json_value(field, columns[field.key][i]) for field in fields}
        if class_names is not None:
            row["class_name"] = str(class_names[row["label"]])
        elif own_names is not None:
            row["class_name"] = str(own_names[i])
        rows.append(row)
    return rows
