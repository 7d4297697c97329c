"""BiFPN: one node worked by hand, the graph of figure 2d, odd sizes, sizes of EfficientDet."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.necks import bifpn
from keras_detect.necks.bifpn import BiFPN, CombineLevels
from tests import goldens

PLAIN = ConvHyperparams(activation=None, batch_norm_epsilon=0.001)


def feature(rows):
    return ops.convert_to_tensor(np.asarray(rows, "float32")[None, ..., None])


def combine(weights, resampling, maps):
    """The layer's output for one-channel maps, eagerly and compiled; `weights` None adds without."""
    layer = CombineLevels(resampling=resampling, method="sum" if weights is None else "fast_attention")
    layer.build([tensor.shape for tensor in maps])
    if weights is not None:
        layer.combine_weights.assign(np.reshape(weights, (-1, 1)))
    return [ops.convert_to_numpy(call(maps))[0, :, :, 0] for call in goldens.both_modes(lambda x: layer(x))]


def test_a_node_by_hand():
    """Weights 1, 3, -2 are 1, 3, 0 rectified, so the shares are 1 / 4.0001, 3 / 4.0001 and 0.

    The coarse map [[8, 4]] doubles to [[8, 8, 4, 4], [8, 8, 4, 4]]; the fine map has no share.
    """
    same = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    fine = np.full((4, 8), 1e6)
    maps = [feature(same), feature([[8.0, 4.0]]), feature(fine)]
    expected = np.array([[1 + 24, 2 + 24, 3 + 12, 4 + 12], [5 + 24, 6 + 24, 7 + 12, 8 + 12]]) / 4.0001
    for values in combine([1.0, 3.0, -2.0], ("same", "up", "down"), maps):
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_finer_map_is_max_pooled_as_tensorflow_does():
    """4 x 4 pixels 0...15 to 2 x 2: SAME pads one behind, so windows are rows and columns 0-2 and 2-3."""
    fine = np.arange(16.0).reshape(4, 4)
    for values in combine(None, ("same", "down"), [feature(np.full((2, 2), -1.0)), feature(fine)]):
        np.testing.assert_array_equal(values, [[9.0, 10.0], [13.0, 14.0]])
    # negative pixels: the padding is not a zero that wins
    for values in combine([1.0, 1.0], ("same", "down"), [feature(np.zeros((2, 2))), feature(fine - 100.0)]):
        np.testing.assert_allclose(values, np.array([[-90.0, -89.0], [-86.0, -85.0]]) / 2.0001, rtol=1e-6)


def test_weights_that_are_all_negative_leave_nothing():
    """0 / (0 + 1e-4) = 0."""
    for values in combine([-1.0, -0.5], ("same", "same"), [feature([[3.0]]), feature([[5.0]])]):
        np.testing.assert_array_equal(values, [[0.0]])


def test_odd_sizes_lose_the_row_and_column_too_many():
    """5 x 3 pixels halve to 3 x 2, which doubles to 6 x 4 and is cut to 5 x 3."""
    coarse = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    expected = [[1, 1, 2], [1, 1, 2], [3, 3, 4], [3, 3, 4], [5, 5, 6]]
    for values in combine(None, ("same", "up"), [feature(np.zeros((5, 3))), feature(coarse)]):
        np.testing.assert_array_equal(values, expected)


def test_new_weights_share_evenly_and_train():
    layer = CombineLevels(resampling=("same", "same"))
    values = layer([feature([[1.0]]), feature([[2.0]])])
    goldens.assert_close(values[0, 0, 0], [3.0 / 2.0001])
    assert tuple(layer.combine_weights.shape) == (2, 1)
    assert [weight.name for weight in layer.trainable_weights] == ["combine_weights"]
    assert not CombineLevels(resampling=("same", "same"), method="sum").weights


def test_half_precision_keeps_its_type_and_float32_weights():
    layer = CombineLevels(resampling=("same", "up"), dtype="mixed_bfloat16")
    values = layer([feature(np.ones((2, 2))), feature([[3.0]])])
    assert keras.backend.standardize_dtype(values.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(layer.combine_weights.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(values, "float32")), np.full((1, 2, 2, 1), 2.0), rtol=1e-2)


def test_the_graph_of_one_iteration():
    """Figure 2d: down from P7 to P3, up from P4 to P7; inner nodes read the level anew, the top one has no way down."""
    nodes = {node.name: node for node in BiFPN(num_iterations=1).nodes()}
    assert list(nodes) == [
        *("bifpn_0_extra_6", "bifpn_0_extra_7"),
        *(f"bifpn_1_down_{level}" for level in (6, 5, 4, 3)),
        *(f"bifpn_1_up_{level}" for level in (4, 5, 6, 7)),
    ]
    sources = {name: [source for source, _ in node.inputs] for name, node in nodes.items()}
    assert sources["bifpn_0_extra_6"] == ["C5"]
    assert sources["bifpn_1_down_6"] == ["bifpn_0_extra_6", "bifpn_0_extra_7"]
    assert sources["bifpn_1_down_3"] == ["C3", "bifpn_1_down_4"]
    assert sources["bifpn_1_up_4"] == ["C4", "bifpn_1_down_4", "bifpn_1_down_3"]
    assert sources["bifpn_1_up_6"] == ["bifpn_0_extra_6", "bifpn_1_down_6", "bifpn_1_up_5"]
    assert sources["bifpn_1_up_7"] == ["bifpn_0_extra_7", "bifpn_1_up_6"]


