"""Interpolation of images along one axis at a time, with the sampling rules of TensorFlow's resize kernels.

The same arithmetic runs on numpy arrays, on Keras tensors and (for sizes) in a TensorFlow graph: functions take the
array library `xp`, which is `NUMPY`, `keras.ops` or `tensorflow`.

A kernel is `"half_pixel"` (pixel centers at i + 1/2, what Pillow, OpenCV and Keras do), `"legacy"` (pixel i of the
output samples position i * in/out: TensorFlow 1's default, which upstream's models were trained with) or
`"align_corners"` (position i * (in-1)/(out-1), which upstream has in its conditional resizer).
"""

import types

import numpy as np
from keras import ops

from keras_detect.kernels import dispatch

METHODS = ("bilinear", "nearest", "bicubic", "area")
KERNELS = ("half_pixel", "legacy", "align_corners")

NUMPY = types.SimpleNamespace(
    abs=np.abs,
    arange=np.arange,
    cast=lambda value, dtype: np.asarray(value).astype(dtype),
    clip=np.clip,
    expand_dims=np.expand_dims,
    floor=np.floor,
    maximum=np.maximum,
    minimum=np.minimum,
    round=np.round,
    stack=np.stack,
    sum=np.sum,
    where=np.where,
)

# TensorFlow's bicubic kernel reads its weights from a table of this many steps per pixel.
_CUBIC_STEPS = 1024.0


def taps(xp, in_size, out_size, length, method, kernel):
    """Which input positions make each output position, and how much of each.

    Args:
        xp: `NUMPY` or `keras.ops`.
        in_size: float32 scalar or `[B]`, how many positions the input has.
        out_size: float32 scalar or `[B]`, how many the resized image has.
        length: how many output positions to describe (at least `out_size`; those beyond repeat the border).
        method: `"bilinear"`, `"nearest"` or `"bicubic"`.
        kernel: one of `KERNELS`.

    Returns:
        `(positions int32, weights float32)`, lists with one array `[..., length]` per tap; nearest has one tap and
        `None` for its weights.
    """
    scale = in_size / out_size
    if kernel == "align_corners":
        scale = xp.where(out_size > 1.0, (in_size - 1.0) / xp.maximum(out_size - 1.0, 1.0), scale)
    scale = xp.expand_dims(scale, -1)
    last = xp.expand_dims(in_size - 1.0, -1)
    half = 0.5 if kernel == "half_pixel" else 0.0
    output = xp.cast(xp.arange(length), "float32")
    if method == "nearest":
        # TensorFlow rounds half up between corners and cuts off otherwise.
        position = xp.floor(output * scale + 0.5 if kernel == "align_corners" else (output + half) * scale)
        return [xp.cast(xp.clip(position, 0.0, last), "int32")], None
    source = (output + half) * scale - half
    base = xp.floor(source)
    fraction = source - base
    if method == "bilinear":
        offsets, weights = (0, 1), [1.0 - fraction, fraction]
    else:
        offsets, weights = (-1, 0, 1, 2), _cubic_weights(xp, fraction, -0.5 if half else -0.75)
    wanted = [base + float(offset) for offset in offsets]
    positions = [xp.clip(position, 0.0, last) for position in wanted]
    if method == "bicubic" and half:
        weights = _without_outside(xp, weights, wanted, positions)
    return [xp.cast(position, "int32") for position in positions], weights


def _cubic_weights(xp, fraction, a):
    """Keys' cubic convolution with parameter `a` at distances 1 + f, f, 1 - f and 2 - f (Keys, 1981)."""
    near = xp.round(fraction * _CUBIC_STEPS) / _CUBIC_STEPS
    far = 1.0 - near

    def inner(x):
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0

    def outer(x):
        x = x + 1.0
        return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a

    return [outer(near), inner(near), inner(far), outer(far)]


def _without_outside(xp, weights, wanted, positions):
    """Weights of positions outside the image are 0 and the others sum to 1 again."""
    kept = [xp.where(p == w, weight, weight * 0.0) for weight, w, p in zip(weights, wanted, positions, strict=True)]
    total = kept[0] + kept[1] + kept[2] + kept[3]
    # Every position has an inside tap, but beyond the image's end (a batch's padding) there may be none.
    total = xp.where(xp.abs(total) > 1e-6, total, total * 0.0 + 1.0)
    return [weight / total for weight in kept]


def area_matrix(xp, in_size, out_size, in_length, length):
    """`[..., length, in_length]` float32: share of each input pixel in each output pixel's footprint."""
    scale = xp.expand_dims(xp.expand_dims(in_size / out_size, -1), -1)
    start = xp.expand_dims(xp.cast(xp.arange(length), "float32"), -1) * scale
    pixel = xp.cast(xp.arange(in_length), "float32")
    overlap = xp.minimum(start + scale, pixel + 1.0) - xp.maximum(start, pixel)
    return xp.maximum(overlap, 0.0) / scale


def resize_array(image, size, method, kernel):
    """A numpy image `[H, W, C]` resized to `size` `(h, w)`, as float32."""
    image = np.asarray(image, "float32") if method == "area" else np.asarray(image)
    for axis, length in enumerate(size):
        given = np.float32(image.shape[axis])
        if given == length:
            continue
        if method == "area":
            matrix = area_matrix(NUMPY, given, np.float32(length), image.shape[axis], length)
            image = np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)
            continue
        positions, weights = taps(NUMPY, given, np.float32(length), length, method, kernel)
        rows = [np.take(image, position, axis=axis) for position in positions]
        if weights is None:
            image = rows[0]
            continue
        shape = (length, 1, 1) if axis == 0 else (length, 1)
        image = sum(row * weight.reshape(shape) for row, weight in zip(rows, weights, strict=True))
    return image.astype("float32")


