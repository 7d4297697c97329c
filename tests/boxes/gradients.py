"""The gradient of a scalar function on the running backend."""

import numpy as np

from tests import goldens


def gradient(function, value):
    """d function(x) / dx at `value`, as a numpy array; zeros where nothing flows."""
    value = np.asarray(value, "float32")
    if goldens.BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = function(x)
        return np.asarray(tape.gradient(result, x, unconnected_gradients="zero"))
    if goldens.BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(value))
    import torch

    x = torch.tensor(value, requires_grad=True)
    result = function(x)
    if not result.requires_grad:
        return np.zeros_like(value)
    result.backward()
    return x.grad.numpy()
