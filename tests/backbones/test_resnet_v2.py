"""ResNet V2 and the small networks: blocks by hand, and the rows that equal keras.applications' networks."""

import keras
import numpy as np
import pytest

from keras_detect.backbones import resnet_v2
from keras_detect.backbones.resnet_v2 import ResNetV2
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.tf_od_api.name_maps_layers import resnet_v2_layers
from tests import goldens, networks

PLAIN = ConvHyperparams(activation="relu", batch_norm_epsilon=0.0)


def with_ones(inputs, outputs):
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.ones(layer.kernel.shape, "float32"))
    return model


def block(build, channels, stride, projected):
    inputs = keras.Input((None, None, channels))
    outputs = build(inputs, 1, stride, projected=projected, hyperparams=PLAIN, name="block")
    return with_ones(inputs, outputs)


def image(values):
    return keras.ops.convert_to_tensor(np.asarray(values, "float32")[None])


def test_a_bottleneck_by_hand():
    """One channel inside, norms without effect, kernels of ones, four channels of 1, then of -1.

    Positive: reduce 4; middle sums 3 x 3 pixels, of which 4 exist at the corner: 16, and expand copies it. The shortcut
    is the pixel: 16 + 1. Negative: the activation before the convolutions gives 0, and the shortcut has none.
    """
    model = block(resnet_v2.bottleneck, 4, 2, projected=False)
    for value, expected in ((1.0, 17.0), (-1.0, -1.0)):
        for call in goldens.both_modes(lambda x: model(x)):
            corner = call(image(np.full((3, 3, 4), value)))[0, 0, 0]
            goldens.assert_close(corner, np.full(4, expected))


def test_a_projected_shortcut_is_activated():
    """Four channels of -1: the projection sees 0."""
    model = block(resnet_v2.bottleneck, 4, 1, projected=True)
    goldens.assert_close(model(image(np.full((1, 1, 4), -1.0)))[0, 0, 0], np.zeros(4))
    goldens.assert_close(model(image(np.ones((1, 1, 4))))[0, 0, 0], np.full(4, 4.0 + 4.0))


def test_a_basic_block_activates_its_last_convolution():
    """One channel of 1: first 1, second 1, minus 3 by its norm: relu gives 0, and the shortcut alone is left."""
    model = block(resnet_v2.basic_block, 1, 1, projected=False)
    goldens.assert_close(model(image(np.ones((1, 1, 1))))[0, 0, 0], [2.0])
    model.get_layer("block_second_bn").beta.assign([-3.0])
    goldens.assert_close(model(image(np.ones((1, 1, 1))))[0, 0, 0], [1.0])


@pytest.mark.backend_free
@pytest.mark.parametrize("variant", ["resnet_v1_18", pytest.param("resnet_v1_34", marks=pytest.mark.slow)])
def test_the_small_networks(variant):
    """Two convolutions in each block, the stem, and the dense layer that is not here; levels are ends of stages.

    Upstream numbers layers as Keras sorts them, which is the order of our own graph.
    """
    with networks.undrawn():
        backbone = ResNetV2(variant=variant)
    row = resnet_v2.VARIANTS[variant]
    assert 2 * sum(row.blocks) + 2 == int(variant.split("_")[-1])
    assert backbone.channels == {"C1": 64, "C2": 64, "C3": 128, "C4": 256, "C5_sum": 512, "C5": 512}
    assert [layer.name for layer in backbone.layers if layer.weights] == resnet_v2_layers(backbone)
    scaled = backbone.preprocess(image([[[255.0, 0.0, 128.0]]]))
    goldens.assert_close(scaled[0, 0, 0], [24.061, -116.779, 131.32])


# compiling 53 convolutions twice is cheap on TensorFlow only, and the arithmetic is tested above on every backend
@pytest.mark.parametrize(
    ("variant", "application"),
    [
        pytest.param("resnet_v2_50", "ResNet50V2", marks=() if goldens.BACKEND == "tensorflow" else pytest.mark.slow),
        pytest.param("resnet_v2_101", "ResNet101V2", marks=pytest.mark.slow),
        pytest.param("resnet_v2_152", "ResNet152V2", marks=pytest.mark.slow),
    ],
)
def test_the_rows_of_keras_applications_equal_it(variant, application):
    theirs = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(None, None, 3))
    with networks.undrawn():
        backbone = ResNetV2(variant=variant)
    rng = np.random.default_rng(0)
    layers = [layer for layer in theirs.layers if layer.weights]
    ours = [backbone.get_layer(name) for name in resnet_v2_layers(backbone)]
    for layer, mine in zip(layers, ours, strict=True):
        # kernels as keras drew them; small random numbers elsewhere, so that each weight matters
        new = [value if value.ndim > 1 else value + rng.uniform(0, 0.1, value.shape) for value in layer.get_weights()]
        layer.set_weights(new)
        mine.set_weights(new)
    blocks = resnet_v2.VARIANTS[variant].blocks
    levels = {f"C{stage}": f"conv{stage}_block{count - 1}_out" for stage, count in enumerate(blocks[:3], start=2)}
    levels |= {"C1": "conv1_conv", "C5_sum": f"conv5_block{blocks[3]}_out", "C5": "post_relu"}
    reference = keras.Model(theirs.input, {level: theirs.get_layer(name).output for level, name in levels.items()})
    pixels = rng.integers(0, 256, (1, 65, 90, 3)).astype("float32")
    expected = reference(keras.applications.resnet_v2.preprocess_input(pixels.copy()))
    found = backbone(backbone.preprocess(keras.ops.convert_to_tensor(pixels)))
    assert set(found) == set(levels)
    for level, tensor in found.items():
        assert goldens.relative_error(tensor, keras.ops.convert_to_numpy(expected[level])) < 1e-5, level


def test_an_unknown_variant_lists_the_near_ones():
    with pytest.raises(ValueError, match=r"Unknown ResNet V2 variant 'resnet_v2_51'. Did you mean .*resnet_v2_50"):
        ResNetV2(variant="resnet_v2_51")
