"""Batch normalisation whose moving variance is the unbiased one, as in the original's fused kernel."""

import keras
from keras import ops

from keras_detect.kernels import native
from keras_detect.registry import serializable


@serializable
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis; the moving variance takes in n/(n-1) times the batch variance.

    The output in training is Keras' own (normalised with the biased variance); only what is remembered differs, so
    that checkpoints and training runs of the original carry over. With one value per channel (n = 1) the factor is 1.
    With `trainable=False` the layer runs in inference mode and neither statistics nor scale and offset train.
    Statistics and parameters are float32 under every dtype policy. Masks are not looked at.

    Args:
        momentum: share of the old moving statistics that an update keeps.
        epsilon: added to the variance before the square root.
        center: whether to add the trainable offset `beta`.
        scale: whether to multiply by the trainable `gamma`.
        synchronized: TensorFlow only: whether replicas share their batch statistics.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`, without `renorm`; `axis` is the last one.

    Call arguments:
        inputs: `[..., C]` float of any rank; `[B, H, W, C]` takes the fused kernel of TensorFlow or torch.
        training: whether to normalise with the statistics of this batch and to update the moving ones.

    Raises:
        ValueError: for `renorm=True`, and when `axis` is not the last axis of the input.

    Ioffe and Szegedy, 2015 (arXiv:1502.03167).
    """

    def __init__(self, momentum=0.99, epsilon=1e-3, center=True, scale=True, synchronized=False, **kwargs):
        super().__init__(
            momentum=momentum, epsilon=epsilon, center=center, scale=scale, synchronized=synchronized, **kwargs
        )
        if self.renorm:
            raise ValueError(
                "BatchNormalization has no batch renormalisation. Received: renorm=True. Use "
                "keras.layers.BatchNormalization for it."
            )

    def build(self, input_shape):
        if self.axis not in (-1, len(input_shape) - 1):
            raise ValueError(
                f"BatchNormalization normalises the last axis. Received: axis={self.axis} for an input of shape "
                f"{tuple(input_shape)}. Move the channels to the end or use keras.layers.BatchNormalization."
            )
        super().build(input_shape)

    def call(self, inputs, training=None):
        if training and self.trainable:
            outputs, mean, variance = self._normalize_batch(inputs)
            self._remember(self.moving_mean, mean)
            self._remember(self.moving_variance, variance)
            return outputs
        if self._has_fused_kernel(inputs):
            on_torch = native.running("torch")
            fused = native.torch_batch_norm if on_torch else native.tf_batch_norm
            return fused(inputs, self.gamma, self.beta, self.epsilon, self.moving_mean, self.moving_variance)
        return self._normalize(inputs, self.moving_mean, self.moving_variance)

    def _normalize_batch(self, inputs):
        """Normalised inputs, batch mean `[C]` and unbiased batch variance `[C]`."""
        if self._has_fused_kernel(inputs) and not self.synchronized:
            if native.running("tensorflow"):
                return native.tf_batch_norm_train(inputs, self.gamma, self.beta, self.epsilon)
            if inputs.shape[:3].numel() > 1:  # of a single value torch's kernel divides by n - 1 = 0
                return native.torch_batch_norm_train(inputs, self.gamma, self.beta, self.epsilon)
        wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = tuple(range(len(inputs.shape) - 1))
        if self.synchronized:
            mean, variance = ops.moments(wide, axes=axes, synchronized=True)
        else:
            # Not ops.moments: on torch it is E[x^2] - E[x]^2, which turns negative for a channel far from 0.
            mean, variance = ops.mean(wide, axis=axes), ops.var(wide, axis=axes)
        count = self._values_per_channel(inputs)
        unbiased = variance * (count / ops.maximum(count - 1.0, 1.0))
        return self._normalize(inputs, mean, variance), mean, unbiased

    def _values_per_channel(self, inputs):
        """How many values each channel's statistics are made of, as a float32 scalar."""
        shape = ops.shape(inputs)
        count = ops.cast(native.replicas_in_sync() if self.synchronized else 1, "float32")
        for length in shape[:-1]:
            count = count * ops.cast(length, "float32")
        return count

    def _normalize(self, inputs, mean, variance):
        wide = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance, gamma, beta = (
            None if value is None else ops.cast(value, wide.dtype) for value in (mean, variance, self.gamma, self.beta)
        )
        outputs = ops.batch_normalization(wide, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def _has_fused_kernel(self, inputs):
        return (
            keras.backend.backend() in ("tensorflow", "torch")
            and len(inputs.shape) == 4
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
        )

    def _remember(self, moving, value):
        moving.assign(moving * self.momentum + ops.cast(value, moving.dtype) * (1.0 - self.momentum))