def test_a_second_iteration_starts_from_the_first():
    nodes = {node.name: [source for source, _ in node.inputs] for node in BiFPN(num_iterations=2).nodes()}
    assert nodes["bifpn_2_down_6"] == ["bifpn_1_up_6", "bifpn_1_up_7"]
    assert nodes["bifpn_2_down_3"] == ["bifpn_1_down_3", "bifpn_2_down_4"]
    assert nodes["bifpn_2_up_7"] == ["bifpn_1_up_7", "bifpn_2_up_6"]
    assert len(nodes) == 2 + 2 * 8


def model_of(channels, **settings):
    neck = BiFPN(**settings)
    inputs = {
        level: keras.Input((None, None, size), name=level) for level, size in zip(neck.levels, channels, strict=True)
    }
    return keras.Model(inputs, neck(inputs))


def make_identity(model):
    """Kernels that copy their input, no biases, batch norm without effect."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.SeparableConv2D):
            depthwise = np.zeros(layer.depthwise_kernel.shape, "float32")
            depthwise[1, 1] = 1.0
            layer.depthwise_kernel.assign(depthwise)
            layer.pointwise_kernel.assign(np.ones(layer.pointwise_kernel.shape, "float32"))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.999, "float32"))


def test_three_levels_by_hand():
    """One channel, sums, identity convolutions, maps constant: C3 = 1, C4 = 10, P5 = max pool of C4 = 10.

    Down: D4 = C4 + P5 = 20, D3 = C3 + D4 = 21. Up: U4 = C4 + D4 + D3 = 51, U5 = P5 + U4 = 61.
    """
    settings = {"num_filters": 1, "num_iterations": 1, "combine_method": "sum", "hyperparams": PLAIN}
    model = model_of((1, 1), levels=("C3", "C4"), max_level=5, **settings)
    make_identity(model)
    features = {"C3": feature(np.full((7, 8), 1.0)), "C4": feature(np.full((4, 4), 10.0))}
    for call in goldens.both_modes(lambda x: model(x)):
        maps = call(features)
        assert list(maps) == ["P3", "P4", "P5"]
        for level, size, value in (("P3", (7, 8), 21.0), ("P4", (4, 4), 51.0), ("P5", (2, 2), 61.0)):
            goldens.assert_close(maps[level][0, :, :, 0], np.full(size, value), err_msg=level)


def test_levels_are_projected_by_every_node_that_reads_them_unless_they_fit():
    """C3 has the right width: only C4 (down, up) and C5 (P6, down, up) are projected, each time by its own layer."""
    model = model_of((8, 12, 16), num_filters=8, num_iterations=2, hyperparams=ConvHyperparams(activation="swish"))
    projections = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sorted(projections) == [
        "bifpn_0_extra_6_input_0_conv",
        "bifpn_1_down_4_input_0_conv",
        "bifpn_1_down_5_input_0_conv",
        "bifpn_1_up_4_input_0_conv",
        "bifpn_1_up_5_input_0_conv",
    ]
    separable = [layer for layer in model.layers if isinstance(layer, keras.layers.SeparableConv2D)]
    assert len(separable) == 16
    assert all(layer.use_bias for layer in separable)
    assert {tensor.shape[-1] for tensor in model.output.values()} == {8}


def test_biases_can_be_left_to_the_batch_norm():
    model = model_of((8, 8, 8), num_filters=8, num_iterations=1, use_bias=False, hyperparams=PLAIN)
    assert not [weight for weight in model.weights if weight.name == "bias"]


def test_sizes_of_efficientdet():
    """Table 1 of the paper: layers 3...8, channels 64...384; D6 and D7 add without weights."""
    rows = [(size.num_iterations, size.num_filters, size.combine_method) for size in bifpn.SIZES.values()]
    fast = [(3, 64), (4, 88), (5, 112), (6, 160), (7, 224), (7, 288)]
    assert rows == [(*row, "fast_attention") for row in fast] + [(8, 384, "sum")] * 2
    assert BiFPN.of_size("d3", max_level=6) == BiFPN(num_iterations=6, num_filters=160, max_level=6)


def test_a_neck_is_its_settings():
    neck = BiFPN.of_size("d6", hyperparams=PLAIN)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(neck)) == neck
    layer = CombineLevels(resampling=("same", "up"), method="sum", name="node")
    copy = CombineLevels.from_config(layer.get_config())
    assert (copy.resampling, copy.method, copy.name) == (("same", "up"), "sum", "node")


def test_wrong_settings_are_refused():
    for settings, message in (
        ({"levels": ("C3", "C5")}, "without a gap"),
        ({"levels": ("C4_expansion", "C5")}, "without a gap"),
        ({"levels": ()}, "without a gap"),
        ({"max_level": 4}, "max_level=4"),
        ({"levels": ("C5",), "max_level": 5}, "two levels or more"),
        ({"num_iterations": 0}, "once or more"),
        ({"combine_method": "attention"}, "one of .*use 'sum'"),
    ):
        with pytest.raises(ValueError, match=message):
            BiFPN(**settings)
    with pytest.raises(ValueError, match=r"Unknown EfficientDet size 'd8'\. Did you mean"):
        BiFPN.of_size("d8")
    with pytest.raises(ValueError, match="one at least is 'same'"):
        CombineLevels(resampling=("up", "down"))
    with pytest.raises(ValueError, match=r"combines 2 maps .* Received: 3"):
        CombineLevels(resampling=("same", "up")).build([(None, 2, 2, 1)] * 3)
    with pytest.raises(ValueError, match=r"needs the backbone levels .*Received: \['C4'\]"):
        BiFPN()({"C4": keras.Input((None, None, 1))})
