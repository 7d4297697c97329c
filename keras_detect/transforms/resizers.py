"""From images of any size to the size a model works in: upstream's five image resizers.

A resizer is the rule for sizes; what follows from it is a `Resizing` (`transforms.resizing`). One `ImageResizer` serves
the model (`__call__`, Keras tensors), numpy (`resize_image`) and a `tf.data` graph (`resize_tf`).

Normalized boxes need nothing: they refer to the true image (`schema.py`), which resizing does not move.
"""

import abc
import dataclasses
import numbers
from typing import Any

import numpy as np
from keras import ops

from keras_detect.kernels import resize
from keras_detect.kernels.resize import NUMPY
from keras_detect.registry import part
from keras_detect.transforms.resizing import Resizing

_GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, to the digits that TensorFlow's rgb_to_grayscale has


class ImageResizer(abc.ABC):
    """Base of the resizers. A subclass is a `part` and defines `_true_size`."""

    method = "bilinear"
    kernel = "half_pixel"
    convert_to_grayscale = False
    per_channel_pad_value = (0.0,)
    only_pads = False  # whether an image always keeps its size

    def __post_init__(self):
        if self.method not in resize.METHODS:
            raise ValueError(f"The method must be one of {resize.METHODS}. Received: method={self.method!r}")
        if self.kernel not in resize.KERNELS:
            raise ValueError(f"The kernel must be one of {resize.KERNELS}. Received: kernel={self.kernel!r}")
        if self.method == "area" and self.kernel == "align_corners":
            raise ValueError(
                "method='area' does not support align_corners. Received: method='area', kernel='align_corners'"
            )

    @abc.abstractmethod
    def _true_size(self, xp, height, width):
        """Float32 sizes before resizing -> float32 sizes after it (without padding), as arrays of library `xp`."""

    def _padded_side(self, side):
        """A side of the canvas from the side of the resized image (int or integer tensor)."""
        return side

    def _common_canvas(self, height, width):
        """A canvas that holds every image whose true region lies on a canvas of `height` x `width`."""
        return self._padded_side(height), self._padded_side(width)

    def with_size(self, image_size: Any) -> Any:
        """The same resizer for another size: an int, or two of them.

        `FixedShapeResizer` takes `(height, width)`, or one side for both. `KeepAspectRatioResizer` takes the bounds of
        the short and of the long side, or the long one alone, which the short one follows in proportion.

        Raises:
            ValueError: the resizer has no size to change, or this is none.
        """
        raise ValueError(
            f"A {type(self).__name__} has no size to change. Received: image_size={image_size!r}. Give the model "
            "another resizer: with_parts(resizer=...)."
        )

    def output_shape(self, height: Any, width: Any, padded: bool = False) -> Any:
        """The result's canvas `(h, w)` for a canvas of `height` x `width` pixels.

        Args:
            height: int.
            width: int.
            padded: whether true shapes come along, so that an image may be smaller than the canvas.

        Raises:
            ValueError: if no size is large enough for every true shape on that canvas.
        """
        if padded:
            return self._common_canvas(height, width)
        return tuple(self._padded_side(side) for side in self.resized_size(height, width))

    def resized_size(self, height: Any, width: Any) -> Any:
        """The size `(h, w)` of an image of `height` x `width` pixels after resizing, before any padding (ints)."""
        # Arrays, not scalars: numpy 1 would compute scalars in float64, and upstream rounds float32 numbers.
        sizes = self._true_size(NUMPY, np.asarray([height], "float32"), np.asarray([width], "float32"))
        return tuple(int(size[0]) for size in sizes)

    def resizing(self, height: Any, width: Any, canvas: Any = None) -> Any:
        """The `Resizing` of one image of `height` x `width` pixels (ints), on its own canvas or a given `(h, w)`."""
        after = self.resized_size(height, width)
        return self._resizing(NUMPY, (height, width), after, canvas or tuple(map(self._padded_side, after)))

    def _resizing(self, xp, before, after, canvas):
        return Resizing(
            before=before,
            after=after,
            canvas=tuple(canvas),
            method=self.method,
            kernel=self.kernel,
            pad_value=self.per_channel_pad_value,
            resamples=not self.only_pads,
            xp=xp,
        )

    def __call__(self, images: Any, true_image_shapes: Any = None, resized: bool = False) -> Any:
        """Resizes a batch.

        Args:
            images: `[B, H, W, C]` float32; on TensorFlow B, H and W may be unknown until run time.
            true_image_shapes: `[B, 3]` int32 when images are padded at the right and the bottom: each one's true
                region is resized by its own factor. `None`: every image fills the canvas.
            resized: whether they are results of this resizer, which the data pipeline has used: they are returned as
                they come, with the exact pad value where rounding has changed it.

        Returns:
            `(images [B, h, w, C] float32, true_image_shapes [B, 3] int32)`. Pixels outside the true region have the
            resizer's pad value, 0 where it has none.

        Raises:
            ValueError: for true shapes with a resizer whose result has no fixed canvas (see `output_shape`); for
                `resized` images on a canvas that this resizer does not make.
        """
        batch, height, width, _ = ops.shape(images)
        if resized:
            self._check_resized(images, true_image_shapes)
            rounded = any(float(value) % 1.0 for value in self.per_channel_pad_value)
            return self.filled(images, true_image_shapes) if rounded else images, true_image_shapes
        if true_image_shapes is None:
            resizing = self._resizing_of_all(height, width)
            sizes = [ops.broadcast_to(ops.cast(length, "int32"), (batch,)) for length in resizing.after]
        else:
            resizing = self.batch_resizing(true_image_shapes, height, width)
            sizes = [ops.cast(size, "int32") for size in resizing.after]
        images = self._to_gray(resizing.batch(images))
        channels = ops.broadcast_to(ops.convert_to_tensor(images.shape[-1], dtype="int32"), (batch,))
        return images, ops.stack([*sizes, channels], axis=-1)

    def batch_resizing(self, true_image_shapes: Any, height: Any, width: Any) -> Any:
        """The `Resizing` of a batch of padded images, in the model.

        Args:
            true_image_shapes: `[B, 3]` int32.
            height: of the canvas the images come on.
            width: of that canvas.
        """
        given = [ops.maximum(ops.cast(true_image_shapes[:, axis], "float32"), 1.0) for axis in (0, 1)]
        return self._resizing(ops, given, self._true_size(ops, *given), self._common_canvas(height, width))

    def _resizing_of_all(self, height, width):
        """For images that fill their canvas, whose sides are ints, or int32 scalars where they are not static."""
        if isinstance(height, int) and isinstance(width, int):
            size = self.resized_size(height, width)
        else:
            sizes = self._true_size(ops, ops.cast(height, "float32"), ops.cast(width, "float32"))
            size = tuple(ops.cast(side, "int32") for side in sizes)
        return self._resizing(ops, (height, width), size, map(self._padded_side, size))

    def filled(self, images: Any, true_image_shapes: Any) -> Any:
        """`images [B, h, w, C]` with the pad value outside of the true regions (`[B, 3]` int32)."""
        sizes = (true_image_shapes[:, 0], true_image_shapes[:, 1])
        return self._resizing(ops, sizes, sizes, ops.shape(images)[1:3]).filled(images, sizes)

    def _check_resized(self, images, true_image_shapes):
        """Raises `ValueError` unless `images [B, H, W, C]` with these true shapes can be a result of this resizer."""
        canvas = tuple(ops.shape(images)[1:3])
        static = all(isinstance(side, int) for side in canvas)
        if true_image_shapes is None or (static and tuple(self._common_canvas(*canvas)) != canvas):
            raise ValueError(
                "Images marked as resized ('resized_image_shapes') have a canvas that this model's resizer makes. "
                f"Received: images {tuple(images.shape)} for {self}. Make the batches with this model's resizer, or "
                "pass 'true_image_shapes' for images that the model should resize."
            )

    def resize_image(self, image: Any) -> Any:
        """Resizes and pads one numpy image.

        Args:
            image: `[H, W, C]` uint8 or float.

        Returns:
            `(image [h, w, C] of the same dtype, true shape (height, width, C))`; integers are rounded.

        Raises:
            ValueError: if the image does not have three axes.
        """
        image = np.asarray(image)
        if image.ndim != 3:
            raise ValueError(f"An image is an array [H, W, C]. Received: shape {image.shape}")
        resizing = self.resizing(*image.shape[:2])
        resized = self._to_gray(resizing.array(image))
        return _as_dtype(resized, image.dtype), (*resizing.after, resized.shape[-1])

    def tf_resizing(self, height: Any, width: Any, canvas: Any = None) -> Any:
        """`resizing` inside a TensorFlow graph, for an integer tensor `height` and `width`."""
        import tensorflow as tf

        sizes = self._true_size(tf, tf.cast(height, tf.float32), tf.cast(width, tf.float32))
        after = tuple(tf.cast(side, tf.int32) for side in sizes)
        return self._resizing(tf, (height, width), after, canvas or map(self._padded_side, after))

    def resize_tf(self, image: Any, canvas: Any = None) -> Any:
        """`resize_image` inside a TensorFlow graph: `image` `[H, W, C]` of unknown size.

        Args:
            image: `[H, W, C]` uint8 or float tensor.
            canvas: `(h, w)` to pad to instead of the resizer's own.

        Returns:
            `(image [h, w, C] of the same dtype, true shape [3] int32)`.
        """
        import tensorflow as tf

        height, width = tf.unstack(tf.shape(image)[:2])
        resizing = self.tf_resizing(height, width, canvas)
        resized = self._to_gray(resizing.tf_image(image))
        shape = tf.stack([*resizing.after, tf.shape(resized)[-1]])
        if image.dtype.is_integer:
            resized = tf.round(resized)
        return tf.saturate_cast(resized, image.dtype), shape

    def _to_gray(self, images):
        if not self.convert_to_grayscale or images.shape[-1] == 1:
            return images
        red, green, blue = (images[..., index : index + 1] * _GRAY[index] for index in range(3))
        return red + green + blue


