"""What every augmentation obeys: one or several examples in, one example out, the randomness handed in.

An example is a dict of tensors inside a `tf.data` graph: `"image"` uint8 [H, W, 3], and rows of the tables in
`schema.py`: `"boxes"` [n, 4] float32 normalized yxyx and the other per-object fields of the data set, one row
per object (`"masks"` [n, H, W], `"keypoints"` [n, N, 2] normalized yx), and per-image entries. An augmentation is a
part (it serializes), is called as `operation(example, seed)` with an int64 [2] `seed`, returns a new example, and draws
only from that seed: the same seed gives the same image.

An operation on several images (mosaic, mixup, copy-paste) says how many in an attribute `num_examples`, and is called
as `operation(examples, seed)` with a tuple of so many. The first is the one whose turn it is; the pipeline draws the
others at random from the data set and applies the operations that are before this one to each. An operation that can
make images higher or wider says so in a method `largest_size(height, width) -> (height, width)`, one that swaps the
sides in an attribute `swaps_sides`: the canvas of the batches follows.
"""

from keras_detect import schema


def num_examples(operation):
    """How many examples an operation takes. Raises `ValueError` where its `num_examples` is not a positive int."""
    count = getattr(operation, "num_examples", 1)
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"num_examples of an augmentation is a positive int. Received: {count!r} of {operation!r}")
    return count


def draw(seed, number, shape=(), low=0.0, high=1.0):
    """Uniform float32 numbers in [low, high); `number` tells the draws of one operation apart."""
    import tensorflow as tf

    seed = tf.random.experimental.stateless_fold_in(seed, number)
    return tf.random.stateless_uniform(shape, seed, minval=low, maxval=high)


def keep_rows(example, keep):
    """The example with only the objects where `keep` [n] is true."""
    import tensorflow as tf

    keys = [field.key for field in schema.object_fields() if field.key in example]
    return example | {key: tf.boolean_mask(example[key], keep) for key in keys}


def join_rows(examples):
    """`{key: [n1 + n2 + ..., ...]}`: the objects of several examples of a data set, one after the other."""
    import tensorflow as tf

    keys = [field.key for field in schema.object_fields() if field.key in examples[0]]
    return {key: tf.concat([example[key] for example in examples], axis=0) for key in keys}


def move_objects(example, box, point, raster):
    """The example with its objects moved as the table says.

    Args:
        example: see above; the image stays.
        box: function of `ymin, xmin, ymax, xmax`, tensors of one shape, to those of the moved boxes.
        point: function of `y, x` to those of the moved points.
        raster: function of a raster [n, H, W] to the moved one.
    """
    import tensorflow as tf

    def moved(values, move):
        return tf.stack(move(*tf.unstack(values, axis=-1)), axis=-1)

    example = dict(example)
    for field in schema.object_fields():
        if field.key not in example:
            continue
        if field.moves == schema.AS_BOX:
            example[field.key] = moved(example[field.key], box)
        elif field.moves == schema.AS_POINTS:
            example[field.key] = moved(example[field.key], point)
        elif field.moves == schema.AS_RASTER:
            example[field.key] = raster(example[field.key])
    return example


def sometimes(probability, seed, function, example):
    """`function(example)` with the given probability, else the example as it is."""
    import tensorflow as tf

    if probability >= 1.0:
        return function(example)
    return tf.cond(draw(seed, 0) < probability, lambda: function(example), lambda: dict(example))


def check_probability(probability):
    """Raises `ValueError` unless `probability` is in [0, 1]."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"A probability must be in [0, 1]. Received: probability={probability}")


def check_range(low, high, least=0.0, **names):
    """Raises `ValueError` unless `least <= low <= high`; `names`: both settings with their values, for the error."""
    if not least <= low <= high:
        received = ", ".join(f"{name}={value}" for name, value in names.items())
        raise ValueError(f"{' and '.join(names)} must be in order and at least {least:g}. Received: {received}")
