"""From pictures of any size to the size a model works in: the original's five image resizers.

One `ImageResizer` serves the model (`__call__`, Keras tensors), the data pipeline (`resize_image`, numpy) and a
`tf.data` graph (`resize_tf`): same sizes, same sampling positions. Resizing what has its size already changes no bit,
so that a picture resized by the pipeline passes the model's resizer untouched.

Boxes need nothing: they are normalised to the true picture (`keras_detect.schema`), which resizing does not move.
"""

import abc

import numpy as np
from keras import ops

from keras_detect.kernels import resize
from keras_detect.kernels.resize import NUMPY
from keras_detect.registry import part

_GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, to the digits that TensorFlow's rgb_to_grayscale has


class ImageResizer(abc.ABC):
    """Base of the resizers. A subclass is a `part` and defines `_true_size`."""

    method = "bilinear"
    kernel = "half_pixel"
    convert_to_grayscale = False
    per_channel_pad_value = (0.0,)
    only_pads = False  # whether a picture always keeps its size

    def __post_init__(self):
        if self.method not in resize.METHODS:
            raise ValueError(f"The method is one of {resize.METHODS}. Received: method={self.method!r}")
        if self.kernel not in resize.KERNELS:
            raise ValueError(f"The kernel is one of {resize.KERNELS}. Received: kernel={self.kernel!r}")
        if self.method == "area" and self.kernel == "align_corners":
            raise ValueError("Area averaging knows no corners. Received: method='area', kernel='align_corners'")

    @abc.abstractmethod
    def _true_size(self, xp, height, width):
        """Float32 sizes before resizing -> float32 sizes after it (without padding), as arrays of library `xp`."""

    def _padded_side(self, side):
        """A side of the canvas from the side of the resized picture (int or integer tensor)."""
        return side

    def _common_canvas(self, height, width):
        """A canvas that holds every picture whose true region lies on a canvas of `height` x `width`."""
        return self._padded_side(height), self._padded_side(width)

    def output_shape(self, height, width, padded=False):
        """The result's canvas `(h, w)` for a canvas of `height` x `width` pixels.

        Args:
            height: int.
            width: int.
            padded: whether true shapes come along, so that a picture may be smaller than the canvas.

        Raises:
            ValueError: if no size is large enough for every true shape on that canvas.
        """
        if padded:
            return self._common_canvas(height, width)
        return tuple(self._padded_side(side) for side in self.resized_size(height, width))

    def resized_size(self, height, width):
        """The size `(h, w)` of a picture of `height` x `width` pixels after resizing, before any padding (ints)."""
        # Arrays, not scalars: numpy 1 would compute scalars in float64, and the original rounds float32 numbers.
        sizes = self._true_size(NUMPY, np.asarray([height], "float32"), np.asarray([width], "float32"))
        return tuple(int(size[0]) for size in sizes)

    def __call__(self, images, true_image_shapes=None):
        """Resizes a batch.

        Args:
            images: `[B, H, W, C]` float32; on TensorFlow B, H and W may be unknown until run time.
            true_image_shapes: `[B, 3]` int32 when pictures are padded at the right and the bottom: each one's true
                region is resized by its own factor. `None`: every picture fills the canvas.

        Returns:
            `(images [B, h, w, C] float32, true_image_shapes [B, 3] int32)`. Pixels outside the true region have the
            resizer's pad value, 0 where it has none.

        Raises:
            ValueError: for true shapes with a resizer whose result has no fixed canvas (see `output_shape`).
        """
        batch, height, width, _ = ops.shape(images)
        if true_image_shapes is None:
            size = self._size_of_all(height, width)
            images = self._resize_all(images, size)
            sizes = [ops.broadcast_to(ops.cast(length, "int32"), (batch,)) for length in size]
        else:
            given = [ops.maximum(ops.cast(true_image_shapes[:, axis], "float32"), 1.0) for axis in (0, 1)]
            wanted = self._true_size(ops, *given)
            canvas = self._common_canvas(height, width)
            images = ops.cast(images, "float32")
            if self.only_pads:
                images = ops.pad(images, [[0, 0], [0, canvas[0] - height], [0, canvas[1] - width], [0, 0]])
            else:
                images = resize.resize_each(images, given, wanted, canvas, self.method, self.kernel)
            sizes = [ops.cast(size, "int32") for size in wanted]
            images = self._fill_outside(images, sizes, canvas)
        images = self._to_gray(images)
        channels = ops.broadcast_to(ops.convert_to_tensor(images.shape[-1], dtype="int32"), (batch,))
        return images, ops.stack([*sizes, channels], axis=-1)

    def _size_of_all(self, height, width):
        """The resized size of pictures that fill a canvas: ints, or int32 scalars where the canvas is not static."""
        if isinstance(height, int) and isinstance(width, int):
            return self.resized_size(height, width)
        sizes = self._true_size(ops, ops.cast(height, "float32"), ops.cast(width, "float32"))
        return tuple(ops.cast(size, "int32") for size in sizes)

    def _resize_all(self, images, size):
        static = all(isinstance(length, int) for length in size)
        if not static or size != tuple(images.shape[1:3]):
            images = ops.cast(images, "float32")
            images = resize.resize_batch(images, size, self.method, self.kernel)
        canvas = tuple(self._padded_side(length) for length in size)
        if static and canvas == size:
            return images
        images = ops.pad(images, [[0, 0], [0, canvas[0] - size[0]], [0, canvas[1] - size[1]], [0, 0]])
        if all(isinstance(length, int) for length in canvas):  # known, though the picture's size was not
            images = ops.reshape(images, (-1, *canvas, images.shape[-1]))
        if not any(self.per_channel_pad_value):
            return images
        return self._fill_outside(images, [ops.reshape(length, (1,)) for length in size], canvas)

    def _fill_outside(self, images, sizes, canvas):
        """The pad value wherever a pixel is below or right of its picture's size (`[B]` int32 each)."""
        inside = [
            ops.expand_dims(ops.arange(length, dtype="int32"), 0) < ops.expand_dims(size, -1)
            for length, size in zip(canvas, sizes, strict=True)
        ]
        mask = ops.logical_and(ops.expand_dims(inside[0], -1), ops.expand_dims(inside[1], -2))
        fill = ops.convert_to_tensor(_pad_values(self.per_channel_pad_value, images.shape[-1]), dtype=images.dtype)
        return ops.where(ops.expand_dims(mask, -1), images, fill)

    def _to_gray(self, images):
        if not self.convert_to_grayscale or images.shape[-1] == 1:
            return images
        red, green, blue = (images[..., index : index + 1] * _GRAY[index] for index in range(3))
        return red + green + blue

    def resize_image(self, image):
        """Resizes and pads one numpy picture for the data pipeline.

        Args:
            image: `[H, W, C]` uint8 or float.

        Returns:
            `(image [h, w, C] of the same dtype, true shape (height, width, C))`; integers are rounded.

        Raises:
            ValueError: if the picture has not three axes.
        """
        image = np.asarray(image)
        if image.ndim != 3:
            raise ValueError(f"A picture is an array [H, W, C]. Received: shape {image.shape}")
        height, width, channels = image.shape
        size, canvas = self.resized_size(height, width), self.output_shape(height, width)
        resized = image
        if size != (height, width):
            resized = resize.resize_array(image, size, self.method, self.kernel)
        if canvas != size:
            padded = np.empty((*canvas, channels), resized.dtype)
            padded[:] = _pad_values(self.per_channel_pad_value, channels)
            padded[: size[0], : size[1]] = resized
            resized = padded
        resized = self._to_gray(resized)
        return _as_dtype(resized, image.dtype), (*size, resized.shape[-1])

    def resize_tf(self, image):
        """`resize_image` inside a TensorFlow graph: `image` `[H, W, C]` of unknown size.

        Returns:
            `(image [h, w, C] of the same dtype, true shape [3] int32)`.
        """
        return resize.tf_resize_image(
            image,
            (self.method, self.kernel),
            self._true_size,
            self._padded_side,
            self.per_channel_pad_value,
            self._to_gray,
        )


