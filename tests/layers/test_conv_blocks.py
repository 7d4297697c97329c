"""Convolution blocks: upstream's padding and up-sampling, layer names, regularization, hand-worked output."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.layers import conv_blocks as blocks
from tests.goldens import assert_close, both_modes, golden_cases

HYPERPARAMS = blocks.ConvHyperparams(
    kernel_initializer=blocks.initializer("truncated_normal", stddev=0.03), l2_weight=4e-5, batch_norm_momentum=0.97
)


@golden_cases("ops/fixed_padding_*")
def test_upstream_fixed_padding(case):
    kernel_size = int(case.name.rsplit("_", 1)[1])
    for call in both_modes(lambda x: blocks.fixed_padding(x, kernel_size)):
        assert_close(call(ops.convert_to_tensor(case.inputs["x"])), case.outputs["y"], 0.0)


@golden_cases("ops/nearest_neighbor_upsampling")
def test_upstream_upsampling(case):
    for call in both_modes(blocks.upsample_nearest):
        assert_close(call(ops.convert_to_tensor(case.inputs["x"])), case.outputs["y"], 0.0)


def test_fixed_padding_of_an_even_kernel_puts_the_odd_row_last():
    padded = ops.convert_to_numpy(blocks.fixed_padding(np.ones((1, 1, 1, 1), "float32"), 4))
    assert padded.shape == (1, 4, 4, 1)
    assert padded[0, 1, 1, 0] == 1.0  # 3 rows in all: one before, two after
    assert blocks.fixed_padding(np.ones((1, 1, 1, 1), "float32"), 3, dilation_rate=2).shape == (1, 5, 5, 1)


def ones_model(build):
    """A model of `build`, its kernels all ones."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, build(inputs))
    for variable in model.trainable_variables:
        if "kernel" in variable.path:
            variable.assign(np.ones(variable.shape))
    return model


@pytest.mark.parametrize(
    ("padding", "corner", "size"),
    [
        # A 3 x 3 kernel of ones at stride 2 on a 4 x 4 image of ones sums what it covers. TensorFlow's "same" pads
        # only behind: the first window is full (9). "fixed" pads one row on each side: the first window has 2 x 2.
        ("same", 9.0, 2),
        ("fixed", 4.0, 2),
        ("valid", 9.0, 1),
    ],
)
@pytest.mark.parametrize("depthwise", [False, True])
def test_padding_at_stride_two(padding, corner, size, depthwise):
    hyperparams = blocks.ConvHyperparams(activation=None, batch_norm=False)
    options = {"hyperparams": hyperparams, "name": "x", "strides": 2, "padding": padding}
    if depthwise:
        model = ones_model(lambda x: blocks.depthwise_bn_act(x, 3, **options))
    else:
        model = ones_model(lambda x: blocks.conv_bn_act(x, 1, 3, **options))
    y = ops.convert_to_numpy(model(np.ones((1, 4, 4, 1), "float32")))
    assert y.shape == (1, size, size, 1)
    assert y[0, 0, 0, 0] == corner


def test_names_and_order():
    inputs = keras.Input((8, 8, 3))
    x = blocks.conv_bn_act(inputs, 4, 3, hyperparams=HYPERPARAMS, name="a", strides=2, padding="fixed")
    x = blocks.depthwise_bn_act(x, 3, hyperparams=HYPERPARAMS, name="b")
    x = blocks.separable_bn_act(x, 5, 3, hyperparams=HYPERPARAMS, name="c", activation=None)
    model = keras.Model(inputs, x)
    assert [layer.name for layer in model.layers[1:]] == [
        *("a_pad", "a_conv", "a_bn", "a_act"),
        *("b_depthwise", "b_bn", "b_act"),
        *("c_separable", "c_bn"),
    ]
    assert model.output_shape == (None, 4, 4, 5)


