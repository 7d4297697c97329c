"""The order of the epochs: what the batches deal, regardless of what was iterated before, and by name."""

import keras
import numpy as np
import pytest

from keras_detect.data.order import order_of
from keras_detect.transforms import RandomHorizontalFlip
from tests.data.test_dataset import SMALL, collect, numbered, order


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_it_says_what_the_batches_deal(cache, shard):
    batches = numbered(9).batches(SMALL, 2, shuffle=True, seed=5, cache=cache, shard=shard)
    for epoch in range(2):
        dealt = order(batches)
        assert order_of(batches).epoch == epoch
        assert order_of(batches).of_epoch(epoch).tolist() == dealt
    assert order_of(batches).files(1) == [f"image_{number:06d}" for number in dealt[2:4]]


def test_an_epoch_depends_on_its_number_and_the_seed_alone():
    """Neither on the program's seed nor on what was read before, a peek at the first batch for instance."""
    augment = RandomHorizontalFlip()
    keras.utils.set_random_seed(0)
    first = numbered(12).batches(SMALL, 4, augment=augment, shuffle=True, seed=3)
    third = [collect(first) for _ in range(3)][2]
    keras.utils.set_random_seed(8)
    again = numbered(12).batches(SMALL, 4, augment=augment, shuffle=True, seed=3)
    next(iter(again))
    order_of(again).begin_at(2)
    for ours, theirs in zip(keras.tree.flatten(collect(again)), keras.tree.flatten(third), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_a_seed_the_programs_decides():
    def dealt(seed):
        keras.utils.set_random_seed(seed)
        return order(numbered(30).batches(SMALL, 8, shuffle=True))

    assert dealt(1) == dealt(1) != dealt(2)


def test_lengths_and_plain_orders():
    batches = numbered(7).batches(SMALL, 2, shuffle=True, drop_remainder=True, seed=0)
    assert len(batches) == len(collect(batches)) == 3
    plain = numbered(7).batches(SMALL, 2)
    assert order_of(plain).files(3) == ["image_000006"]
    assert order_of(plain.prefetch(1)) is None


def test_orders_are_told_apart():
    def signature(count=7, **options):
        return order_of(numbered(count).batches(SMALL, **{"batch_size": 2, "seed": 0, **options})).signature()

    assert signature() == signature()
    others = [signature(seed=1), signature(count=8), signature(batch_size=3), signature(shuffle=True)]
    assert signature() not in others