@part
class FixedShapeResizer(ImageResizer):
    """Every picture becomes `height` x `width`, whatever its aspect ratio.

    Args:
        height: int.
        width: int.
        method: `"bilinear"`, `"nearest"`, `"bicubic"` or `"area"`.
        kernel: `"half_pixel"`, or `"legacy"` for models trained by the original (see `kernels.resize`).
        convert_to_grayscale: whether three colour channels become one.

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

    def _true_size(self, xp, height, width):
        return height * 0.0 + float(self.height), width * 0.0 + float(self.width)

    def _common_canvas(self, height, width):
        return self.height, self.width


@part
class KeepAspectRatioResizer(ImageResizer):
    """The largest size with the picture's aspect ratio whose short side is at most `min_dimension` and long side at
    most `max_dimension`; enlarges too.

    Args:
        min_dimension: pixels of the short side.
        max_dimension: bound of the long side.
        pad_to_max_dimension: whether to pad to `max_dimension` x `max_dimension`. Without it, a padded batch (one with
            true shapes) gets that canvas all the same: a static shape that holds every picture.
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
                "The long side's bound is at least the short side's. Received: "
                f"min_dimension={self.min_dimension}, max_dimension={self.max_dimension}"
            )

    def _true_size(self, xp, height, width):
        short, long = xp.minimum(height, width), xp.maximum(height, width)
        factor = xp.minimum(self.min_dimension / short, self.max_dimension / long)
        return tuple(xp.maximum(xp.round(factor * side), 1.0) for side in (height, width))

    def _padded_side(self, side):
        return self.max_dimension if self.pad_to_max_dimension else side

    def _common_canvas(self, height, width):
        return self.max_dimension, self.max_dimension


