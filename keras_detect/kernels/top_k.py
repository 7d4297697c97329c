"""The best of each row of `[B, L]`, with a fixed order among equal values."""

import numpy as np
from keras import ops

from keras_detect.kernels import dispatch


def top_k(values, k):
    """The k largest of `values [B, L]` and their int32 indices, by falling value; equal ones by rising index."""
    if dispatch.use_native("torch"):
        best, order = _torch_top_k(values, k)
    elif dispatch.running("torch"):  # torch's top_k leaves the order of equal values open
        order = ops.argsort(-values, axis=-1)[:, :k]
        best = ops.take_along_axis(values, order, axis=-1)
    else:
        best, order = ops.top_k(values, k)
    return best, ops.cast(order, "int32")


def _torch_top_k(values, k):
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


def last_column(values):
    """The last column of `[B, N]`. Sliced off directly, it would make XLA sort all pairs instead of taking the best."""
    last = np.arange(values.shape[1]) == values.shape[1] - 1
    return ops.max(ops.where(last, values, ops.min(values, axis=1, keepdims=True)), axis=1)
