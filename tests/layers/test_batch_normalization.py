"""Batch normalization: upstream's numbers, the unbiased moving variance, freezing, precision."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.layers.batch_normalization import BatchNormalization
from tests.goldens import BACKEND, assert_close, compiled, golden_cases
from tests.losses.gradients import gradient


def moving(layer):
    return [ops.convert_to_numpy(value) for value in (layer.moving_mean, layer.moving_variance)]


def training_step(layer, x, compile_it):
    """Output and moving statistics after one call in training, eagerly or compiled."""
    layer.build(x.shape)
    if compile_it and BACKEND == "jax":
        values = [v.value for v in layer.trainable_variables], [v.value for v in layer.non_trainable_variables]
        step = compiled(lambda t, n, x: layer.stateless_call(t, n, x, training=True))
        y, (mean, variance) = step(*values, x)
        return ops.convert_to_numpy(y), np.asarray(mean), np.asarray(variance)
    call = compiled(lambda x: layer(x, training=True)) if compile_it else lambda x: layer(x, training=True)
    return ops.convert_to_numpy(call(ops.convert_to_tensor(x))), *moving(layer)


@pytest.mark.parametrize("compile_it", [False, True])
@golden_cases("bn/freezable_train_step")
def test_upstream_training(case, compile_it):
    layer = BatchNormalization(momentum=case.info["momentum"], epsilon=case.info["epsilon"])
    y, mean, variance = training_step(layer, case.inputs["x"], compile_it)
    assert_close(y, case.outputs["y"])
    assert_close(mean, case.outputs["moving_mean"])
    assert_close(variance, case.outputs["moving_variance"])


@golden_cases("bn/freezable_frozen")
def test_upstream_frozen(case):
    layer = BatchNormalization(epsilon=case.info["epsilon"], trainable=False)
    assert_close(layer(case.inputs["x"], training=True), case.outputs["y"])
    assert_close(moving(layer)[0], case.outputs["moving_mean"])


@pytest.mark.parametrize("compile_it", [False, True])
@pytest.mark.parametrize("shape", [(3, 1), (1, 3, 1), (1, 3, 1, 1)])
def test_hand_worked_step(shape, compile_it):
    # Values 1, 2, 6: mean 3, biased variance (4 + 1 + 9) / 3 = 14/3, unbiased 14 / 2 = 7. With momentum 3/4 the
    # moving mean goes from 0 to 3/4 and the moving variance from 1 to 3/4 + 7/4 = 5/2.
    layer = BatchNormalization(momentum=0.75, epsilon=0.0)
    y, mean, variance = training_step(layer, np.array([1.0, 2.0, 6.0], "float32").reshape(shape), compile_it)
    assert_close(y.ravel(), np.array([-2.0, -1.0, 3.0]) / np.sqrt(14 / 3))
    assert_close(mean, [0.75])
    assert_close(variance, [2.5])


@pytest.mark.parametrize("shape", [(1, 2), (1, 1, 1, 2)])
def test_one_value_per_channel_has_variance_zero(shape):
    layer = BatchNormalization(momentum=0.5)
    y, mean, variance = training_step(layer, np.array([4.0, -2.0], "float32").reshape(shape), False)
    assert_close(y.ravel(), [0.0, 0.0])
    assert_close(mean, [2.0, -1.0])
    assert_close(variance, [0.5, 0.5])


@pytest.mark.parametrize(("scale", "center"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("training", [False, True])
def test_as_keras_but_for_the_moving_variance(scale, center, training):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 4, 5, 6)) * 3 + 1).astype("float32")
    settings = {"momentum": 0.9, "epsilon": 1e-5, "scale": scale, "center": center}
    ours, kerass = BatchNormalization(**settings), keras.layers.BatchNormalization(**settings)
    for layer in (ours, kerass):
        layer.build(x.shape)
    ours.set_weights([np.linspace(0.5, 2.0, 6) for _ in ours.weights])
    kerass.set_weights(ours.get_weights())
    assert_close(ours(x, training=training), ops.convert_to_numpy(kerass(x, training=training)))
    assert_close(moving(ours)[0], moving(kerass)[0])
    start = 0.9 * np.linspace(0.5, 2.0, 6) if training else 0.0
    # 60 values per channel
    assert_close(moving(ours)[1] - start, (moving(kerass)[1] - start) * (60 / 59 if training else 1.0))


@pytest.mark.parametrize("trainable", [True, False])
def test_slopes_are_keras_own(trainable):
    rng = np.random.default_rng(1)
    x, toward = rng.normal(size=(2, 2, 3, 4, 5)).astype("float32")
    ours, kerass = BatchNormalization(trainable=trainable), keras.layers.BatchNormalization(trainable=trainable)
    slopes = [
        gradient(lambda x, layer=layer: ops.sum(ops.multiply(layer(x, training=True), toward)), x)
        for layer in (ours, kerass)
    ]
    assert_close(slopes[0], slopes[1], 1e-4)


def test_frozen_trains_nothing():
    layer = BatchNormalization(trainable=False)
    layer.build((None, 4, 4, 3))
    assert layer.trainable_variables == []
    x = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype("float32") + 5.0
    before = moving(layer)
    assert_close(layer(x, training=True), ops.convert_to_numpy(layer(x, training=False)))
    np.testing.assert_array_equal(before, moving(layer))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_statistics_are_float32_under_mixed_precision(policy):
    # Around 1000 the steps of bfloat16 are 8 and those of float16 0.5: a variance of 4 shows only in float32.
    x = ops.cast(1000.0 + 8.0 * np.random.default_rng(3).normal(size=(4, 8, 8, 2)), policy.removeprefix("mixed_"))
    wide = ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64").reshape(-1, 2)
    layer = BatchNormalization(momentum=0.0, dtype=policy)
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert layer.moving_variance.dtype == "float32"
    mean, variance = moving(layer)
    assert_close(mean, wide.mean(0))
    assert_close(variance, wide.var(0, ddof=1), 1e-4)
    normal = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-3)
    assert_close(ops.cast(y, "float32"), normal.reshape(x.shape), 1e-2)


def test_learns_and_saves_inside_a_model(tmp_path):
    inputs = keras.Input((4, 4, 3))
    x = BatchNormalization(momentum=0.5, epsilon=0.01, scale=False, name="bn")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(4)
    model.fit(rng.normal(size=(8, 4, 4, 3)), np.ones((8, 3)), batch_size=4, verbose=0)
    assert np.all(moving(model.get_layer("bn"))[0] != 0.0)
    assert np.all(ops.convert_to_numpy(model.get_layer("bn").beta) > 0.0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.get_layer("bn").get_config() == model.get_layer("bn").get_config()
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


def test_unknown_sizes():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, BatchNormalization(momentum=0.0)(inputs))
    model(np.array([1.0, 2.0, 3.0, 6.0], "float32").reshape((1, 1, 2, 2)), training=True)
    # Two values per channel: 1 and 3, 2 and 6; unbiased variances 2 and 8.
    assert_close(moving(model.layers[1])[1], [2.0, 8.0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras shares statistics between replicas on TensorFlow only")
def test_synchronized_counts_all_replicas():
    # One replica: the same as without it, through the path that shares sums.
    layer = BatchNormalization(momentum=0.0, synchronized=True)
    layer(np.array([1.0, 2.0, 6.0], "float32").reshape((1, 3, 1, 1)), training=True)
    assert_close(moving(layer)[1], [7.0])


def test_bad_settings():
    with pytest.raises(ValueError, match="renorm=True"):
        BatchNormalization(renorm=True)
    with pytest.raises(ValueError, match="axis=1"):
        BatchNormalization(axis=1).build((None, 3, 4, 4))


def test_frozen_statistics_leave_scale_and_offset_to_train():
    """Mean 1, variance 3 (epsilon 1), scale 2, offset 5: of 5, (5 - 1) / 2 * 2 + 5 = 9, in training, too."""
    layer = BatchNormalization(epsilon=1.0, momentum=0.5, frozen_statistics=True)
    layer.build((None, 1))
    for variable, value in zip(layer.weights, (2.0, 5.0, 1.0, 3.0), strict=True):
        variable.assign([value])
    for training in (False, True):
        assert_close(layer(np.full((4, 1), 5.0, "float32"), training=training), np.full((4, 1), 9.0))
    assert [variable.path.rsplit("/", 1)[-1] for variable in layer.trainable_variables] == ["gamma", "beta"]
    assert_close(layer.moving_mean, [1.0])
    again = BatchNormalization.from_config(layer.get_config())
    assert again.frozen_statistics and "frozen_statistics" not in BatchNormalization().get_config()
