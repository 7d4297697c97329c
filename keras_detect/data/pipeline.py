"""Records to batches: read, decode, augment and resize each picture in parallel, pad the truth, batch, prefetch.

TensorFlow's `tf.data` does the work under every backend; it is imported when the first batches are asked for.
"""

import dataclasses

import numpy as np
from absl import logging

from keras_detect import schema
from keras_detect.data.image import TF_JPEG, TF_PNG, FilePicture

CACHE_LIMIT_BYTES = 4 * 2**30

_FLAGS = (schema.IS_CROWD, "is_difficult", "is_group_of")
# The value a padding row holds, per row-wise entry of an example.
_ROW_PADDING = {schema.BOXES: 0.0, schema.LABELS: schema.PADDING_LABEL, "areas": 0.0, schema.WEIGHTS: 0.0}
_ROW_PADDING |= dict.fromkeys(_FLAGS, False) | {"masks": 0, "keypoints": 0.0, "keypoint_visibility": 0}

# Sizes (height, width) that show what a resizer does with square, wide and tall pictures.
_PROBES = ((96, 96), (96, 160), (160, 96))


def build_batches(
    records, *, resizer, batch_size, augment, shuffle, seed, drop_remainder, max_boxes, cache, masks=False, shard=None
):
    """The `tf.data.Dataset` behind `DetectionDataset.batches`, which documents the arguments and what comes out."""
    import tensorflow as tf

    augmentations = _as_sequence(augment)
    canvas, pads = _canvas(records, resizer, augmentations)
    load = _loader(records, with_areas=not augmentations, with_masks=masks)
    _warn_of_lost_rows(records, max_boxes)
    cache = cache and _fits_in_memory(records, canvas=None if augmentations else canvas)

    def finish(example):
        return _resize(example, resizer, canvas)

    def augment_and_finish(example, number):
        seed_pair = tf.stack([number, example.pop("index")])
        for position, operation in enumerate(augmentations):
            example = operation(example, tf.random.experimental.stateless_fold_in(seed_pair, position))
        return _resize(example, resizer, canvas)

    def parallel(dataset, function):
        return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    dataset = tf.data.Dataset.range(len(records))
    if cache:
        dataset = _part(dataset, shard, drop_remainder)  # no host holds what another one trains on
        dataset = parallel(dataset, load if augmentations else lambda index: finish(load(index))).cache()
    if shuffle:
        # Indices, or references to cached pictures: a buffer of all of them costs nothing and mixes perfectly.
        dataset = dataset.shuffle(len(records), seed=seed, reshuffle_each_iteration=True)
    if not cache:
        dataset = _part(dataset, shard, drop_remainder)
    if augmentations:
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        dataset = tf.data.Dataset.zip(dataset, numbers)
        whole = augment_and_finish if cache else lambda index, number: augment_and_finish(load(index), number)
        dataset = parallel(dataset, whole)
    elif not cache:
        dataset = parallel(dataset, lambda index: finish(load(index)))
    dataset = parallel(dataset, lambda example: _split_xy(example, max_boxes, pads))
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder).prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _part(dataset, shard, drop_remainder):
    """The pictures of one host; the same number on every host where remainders are dropped."""
    if shard is None:
        return dataset
    index, count = shard
    dataset = dataset.take(int(dataset.cardinality()) // count * count) if drop_remainder else dataset
    return dataset.shard(count, index)


def _loader(records, with_areas, with_masks):
    """A function from an index to an example of tensors, the picture decoded and not yet resized."""
    import tensorflow as tf

    has_weights = any(record.weights is not None for record in records)
    has_areas = with_areas and all(record.areas is not None or not len(record.boxes) for record in records)
    has_areas = has_areas and any(record.areas is not None for record in records)
    columns = {
        schema.BOXES: np.concatenate([record.boxes for record in records]),
        schema.LABELS: np.concatenate([record.labels for record in records]),
    }
    for flag in _FLAGS:
        values = [_or(getattr(record, flag), record, False) for record in records]
        if any(rows.any() for rows in values):
            columns[flag] = np.concatenate(values)
    if has_weights:
        columns[schema.WEIGHTS] = np.concatenate([_or(record.weights, record, np.float32(1)) for record in records])
    if has_areas:
        columns["areas"] = np.concatenate([_or(record.areas, record, np.float32(1)) for record in records])
    columns = {key: tf.constant(value) for key, value in (columns | _keypoints(records)).items()}
    ends = np.cumsum([0] + [len(record.boxes) for record in records])
    ends = tf.constant(ends, tf.int64)
    decode = _decoder(records)

    def stack(index):
        return records[int(index)].read_masks()

    def load(index):
        example = {key: column[ends[index] : ends[index + 1]] for key, column in columns.items()}
        example["image"] = decode(index)
        example["index"] = index
        if with_masks:
            masks = tf.numpy_function(stack, [index], tf.uint8, stateful=False)
            example["masks"] = tf.ensure_shape(masks, [None, None, None])
        return example

    return load


def _keypoints(records):
    """`"keypoints"` [n, N, 2] normalised yx and `"keypoint_visibility"` [n, N] of the n objects of all pictures.

    N is the largest number that an object has; the places that another one lacks are NaN and not visible.
    """
    counts = [record.keypoints.shape[1] for record in records if record.keypoints is not None]
    if not counts:
        return {}
    most, points, visibility = max(counts), [], []
    for record in records:
        rows = (len(record.boxes), most)
        points.append(np.full((*rows, 2), np.nan, np.float32))
        visibility.append(np.zeros(rows, np.int32))
        if record.keypoints is not None:
            own = record.keypoints.shape[1]
            points[-1][:, :own], visibility[-1][:, :own] = record.keypoints, record.visibility()
    return {"keypoints": np.concatenate(points), "keypoint_visibility": np.concatenate(visibility)}


def _or(rows, record, default):
    return np.full(len(record.boxes), default) if rows is None else rows


def _decoder(records):
    """A function from an index to uint8 [H, W, 3]: TensorFlow's decoder where it equals Pillow's, else Pillow."""
    import tensorflow as tf

    pictures = [record.picture for record in records]
    paths = tf.constant([picture.path for picture in pictures])
    decoders = tf.constant([picture.decoder for picture in pictures], tf.int32)

    whole_files = all(isinstance(picture, FilePicture) for picture in pictures)

    def read(index):
        return np.ascontiguousarray(pictures[int(index)].read())

    def encoded(index):
        if whole_files:
            return tf.io.read_file(paths[index])
        # One axis: of an array without axes TensorFlow 2.21 never frees the bytes.
        read_bytes = lambda index: np.array([pictures[int(index)].encoded()], object)  # noqa: E731
        return tf.ensure_shape(tf.numpy_function(read_bytes, [index], tf.string, stateful=False), [1])[0]

    def decode(index):
        branches = {
            TF_JPEG: lambda: tf.io.decode_jpeg(encoded(index), 3, dct_method="INTEGER_ACCURATE"),
            TF_PNG: lambda: tf.io.decode_png(encoded(index), 3),
        }
        by_pillow = lambda: tf.numpy_function(read, [index], tf.uint8, stateful=False)  # noqa: E731
        used = {picture.decoder for picture in pictures}
        if len(used) == 1:
            image = branches.get(used.pop(), by_pillow)()
        else:
            image = tf.switch_case(decoders[index], branches, default=by_pillow)
        return tf.ensure_shape(image, [None, None, 3])

    return decode


def _resize(example, resizer, canvas):
    """Resizes the picture; adds the sizes before (`image_size`) and after (`true_shape`), drops the index."""
    import tensorflow as tf

    image = example["image"]
    example = {key: value for key, value in example.items() if key != "index"}
    example["image_size"] = tf.shape(image)[:2]
    resized, true_shape = resizer.resize_tf(image)
    # A resizer that does not pad by itself leaves sizes that differ; a batch has one.
    resized = tf.pad(resized, [[0, canvas[0] - tf.shape(resized)[0]], [0, canvas[1] - tf.shape(resized)[1]], [0, 0]])
    channels = 1 if getattr(resizer, "convert_to_grayscale", False) else 3
    example["image"] = tf.ensure_shape(resized, [*canvas, channels])
    example["true_shape"] = tf.ensure_shape(tf.cast(true_shape, tf.int32), [3])
    if "masks" in example:
        example["masks"] = _resize_masks(example["masks"], resizer, canvas)
    return example


def _resize_masks(masks, resizer, canvas):
    """[n, H, W] -> [n, h, w]: the picture's sampling positions, nearest pixel, 0 outside the picture."""
    import tensorflow as tf

    settings = {"method": "nearest", "convert_to_grayscale": False, "per_channel_pad_value": (0.0,)}
    own = {field.name for field in dataclasses.fields(resizer)}
    nearest = dataclasses.replace(resizer, **{key: settings[key] for key in own & settings.keys()})
    # A plane more, because a picture without channels cannot be resized.
    planes, _ = nearest.resize_tf(tf.pad(tf.transpose(masks, (1, 2, 0)), [[0, 0], [0, 0], [0, 1]]))
    room = [[0, canvas[0] - tf.shape(planes)[0]], [0, canvas[1] - tf.shape(planes)[1]], [0, 0]]
    return tf.ensure_shape(tf.transpose(tf.pad(planes, room), (2, 0, 1))[:-1], [None, *canvas])


def _split_xy(example, max_boxes, pads):
    """One example as `(x, y)`, its rows cut or padded to `max_boxes`."""
    import tensorflow as tf

    y = {"image_size": example["image_size"]}
    if "keypoints" in example:
        example = example | _visible_keypoints(example["keypoints"], example["keypoint_visibility"])
    for key, padding in _ROW_PADDING.items():
        if key in example:
            rows = example[key][:max_boxes]
            margin = [[0, max_boxes - tf.shape(rows)[0]]] + [[0, 0]] * (rows.shape.rank - 1)
            padded = tf.pad(rows, margin, constant_values=tf.constant(padding, rows.dtype))
            y[key] = tf.ensure_shape(padded, [max_boxes, *rows.shape[1:]])
    x = {schema.IMAGES: example["image"], schema.TRUE_IMAGE_SHAPES: example["true_shape"]} if pads else example["image"]
    return x, y


def _visible_keypoints(points, visibility):
    """`points [n, N, 2]`, normalised yx, and `visibility [n, N]`: 0 where not annotated (NaN) or outside."""
    import tensorflow as tf

    inside = tf.reduce_all((points >= 0.0) & (points <= 1.0), axis=-1) & (visibility > 0)
    points = tf.where(inside[..., None], points, 0.0)
    return {"keypoints": points, "keypoint_visibility": tf.where(inside, visibility, 0)}


def _canvas(records, resizer, augmentations):
    """`((height, width), pads)`: the one size of the batches' pictures, and whether some are smaller than it.

    The second is asked of the resizer and not of the data, so that the batches of every split have the same x.
    """
    if not hasattr(resizer, "resize_tf"):
        raise ValueError(
            "batches() sizes the pictures with the model's resizer. Received a model without one: "
            f"{type(resizer).__name__}. Pass a keras_detect model, or a resizer of keras_detect.transforms.resizers."
        )
    height = max(record.picture.height for record in records)
    width = max(record.picture.width for record in records)
    if any(getattr(operation, "swaps_sides", False) for operation in augmentations):
        height = width = max(height, width)
    canvas = tuple(resizer.output_shape(height, width, padded=True))
    return canvas, any(tuple(resizer.resized_size(*probe)) != canvas for probe in _PROBES)


def _as_sequence(augment):
    if augment is None:
        return ()
    augmentations = tuple(augment) if isinstance(augment, list | tuple) else (augment,)
    for operation in augmentations:
        if not callable(operation):
            raise ValueError(
                "augment is an operation of keras_detect.transforms or a sequence of them. "
                f"Received: {operation!r} of type {type(operation).__name__}"
            )
    return augmentations


def _warn_of_lost_rows(records, max_boxes):
    lost = sum(max(0, len(record.boxes) - max_boxes) for record in records)
    if lost:
        logging.warning("max_boxes=%d leaves out %d boxes of crowded pictures.", max_boxes, lost)


def _fits_in_memory(records, canvas):
    """Whether the decoded pictures stay below the limit: resized ones where there is a canvas."""
    sizes = [canvas or (record.picture.height, record.picture.width) for record in records]
    total = sum(height * width * 3 for height, width in sizes)
    if total > CACHE_LIMIT_BYTES:
        logging.warning("cache=True left out: the pictures would take %.1f GiB of memory.", total / 2**30)
    return total <= CACHE_LIMIT_BYTES
