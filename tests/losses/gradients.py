"""Gradients of a scalar function on the running backend, and their check against central differences."""

import numpy as np
from keras import ops

from tests.goldens import BACKEND, jitted


def gradient(function, x):
    """d function / d x as a numpy array; `function` maps one float32 tensor to a scalar tensor."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x, unconnected_gradients="zero").numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    function(x).backward()
    return x.grad.numpy()


def assert_slopes(function, x, points, step=1e-2, tolerance=2e-3):
    """The gradient at a few flat indices of `x` equals the central difference, relative to the largest of them."""
    x = np.asarray(x, "float32")
    actual = gradient(function, x).ravel()[points]
    function, expected = jitted(function), []
    for point in points:
        values = []
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved.ravel()[point] += sign * step
            values.append(float(ops.convert_to_numpy(function(ops.convert_to_tensor(moved)))))
        expected.append((values[0] - values[1]) / (2 * step))
    scale = max(np.max(np.abs(expected)), 0.1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)
