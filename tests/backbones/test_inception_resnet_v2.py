"""Inception-ResNet V2: a residual block by hand, and upstream's convolutions one by one."""

import json

import keras
import numpy as np
import pytest

from keras_detect.backbones.inception_resnet_v2 import (
    REDUCTION_A,
    Conv,
    InceptionResNetV2,
    Mixed,
    Residual,
    mixed,
    residual,
    run_modules,
)
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.tf_od_api.name_maps_layers import inception_resnet_v2_layers
from tests import goldens, networks

GOLDEN = "derived_faster_rcnn_inception_resnet_v2_640x640"
PLAIN = ConvHyperparams(activation="relu", batch_norm_epsilon=0.0)


def with_ones(inputs, outputs):
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.ones(layer.kernel.shape, "float32"))
    return model


def test_a_residual_block_by_hand():
    """Two channels of 1, kernels of ones, norms without effect, scale 0.5, bias 0, two blocks.

    Branch 0: 1 + 1 = 2. Branch 1: 2, then a (1, 3) kernel over 1 x 2 pixels sums both: 4. Concatenated and summed: 6.
    Half of it added: 1 + 3 = 4. The second block is linear in its input: 4 * (1 + 3) = 16.
    """
    inputs = keras.Input((None, None, 2))
    row = Residual("block", ((Conv(1, 1),), (Conv(1, 1), Conv(1, (1, 3)))), scale=0.5, repeats=2)
    model = with_ones(inputs, residual(inputs, row, PLAIN))
    for call in goldens.both_modes(lambda x: model(x)):
        goldens.assert_close(call(keras.ops.ones((1, 1, 2, 2))), np.full((1, 1, 2, 2), 16.0))


def test_the_last_block_is_linear():
    inputs = keras.Input((None, None, 1))
    row = Residual("block", ((Conv(1, 1),),), scale=1.0, repeats=1, activation=False)
    model = with_ones(inputs, residual(inputs, row, PLAIN))
    # ReLU is in the branch alone: -3 + relu(-3) = -3
    goldens.assert_close(model(keras.ops.full((1, 1, 1, 1), -3.0)), np.full((1, 1, 1, 1), -3.0))


def test_average_pooling_leaves_the_border_out():
    """An image of ones stays one: SAME divides by the pixels that exist (4 in a corner), not by 9."""
    inputs = keras.Input((None, None, 1))
    model = with_ones(inputs, mixed(inputs, Mixed("mixed", ((Conv(1, 1),), (Conv(1, 1),)), "average", 1), PLAIN))
    for call in goldens.both_modes(lambda x: model(x)):
        goldens.assert_close(call(keras.ops.ones((1, 3, 3, 1))), np.ones((1, 3, 3, 2)))


@pytest.mark.parametrize("side", [7, 8])
def test_a_reduction_halves_any_size(side):
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, mixed(inputs, REDUCTION_A, PLAIN))
    assert model.compute_output_shape((1, side, side, 4)) == (1, 4, 4, 384 + 384 + 4)


@pytest.mark.skipif(goldens.BACKEND == "jax", reason="compiles 244 convolutions; the arithmetic is tested above")
def test_upstreams_convolutions_one_by_one():
    """Every convolution and batch norm up to C4 on the golden's image, by eight of its numbers and the deviation."""
    with networks.undrawn():
        backbone = InceptionResNetV2()
    weights = networks.golden_weights(GOLDEN)
    rows = json.loads(goldens.golden(f"{GOLDEN}.trace.json").read_text())
    prefix = "model/_feature_extractor_for_proposal_features/layer_with_weights-"
    rows = {int(row["key"].removeprefix(prefix)): row for row in rows if row["key"].startswith(prefix)}
    layers = [backbone.get_layer(name) for name in inception_resnet_v2_layers(backbone)]
    # keras.applications' network has as many
    assert sum(layer.count_params() for layer in layers) == backbone.count_params() == 54_336_736
    layers = layers[: len(rows)]
    for index, layer in enumerate(layers):
        for weight in layer.weights:
            weight.assign(weights[f"{prefix}{index}/{weight.name}"])
    image = golden_image(backbone)
    outputs = goldens.compiled(keras.Model(backbone.input, [layer.output for layer in layers]))(image)
    for index, (layer, output) in enumerate(zip(layers, outputs, strict=True)):
        row, output = rows[index], keras.ops.convert_to_numpy(output)
        scale = np.abs(output).max()
        assert list(output.shape) == row["out_shape"], layer.name
        np.testing.assert_allclose(output.ravel()[row["idx"]], row["val"], atol=1e-4 * scale, err_msg=layer.name)
        np.testing.assert_allclose(output.std(), row["std"], rtol=1e-4, err_msg=layer.name)


def golden_image(backbone):
    """The noise, 240 x 320, doubled to 480 x 640 by upstream's kernel and padded below with black, then scaled.

    Doubling by source = target / 2 keeps a pixel and puts the mean of two between them; the last one is repeated.
    """
    image = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3)).astype("float32")
    for axis in (1, 2):
        following = np.concatenate([image, image.take([-1], axis)], axis).take(range(1, image.shape[axis] + 1), axis)
        shape = list(image.shape)
        shape[axis] *= 2
        image = np.stack([image, (image + following) / 2], axis + 1).reshape(shape)
    image = np.pad(image, ((0, 0), (0, 160), (0, 0), (0, 0)))
    return backbone.preprocess(keras.ops.convert_to_tensor(image))


MODULES = (
    Mixed("mixed", ((Conv(2, 3, 2),), (Conv(2, 1), Conv(3, 3, 2)), ()), "max", 2),
    Residual("block", ((Conv(2, 1),), (Conv(2, 1), Conv(3, (1, 3)), Conv(2, (3, 1)))), scale=0.5, repeats=2),
)


def stage(**settings):
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, run_modules(inputs, MODULES, PLAIN, **settings))


def test_an_atrous_stage_at_full_size_holds_the_strided_one():
    """Of an image of odd sides, where SAME pads evenly with and without the stride."""
    strided, atrous = stage(), stage(stride=1, dilation_rate=2)
    atrous.set_weights(strided.get_weights())
    x = np.random.default_rng(0).normal(size=(1, 9, 11, 3)).astype("float32")
    goldens.assert_close(keras.ops.convert_to_numpy(atrous(x))[:, ::2, ::2], strided(x))


@pytest.mark.backend_free
def test_a_valid_reduction_leaves_the_border_out():
    assert stage(padding="valid").compute_output_shape((1, 17, 17, 3)) == (1, 8, 8, 8)
    assert stage().compute_output_shape((1, 17, 17, 3)) == (1, 9, 9, 8)


@pytest.mark.backend_free
def test_settings():
    with networks.undrawn():
        backbone = InceptionResNetV2(atrous=True, reduction_padding="valid")
    assert backbone.strides == {"C1": 2, "C2": 4, "C3": 8, "C4_stride_8": 8, "C5_stride_16": 16}
    assert backbone.split_level == "C4_stride_8"
    assert backbone.get_config()["atrous"] and backbone.get_config()["reduction_padding"] == "valid"
    with pytest.raises(ValueError, match="reduction_padding is 'same' or 'valid'"):
        InceptionResNetV2(reduction_padding="full")
