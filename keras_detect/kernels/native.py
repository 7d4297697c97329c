"""The one dispatch point for native kernels: each function imports its framework inside and takes its tensors.

A kernel has a `keras.ops` twin in the room that uses it and is held to the same goldens. Room level 0.
"""

import contextlib
import contextvars

import keras

# ---------------------------------------------------------------------------------------------------------- dispatch

_portable = contextvars.ContextVar("keras_detect_portable_kernels", default=False)


@contextlib.contextmanager
def portable_kernels():
    """Within this context (while a function is traced, that is) the `keras.ops` twins are used on every backend.

    For `tf.function(jit_compile=True)`: XLA has no kernel for soft non-maximum suppression, and a slow one for hard.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def running(backend):
    """Whether Keras runs on the named backend: "tensorflow", "jax" or "torch"."""
    return keras.backend.backend() == backend


def use_native(backend):
    """Whether Keras runs on the named backend and `portable_kernels` does not forbid its own kernels."""
    return running(backend) and not _portable.get()


# ---------------------------------------------------------------------------------------------- batch normalisation


def tf_batch_norm(inputs, gamma, beta, epsilon, mean, variance):
    """TensorFlow's fused batch normalisation with given statistics.

    Args:
        inputs: `[B, H, W, C]` float32, float16 or bfloat16 tensor.
        gamma: `[C]` float32 variable, or `None` for ones.
        beta: `[C]` float32 variable, or `None` for zeros.
        epsilon: added to the variance.
        mean: `[C]` float32 variable.
        variance: `[C]` float32 variable.

    Returns:
        `[B, H, W, C]` of the inputs' dtype. TensorFlow's graph optimiser merges it into a convolution before it.
    """
    import tensorflow as tf

    gamma, beta = _scale_and_offset(inputs, gamma, beta)
    mean, variance = tf.convert_to_tensor(mean), tf.convert_to_tensor(variance)
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    ).y


def tf_batch_norm_train(inputs, gamma, beta, epsilon):
    """TensorFlow's fused batch normalisation with the statistics of the batch.

    Args:
        inputs: `[B, H, W, C]` float32, float16 or bfloat16 tensor.
        gamma: `[C]` float32 variable, or `None` for ones.
        beta: `[C]` float32 variable, or `None` for zeros.
        epsilon: added to the variance.

    Returns:
        `(outputs [B, H, W, C] of the inputs' dtype, mean [C] float32, unbiased variance [C] float32)`. With one value
        per channel the variance is 0.
    """
    import tensorflow as tf

    gamma, beta = _scale_and_offset(inputs, gamma, beta)
    unused = tf.zeros([0], tf.float32)
    normalized = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=unused, variance=unused, epsilon=epsilon, is_training=True
    )
    return normalized.y, normalized.batch_mean, normalized.batch_variance


def _scale_and_offset(inputs, gamma, beta):
    import tensorflow as tf

    channels = tf.shape(inputs)[-1:]
    gamma = tf.ones(channels, tf.float32) if gamma is None else tf.convert_to_tensor(gamma)
    beta = tf.zeros(channels, tf.float32) if beta is None else tf.convert_to_tensor(beta)
    return gamma, beta


def torch_batch_norm(inputs, gamma, beta, epsilon, mean, variance):
    """Torch's batch normalisation with given statistics; arguments and result as `tf_batch_norm`'s."""
    import torch

    values = [None if value is None else value.value for value in (gamma, beta, mean, variance)]
    outputs, _, _ = torch.native_batch_norm(inputs.permute(0, 3, 1, 2), *values, False, 0.0, epsilon)
    return outputs.permute(0, 2, 3, 1)


def torch_batch_norm_train(inputs, gamma, beta, epsilon):
    """Torch's batch normalisation with the statistics of the batch; as `tf_batch_norm_train`, for n > 1 values."""
    import torch

    gamma, beta = (None if value is None else value.value for value in (gamma, beta))
    mean, variance = torch.zeros((2, inputs.shape[-1]), dtype=torch.float32, device=inputs.device)
    outputs, _, _ = torch.native_batch_norm(  # an update that keeps nothing of the old: mean and unbiased variance
        inputs.permute(0, 3, 1, 2), gamma, beta, mean, variance, True, 1.0, epsilon
    )
    return outputs.permute(0, 2, 3, 1), mean, variance


def replicas_in_sync():
    """How many replicas the running TensorFlow strategy has; 1 without a strategy."""
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


# --------------------------------------------------------------------------------------------------- image resizing


def has_tf_resize(method, kernel):
    """Whether `tf_resize` may stand in a model's graph: TensorFlow runs it and XLA compiles it to the same numbers.

    XLA's (TensorFlow 2.21) legacy bilinear kernel is wrong when it shrinks, and it has none for bicubic and area.
    """
    import keras

    compiles = method == "nearest" or (method, kernel) == ("bilinear", "half_pixel")
    return compiles and keras.backend.backend() == "tensorflow"


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


