"""Drop-connect: whole examples, the mean stays, nothing happens at inference."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.layers.drop_connect import DropConnect
from tests.goldens import both_modes


def drawn(layer, examples=64, shape=(2, 3, 4), **kwargs):
    """`layer` on ones `[examples, *shape]`, as numpy, eagerly and compiled."""
    ones = ops.ones((examples, *shape))
    return [ops.convert_to_numpy(call(ones)) for call in both_modes(lambda x: layer(x, **kwargs))]


def test_an_example_is_kept_whole_and_scaled_or_zeroed_whole():
    """Rate 0.25 keeps 3 of 4 examples, scaled by 1 / 0.75 = 4/3."""
    layer = DropConnect(0.25, seed=0)
    for values in drawn(layer, training=True):
        rows = values.reshape(64, -1)
        assert (rows == rows[:, :1]).all()
        np.testing.assert_allclose(np.unique(rows), [0.0, 4.0 / 3.0], rtol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mean_stays(rate):
    """Each of n examples is 1 / (1 - r) with probability 1 - r: mean 1, variance r / (1 - r); five sigmas allowed."""
    examples = 20000
    for values in drawn(DropConnect(rate, seed=1), examples, (1,), training=True):
        assert abs(values.mean() - 1.0) < 5.0 * np.sqrt(rate / (1.0 - rate) / examples)


def test_inference_and_rate_zero_change_nothing():
    for values in (*drawn(DropConnect(0.5, seed=0), training=False), *drawn(DropConnect(0.5, seed=0))):
        assert (values == 1.0).all()
    layer = DropConnect(0.0)
    for values in drawn(layer, training=True):
        assert (values == 1.0).all()
    assert not layer.variables


def test_a_seed_fixes_the_draws_and_each_call_draws_anew():
    def draws(seed):
        layer = DropConnect(0.5, seed=seed)
        return [ops.convert_to_numpy(layer(ops.ones((64, 1)), training=True)) for _ in range(2)]

    first, second = draws(7)
    np.testing.assert_array_equal(draws(7), [first, second])
    assert (first != second).any()
    assert (draws(8)[0] != first).any()


def test_in_a_model_it_drops_in_training_only_and_has_no_weight():
    """The seed's state is no weight: checkpoints do not look for it."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, DropConnect(0.5, seed=3)(inputs))
    values = ops.convert_to_numpy(model(ops.ones((32, 4, 4, 1)), training=True))
    assert 0 < (values[:, 0, 0, 0] == 2.0).sum() < 32
    assert (ops.convert_to_numpy(model(ops.ones((32, 4, 4, 1)), training=False)) == 1.0).all()
    assert not model.weights


def test_fit_draws_anew_in_every_step():
    """The state of the seed moves on in compiled training steps too, on JAX among them."""
    inputs = keras.Input((1,))
    layer = DropConnect(0.5, seed=0)
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile("sgd", "mse")
    state = ops.convert_to_numpy(layer.seed_generator.state).copy()
    model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=2, verbose=0)
    after = ops.convert_to_numpy(layer.seed_generator.state)
    np.testing.assert_array_equal(after - state, [0, 4])  # Keras' state is the seed and a counter: one per step
    model.evaluate(np.ones((8, 1)), np.ones((8, 1)), verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.seed_generator.state), after)


def test_half_precision_keeps_its_type():
    layer = DropConnect(0.5, seed=0, dtype="mixed_bfloat16")
    values = layer(ops.ones((8, 2)), training=True)
    assert keras.backend.standardize_dtype(values.dtype) == "bfloat16"
    assert set(np.unique(ops.convert_to_numpy(ops.cast(values, "float32")))) <= {0.0, 2.0}


def test_settings_round_trip():
    layer = DropConnect(0.175, seed=5, name="drop")
    copy = DropConnect.from_config(layer.get_config())
    assert (copy.rate, copy.seed, copy.name) == (0.175, 5, "drop")
    assert layer.compute_output_shape((None, None, None, 24)) == (None, None, None, 24)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 20])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        DropConnect(rate)