def resize_batch(images, size, method, kernel):
    """Keras tensor `[B, H, W, C]` float32 resized to `size` `(h, w)` (ints or int32 scalars), all by one factor."""
    if _has_tf_resize(method, kernel):
        return tf_resize(images, size, method, kernel)
    for axis, length in zip((1, 2), size, strict=True):
        given = ops.shape(images)[axis]
        static = isinstance(given, int) and isinstance(length, int)
        if static and given == length:
            continue
        # Constants where the sizes are known; tensors where a TensorFlow graph learns them at run time.
        xp = NUMPY if static else ops
        given_size = xp.cast(given, "float32")
        # TensorFlow's graphs turn a constant divisor into a product with its reciprocal, which rounds differently.
        sizes = given_size, given_size * 0.0 + xp.cast(length, "float32")
        if method == "area":
            images = _apply_area(images, area_matrix(xp, *sizes, given, length), axis)
            continue
        positions, weights = taps(xp, *sizes, length, method, kernel)
        shape = (1, -1, 1, 1) if axis == 1 else (1, 1, -1, 1)
        rows = [ops.take(images, position, axis=axis) for position in positions]
        images = _blend(rows, weights and [ops.reshape(weight, shape) for weight in weights])
    return images


def resize_each(images, in_sizes, out_sizes, canvas, method, kernel):
    """Each image's true region resized by its own factor.

    Args:
        images: Keras tensor `[B, H, W, C]` float32, padded at the right and the bottom.
        in_sizes: `(heights [B], widths [B])` float32 of the true regions.
        out_sizes: the same after resizing.
        canvas: `(h, w)` of the result.
        method: one of `METHODS`.
        kernel: one of `KERNELS`.

    Returns:
        `[B, h, w, C]` float32; what is outside `out_sizes` is undefined.
    """
    for axis, given, wanted, length in zip((1, 2), in_sizes, out_sizes, canvas, strict=True):
        if method == "area":
            matrix = area_matrix(ops, given, wanted, ops.shape(images)[axis], length)
            images = _apply_area(images, matrix, axis)
            continue
        positions, weights = taps(ops, given, wanted, length, method, kernel)
        gather = _gather_rows if axis == 1 else _gather_columns
        shape = (-1, length, 1, 1) if axis == 1 else (-1, 1, length, 1)
        rows = [gather(images, position) for position in positions]
        images = _blend(rows, weights and [ops.reshape(weight, shape) for weight in weights])
    return images


def _apply_area(images, matrix, axis):
    """Matrix `[h, H]` or `[B, h, H]` on the height (axis 1), `[w, W]` or `[B, w, W]` on the width (axis 2)."""
    batch = "b" if len(matrix.shape) == 3 else ""
    equation = f"bhwc,{batch}oh->bowc" if axis == 1 else f"bhwc,{batch}ow->bhoc"
    return ops.einsum(equation, images, matrix)


def _blend(rows, weights):
    if weights is None:
        return rows[0]
    total = rows[0] * weights[0]
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        total = total + row * weight
    return total


def _gather_rows(images, positions):
    """Rows `positions` `[B, h]` of `images` `[B, H, W, C]`, as one gather of whole rows."""
    batch, height, width, channels = ops.shape(images)
    start = ops.expand_dims(ops.arange(batch, dtype="int32") * height, -1)
    rows = ops.take(ops.reshape(images, (-1, width * channels)), start + positions, axis=0)
    return ops.reshape(rows, (batch, ops.shape(positions)[1], width, channels))


def _gather_columns(images, positions):
    """Columns `positions` `[B, w]` of `images` `[B, h, W, C]`."""
    batch, height, width, channels = ops.shape(images)
    start = ops.reshape(ops.arange(batch * height, dtype="int32") * width, (batch, height, 1))
    return ops.take(ops.reshape(images, (-1, channels)), start + ops.expand_dims(positions, 1), axis=0)


# --------------------------------------------------------------------------------------------------------- native forms


def _has_tf_resize(method, kernel):
    """Whether `tf_resize` may be in a model's graph: TensorFlow runs it and XLA compiles it to the same numbers.

    XLA's (TensorFlow 2.21) legacy bilinear kernel is wrong when it shrinks, and it has none for bicubic and area.
    ONNX and LiteRT have operators for every bilinear kernel.
    """
    if not dispatch.running("tensorflow"):
        return False
    compiles = method == "nearest" or (method, kernel) == ("bilinear", "half_pixel")
    return compiles or (method == "bilinear" and not dispatch.may_be_compiled())


def tf_resize(images, size, method, kernel):
    """TensorFlow's resize kernels.

    Args:
        images: `[B, H, W, C]` uint8 or float32 tensor.
        size: `(h, w)` ints or a `[2]` int32 tensor.
        method: `"bilinear"`, `"nearest"`, `"bicubic"` or `"area"`.
        kernel: `"half_pixel"`, `"legacy"` or `"align_corners"`; area has but one.

    Returns:
        `[B, h, w, C]` float32 (nearest: the dtype of `images`).
    """
    import tensorflow as tf

    if method == "area":
        return tf.raw_ops.ResizeArea(images=images, size=size)
    kernels = {
        "bilinear": tf.raw_ops.ResizeBilinear,
        "nearest": tf.raw_ops.ResizeNearestNeighbor,
        "bicubic": tf.raw_ops.ResizeBicubic,
    }
    return kernels[method](
        images=images,
        size=size,
        half_pixel_centers=kernel == "half_pixel",
        align_corners=kernel == "align_corners",
    )
