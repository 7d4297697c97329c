"""Records to batches: read, decode, augment and resize each image in parallel, pad the ground truth, batch, prefetch.

TensorFlow's `tf.data` does the work under every backend; it is imported when the first batches are asked for.
"""

import numpy as np
from absl import logging

from keras_detect import schema
from keras_detect.data import rasters
from keras_detect.data.columns import image_columns, object_columns
from keras_detect.data.image import MAX_PIXELS, TF_JPEG, TF_PNG, FileImage, tf_decoded
from keras_detect.data.order import EpochOrder, attach, epochs, shuffled
from keras_detect.transforms.augmentation import num_examples

CACHE_LIMIT_BYTES = 4 * 2**30

# Sizes (height, width) that show what a resizer does with square, wide and tall images.
_PROBES = ((96, 96), (96, 160), (160, 96))
# Numbers the random draws of further examples apart from those that an operation makes.
_FURTHER = 1 << 20


def build_batches(
    records,
    *,
    resizer,
    batch_size,
    augment,
    shuffle,
    seed,
    drop_remainder,
    max_boxes,
    cache,
    raster_keys=(),
    shard=None,
):
    """The `tf.data.Dataset` behind `DetectionDataset.batches`, which documents the arguments and what comes out.

    `raster_keys`: keys of the per-object rasters that y shall have.
    """
    import tensorflow as tf

    augmentations = _as_sequence(augment)
    canvas, pads = _canvas(records, resizer, augmentations)
    load = _loader(records, stored_frame=not augmentations)
    _warn_of_lost_rows(records, max_boxes)
    cache = cache and _fits_in_memory(records, canvas=None if augmentations else canvas)

    def finish(example):
        size = tf.shape(example["image"])[:2]
        if raster_keys:
            example = rasters.attach_resized(example, size, records, raster_keys, resizer, canvas, max_boxes)
        return _resize(example, resizer, canvas)

    def augment_and_finish(example, number):
        example = _augmented(example, number, augmentations, records, load, raster_keys)
        for key in raster_keys:
            example[key] = rasters.pack(rasters.resize(example[key], resizer, canvas))
        return _resize(example, resizer, canvas)

    def parallel(dataset, function):
        return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    order = _order(records, seed, shuffle, batch_size, shard, drop_remainder, cache)
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(order.indices, np.int64))
    if cache:  # no host holds what another one trains on
        dataset = parallel(dataset, load if augmentations else lambda index: finish(load(index))).cache()
    if shuffle or augmentations:
        dataset = _every_epoch_anew(dataset, order, numbered=bool(augmentations))
    elif order.shard:
        dataset = dataset.shard(order.shard[1], order.shard[0])
    if augmentations:
        whole = augment_and_finish if cache else lambda index, number: augment_and_finish(load(index), number)
        dataset = parallel(dataset, whole)
    elif not cache:
        dataset = parallel(dataset, lambda index: finish(load(index)))
    dataset = parallel(dataset, lambda example: _split_xy(example, max_boxes, pads))
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder).prefetch(tf.data.AUTOTUNE)
    if raster_keys:  # after the prefetching, so that one batch at a time holds pixels
        dataset = dataset.map(lambda x, y: rasters.unpack_batch(x, y, raster_keys, canvas))
    return attach(dataset.with_options(_options()), order)


def _order(records, seed, shuffle, batch_size, shard, drop_remainder, cache):
    """The `EpochOrder` of the images, of which every host deals as many where remainders are dropped."""
    count = len(records) // shard[1] * shard[1] if shard and drop_remainder else len(records)
    own = shard is not None and cache  # a host's cache holds its own images alone
    return EpochOrder(
        seed=seed,
        shuffle=shuffle,
        file_names=[record.file_name for record in records],
        batch_size=batch_size,
        indices=range(shard[0], count, shard[1]) if own else range(count),
        shard=None if own else shard,
    )


