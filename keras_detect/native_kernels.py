"""The one dispatch point for native kernels: each function imports its framework inside and takes its tensors.

A kernel has a `keras.ops` twin in the room that uses it and is held to the same goldens. Room level 0.
"""

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


def replicas_in_sync():
    """How many replicas the running TensorFlow strategy has; 1 without a strategy."""
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
