"""Batch normalization whose moving variance is the unbiased one, as in TensorFlow's fused kernel."""

import keras
from keras import ops

from keras_detect.kernels.batch_norm import batch_norm, batch_norm_train
from keras_detect.registry import serializable


@serializable
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization over the last axis; the moving variance takes in n/(n-1) times the batch variance.

    The output in training is Keras' own (normalized with the biased variance); only what is remembered differs, so
    that upstream's checkpoints and training runs carry over. With one value per channel (n = 1) the factor is 1.
    With `trainable=False` the layer runs in inference mode and neither statistics nor scale and offset train.
    Statistics and parameters are float32 under every dtype policy. Masks are not looked at.

    Args:
        momentum: share of the old moving statistics that an update keeps.
        epsilon: added to the variance before the square root.
        center: whether to add the trainable offset `beta`.
        scale: whether to multiply by the trainable `gamma`.
        synchronized: TensorFlow only: whether replicas share their batch statistics.
        frozen_statistics: whether training, too, normalizes with the moving statistics, which stay as they are, while
            scale and offset train.
        **kwargs: the other arguments of `keras.layers.BatchNormalization`, without `renorm`; `axis` is the last one.

    Call arguments:
        inputs: `[..., C]` float of any rank; `[B, H, W, C]` takes the fused kernel of TensorFlow or torch.
        training: whether to normalize with the statistics of this batch and to update the moving ones.

    Raises:
        ValueError: for `renorm=True`, and when `axis` is not the last axis of the input.

    Ioffe and Szegedy, 2015 (arXiv:1502.03167).
    """

    def __init__(
        self,
        momentum=0.99,
        epsilon=1e-3,
        center=True,
        scale=True,
        synchronized=False,
        frozen_statistics=False,
        **kwargs,
    ):
        super().__init__(
            momentum=momentum, epsilon=epsilon, center=center, scale=scale, synchronized=synchronized, **kwargs
        )
        self.frozen_statistics = frozen_statistics
        if getattr(self, "renorm", False):  # Keras 3.13 does not know it, and refuses it itself
            raise ValueError(
                "BatchNormalization has no batch renormalization. Received: renorm=True. Use "
                "keras.layers.BatchNormalization for it."
            )

    def build(self, input_shape):
        if self.axis not in (-1, len(input_shape) - 1):
            raise ValueError(
                f"BatchNormalization normalizes the last axis. Received: axis={self.axis} for an input of shape "
                f"{tuple(input_shape)}. Move the channels to the end or use keras.layers.BatchNormalization."
            )
        super().build(input_shape)

    def call(self, inputs, training=None):
        if training and self.trainable and not self.frozen_statistics:
            outputs, mean, variance = batch_norm_train(
                inputs, self.gamma, self.beta, self.epsilon, self.compute_dtype, self.synchronized
            )
            self._remember(self.moving_mean, mean)
            self._remember(self.moving_variance, variance)
            return outputs
        return batch_norm(
            inputs, self.gamma, self.beta, self.epsilon, self.moving_mean, self.moving_variance, self.compute_dtype
        )

    def get_config(self):
        return super().get_config() | ({"frozen_statistics": True} if self.frozen_statistics else {})

    def _remember(self, moving, value):
        moving.assign(moving * self.momentum + ops.cast(value, moving.dtype) * (1.0 - self.momentum))