def _every_epoch_anew(dataset, order, numbered):
    """The elements of `dataset` in the order of each epoch, where `numbered` with its random number beside each.

    Elements are indices, or references to cached images: a buffer of all of them costs nothing and mixes perfectly.
    """
    import tensorflow as tf

    def one_epoch(seeds):
        epoch = shuffled(dataset, len(order.indices), seeds) if order.shuffle else dataset
        if order.shard:
            epoch = epoch.shard(order.shard[1], order.shard[0])
        return tf.data.Dataset.zip(epoch, tf.data.Dataset.from_tensors(seeds[2]).repeat()) if numbered else epoch

    index, count = order.shard or (0, 1)
    return epochs(order, one_epoch, len(range(index, len(order.indices), count)))


def _options():
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options


def _augmented(example, number, augmentations, records, load, raster_keys):
    """The example after all augmentations.

    An operation that needs several examples receives further ones, drawn at random from all records, each augmented by
    the operations before it with randomness of its own.

    Args:
        example: dict of tensors with the `"index"` of its record.
        number: int64, random, another one for every epoch.
    """
    import tensorflow as tf

    fold = tf.random.experimental.stateless_fold_in

    def apply(example, seed, operations):
        example = rasters.attach(example, records, raster_keys)
        del example["index"]
        for position, operation in enumerate(operations):
            own = fold(seed, position)
            count = num_examples(operation)
            if count > 1:
                seeds = [fold(own, _FURTHER + other) for other in range(1, count)]
                example = operation((example, *(another(seed, operations[:position]) for seed in seeds)), own)
            else:
                example = operation(example, own)
        return dict(example)

    def another(seed, operations):
        index = tf.random.stateless_uniform((), seed, maxval=len(records), dtype=tf.int64)
        return apply(load(index), seed, operations)

    return apply(example, tf.stack([number, example["index"]]), augmentations)


def _loader(records, stored_frame):
    """A function from an index to an example of tensors, the image decoded and not yet resized; no rasters."""
    import tensorflow as tf

    of_objects = {key: tf.constant(column) for key, column in object_columns(records, stored_frame).items()}
    of_images = {key: tf.constant(column) for key, column in image_columns(records).items()}
    ends = tf.constant(np.cumsum([0] + [len(record.boxes) for record in records]), tf.int64)
    decode = _decoder(records)

    def load(index):
        example = {key: column[ends[index] : ends[index + 1]] for key, column in of_objects.items()}
        example |= {key: column[index] for key, column in of_images.items()}
        return example | {"image": decode(index), "index": index}

    return load


def _decoder(records):
    """A function from an index to uint8 [H, W, 3]: TensorFlow's decoder where it equals Pillow's, else Pillow."""
    import tensorflow as tf

    images = [record.image for record in records]
    paths = tf.constant([image.path for image in images])
    decoders = tf.constant([image.decoder for image in images], tf.int32)

    whole_files = all(isinstance(image, FileImage) for image in images)

    def read(index):
        return np.ascontiguousarray(images[int(index)].read())

    def encoded(index):
        if whole_files:
            return tf.io.read_file(paths[index])
        # One axis: of an array without axes TensorFlow 2.21 never frees the bytes.
        read_bytes = lambda index: np.array([images[int(index)].encoded()], object)  # noqa: E731
        return tf.ensure_shape(tf.numpy_function(read_bytes, [index], tf.string, stateful=False), [1])[0]

    def decode(index):
        branches = {kind: lambda kind=kind: tf_decoded(encoded(index), kind) for kind in (TF_JPEG, TF_PNG)}
        by_pillow = lambda: tf.numpy_function(read, [index], tf.uint8, stateful=False)  # noqa: E731
        used = {image.decoder for image in images}
        if len(used) == 1:
            image = branches.get(used.pop(), by_pillow)()
        else:
            image = tf.switch_case(decoders[index], branches, default=by_pillow)
        return tf.ensure_shape(image, [None, None, 3])

    return decode


def _resize(example, resizer, canvas):
    """Resizes the image; adds the sizes before (`image_size`) and after (`true_shape`), drops the index."""
    import tensorflow as tf

    image = example["image"]
    example = {key: value for key, value in example.items() if key != "index"}
    example[schema.IMAGE_SIZE] = tf.shape(image)[:2]
    resized, true_shape = resizer.resize_tf(image, canvas)
    channels = 1 if getattr(resizer, "convert_to_grayscale", False) else 3
    example["image"] = tf.ensure_shape(resized, [*canvas, channels])
    example["true_shape"] = tf.ensure_shape(tf.cast(true_shape, tf.int32), [3])
    return example


