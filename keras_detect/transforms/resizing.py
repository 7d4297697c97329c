"""One resizing of one image (or of each image of a batch), with its inverse, and its three executors.

A `Resizing` says how large the image is before and after, how large the canvas is on which it then lies, and how pixels
are sampled. Images and rasters are resized by numpy (`array`), in a `tf.data` graph (`tf_image`) and in the model
(`batch`): the same sampling positions. Boxes and points move by the same description in all three libraries.

Resizing what has its size already changes no bit.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_detect.kernels import resize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing:
    """From an image of `before` pixels to one of `after` pixels in the upper left corner of a canvas.

    Attributes:
        before: `(height, width)` of the image: numbers, scalars of `xp`, or `[B]` float32, one per image.
        after: the same after resizing.
        canvas: `(h, w)` of the result, ints or integer scalars; at least `after`.
        method: one of `kernels.resize.METHODS`.
        kernel: one of `kernels.resize.KERNELS`.
        pad_value: value of the canvas outside of the image, one number or one per channel.
        resamples: False if `after` always equals `before`.
        xp: array library of the sizes: `kernels.resize.NUMPY`, `keras.ops` or `tensorflow`.
    """

    before: tuple
    after: tuple
    canvas: tuple
    method: str = "bilinear"
    kernel: str = "half_pixel"
    pad_value: tuple = (0.0,)
    resamples: bool = True
    xp: Any

    def inverse(self, canvas=None):
        """The resizing back to `before`, on a canvas of its own (default: `before`; a batch needs one size)."""
        canvas = self.before if canvas is None else canvas
        return dataclasses.replace(self, before=self.after, after=self.before, canvas=tuple(canvas))

    def for_rasters(self):
        """The same resizing for masks and label maps: the value of the nearest pixel, 0 outside of the image."""
        return dataclasses.replace(self, method="nearest", pad_value=(0.0,))

    # --- coordinates -------------------------------------------------------------------------------------------------

    def move(self, coordinates):
        """Boxes `[..., n, 4]` or points `[..., 2]` in pixels, y before x, in the resized image.

        With one size per image the first axis is B.
        """
        return self._scaled(coordinates, self.after, self.before)

    def to_canvas(self, coordinates):
        """Coordinates normalized to the image as coordinates normalized to the canvas; shapes as in `move`."""
        return self._scaled(coordinates, self.after, self.canvas)

    def from_canvas(self, coordinates):
        """The inverse of `to_canvas`."""
        return self._scaled(coordinates, self.canvas, self.after)

    def window(self):
        """The image on its canvas, normalized: `[4]` or `[B, 4]` float32, `[0, 0, height / h, width / w]`."""
        bottom, right = self._ratios(self.after, self.canvas)
        return self.xp.stack([bottom * 0.0, right * 0.0, bottom, right], -1)

    def _ratios(self, numerators, denominators):
        xp = self.xp
        return [
            xp.cast(above, "float32") / xp.cast(below, "float32")
            for above, below in zip(numerators, denominators, strict=True)
        ]

    def _scaled(self, coordinates, numerators, denominators):
        factors = self._ratios(numerators, denominators) * (coordinates.shape[-1] // 2)
        factor = self.xp.stack(factors, -1)
        while len(factor.shape) < len(coordinates.shape):
            factor = self.xp.expand_dims(factor, -2)
        return coordinates * factor

    # --- numpy -------------------------------------------------------------------------------------------------------

    def array(self, image):
        """`[H, W, C]` numpy array to `[h, w, C]`: float32 where it is resampled, not rounded."""
        size = tuple(int(side) for side in self.after)
        image = image[: int(self.before[0]), : int(self.before[1])]
        if self.resamples and size != image.shape[:2]:
            image = resize.resize_array(image, size, self.method, self.kernel)
        canvas = tuple(int(side) for side in self.canvas)
        if canvas == size:
            return image
        padded = np.empty((*canvas, image.shape[-1]), image.dtype)
        padded[:] = pad_values(self.pad_value, image.shape[-1])
        padded[: size[0], : size[1]] = image
        return padded

    def rasters(self, rasters):
        """`[n, H, W]` numpy array of any dtype to `[n, h, w]` of the same."""
        planes = self.for_rasters().array(np.moveaxis(rasters, 0, -1))
        return np.moveaxis(planes, -1, 0).astype(rasters.dtype, copy=False)

    # --- tf.data -----------------------------------------------------------------------------------------------------

    def tf_image(self, image):
        """`array` in a TensorFlow graph: `[H, W, C]` of unknown size to `[h, w, C]` float32."""
        import tensorflow as tf

        before, after, canvas = (tf.cast(tf.stack(size), tf.int32) for size in (self.before, self.after, self.canvas))
        image = image[: before[0], : before[1]]
        if self.resamples:
            image = resize.tf_resize(image[None], after, self.method, self.kernel)[0]
        image = tf.cast(image, tf.float32)
        padding = [[0, canvas[0] - after[0]], [0, canvas[1] - after[1]], [0, 0]]
        image = tf.pad(image, padding)
        if any(self.pad_value):
            outside = 1.0 - tf.pad(tf.ones([after[0], after[1], 1]), padding)
            image = image + outside * tf.constant(self.pad_value, tf.float32)
        return image

    def tf_rasters(self, rasters):
        """`rasters` in a TensorFlow graph: `[n, H, W]`, n and sizes unknown, to `[n, h, w]` of the same dtype."""
        import tensorflow as tf

        # TensorFlow cannot resize booleans, nor an image without channels: hence one plane more.
        numbers = tf.cast(rasters, tf.uint8) if rasters.dtype == tf.bool else rasters
        planes = tf.pad(tf.transpose(numbers, (1, 2, 0)), [[0, 0], [0, 0], [0, 1]])
        planes = tf.cast(self.for_rasters().tf_image(planes), rasters.dtype)
        return tf.transpose(planes, (2, 0, 1))[:-1]

    # --- model -------------------------------------------------------------------------------------------------------

    def batch(self, images):
        """Keras tensor `[B, H, W, C]` to `[B, h, w, C]`: float32 where it is resampled.

        With `[B]` sizes each image is resized by its own factor; else all images fill their canvas.
        """
        if len(getattr(self.after[0], "shape", ())):
            return self._batch_of_sizes(images)
        size = self.after
        static = all(isinstance(side, int) for side in size)
        if self.resamples and not (static and size == tuple(images.shape[1:3])):
            images = resize.resize_batch(ops.cast(images, "float32"), size, self.method, self.kernel)
        if static and self.canvas == size:
            return images
        images = ops.pad(images, [[0, 0], [0, self.canvas[0] - size[0]], [0, self.canvas[1] - size[1]], [0, 0]])
        if all(isinstance(side, int) for side in self.canvas):  # known, though the image's size was not
            images = ops.reshape(images, (-1, *self.canvas, images.shape[-1]))
        if not any(self.pad_value):
            return images
        return self.filled(images, [ops.reshape(side, (1,)) for side in size])

    def _batch_of_sizes(self, images):
        images = ops.cast(images, "float32")
        if self.resamples:
            images = resize.resize_each(images, self.before, self.after, self.canvas, self.method, self.kernel)
        else:
            height, width = ops.shape(images)[1:3]
            images = ops.pad(images, [[0, 0], [0, self.canvas[0] - height], [0, self.canvas[1] - width], [0, 0]])
        return self.filled(images, self.after)

    def filled(self, images, sizes):
        """`images [B, h, w, C]` with the pad value below and right of each image's size (`[B]` or `[1]` each)."""
        inside = [
            ops.expand_dims(ops.arange(length, dtype="int32"), 0) < ops.expand_dims(ops.cast(size, "int32"), -1)
            for length, size in zip(self.canvas, sizes, strict=True)
        ]
        mask = ops.logical_and(ops.expand_dims(inside[0], -1), ops.expand_dims(inside[1], -2))
        fill = ops.convert_to_tensor(pad_values(self.pad_value, images.shape[-1]), dtype=images.dtype)
        return ops.where(ops.expand_dims(mask, -1), images, fill)

    def batch_rasters(self, rasters):
        """`rasters` in the model: `[B, n, H, W]` to `[B, n, h, w]` float32."""
        planes = ops.transpose(ops.cast(rasters, "float32"), (0, 2, 3, 1))
        return ops.transpose(self.for_rasters().batch(planes), (0, 3, 1, 2))


def true_window(true_image_shapes, canvas):
    """Where the true images lie on their canvas.

    Args:
        true_image_shapes: `[B, 3]` int32.
        canvas: `(height, width)` of the padded images, a pair or a tensor `[2]`.

    Returns:
        `[B, 4]` float32 yxyx, `[0, 0, true height / height, true width / width]`.
    """
    sizes = (true_image_shapes[:, 0], true_image_shapes[:, 1])
    return Resizing(before=sizes, after=sizes, canvas=(canvas[0], canvas[1]), xp=ops).window()


def pad_values(values, channels):
    """`[channels]` float32; a single number serves all channels. Raises `ValueError` for another number of them."""
    values = np.asarray(values, "float32").reshape(-1)
    if len(values) != channels and not np.any(values):
        values = values[:1]
    if len(values) not in (1, channels):
        raise ValueError(
            f"`per_channel_pad_value` has one number per channel. Received: {len(values)} for {channels} channels"
        )
    return np.broadcast_to(values, (channels,))
