"""Masks on their way into batches: as annotated until an example needs pixels, packed until a batch does.

A hundred masks of 800 x 1333 pixels are 107 MB as uint8; packed (compressed bits, one string per object) they are a
hundredth of that, and without augmentation only one at a time is decoded at the size of the stored image.
"""

import dataclasses
import zlib

import numpy as np

from keras_detect.data import masks

# TensorFlow shares an array's memory where it begins at a multiple of this, and copies it otherwise.
_ALIGNMENT = 64
_FASTEST = 1  # level of zlib


def attach(example, records, keys):
    """The example (in a `tf.data` graph) with the rasters of its record, uint8 [n, H, W] as stored."""
    import tensorflow as tf

    example = dict(example)
    for key in keys:
        read = lambda index, key=key: records[int(index)].read_raster(key)  # noqa: E731
        raster = tf.numpy_function(read, [example["index"]], tf.uint8, stateful=False)
        example[key] = tf.ensure_shape(raster, [None, None, None])
    return example


def attach_resized(example, size, records, keys, resizer, canvas, max_boxes):
    """The example with its record's first `max_boxes` rasters packed, resized as `resize` does it.

    Args:
        example: dict of tensors with the `"index"` of the record.
        size: int32 [2], height and width of the stored image.
        records, keys: the records and the keys of the rasters.
        resizer, canvas: see `resize`.
        max_boxes: int.
    """
    import tensorflow as tf

    rows, columns = _sources(resizer.tf_resizing(*tf.unstack(size), canvas).for_rasters())
    example = dict(example)
    for key in keys:
        read = lambda index, rows, columns, key=key: _sampled(  # noqa: E731
            records[int(index)], key, rows, columns, max_boxes
        )
        packed = tf.numpy_function(read, [example["index"], rows, columns], tf.string, stateful=False)
        example[key] = tf.ensure_shape(packed, [None])
    return example


def _sources(resizing):
    """Where the pixels of the canvas come from: int32 [h] rows and [w] columns of the image, from 1, 0 for outside.

    Each axis is resized by itself, so the sources of one are those of an image that has one pixel along the other.
    """
    import tensorflow as tf

    found = []
    for axis in (0, 1):
        thin = {name: _thin(getattr(resizing, name), axis) for name in ("before", "after", "canvas")}
        numbers = tf.range(1, tf.cast(resizing.before[axis], tf.int32) + 1)
        line = tf.reshape(tf.cast(numbers, tf.float32), (-1, 1, 1) if axis == 0 else (1, -1, 1))
        found.append(tf.reshape(tf.cast(dataclasses.replace(resizing, **thin).tf_image(line), tf.int32), [-1]))
    return found


def _thin(size, axis):
    return (size[0], 1) if axis == 0 else (1, size[1])


def _sampled(record, key, rows, columns, max_boxes):
    """[n] bytes: the record's masks, packed, at the 1-based `rows` and `columns` of the stored image."""
    objects = (record.get(key) or (None,) * len(record.boxes))[:max_boxes]
    packed = np.full(len(objects), b"", object)
    plane = np.zeros((len(rows), len(columns)), np.uint8)
    inside = np.ix_(rows > 0, columns > 0)
    source = np.ix_(rows[rows > 0] - 1, columns[columns > 0] - 1)
    for number, mask in enumerate(objects):
        if mask is not None:
            try:
                plane[inside] = masks.decode(mask, record.size)[source]
            except ValueError as error:
                raise ValueError(f"{record.file_name}: {error}") from None
            packed[number] = _packed(plane)
    return packed


def resize(raster, resizer, canvas):
    """[n, H, W] -> [n, h, w]: the image's sampling positions, nearest pixel, 0 outside the image."""
    import tensorflow as tf

    resizing = resizer.tf_resizing(tf.shape(raster)[1], tf.shape(raster)[2], canvas)
    return tf.ensure_shape(resizing.tf_rasters(raster), [None, *canvas])


def pack(raster):
    """uint8 [n, h, w] of 0 and 1 (in a `tf.data` graph), packed: [n] strings."""
    import tensorflow as tf

    def pack_each(raster):
        packed = np.full(len(raster), b"", object)
        packed[:] = [_packed(plane) for plane in raster]
        return packed

    return tf.ensure_shape(tf.numpy_function(pack_each, [raster], tf.string, stateful=False), [None])


def _packed(plane):
    return zlib.compress(np.packbits(plane), _FASTEST)


def unpack_batch(x, y, keys, canvas):
    """A batch with its rasters as uint8 [B, M, h, w] in the place of packed ones [B, M]; b"" is all 0."""
    import tensorflow as tf

    y = dict(y)
    for key in keys:
        unpacked = tf.numpy_function(lambda packed: _unpacked(packed, canvas), [y[key]], tf.uint8, stateful=False)
        y[key] = tf.ensure_shape(unpacked, [None, y[key].shape[1], *canvas])
    return x, y


def _unpacked(packed, canvas):
    count = canvas[0] * canvas[1]
    memory = np.zeros(packed.size * count + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    planes = memory[start : start + packed.size * count].reshape(packed.size, count)
    for plane, content in zip(planes, packed.reshape(-1), strict=True):
        if content:
            plane[:] = np.unpackbits(np.frombuffer(zlib.decompress(content), np.uint8), count=count)
    return planes.reshape(*packed.shape, *canvas)
