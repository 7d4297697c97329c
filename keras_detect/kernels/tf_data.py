"""A Python function that looks at each batch of a `tf.data.Dataset` on its way to a model."""


def is_dataset(data) -> bool:
    """Whether `data` is a `tf.data.Dataset`; TensorFlow is not imported to find out."""
    return any(cls.__module__.startswith("tensorflow.") and cls.__name__ == "DatasetV2" for cls in type(data).__mro__)


def observed(dataset, observe, wanted):
    """`dataset`, with `observe(*values)` called for each batch before it is handed on.

    What `observe` raises ends the iteration. It costs a call of Python, some 0.1 ms, as long as the values are small.

    Args:
        dataset: `tf.data.Dataset` of batches `x`, `(x, y)` or `(x, y, sample_weight)`.
        observe: function of the values that `wanted` picked, as numpy arrays.
        wanted: function, the batch's index and the batch -> list of tensors; traced once.
    """
    import tensorflow as tf

    def call(*values):
        observe(*values)
        return 0

    def look(index, *batch):
        batch = batch if len(batch) > 1 else batch[0]
        values = wanted(index, batch)
        for value in values:
            if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
                raise ValueError(
                    f"A model takes dense batches. Received: a {type(value).__name__} in the data set's ground truth. "
                    "Pad the rows of each image: `padded_batch`, or `to_tensor` with -1 for labels."
                )
        with tf.control_dependencies([tf.numpy_function(call, values, tf.int64)]):
            return tf.nest.map_structure(tf.identity, batch)

    def unpacked(index, batch):
        return look(index, *batch) if isinstance(batch, tuple) else look(index, batch)

    return dataset.enumerate().map(unpacked)


def image_facts(images, shapes, first):
    """`[3]` float32 of a batch of images in a TensorFlow graph: sum, maximum where `first` (else -1), wrong shapes.

    The sum is not finite where a pixel is not. Of integer images sum and maximum are 0 and -1, without a look at them.
    The third is the number of `shapes` [B, 3] (or `None`) that do not lie on the images' canvas.
    """
    import tensorflow as tf

    wrong = tf.constant(0.0)
    if shapes is not None and shapes.shape.rank == 2:
        sizes = tf.cast(shapes[:, :2], tf.int32)
        outside = tf.reduce_any((sizes < 0) | (sizes > tf.shape(images)[1:3]), axis=1)
        wrong = tf.reduce_sum(tf.cast(outside, tf.float32))
    if not images.dtype.is_floating:
        return tf.stack([0.0, -1.0, wrong])
    images = tf.cast(images, tf.float32)
    largest = tf.cond(first, lambda: tf.reduce_max(images), lambda: -1.0)
    return tf.stack([tf.reduce_sum(images), largest, wrong])