def tf_resize_image(image, method_and_kernel, true_size, padded_side, pad_value, finish):
    """One picture of unknown size, resized and padded in a TensorFlow graph.

    Args:
        image: `[H, W, C]` uint8 or float tensor.
        method_and_kernel: as in `tf_resize`.
        true_size: `(tf, height, width) -> (height, width)` on float32 scalars.
        padded_side: side of the resized picture -> side of the canvas, on int32 scalars.
        pad_value: numbers, one or one per channel.
        finish: applied to the padded float32 picture.

    Returns:
        `(picture [h, w, C] of the same dtype, its true shape [3] int32)`; integers are rounded.
    """
    import tensorflow as tf

    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    size = tf.cast(tf.stack(true_size(tf, height, width)), tf.int32)
    resized = tf.cast(tf_resize(image[None], size, *method_and_kernel)[0], tf.float32)
    bottom, right = (padded_side(side) - side for side in tf.unstack(size))
    padding = [[0, bottom], [0, right], [0, 0]]
    resized = tf.pad(resized, padding)
    if any(pad_value):
        outside = 1.0 - tf.pad(tf.ones([size[0], size[1], 1]), padding)
        resized = resized + outside * tf.constant(pad_value, tf.float32)
    resized = finish(resized)
    if image.dtype.is_integer:
        resized = tf.round(resized)
    return tf.saturate_cast(resized, image.dtype), tf.concat([size, tf.shape(resized)[-1:]], axis=0)


# ------------------------------------------------------------------------------------------- non-maximum suppression


def tf_nms(boxes, scores, max_detections, iou_threshold, score_threshold, soft_nms_sigma=0.0):
    """TensorFlow's non-maximum suppression, once per image and class.

    Args:
        boxes: `[B, A, q, 4]` float32; q is 1, or K for boxes per class.
        scores: `[B, A, K]` float32; `-inf` is never selected.
        max_detections: how many each class may keep.
        iou_threshold: a box is suppressed by a better one if their IoU is greater.
        score_threshold: selected scores are greater.
        soft_nms_sigma: above 0 for soft suppression, which XLA cannot compile.

    Returns:
        `(anchors [B, K, max_detections] int32, scores [B, K, max_detections])` by falling score, -inf in padding.
    """
    import tensorflow as tf

    num_anchors, num_classes = tf.shape(scores)[1], scores.shape[2]
    scores = tf.reshape(tf.transpose(scores, [0, 2, 1]), [-1, num_anchors])
    boxes = tf.transpose(boxes, [0, 2, 1, 3])
    settings = {"max_output_size": max_detections, "iou_threshold": iou_threshold, "score_threshold": score_threshold}

    def one(row):
        image, group = row // num_classes, row % num_classes
        row_boxes, row_scores = boxes[image, group if boxes.shape[1] > 1 else 0], scores[row]
        if soft_nms_sigma > 0.0:
            anchors, selected, count = tf.raw_ops.NonMaxSuppressionV5(
                boxes=row_boxes,
                scores=row_scores,
                soft_nms_sigma=soft_nms_sigma,
                pad_to_max_output_size=True,
                **settings,
            )
        else:
            anchors, count = tf.raw_ops.NonMaxSuppressionV4(
                boxes=row_boxes, scores=row_scores, pad_to_max_output_size=True, **settings
            )
            selected = tf.gather(row_scores, anchors)
        return anchors, tf.where(tf.range(max_detections) < count, selected, float("-inf"))

    anchors, selected = tf.map_fn(one, tf.range(tf.shape(scores)[0]), fn_output_signature=(tf.int32, tf.float32))
    shape = [-1, num_classes, max_detections]
    return tf.reshape(anchors, shape), tf.reshape(selected, shape)


def tf_gather_rows(values, rows):
    """`values [B, A, ...]` at `rows [B, N]` int32, `[B, N, ...]`, in one kernel."""
    import tensorflow as tf

    return tf.gather(values, rows, batch_dims=1)


