"""Rows of batched tensors `[B, A, ...]`: the best of them, rows gathered and rows written, one set per image."""

import numpy as np
from keras import ops

from keras_detect.kernels import native


def top_k(values, k):
    """The k largest of `values [B, L]` and their int32 indices, by falling value; equal ones by rising index."""
    if native.use_native("torch"):
        best, order = native.torch_top_k(values, k)
    elif native.running("torch"):  # torch's top_k leaves the order of equal values open
        order = ops.argsort(-values, axis=-1)[:, :k]
        best = ops.take_along_axis(values, order, axis=-1)
    else:
        best, order = ops.top_k(values, k)
    return best, ops.cast(order, "int32")


def gather_rows(values, rows):
    """`values [B, A, ...]` at `rows [B, N]` int32: `[B, N, ...]`."""
    if native.use_native("tensorflow"):
        return native.tf_gather_rows(values, rows)
    shape = ops.shape(values)
    offsets = ops.arange(shape[0], dtype="int32")[:, None] * shape[1]
    flat = ops.reshape(values, (-1, *shape[2:]))
    return ops.take(flat, rows + offsets, axis=0)


def gather_class(values, labels):
    """`values [B, A, K, ...]` at `labels [B, A]` or `[B, 1]`: `[B, A, ...]`."""
    shape = ops.shape(values)
    labels = ops.broadcast_to(labels, (shape[0], shape[1]))
    rows = ops.arange(shape[1], dtype="int32") * shape[2] + labels
    return gather_rows(ops.reshape(values, (shape[0], shape[1] * shape[2], *shape[3:])), rows)


def put_rows(values, rows, updates):
    """`values [B, A, ...]` with `updates [B, N, ...]` written at `rows [B, N]`."""
    shape = ops.shape(rows)
    image = ops.broadcast_to(ops.arange(shape[0], dtype="int32")[:, None], shape)
    indices = ops.reshape(ops.stack([image, rows], axis=-1), (-1, 2))
    return ops.scatter_update(values, indices, ops.reshape(updates, (-1, *ops.shape(updates)[2:])))


def divide(numbers, divisor):
    """Quotient and remainder of non-negative int32 tensors."""
    quotient = numbers // divisor
    return quotient, numbers - quotient * divisor


def last_column(values):
    """The last column of `[B, N]`. Sliced off directly, it would make XLA sort all pairs instead of taking the best."""
    last = np.arange(values.shape[1]) == values.shape[1] - 1
    return ops.max(ops.where(last, values, ops.min(values, axis=1, keepdims=True)), axis=1)
