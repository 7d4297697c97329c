"""Rows of batched tensors `[B, A, ...]` gathered and written, one set of rows per image."""

from keras import ops

from keras_detect.kernels import dispatch


def gather_rows(values, rows):
    """`values [B, A, ...]` at `rows [B, N]` int32: `[B, N, ...]`."""
    if dispatch.use_native("tensorflow"):
        return _tf_gather_rows(values, rows)
    shape = ops.shape(values)
    offsets = ops.arange(shape[0], dtype="int32")[:, None] * shape[1]
    flat = ops.reshape(values, (-1, *shape[2:]))
    return ops.take(flat, rows + offsets, axis=0)


def _tf_gather_rows(values, rows):
    """`values [B, A, ...]` at `rows [B, N]` int32, `[B, N, ...]`, in one kernel."""
    import tensorflow as tf

    return tf.gather(values, rows, batch_dims=1)


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