@part
class IdentityResizer(ImageResizer):
    """Leaves the size as it is."""

    only_pads = True

    def _true_size(self, xp, height, width):
        return height, width


@part
class ConditionalShapeResizer(ImageResizer):
    """Resizes, with the aspect ratio kept, only pictures that are too large or too small.

    Args:
        condition: `"greater"`: a long side above `size_threshold` becomes it; `"smaller"`: a short side below it does.
        size_threshold: pixels.
        method, convert_to_grayscale: as in `FixedShapeResizer`.
        kernel: `"half_pixel"`, or `"align_corners"` for models trained by the original.

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
            raise ValueError(f"The condition is 'greater' or 'smaller'. Received: condition={self.condition!r}")

    def _true_size(self, xp, height, width):
        if self.condition == "greater":
            factor = xp.minimum(self.size_threshold / xp.maximum(height, width), 1.0)
        else:
            factor = xp.maximum(self.size_threshold / xp.minimum(height, width), 1.0)
        # The original cuts the fraction off here, where its aspect-ratio resizer rounds.
        return tuple(xp.maximum(xp.floor(factor * side), 1.0) for side in (height, width))

    def _common_canvas(self, height, width):
        if self.condition == "smaller":
            raise ValueError(
                "A batch of padded pictures has no fixed canvas when small pictures grow: a narrow one grows without "
                "bound. Received: true_image_shapes with ConditionalShapeResizer(condition='smaller'). Use "
                "KeepAspectRatioResizer, or pictures of one size without true_image_shapes."
            )
        if isinstance(height, int) and isinstance(width, int):
            return min(height, self.size_threshold), min(width, self.size_threshold)
        return self.size_threshold, self.size_threshold


@part
class PadToMultipleResizer(ImageResizer):
    """Leaves pictures as they are and pads the canvas with zeros to a multiple of `multiple` in both directions.

    Args:
        multiple: pixels.
        convert_to_grayscale: whether three colour channels become one.

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


def _check_positive(**sizes):
    wrong = [f"{name}={value!r}" for name, value in sizes.items() if not value >= 1]
    if wrong:
        raise ValueError(f"A size is 1 pixel or more. Received: {', '.join(wrong)}")


def _pad_values(values, channels):
    """`[channels]` float32; a single number serves all channels."""
    values = np.asarray(values, "float32").reshape(-1)
    if len(values) != channels and not np.any(values):
        values = values[:1]
    if len(values) not in (1, channels):
        raise ValueError(
            f"`per_channel_pad_value` has one number per channel. Received: {len(values)} for {channels} channels"
        )
    return np.broadcast_to(values, (channels,))


def _as_dtype(image, dtype):
    if not np.issubdtype(dtype, np.integer):
        return image.astype(dtype, copy=False)
    if np.issubdtype(image.dtype, np.integer):
        return image
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)
