"""Which image comes when: the order of every epoch, and the randomness of its augmentation, from one seed.

The order is a function of the seed and the number of the epoch alone, so that a pipeline can begin at any epoch, a run
repeats in another process, and the files of a batch can be named afterward.
"""

import hashlib
import random

import numpy as np


class EpochOrder:
    """What a pipeline deals in each epoch. Iterating over the batches moves on to the next epoch.

    Args:
        seed: int; None draws one from Python's `random`, which `keras.utils.set_random_seed` seeds.
        shuffle: whether the order is another one in every epoch.
        file_names: of the images, by index.
        batch_size: images per batch.
        indices: sequence of the indices that take part (on one of several hosts, its share of them).
        shard: `(index, count)` where several hosts share every epoch and `indices` is not this host's part yet.

    Attributes:
        epoch: the epoch that was begun last, from 0; -1 before the first.
    """

    def __init__(self, *, seed, shuffle, file_names, batch_size, indices, shard=None):
        self.seed = random.getrandbits(63) if seed is None else int(seed)
        self.shuffle, self.file_names, self.batch_size = shuffle, list(file_names), batch_size
        self.indices, self.shard = indices, shard
        self.epoch = -1

    def begin_at(self, epoch):
        """The next iteration over the batches is epoch `epoch` (from 0)."""
        self.epoch = epoch - 1

    def deal(self):
        """int64 [3], the seeds of the next epoch: two of its order and one of its augmentation."""
        self.epoch += 1
        return self.seeds(self.epoch)

    def seeds(self, epoch):
        """int64 [3], not negative, of epoch `epoch`."""
        drawn = np.random.SeedSequence([self.seed % 2**64, epoch]).generate_state(3, np.uint64)
        return (drawn >> np.uint64(1)).astype(np.int64)

    def of_epoch(self, epoch):
        """The indices of the images in the order of epoch `epoch`, int64."""
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices(np.asarray(self.indices, np.int64))
        if self.shuffle:
            dataset = shuffled(dataset, len(self.indices), tf.constant(self.seeds(epoch)))
        dealt = np.fromiter(dataset.as_numpy_iterator(), np.int64)
        return dealt if self.shard is None else dealt[self.shard[0] :: self.shard[1]]

    def files(self, step):
        """Names of the files in batch `step` (from 0) of the epoch that was begun last, in their order."""
        dealt = self.of_epoch(max(self.epoch, 0))[step * self.batch_size : (step + 1) * self.batch_size]
        return [self.file_names[index] for index in dealt]

    def signature(self):
        """`{name: value}` that tells two orders apart; JSON can hold it."""
        names = hashlib.sha256("\n".join(self.file_names).encode("utf-8", "surrogateescape")).hexdigest()
        return {
            "seed": self.seed,
            "shuffle": bool(self.shuffle),
            "batch_size": int(self.batch_size),
            "images": len(self.file_names),
            "file_names": names[:16],
        }


def order_of(batches):
    """The `EpochOrder` of batches as `DetectionDataset.batches` returned them, None for any other data."""
    return getattr(batches, "epoch_order", None)


def attach(batches, order):
    """`batches`, so that `order_of` finds their order."""
    batches.epoch_order = order
    return batches


def epochs(order, make_epoch, count):
    """A `tf.data.Dataset` that is another epoch in each iteration.

    Args:
        order: `EpochOrder`, asked when an iteration begins.
        make_epoch: function of the epoch's seeds, int64 [3], to its `tf.data.Dataset`; traced once.
        count: the number of its elements.
    """
    import tensorflow as tf

    def seeds(_):
        return tf.ensure_shape(tf.numpy_function(order.deal, [], tf.int64), [3])

    dataset = tf.data.Dataset.range(1).map(seeds).flat_map(make_epoch)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def shuffled(dataset, count, seeds):
    """All `count` elements of a `tf.data.Dataset` in a random order that depends on `seeds` [2 or more] int64 alone.

    `Dataset.shuffle` mixes the program's seed in, and cannot where that is 0 and the seed is a tensor.
    """
    import tensorflow as tf

    specs = tf.nest.flatten(dataset.element_spec)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=tf.constant(max(count, 1), tf.int64),
        seed=seeds[0],
        seed2=seeds[1],
        reshuffle_each_iteration=False,
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)
