"""The hourglass: blocks by hand, depth and channels of each row, and the names of upstream's checkpoints."""

import keras
import numpy as np
import pytest

from keras_detect.backbones import hourglass
from keras_detect.backbones.hourglass import Hourglass
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.necks.center_net_feature_extractor import CenterNetFeatureExtractor
from keras_detect.tf_od_api import name_maps_center_net_features as name_maps
from keras_detect.weights.named_weights import named_weights
from tests import goldens, networks

PLAIN = ConvHyperparams(activation="relu", batch_norm_epsilon=0.0)
#: what upstream's own test asserts of the networks
DEPTHS = {"hourglass_10": 10, "hourglass_20": 20, "hourglass_32": 32, "hourglass_52": 52, "hourglass_104": 104}


def with_ones(inputs, outputs):
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.ones(layer.kernel.shape, "float32"))
    return model


def test_a_residual_block_by_hand():
    """A pixel of -1 alone: both convolutions see 0 after the activation, and so does the sum; a pixel of 2: 2 + 2."""
    inputs = keras.Input((None, None, 1))
    model = with_ones(inputs, hourglass.residual(inputs, 1, 1, skip=False, hyperparams=PLAIN, name="block"))
    for value, expected in ((-1.0, 0.0), (2.0, 4.0)):
        for call in goldens.both_modes(lambda x: model(x)):
            goldens.assert_close(call(keras.ops.full((1, 1, 1, 1), value)), np.full((1, 1, 1, 1), expected))


def test_the_skip_is_not_activated_and_has_the_stride():
    """2 x 2 ones, stride 2, skip -1 by its kernel: first sums 4 pixels: 4, second 4, minus 1."""
    inputs = keras.Input((None, None, 1))
    model = with_ones(inputs, hourglass.residual(inputs, 1, 2, skip=True, hyperparams=PLAIN, name="block"))
    model.get_layer("block_skip_conv").kernel.assign(np.full((1, 1, 1, 1), -1.0))
    goldens.assert_close(model(keras.ops.ones((1, 2, 2, 1))), np.full((1, 1, 1, 1), 3.0))


def test_an_hourglass_by_hand():
    """One stage, one block each, one channel, kernels of ones, norms without effect, 1 x 2 pixels: 1 and 2.

    Kept: a block sums both pixels twice: 3, 3, then 6, 6; plus the input: 7, 8. Down: first 3, second 3, skip 1: 4. The
    bottom doubles it: 8, the way up again: 16. Doubled in size and added: 23, 24.
    """
    inputs = keras.Input((None, None, 1))
    model = with_ones(inputs, hourglass.hourglass(inputs, (1, 1), (1, 1), hyperparams=PLAIN, name="stack"))
    for call in goldens.both_modes(lambda x: model(x)):
        goldens.assert_close(call(np.array([[[[1.0], [2.0]]]], "float32")), [[[[23.0], [24.0]]]])


def test_the_next_hourglass_begins_with_both():
    """Input 1 and output 2 of one channel: 1 + 2, and a residual block doubles it."""
    inputs = [keras.Input((None, None, 1)) for _ in range(2)]
    model = with_ones(inputs, hourglass._joined(*inputs, 1, PLAIN, "next"))
    tensors = [keras.ops.full((1, 1, 1, 1), value) for value in (1.0, 2.0)]
    goldens.assert_close(model(tensors), np.full((1, 1, 1, 1), 6.0))


def rows(variant):
    return [
        pytest.param(name, marks=() if name in ("hourglass_10", "hourglass_20") else pytest.mark.slow)
        for name in variant
    ]


@pytest.mark.backend_free
@pytest.mark.parametrize("variant", rows(hourglass.VARIANTS))
def test_a_row(variant):
    """Depth on the longest way, one level per hourglass, and a key of upstream's for each weight, none twice."""
    with networks.undrawn():
        backbone = Hourglass(variant=variant, name="backbone")
    row = hourglass.VARIANTS[variant]
    assert _depth(row) == DEPTHS[variant]
    assert backbone.strides == {f"stack_{index}": 4 for index in range(row.stacks)}
    assert set(backbone.channels.values()) == {row.filters[0]}
    extractor = CenterNetFeatureExtractor(backbone=backbone)
    assert extractor.map_names == tuple(backbone.strides)
    table = name_maps.tables(extractor)["backbone"]
    layers = {name.split("/")[1] for name in named_weights(extractor.weight_groups())}
    assert layers <= set(table)
    assert len({table[layer] for layer in layers}) == len(layers)


def _depth(row):
    """Convolutions one behind the other, as the paper counts them: stem, hourglasses, outputs, and what joins them."""
    stem, output, join = 3, 1, 3
    one = sum(2 * 2 * blocks for blocks in row.blocks[:-1]) + 2 * row.blocks[-1]
    return stem + row.stacks * (one + output) + (row.stacks - 1) * join


def test_upstreams_numbers_of_batch_norm():
    with networks.undrawn():
        layer = Hourglass(variant="hourglass_10").get_layer("stem_bn")
    assert (layer.momentum, layer.epsilon) == (0.1, 1e-5)


def test_pixels_are_blue_first_and_scaled_by_coco():
    with networks.undrawn():
        backbone = Hourglass(variant="hourglass_10")
    scaled = backbone.preprocess(keras.ops.convert_to_tensor(np.array([[[[255.0, 0.0, 128.0]]]], "float32")))
    expected = [(128 - 104.01362025) / 73.6027665, -114.03422265 / 69.89082075, (255 - 119.9165958) / 70.9150767]
    goldens.assert_close(scaled[0, 0, 0], expected)


def test_an_unknown_variant_lists_the_near_ones():
    with pytest.raises(ValueError, match=r"Unknown hourglass variant 'hourglass_105'. Did you mean .*hourglass_104"):
        Hourglass(variant="hourglass_105")