def torch_top_k(values, k):
    """The k largest of each row of `values [B, L]` and their indices, by falling value, of equal ones the first.

    `torch.topk` leaves open which of several equal values it takes, and in which order.
    """
    import torch

    if k == values.shape[1]:
        ordered = torch.sort(values, dim=1, descending=True, stable=True)
        return ordered.values, ordered.indices
    smallest = torch.topk(values, k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    larger, equal = values > smallest, values == smallest
    missing = k - larger.sum(dim=1, keepdim=True)
    taken = larger | (equal & (equal.cumsum(dim=1) <= missing))
    indices = taken.nonzero()[:, 1].reshape(values.shape[0], k)
    ordered = torch.sort(values.gather(1, indices), dim=1, descending=True, stable=True)
    return ordered.values, indices.gather(1, ordered.indices)


# ------------------------------------------------------------------------------------------------- crops of features


def tf_crop(maps, boxes, levels, crop_size):
    """TensorFlow's CropAndResize, with a gradient of ours.

    TensorFlow's own gradient kernel adds from several threads without a lock: where many boxes share an image, one run
    in ten lost a quarter of some sums (measured with TensorFlow 2.21 on two cores).

    Args:
        maps: list of `[B, h_l, w_l, C]` float32.
        boxes: `[B, P, 4]` float32, normalised as the kernel has it.
        levels: `[B, P]` int32, the map of each box, or `None` with one map.
        crop_size: `(h, w)`.

    Returns:
        `[B * P, h, w, C]` float32.
    """
    import tensorflow as tf

    shape = tf.shape(boxes)
    images = tf.repeat(tf.range(shape[0]), shape[1])
    boxes = tf.reshape(boxes, [-1, 4])
    if levels is None:
        return _tf_crop_one(maps[0], boxes, images, crop_size)
    # Each map crops its own boxes: as many as there are, which XLA could not compile.
    levels = tf.reshape(levels, [-1])
    numbers = tf.dynamic_partition(tf.range(tf.size(levels)), levels, len(maps))
    crops = [
        _tf_crop_one(features, tf.gather(boxes, rows), tf.gather(images, rows), crop_size)
        for features, rows in zip(maps, numbers, strict=True)
    ]
    return tf.dynamic_stitch(numbers, crops)


def _tf_crop_one(features, boxes, images, crop_size):
    """Crops `boxes [N, 4]` of the pictures `images [N]` out of one map: `[N, h, w, C]`."""
    import tensorflow as tf

    @tf.custom_gradient
    def crop(features):
        crops = tf.raw_ops.CropAndResize(image=features, boxes=boxes, box_ind=images, crop_size=crop_size)
        return crops, lambda upstream: _tf_crop_gradient(upstream, tf.shape(features), boxes, images)

    return crop(features)


def _tf_crop_gradient(upstream, shape, boxes, images):
    """What the crops' gradients `[N, h, w, C]` are for a map of that shape: each cell goes to its four pixels."""
    import tensorflow as tf

    rows = tf.shape(upstream)
    y = _tf_neighbours(boxes[:, 0], boxes[:, 2], rows[1], shape[1])
    x = _tf_neighbours(boxes[:, 1], boxes[:, 3], rows[2], shape[2])
    total = tf.zeros([shape[0] * shape[1] * shape[2], shape[3]], upstream.dtype)
    for pixel_y, weight_y in y:
        for pixel_x, weight_x in x:
            pixel = ((images * shape[1])[:, None] + pixel_y)[:, :, None] * shape[2] + pixel_x[:, None]
            share = upstream * (weight_y[:, :, None] * weight_x[:, None])[..., None]
            total += tf.math.unsorted_segment_sum(share, pixel, tf.shape(total)[0])
    return tf.reshape(total, shape)


def _tf_neighbours(low, high, cells, side):
    """The kernel's two pixels along an axis and their weights, `[N, cells]` each: `((before, 1 - d), (after, d))`."""
    import tensorflow as tf

    last = tf.cast(side - 1, "float32")
    steps = tf.cast(tf.range(cells), "float32") / tf.cast(tf.maximum(cells - 1, 1), "float32")
    position = tf.cond(
        cells > 1,
        lambda: low[:, None] * last + steps * ((high - low)[:, None] * last),
        lambda: 0.5 * (low + high)[:, None] * last,
    )
    inside = tf.cast(tf.logical_and(position >= 0.0, position <= last), "float32")
    position = tf.where(inside > 0.0, position, 0.0)
    before = tf.floor(position)
    after = tf.minimum(before + 1.0, last)
    share = position - before
    return (tf.cast(before, "int32"), inside * (1.0 - share)), (tf.cast(after, "int32"), inside * share)


def torch_weighted_rows(table, rows, weights):
    """Weighted sums of rows by torch's `embedding_bag`, which holds no row but the sums.

    Args:
        table: `[N, C]` float32.
        rows: `[..., n]` int32, the n rows of each sum.
        weights: `[..., n]` float32.

    Returns:
        `[..., C]` float32.
    """
    import torch

    shape = rows.shape
    sums = torch.nn.functional.embedding_bag(
        rows.reshape(-1, shape[-1]), table, mode="sum", per_sample_weights=weights.reshape(-1, shape[-1])
    )
    return sums.reshape(*shape[:-1], table.shape[1])


def torch_pool(values, size, stride, mode):
    """Pooling, `"max"` or `"average"`, of `values [N, h, w, C]` where they lie; Keras' moves the channels first."""
    import torch

    pooling = torch.nn.functional.max_pool2d if mode == "max" else torch.nn.functional.avg_pool2d
    return pooling(values.permute(0, 3, 1, 2), size, stride).permute(0, 2, 3, 1)
