"""What every augmentation obeys: an example in, an example out, the randomness handed in.

An example is a dict of tensors inside a `tf.data` graph: `"image"` uint8 [H, W, 3], `"boxes"` [n, 4] float32
normalised yxyx, and the other entries of `ROWS`, one row per box (`"masks"` [n, H, W], `"keypoints"` [n, N, 2]
normalised yx). An augmentation is a part (it serialises), is called
as `operation(example, seed)` with an int64 [2] `seed`, returns a new example, and draws only from that seed: the same
seed gives the same picture.
"""

from keras_detect import schema

ROWS = (schema.BOXES, schema.LABELS, schema.IS_CROWD, schema.WEIGHTS, "is_difficult", "is_group_of")
ROWS += ("masks", "keypoints", "keypoint_visibility")


def draw(seed, number, shape=(), low=0.0, high=1.0):
    """Uniform float32 numbers in [low, high); `number` tells the draws of one operation apart."""
    import tensorflow as tf

    seed = tf.random.experimental.stateless_fold_in(seed, number)
    return tf.random.stateless_uniform(shape, seed, minval=low, maxval=high)


def keep_rows(example, keep):
    """The example with only the rows where `keep` [n] is true."""
    import tensorflow as tf

    return example | {key: tf.boolean_mask(example[key], keep) for key in ROWS if key in example}


def check_probability(probability):
    """Raises `ValueError` unless `probability` lies in [0, 1]."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"A probability lies in [0, 1]. Received: probability={probability}")