def test_without_batch_norm_there_is_a_bias():
    plain = blocks.ConvHyperparams(batch_norm=False, bias_initializer=blocks.initializer("constant", value=-4.6))
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, blocks.conv_bn_act(inputs, 4, 1, hyperparams=plain, name="a"))
    assert [variable.path for variable in model.variables] == ["a_conv/kernel", "a_conv/bias"]
    assert_close(model.variables[1], np.full((4,), -4.6, "float32"))
    forced = blocks.conv(HYPERPARAMS, 4, 1, name="b", use_bias=True)
    assert forced.use_bias


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu6", [0.0, 0.0, 1.0, 6.0]),
        ("relu", [0.0, 0.0, 1.0, 8.0]),
        # x * sigmoid(x): -3 / (1 + e^3), 0, 1 / (1 + 1/e), 8 / (1 + e^-8)
        ("swish", [-0.1422776, 0.0, 0.7310586, 7.9973177]),
        (None, [-3.0, 0.0, 1.0, 8.0]),
    ],
)
def test_activations(activation, expected):
    hyperparams = blocks.ConvHyperparams(activation=activation, batch_norm=False)
    x = blocks.norm_act(np.array([-3.0, 0.0, 1.0, 8.0], "float32"), hyperparams=hyperparams, name="a")
    assert_close(x, expected, 1e-6)


def test_l2_is_half_upstream_weight():
    layer = blocks.conv(blocks.ConvHyperparams(l2_weight=0.1), 1, 1, name="a")
    layer.build((None, 4, 4, 2))
    layer.kernel.assign(np.array([3.0, 4.0]).reshape(1, 1, 2, 1))
    # 0.1 / 2 * (9 + 16)
    assert_close(sum(layer.losses), np.float32(1.25))
    assert blocks.conv(blocks.ConvHyperparams(), 1, 1, name="b").kernel_regularizer is None


@pytest.mark.parametrize("reach", [(), ("depthwise",), ("depthwise", "pointwise")])
def test_reach_of_separable(reach):
    layer = blocks.separable(HYPERPARAMS, 4, 3, name="a", reach=reach)
    for kernel in ("depthwise", "pointwise"):
        initializer = getattr(layer, f"{kernel}_initializer")
        expected = "TruncatedNormal" if kernel in reach else "GlorotUniform"
        assert type(initializer).__name__ == expected
        assert (getattr(layer, f"{kernel}_regularizer") is not None) == (kernel in reach)


def test_layers_of_one_network_start_differently():
    kernels = []
    for name in ("a", "b"):
        layer = blocks.conv(HYPERPARAMS, 4, 3, name=name)
        layer.build((None, 8, 8, 3))
        kernels.append(ops.convert_to_numpy(layer.kernel))
    assert np.all(kernels[0] != kernels[1])


def test_frozen_batch_norm():
    layer = blocks.batch_norm(blocks.ConvHyperparams(batch_norm_trainable=False), name="a")
    layer.build((None, 2, 2, 3))
    assert layer.trainable_variables == []
    layer = blocks.batch_norm(HYPERPARAMS, name="b")
    assert (layer.momentum, layer.epsilon, layer.scale, layer.center) == (0.97, 0.001, True, True)


def test_hyperparams_round_trip():
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(HYPERPARAMS))
    assert again == HYPERPARAMS
    assert hash(again) == hash(HYPERPARAMS)


def test_saves_in_safe_mode(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = blocks.conv_bn_act(inputs, 4, 3, hyperparams=HYPERPARAMS, name="a", strides=2, padding="fixed")
    model = keras.Model(inputs, blocks.upsample_nearest(x))
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(1, 8, 6, 3)).astype("float32")
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), keras.models.load_model(tmp_path / "m.keras").predict(x, verbose=0)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: blocks.ConvHyperparams(activation="tanh"), "activation='tanh'"),
        (lambda: blocks.ConvHyperparams(l2_weight=-1.0), "l2_weight=-1.0"),
        (lambda: blocks.initializer("no_such_thing").build(), "no_such_thing"),
        (lambda: blocks.initializer("constant", stddev=1.0).build(), "stddev"),
        (lambda: blocks.separable(HYPERPARAMS, 4, 3, name="a", reach=("deep",)), "deep"),
        (
            lambda: blocks.conv_bn_act(keras.Input((4, 4, 1)), 1, 3, hyperparams=HYPERPARAMS, name="a", padding="odd"),
            "padding='odd' for 'a'",
        ),
        (lambda: blocks.norm_act(keras.Input((4,)), hyperparams=HYPERPARAMS, name="a", activation="elu"), "elu"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
