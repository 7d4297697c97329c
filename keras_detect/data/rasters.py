"""Masks on their way into batches: polygons and run lengths until an example needs pixels, bits until a batch does.

A hundred masks of 800 x 1333 pixels are 107 MB as uint8 and 13 MB as bits, and only one of them at a time is decoded
at the size of the stored image.
"""

import numpy as np

from keras_detect.data import masks

# TensorFlow shares an array's memory where it begins at a multiple of this, and copies it otherwise.
_ALIGNMENT = 64


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
    """The example with its record's first `max_boxes` rasters as bits, resized as `resize` does it.

    Args:
        example: dict of tensors with the `"index"` of the record.
        size: int32 [2], height and width of the stored image.
        records, keys: the records and the keys of the rasters.
        resizer, canvas: see `resize`.
        max_boxes: int.
    """
    import tensorflow as tf

    # What the resizer does with an image of its own coordinates says where every pixel comes from; 0 is outside.
    y, x = (tf.range(1, size[axis] + 1, dtype=tf.float32) for axis in (0, 1))
    places = tf.stack(tf.meshgrid(y, x, indexing="ij"), axis=-1)
    places = tf.cast(resizer.tf_resizing(*tf.unstack(size), canvas).for_rasters().tf_image(places), tf.int32)
    rows, columns = places[:, 0, 0], places[0, :, 1]
    example = dict(example)
    for key in keys:
        read = lambda index, rows, columns, key=key: _sampled(  # noqa: E731
            records[int(index)], key, rows, columns, max_boxes
        )
        bits = tf.numpy_function(read, [example["index"], rows, columns], tf.uint8, stateful=False)
        example[key] = tf.ensure_shape(bits, [None, _bytes(canvas)])
    return example


def _sampled(record, key, rows, columns, max_boxes):
    """uint8 [n, bytes]: the bits of the record's masks at the 1-based `rows` and `columns` of the stored image."""
    objects = (record.get(key) or (None,) * len(record.boxes))[:max_boxes]
    bits = np.zeros((len(objects), _bytes((len(rows), len(columns)))), np.uint8)
    plane = np.zeros((len(rows), len(columns)), np.uint8)
    inside = np.ix_(rows > 0, columns > 0)
    source = np.ix_(rows[rows > 0] - 1, columns[columns > 0] - 1)
    for number, mask in enumerate(objects):
        if mask is not None:
            try:
                plane[inside] = masks.pixels(mask, record.size)[source]
            except ValueError as error:
                raise ValueError(f"{record.file_name}: {error}") from None
            bits[number] = np.packbits(plane)
    return bits


def resize(raster, resizer, canvas):
    """[n, H, W] -> [n, h, w]: the image's sampling positions, nearest pixel, 0 outside the image."""
    import tensorflow as tf

    resizing = resizer.tf_resizing(tf.shape(raster)[1], tf.shape(raster)[2], canvas)
    return tf.ensure_shape(resizing.tf_rasters(raster), [None, *canvas])


def pack(raster, canvas):
    """uint8 [n, h, w] of 0 and 1 (in a `tf.data` graph) as bits, uint8 [n, bytes]."""
    import tensorflow as tf

    bits = tf.numpy_function(_packed, [raster], tf.uint8, stateful=False)
    return tf.ensure_shape(bits, [None, _bytes(canvas)])


def _packed(raster):
    return np.packbits(raster.reshape(len(raster), raster.shape[1] * raster.shape[2]), axis=1)


def unpack_batch(x, y, keys, canvas):
    """A batch with its rasters as uint8 [B, M, h, w] in the place of bits [B, M, bytes]."""
    import tensorflow as tf

    y = dict(y)
    for key in keys:
        unpacked = tf.numpy_function(lambda bits: _unpacked(bits, canvas), [y[key]], tf.uint8, stateful=False)
        y[key] = tf.ensure_shape(unpacked, [None, y[key].shape[1], *canvas])
    return x, y


def _unpacked(bits, canvas):
    height, width = canvas
    count = height * width
    memory = np.empty(bits.shape[0] * bits.shape[1] * count + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    unpacked = memory[start : start + len(memory) - _ALIGNMENT].reshape(*bits.shape[:2], count)
    for image, rows in zip(unpacked, bits, strict=True):
        for plane, row in zip(image, rows, strict=True):
            plane[:] = np.unpackbits(row, count=count)
    return unpacked.reshape(*bits.shape[:2], height, width)


def _bytes(canvas):
    return -(-canvas[0] * canvas[1] // 8)
