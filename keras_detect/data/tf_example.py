"""One `tf.Example` with the keys of the TensorFlow Object Detection API, read and written.

Keys: `image/encoded`, `image/format`, `image/filename`, `image/source_id`, `image/height`, `image/width`,
`image/key/sha256`; one value per box: `image/object/bbox/{ymin,xmin,ymax,xmax}` (normalized),
`image/object/class/text`, `image/object/class/label`, `image/object/{difficult,group_of,is_crowd,area,weight}`,
`image/object/mask` (a PNG a box, or the pixels of all masks as numbers); `image/object/keypoint/{x,y,visibility}`, as
many per box as it has points.
"""

import hashlib
import math

import numpy as np

from keras_detect import schema
from keras_detect.data import masks
from keras_detect.data.image import TF_JPEG, TF_PNG, encode_png

_CORNERS = ("ymin", "xmin", "ymax", "xmax")
# Upstream's names of per-object fields, behind "image/object/"; others are under the `singular` of the table.
_NAMES = {"mask_weights": "mask/weight"}
_OF_IMAGE = {
    "image_classes": "image/class/label",
    "image_confidences": "image/class/confidence",
    "verified_neg_classes": "image/neg_category_ids",
    "not_exhaustive_classes": "image/not_exhaustive_category_ids",
}


def parse_example(serialized):
    """The entries of a serialized `tf.Example`; nothing is decoded.

    Returns:
        dict: `"encoded"` bytes, `"file_name"`, `"source_id"` str ("" if absent), `"size"` `(height, width)` or None,
        `"boxes"` [n, 4] float32 normalized yxyx, `"texts"` n strings or None, `"class_ids"` [n] int64 or None; where
        the example has them, `"is_crowd"`, `"is_difficult"`, `"is_group_of"` [n] bool, `"areas"`, `"weights"`,
        `"mask_weights"` [n] float32, `"masks"` n masks, `"keypoints"` [n, N, 2] normalized yx, NaN where the visibility
        is 0, with `"keypoint_visibility"` [n, N]; and `"image_classes"`, `"image_confidences"`,
        `"verified_neg_classes"`, `"not_exhaustive_classes"` of the whole image.

    Raises:
        ValueError: not a `tf.Example`, or one without an image or with columns of different length.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        raise ValueError("it is not a tf.Example") from None
    encoded = _first(features, "image/encoded", b"")
    if not encoded:
        raise ValueError('it has no image under "image/encoded"')
    size = tuple(int(_first(features, f"image/{side}", 0)) for side in ("height", "width"))
    columns = [_values(features, f"image/object/bbox/{side}") for side in _CORNERS]
    count = len(columns[0])
    _check_lengths(dict(zip(_CORNERS, columns, strict=True)), count)
    found = {
        "encoded": encoded,
        "file_name": _text(_first(features, "image/filename", b"")),
        "source_id": _text(_first(features, "image/source_id", b"")),
        "size": size if min(size) > 0 else None,
        "boxes": np.array(columns, np.float32).T.reshape(-1, 4),
        "texts": [_text(text) for text in _values(features, "image/object/class/text")] or None,
        "class_ids": np.array(_values(features, "image/object/class/label"), np.int64),
    }
    if count and not len(found["class_ids"]):
        found["class_ids"] = None
    rows = {"class texts": found["texts"] or (), "class labels": _values(features, "image/object/class/label")}
    _check_lengths({key: values for key, values in rows.items() if len(values)}, count)
    found |= _columns(features, count)
    found |= {key: np.array(_values(features, name)) for key, name in _OF_IMAGE.items() if _values(features, name)}
    return found | _masks(features, count, size) | _keypoints(features, count)


def build_example(record, class_names):
    """A `Record` as a serialized `tf.Example`; class ids are the labels plus 1.

    JPEG and PNG images keep their bytes where TensorFlow decodes them to the right pixels, others become PNG.

    Raises:
        ValueError: the image cannot be read.
    """
    import tensorflow as tf

    encoded, kind = _encoded(record.image)
    size = (record.image.height, record.image.width)
    name = str(record.file_name).encode()
    features = {
        "image/encoded": [encoded],
        "image/format": [kind],
        "image/filename": [name],
        "image/source_id": [str(record.image_id).encode()],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest().encode()],
        "image/height": [size[0]],
        "image/width": [size[1]],
        "image/object/class/text": [class_names[label].encode() for label in record.labels],
        "image/object/class/label": [int(label) + 1 for label in record.labels],
    }
    for side, column in zip(_CORNERS, record.boxes.T, strict=True):
        features[f"image/object/bbox/{side}"] = column.astype(float).tolist()
    for field in _further_fields():
        values = record.get(field.key)
        if values is None:
            continue
        if field.moves == schema.AS_RASTER:
            values = [b"" if mask is None else masks.to_png(mask, size) for mask in values]
        else:
            values = values.reshape(-1).astype(int if values.dtype.kind in "bi" else float).tolist()
        features[f"image/object/{_name(field)}"] = values
    points = record.get(schema.KEYPOINTS)
    if points is not None:
        known = np.isfinite(points).all(axis=-1)
        places = np.where(known[..., None], points, 0.0).astype(float)
        features["image/object/keypoint/y"] = places[..., 0].reshape(-1).tolist()
        features["image/object/keypoint/x"] = places[..., 1].reshape(-1).tolist()
        seen = record.get(schema.KEYPOINT_VISIBILITY)
        features["image/object/keypoint/visibility"] = seen.reshape(-1).astype(int).tolist()
    made = {key: _feature(values) for key, values in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString(deterministic=True)


def _name(field):
    return _NAMES.get(field.key, field.singular)


def _further_fields():
    """The rows of the table that are written as they are: no box, no class, no keypoints, whose x and y are apart."""
    apart = (schema.BOXES, schema.LABELS, schema.KEYPOINTS, schema.KEYPOINT_VISIBILITY)
    return [field for field in schema.object_fields(schema.GROUND_TRUTH) if field.key not in apart]


def _columns(features, count):
    """`{key: [count, ...]}` of the further fields that the example has; no rasters."""
    found = {}
    for field in _further_fields():
        values = [] if field.moves == schema.AS_RASTER else _values(features, f"image/object/{_name(field)}")
        if not values:
            continue
        fixed = math.prod(side for side in field.shape if isinstance(side, int))
        one_length = all(isinstance(side, int) for side in field.shape)
        if not count or len(values) % (count * fixed) or (one_length and len(values) != count * fixed):
            raise ValueError(f"it has {count} boxes (ymin) and {len(values)} {field.key}")
        shape = [side if isinstance(side, int) else -1 for side in field.shape]
        found[field.key] = np.array(values, field.dtype).reshape(count, *shape)
    return found


def _encoded(image):
    """`(bytes, format)` of an image that upstream's tools read."""
    if image.decoder in (TF_JPEG, TF_PNG):
        return image.encoded(), b"jpeg" if image.decoder == TF_JPEG else b"png"
    return encode_png(image.read()), b"png"


