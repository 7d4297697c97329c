"""InceptionV100: its sizes by hand, what its two kinds of block compute, and where a two-stage detector cuts it."""

import keras
import numpy as np
import pytest

from keras_detect.backbones import inception_v100
from keras_detect.backbones.inception_v100 import InceptionV100
from keras_detect.layers.conv_blocks import ConvHyperparams
from tests import goldens, networks

LINEAR = ConvHyperparams(activation=None, batch_norm=False)


def small(**settings):
    with networks.undrawn():
        return InceptionV100(width_multiplier=0.25, **settings)


def test_parameters_counted_by_hand():
    """A convolution of k x k from a to b channels has k k a b weights, its batch norm 4 b (two of them trained).

    reduction(a, f): added = f - a, squeezed = added / 2: a s + 4 s + 9 s added + 4 added
    mixed(a, b):     a b + 2 * 9 b b + 3 b a weights, 4 * 3 b + 4 a in batch norm
    C1    9 * 3 * 24 + 4 * 24                                  =       744
    C2    9 * 24 * 64 + 4 * 64                                 =    14,080
    C3    reduction(64, 128), added 64: 2,048 + 128 + 18,432 + 256   =    20,864
          2 * mixed(128, 64): 8,192 + 73,728 + 24,576 + 768 + 512    = 2 * 107,776
    C4    reduction(128, 256), added 128: 8,192 + 256 + 73,728 + 512 =    82,688
          5 * mixed(256, 96): 24,576 + 165,888 + 73,728 + 1,152 + 1,024 = 5 * 266,368
    C5    reduction(256, 512), added 256: 32,768 + 512 + 294,912 + 1,024 = 329,216
          mixed(512, 160): 81,920 + 460,800 + 245,760 + 1,920 + 2,048 = 792,448
    """
    with networks.undrawn():
        backbone = InceptionV100()
    until_c4 = 744 + 14_080 + 20_864 + 2 * 107_776 + 82_688 + 5 * 266_368
    assert backbone.count_params() == until_c4 + 329_216 + 792_448 == 2_787_432
    assert backbone.channels == {"C1": 24, "C2": 64, "C3": 128, "C4": 256, "C5": 512}
    assert backbone.strides == {"C1": 2, "C2": 4, "C3": 8, "C4": 16, "C5": 32}


def test_width():
    """A quarter of 24 is 6: at least 8. Three eighths of 64 are 24, of 24 are 9: down to a multiple of 8."""
    assert small().channels == {"C1": 8, "C2": 16, "C3": 32, "C4": 64, "C5": 128}
    with networks.undrawn():
        assert InceptionV100(width_multiplier=0.375).channels["C2"] == 24
    with pytest.raises(ValueError, match="width_multiplier=0"):
        InceptionV100(width_multiplier=0)


def test_widest_only_where_no_channels_are_lost():
    """With a tiny width all levels have 8 channels: a reduction adds none and is a max pooling."""
    with networks.undrawn():
        backbone = InceptionV100(width_multiplier=0.01)
    assert set(backbone.channels.values()) == {8}
    assert not [layer.name for layer in backbone.layers if "reduction_conv" in layer.name]


def test_pixels_span_minus_one_to_one():
    pixels = keras.ops.convert_to_tensor(np.array([[[[0.0, 127.5, 255.0]]]], "float32"))
    goldens.assert_close(small().preprocess(pixels)[0, 0, 0], [-1.0, 0.0, 1.0])


def block(build):
    """A model of one block on a map of two channels, and its input 0, 1, 2, ... as `[1, 5, 5, 2]`."""
    inputs = keras.Input((None, None, 2))
    with networks.undrawn():
        model = keras.Model(inputs, build(inputs))
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape, "float32"))
    return model, np.arange(50, dtype="float32").reshape(1, 5, 5, 2)


def test_a_mixed_block_of_zeros_is_the_identity():
    model, x = block(lambda inputs: inception_v100.mixed(inputs, 3, LINEAR, name="block"))
    for call in goldens.both_modes(model):
        goldens.assert_close(call(keras.ops.convert_to_tensor(x)), x)


def test_the_branches_of_a_mixed_block_see_one_three_and_five_pixels():
    """Kernels of ones from channel 0 to the one channel of a branch; the join takes one branch into channel 1.

    Of a single 1 in the middle, the 1x1 branch leaves 1; the 3x3 branch a square of nine ones; the 5x5 branch, two
    3x3 after each other, the product of [1, 2, 3, 2, 1] with itself, 81 in sum.
    """
    model, x = block(lambda inputs: inception_v100.mixed(inputs, 1, LINEAR, name="block"))
    squeeze = np.zeros((1, 1, 2, 1), "float32")
    squeeze[0, 0, 0, 0] = 1.0
    model.get_layer("block_window_1_conv").kernel.assign(squeeze)
    for window in (3, 5):
        model.get_layer(f"block_window_{window}_conv").kernel.assign(np.ones((3, 3, 1, 1), "float32"))
    x = np.zeros_like(x)
    x[0, 2, 2, 0] = 1.0
    one = np.array([0, 0, 1, 0, 0], "float32")
    three = np.array([0, 1, 1, 1, 0], "float32")
    five = np.array([1, 2, 3, 2, 1], "float32")
    for branch, line in enumerate((one, three, five)):
        join = np.zeros((1, 1, 3, 2), "float32")
        join[0, 0, branch, 1] = 1.0
        model.get_layer("block_join_conv").kernel.assign(join)
        out = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x)))
        goldens.assert_close(out[0, :, :, 1], np.outer(line, line))
        goldens.assert_close(out[0, :, :, 0], x[0, :, :, 0])


def test_a_reduction_pools_its_input_and_adds_channels():
    """5 x 5 to 3 x 3: TensorFlow's SAME puts the windows of 3 at rows -1, 1, 3, so their last rows are 1, 3, 4.

    Of rising numbers the maximum is the last pixel of the window. The added channels are the biases, 7 here.
    """
    model, x = block(lambda inputs: inception_v100.reduction(inputs, 5, LINEAR, name="block"))
    model.get_layer("block_conv_conv").bias.assign(np.full(3, 7.0, "float32"))
    out = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x)))
    assert out.shape == (1, 3, 3, 5)
    last = [1, 3, 4]
    goldens.assert_close(out[..., :2], x[:, last][:, :, last])
    goldens.assert_close(out[..., 2:], np.full((1, 3, 3, 3), 7.0))


def test_trunk_and_tail_together_are_the_backbone():
    """Split at C4, the tail reaches C5 from C4 alone, also on RoI features of 7 x 7, which become 4 x 4."""
    backbone = small()
    assert backbone.split_level == "C4"
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        weight.assign(rng.uniform(0.05, 0.15, weight.shape).astype("float32"))
    trunk = keras.Model(backbone.inputs, backbone.output["C4"])
    tail = keras.Model(backbone.output["C4"], backbone.output["C5"])
    assert {w.path for w in trunk.weights}.isdisjoint({w.path for w in tail.weights})
    assert trunk.count_params() + tail.count_params() == backbone.count_params()
    x = keras.ops.convert_to_tensor(rng.uniform(-1, 1, (1, 64, 96, 3)).astype("float32"))
    goldens.assert_close(tail(trunk(x)), keras.ops.convert_to_numpy(backbone(x)["C5"]))
    assert tuple(tail(keras.ops.zeros((3, 7, 7, 64))).shape) == (3, 4, 4, 128)
