"""Batch normalization over the last axis, with given statistics or with those of the batch."""

import keras
from keras import ops


def batch_norm(inputs, gamma, beta, epsilon, mean, variance, dtype):
    """Normalizes with given statistics.

    Args:
        inputs: `[..., C]` float tensor.
        gamma: `[C]` float32 variable, or `None` for ones.
        beta: `[C]` float32 variable, or `None` for zeros.
        epsilon: added to the variance.
        mean: `[C]` float32 variable.
        variance: `[C]` float32 variable.
        dtype: of the result; a fused kernel keeps the dtype of `inputs`.

    Returns:
        Tensor of the shape of `inputs`.
    """
    if _has_fused_kernel(inputs):
        fused = _torch_batch_norm if keras.backend.backend() == "torch" else _tf_batch_norm
        return fused(inputs, gamma, beta, epsilon, mean, variance)
    return _normalize(inputs, gamma, beta, epsilon, mean, variance, dtype)


def batch_norm_train(inputs, gamma, beta, epsilon, dtype, synchronized=False):
    """Normalizes with the statistics of the batch.

    Args:
        inputs: as in `batch_norm`.
        gamma: as in `batch_norm`.
        beta: as in `batch_norm`.
        epsilon: as in `batch_norm`.
        dtype: as in `batch_norm`.
        synchronized: whether the replicas of a TensorFlow strategy share their statistics.

    Returns:
        `(outputs, mean [C], unbiased variance [C])`. With one value per channel the variance is 0.
    """
    if _has_fused_kernel(inputs) and not synchronized:
        if keras.backend.backend() == "tensorflow":
            return _tf_batch_norm_train(inputs, gamma, beta, epsilon)
        if inputs.shape[:3].numel() > 1:  # for a single value torch's kernel divides by n - 1 = 0
            return _torch_batch_norm_train(inputs, gamma, beta, epsilon)
    axes = list(range(len(inputs.shape) - 1))
    wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    if synchronized:
        mean, variance = ops.moments(wide, axes=axes, synchronized=True)
    else:
        # Not ops.moments: on torch it is E[x^2] - E[x]^2, which turns negative for a channel far from 0.
        mean, variance = ops.mean(wide, axis=axes), ops.var(wide, axis=axes)
    count = ops.cast(_replicas_in_sync() if synchronized else 1, "float32")
    for axis in axes:
        count = count * ops.cast(ops.shape(inputs)[axis], "float32")
    unbiased = variance * (count / ops.maximum(count - 1.0, 1.0))
    return _normalize(inputs, gamma, beta, epsilon, mean, variance, dtype), mean, unbiased


def _normalize(inputs, gamma, beta, epsilon, mean, variance, dtype):
    """The portable form: at least float32 inside."""
    wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    mean, variance, gamma, beta = (
        None if value is None else ops.cast(value, wide.dtype) for value in (mean, variance, gamma, beta)
    )
    outputs = ops.batch_normalization(wide, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon)
    return ops.cast(outputs, dtype)


def _has_fused_kernel(inputs):
    """Whether TensorFlow or torch has its own kernel. XLA compiles TensorFlow's, so `portable_kernels` keeps it."""
    return (
        keras.backend.backend() in ("tensorflow", "torch")
        and len(inputs.shape) == 4
        and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
    )


# --------------------------------------------------------------------------------------------------------- native forms


def _tf_batch_norm(inputs, gamma, beta, epsilon, mean, variance):
    """TensorFlow's graph optimizer merges this kernel into a convolution before it."""
    import tensorflow as tf

    gamma, beta = _tf_scale_and_offset(inputs, gamma, beta)
    mean, variance = tf.convert_to_tensor(mean), tf.convert_to_tensor(variance)
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    ).y


def _tf_batch_norm_train(inputs, gamma, beta, epsilon):
    import tensorflow as tf

    gamma, beta = _tf_scale_and_offset(inputs, gamma, beta)
    unused = tf.zeros([0], tf.float32)
    normalized = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=unused, variance=unused, epsilon=epsilon, is_training=True
    )
    return normalized.y, normalized.batch_mean, normalized.batch_variance


def _tf_scale_and_offset(inputs, gamma, beta):
    import tensorflow as tf

    channels = tf.shape(inputs)[-1:]
    gamma = tf.ones(channels, tf.float32) if gamma is None else tf.convert_to_tensor(gamma)
    beta = tf.zeros(channels, tf.float32) if beta is None else tf.convert_to_tensor(beta)
    return gamma, beta


def _replicas_in_sync():
    """How many replicas the running TensorFlow strategy has; 1 without a strategy."""
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _torch_batch_norm(inputs, gamma, beta, epsilon, mean, variance):
    import torch

    values = [None if value is None else value.value for value in (gamma, beta, mean, variance)]
    outputs, _, _ = torch.native_batch_norm(inputs.permute(0, 3, 1, 2), *values, False, 0.0, epsilon)
    return outputs.permute(0, 2, 3, 1)


def _torch_batch_norm_train(inputs, gamma, beta, epsilon):
    import torch

    gamma, beta = (None if value is None else value.value for value in (gamma, beta))
    mean, variance = torch.zeros((2, inputs.shape[-1]), dtype=torch.float32, device=inputs.device)
    outputs, _, _ = torch.native_batch_norm(  # an update that keeps nothing of the old: mean and unbiased variance
        inputs.permute(0, 3, 1, 2), gamma, beta, mean, variance, True, 1.0, epsilon
    )
    return outputs.permute(0, 2, 3, 1), mean, variance