def _feature(values):
    import tensorflow as tf

    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _values(features, key):
    """The values of a feature as a list, for every type; [] where it is absent."""
    if key not in features:
        return []
    feature = features[key]
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def _first(features, key, default):
    values = _values(features, key)
    return values[0] if values and isinstance(values[0], type(default)) else default


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _check_lengths(columns, count):
    wrong = [f"{len(values)} {key}" for key, values in columns.items() if len(values) != count]
    if wrong:
        raise ValueError(f"it has {count} boxes (ymin) and {', '.join(wrong)}")


def _masks(features, count, size):
    """`{"masks": ...}`, and other rasters, of PNG images or of pixels as numbers, where the example has them."""
    found = {}
    for field in _further_fields():
        values = _values(features, f"image/object/{_name(field)}") if field.moves == schema.AS_RASTER else []
        if values:
            found[field.key] = _rasters(values, field.key, count, size)
    return found


def _rasters(values, key, count, size):
    if isinstance(values[0], bytes):
        _check_lengths({key: values}, count)
        # An object without a mask is written as an empty string.
        return tuple(value or None for value in values)
    if not count or min(size) < 1 or len(values) != count * size[0] * size[1]:
        raise ValueError(f"it has {len(values)} mask pixels for {count} boxes on {size[0]} x {size[1]} pixels")
    planes = np.array(values).reshape(count, *size)
    return tuple(masks.encode(plane) for plane in planes)


def _keypoints(features, count):
    """`{"keypoints", "keypoint_visibility"}`, or {}."""
    x, y = (_values(features, f"image/object/keypoint/{axis}") for axis in "xy")
    seen = _values(features, "image/object/keypoint/visibility")
    if not x and not y:
        return {}
    if not count or len(x) != len(y) or len(x) % count or (seen and len(seen) != len(x)):
        raise ValueError(f"it has {len(x)} x, {len(y)} y and {len(seen)} visibilities of keypoints for {count} boxes")
    places = np.stack([y, x], axis=-1).astype(np.float32).reshape(count, -1, 2)
    visibility = np.where(np.isfinite(places).all(axis=-1), 2, 0)
    if seen:
        visibility = np.array(seen, np.int32).reshape(count, -1)
    places[visibility == 0] = np.nan
    return {"keypoints": places, "keypoint_visibility": visibility}