@part
class FixedShapeResizer(ImageResizer):
    """Resizes every image to `height` x `width`; the aspect ratio is not kept.

    Args:
        height: int.
        width: int.
        method: `"bilinear"`, `"nearest"`, `"bicubic"` or `"area"`.
        kernel: `"half_pixel"`, or `"legacy"` for models trained by upstream (see `kernels.resize`).
        convert_to_grayscale: whether three color channels become one.

    Raises:
        ValueError: for a size below 1, an unknown method or kernel.
    """

    height: int
    width: int
    method: str = "bilinear"
    kernel: str = "half_pixel"
    convert_to_grayscale: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_positive(height=self.height, width=self.width)

    def with_size(self, image_size: Any) -> Any:
        height, width = two_sides(image_size)
        return dataclasses.replace(self, height=height, width=width)

    def _true_size(self, xp, height, width):
        return height * 0.0 + float(self.height), width * 0.0 + float(self.width)

    def _resizing_of_all(self, height, width):
        size = (self.height, self.width)  # ints, even for a height and width known at run time
        return self._resizing(ops, (height, width), size, size)

    def _common_canvas(self, height, width):
        return self.height, self.width


@part
class KeepAspectRatioResizer(ImageResizer):
    """The largest size with the image's aspect ratio whose short side is at most `min_dimension` and long side at
    most `max_dimension`; enlarges too.

    Args:
        min_dimension: pixels of the short side.
        max_dimension: bound of the long side.
        pad_to_max_dimension: whether to pad to `max_dimension` x `max_dimension`. Without it, a padded batch (one with
            true shapes) gets that canvas all the same: a static shape that holds every image.
        per_channel_pad_value: one number per channel.
        method, kernel, convert_to_grayscale: as in `FixedShapeResizer`.

    Raises:
        ValueError: for `max_dimension < min_dimension` or a size below 1, an unknown method or kernel.
    """

    min_dimension: int
    max_dimension: int
    pad_to_max_dimension: bool = False
    per_channel_pad_value: tuple = (0.0, 0.0, 0.0)
    method: str = "bilinear"
    kernel: str = "half_pixel"
    convert_to_grayscale: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_positive(min_dimension=self.min_dimension, max_dimension=self.max_dimension)
        if self.max_dimension < self.min_dimension:
            raise ValueError(
                "max_dimension must be at least min_dimension. Received: "
                f"min_dimension={self.min_dimension}, max_dimension={self.max_dimension}"
            )

    def with_size(self, image_size: Any) -> Any:
        if isinstance(image_size, numbers.Integral):
            image_size = (round(self.min_dimension * int(image_size) / self.max_dimension), int(image_size))
        short, long = two_sides(image_size)
        return dataclasses.replace(self, min_dimension=short, max_dimension=long)

    def _true_size(self, xp, height, width):
        short, long = xp.minimum(height, width), xp.maximum(height, width)
        factor = xp.minimum(self.min_dimension / short, self.max_dimension / long)
        return tuple(xp.maximum(xp.round(factor * side), 1.0) for side in (height, width))

    def _padded_side(self, side):
        return self.max_dimension if self.pad_to_max_dimension else side

    def _common_canvas(self, height, width):
        return self.max_dimension, self.max_dimension


