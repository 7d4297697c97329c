"""Maps enlarged or cut to the size of another map."""

import keras
from keras import ops

from keras_detect.registry import serializable


@serializable
class UpsampleLike(keras.layers.Layer):
    """Nearest-neighbor doubling of a map, cut to the size of another.

    A map of odd size `h` is halved to `(h + 1) / 2`, which doubles to `h + 1`: the last row or column goes.

    Call arguments:
        x: `[B, ceil(h / 2), ceil(w / 2), C]`.
        like: `[B, h, w, any]`; only its size is looked at.

    Returns `[B, h, w, C]`.
    """

    def call(self, x, like):
        return cut(ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2), like)

    def compute_output_shape(self, x_shape, like_shape):
        return (x_shape[0], *like_shape[1:3], x_shape[-1])


@serializable
class CropLike(keras.layers.Layer):
    """A map cut at its lower and right end to the size of another.

    Call arguments:
        x: `[B, h or more, w or more, C]`.
        like: `[B, h, w, any]`; only its size is looked at.

    Returns `[B, h, w, C]`.
    """

    def call(self, x, like):
        return cut(x, like)

    def compute_output_shape(self, x_shape, like_shape):
        return (x_shape[0], *like_shape[1:3], x_shape[-1])


def cut(x, like):
    """`x [B, H, W, C]` without the rows and columns that `like [B, h, w, any]` has not; as it is where it has all."""
    if None not in like.shape[1:3] and tuple(x.shape[1:3]) == tuple(like.shape[1:3]):
        return x
    height, width = ops.shape(like)[1:3]
    return x[:, :height, :width]