def _split_xy(example, max_boxes, pads):
    """One example as `(x, y)`, its objects cut or padded to `max_boxes`."""
    import tensorflow as tf

    fields = schema.object_fields(schema.GROUND_TRUTH)
    for field in fields:
        if field.moves == schema.AS_POINTS and field.key in example:
            example = example | _visible_points(example, field)
    y = {}
    for field in fields:
        if field.key in example:
            rows = example[field.key][:max_boxes]
            margin = [[0, max_boxes - tf.shape(rows)[0]]] + [[0, 0]] * (rows.shape.rank - 1)
            padding = "" if rows.dtype == tf.string else field.padding  # packed rasters
            padded = tf.pad(rows, margin, constant_values=tf.constant(padding, rows.dtype))
            y[field.key] = tf.ensure_shape(padded, [max_boxes, *rows.shape[1:]])
    y |= {field.key: example[field.key] for field in schema.image_fields(schema.GROUND_TRUTH) if field.key in example}
    # So marked, the images are not resampled once more by the model.
    x = {schema.IMAGES: example["image"]} | ({schema.RESIZED_IMAGE_SHAPES: example["true_shape"]} if pads else {})
    x |= {field.key: example[field.key] for field in schema.image_fields(schema.INPUT) if field.key in example}
    return (x if len(x) > 1 else example["image"]), y


def _visible_points(example, field):
    """The points of a field, 0 where they are not finite; and where it has a visibility, both 0 for points outside."""
    import tensorflow as tf

    points, visibility = example[field.key], example.get(field.visibility)
    inside = tf.reduce_all(tf.math.is_finite(points), axis=-1)
    if visibility is None:
        return {field.key: tf.where(inside[..., None], points, 0.0)}
    inside &= tf.reduce_all((points >= 0.0) & (points <= 1.0), axis=-1) & (visibility > 0)
    points = tf.where(inside[..., None], points, 0.0)
    return {field.key: points, field.visibility: tf.where(inside, visibility, 0)}


def _canvas(records, resizer, augmentations):
    """`((height, width), pads)`: the one size of the batches' images, and whether some are smaller than it.

    The second is asked of the resizer and not of the data, so that the batches of every split have the same x.
    """
    if not hasattr(resizer, "resize_tf"):
        raise ValueError(
            "batches() sizes the images with the model's resizer. Received a model without one: "
            f"{type(resizer).__name__}. Pass a keras_detect model, or a resizer of keras_detect.transforms."
        )
    height = max(record.image.height for record in records)
    width = max(record.image.width for record in records)
    for operation in augmentations:
        if getattr(operation, "swaps_sides", False):
            height = width = max(height, width)
        if hasattr(operation, "largest_size"):
            height, width = operation.largest_size(height, width)
    canvas = tuple(resizer.output_shape(height, width, padded=True))
    largest = max(MAX_PIXELS, *(record.image.height * record.image.width for record in records))
    if canvas[0] * canvas[1] > largest:
        raise ValueError(
            f"Batches hold images of one size, here {canvas[0]} x {canvas[1]} pixels (height x width): the largest "
            f"sides of the data set as {type(resizer).__name__} resizes them. Remove the longest images, or use a "
            "resizer with a fixed size."
        )
    return canvas, any(tuple(resizer.resized_size(*probe)) != canvas for probe in _PROBES)


def fitted(augment, dataset):
    """The augmentations, each with what it takes from the data set (`fitted_to`): the order of mirrored keypoints."""
    return tuple(
        operation.fitted_to(dataset) if hasattr(operation, "fitted_to") else operation
        for operation in _as_sequence(augment)
    )


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
        logging.warning("max_boxes=%d drops %d boxes of crowded images.", max_boxes, lost)


def _fits_in_memory(records, canvas):
    """Whether the decoded images stay below the limit: resized ones where there is a canvas."""
    sizes = [canvas or (record.image.height, record.image.width) for record in records]
    total = sum(height * width * 3 for height, width in sizes)
    if total > CACHE_LIMIT_BYTES:
        logging.warning("cache=True is ignored: the images would need %.1f GiB of memory.", total / 2**30)
    return total <= CACHE_LIMIT_BYTES
