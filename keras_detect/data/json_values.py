"""One object's values as JSON has them, for every field of the table in `schema`."""

import math
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data import masks


def json_value(field: schema.ObjectField, value: Any, digits: int | None = None) -> Any:
    """One object's value as JSON can hold it: numbers and lists, null for NaN, COCO's run lengths for a raster.

    Args:
        field: row of `schema.object_fields`.
        value: array of the field's shape; of a raster, what is 0.5 or more belongs to the object.
        digits: digits of a float behind the point, None for all.
    """
    if field.moves == schema.AS_RASTER:
        return masks.encode(np.asarray(value) >= 0.5)
    return _plain(np.asarray(value, field.dtype).tolist(), digits)


def _plain(value, digits):
    if isinstance(value, list):
        return [_plain(item, digits) for item in value]
    if isinstance(value, float):
        value = value if math.isfinite(value) else None
        return value if value is None or digits is None else round(value, digits)
    return value