@part
class TorchResizer(KeepAspectRatioResizer):
    """The resizing of torchvision's detectors: sizes are cut to whole pixels, the canvas is a multiple of `multiple`.

    Args:
        multiple: pixels; images are padded to it at the bottom and the right.
        min_dimension, max_dimension, per_channel_pad_value, method, kernel, convert_to_grayscale: as in
            `KeepAspectRatioResizer`.

    Raises:
        ValueError: as `KeepAspectRatioResizer`, and for `pad_to_max_dimension` or a multiple below 1.
    """

    min_dimension: int = 800
    max_dimension: int = 1333
    multiple: int = 32

    def __post_init__(self):
        super().__post_init__()
        _check_positive(multiple=self.multiple)
        if self.pad_to_max_dimension:
            raise ValueError("torchvision pads only to a multiple. Received: pad_to_max_dimension=True")

    def _true_size(self, xp, height, width):
        short, long = xp.minimum(height, width), xp.maximum(height, width)
        factor = xp.minimum(self.min_dimension / short, self.max_dimension / long)
        # torch multiplies the float32 factor in float64: 480 pixels x float32(800 / 480) are 799
        coarse = xp.floor(factor * 1024.0) / 1024.0

        def side(length):
            product = length * coarse  # exact: some ten binary digits before and behind the point
            whole = xp.floor(product)
            return xp.maximum(whole + xp.floor((product - whole) + length * (factor - coarse)), 1.0)

        return side(height), side(width)

    def _padded_side(self, side):
        return -(-side // self.multiple) * self.multiple

    def _common_canvas(self, height, width):
        return (self._padded_side(self.max_dimension),) * 2


@part
class IdentityResizer(ImageResizer):
    """Leaves the size as it is."""

    only_pads = True

    def _true_size(self, xp, height, width):
        return height, width


@part
class ConditionalShapeResizer(ImageResizer):
    """Resizes, with the aspect ratio kept, only images that are too large or too small.

    Args:
        condition: `"greater"`: a long side above `size_threshold` becomes it; `"smaller"`: a short side below it does.
        size_threshold: pixels.
        method, convert_to_grayscale: as in `FixedShapeResizer`.
        kernel: `"half_pixel"`, or `"align_corners"` for models trained by upstream.

    Raises:
        ValueError: for another condition, a threshold below 1, an unknown method or kernel.
    """

    condition: str = "greater"
    size_threshold: int = 300
    method: str = "bilinear"
    kernel: str = "half_pixel"
    convert_to_grayscale: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_positive(size_threshold=self.size_threshold)
        if self.condition not in ("greater", "smaller"):
            raise ValueError(f"The condition must be 'greater' or 'smaller'. Received: condition={self.condition!r}")

    def _true_size(self, xp, height, width):
        if self.condition == "greater":
            factor = xp.minimum(self.size_threshold / xp.maximum(height, width), 1.0)
        else:
            factor = xp.maximum(self.size_threshold / xp.minimum(height, width), 1.0)
        # Upstream cuts the fraction off here, where its aspect-ratio resizer rounds.
        return tuple(xp.maximum(xp.floor(factor * side), 1.0) for side in (height, width))

    def _common_canvas(self, height, width):
        if self.condition == "smaller":
            raise ValueError(
                "A batch of padded images has no fixed canvas when small images grow: a narrow one grows without "
                "bound. Received: true_image_shapes with ConditionalShapeResizer(condition='smaller'). Use "
                "KeepAspectRatioResizer, or images of one size without true_image_shapes."
            )
        if isinstance(height, int) and isinstance(width, int):
            return min(height, self.size_threshold), min(width, self.size_threshold)
        return self.size_threshold, self.size_threshold


@part
class PadToMultipleResizer(ImageResizer):
    """Leaves images as they are and pads the canvas with zeros to a multiple of `multiple` in both directions.

    Args:
        multiple: pixels.
        convert_to_grayscale: whether three color channels become one.

    Raises:
        ValueError: for a multiple below 1.
    """

    only_pads = True

    multiple: int = 1
    convert_to_grayscale: bool = False

    def __post_init__(self):
        super().__post_init__()
        _check_positive(multiple=self.multiple)

    def _true_size(self, xp, height, width):
        return height, width

    def _padded_side(self, side):
        return -(-side // self.multiple) * self.multiple


def pad_to_multiple(images, multiple):
    """`images` `[B, H, W, C]` with zeros at the bottom and the right, up to a multiple of `multiple`."""
    height, width = images.shape[1:3]
    return ops.pad(images, [[0, 0], [0, -height % multiple], [0, -width % multiple], [0, 0]])


def two_sides(image_size):
    """`(height, width)` as ints: of one integer for both, or of two. Raises `ValueError` for anything else."""
    sides = (image_size, image_size) if isinstance(image_size, numbers.Integral) else image_size
    if not isinstance(sides, tuple | list) or [isinstance(side, numbers.Integral) for side in sides] != [True, True]:
        raise ValueError(f"image_size must be an int or a pair of ints. Received: image_size={image_size!r}")
    return tuple(int(side) for side in sides)


def _check_positive(**sizes):
    wrong = [f"{name}={value!r}" for name, value in sizes.items() if not value >= 1]
    if wrong:
        raise ValueError(f"Sizes must be at least 1 pixel. Received: {', '.join(wrong)}")


def _as_dtype(image, dtype):
    if not np.issubdtype(dtype, np.integer):
        return image.astype(dtype, copy=False)
    if np.issubdtype(image.dtype, np.integer):
        return image
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)
