"""ResNet V1: padding and pooling by hand, and the rows that equal keras.applications' networks."""

import keras
import numpy as np
import pytest

from keras_detect.backbones import resnet_v1
from keras_detect.backbones.resnet_v1 import KERAS_APPLICATIONS, TORCHVISION, ZOO, ResNetV1
from keras_detect.layers.conv_blocks import ConvHyperparams
from tests import goldens, networks

PARTS = {"0": "shortcut", "1": "reduce", "2": "middle", "3": "expand"}


def ours(name):
    """Our layer of a keras.applications' layer: "conv3_block2_1_bn" is "stage_3_block_1_reduce_bn"."""
    if name.startswith("conv1_"):
        return name.replace("conv1", "stem")
    stage, block, part, kind = name.split("_")
    return f"stage_{stage[4:]}_block_{int(block[5:]) - 1}_{PARTS[part]}_{kind}"


def column(values):
    return keras.ops.convert_to_tensor(np.asarray(values, "float32")[None, ..., None])


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        # SAME on 4 pixels pads one behind: windows 0-2 and 2-3, largest of rows and columns 2 and 3 in 0...15
        (ZOO, [[10, 11], [14, 15]]),
        # one on each side: windows 0-1 and 1-3, largest of rows and columns 1 and 3
        (KERAS_APPLICATIONS, [[5, 7], [13, 15]]),
    ],
    ids=["zoo", "keras_applications"],
)
def test_first_pool_by_hand(arithmetic, expected):
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, resnet_v1.first_pool(inputs, arithmetic))
    goldens.assert_close(model(column(np.arange(16).reshape(4, 4)))[0, :, :, 0], expected)


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_the_stem_pads_evenly_at_any_size(size):
    """The 7x7 kernel's center tap alone copies pixels 0, 2, 4...; SAME would copy 1, 3, 5 of an even size."""
    inputs = keras.Input((None, None, 1))
    with networks.undrawn():
        hyperparams = ConvHyperparams(activation=None, batch_norm=False)
        model = keras.Model(inputs, resnet_v1.stem(inputs, ZOO, hyperparams))
    kernel = np.zeros((7, 7, 1, 64), "float32")
    kernel[3, 3] = 1.0
    model.get_layer("stem_conv").kernel.assign(kernel)
    x = np.arange(np.prod(size), dtype="float32").reshape(size)
    goldens.assert_close(model(column(x))[0, :, :, 5], x[::2, ::2])


def test_a_bottleneck_by_hand():
    """One channel inside, stride 2, activation ReLU, norms without effect, kernels of ones, x = 3 x 3 ones.

    reduce keeps pixels (0, 0), (0, 2), (2, 0), (2, 2), 4 channels in: 4 each. middle sums all 2 x 2: 16 each. expand
    copies to 4 channels: 16. shortcut: 4. Sum: 20.
    """
    inputs = keras.Input((None, None, 4))
    hyperparams = ConvHyperparams(activation="relu", batch_norm_epsilon=0.001)
    with networks.undrawn():
        outputs = resnet_v1.bottleneck(
            inputs, 1, 2, projected=True, use_bias=False, hyperparams=hyperparams, name="block"
        )
    model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.ones(layer.kernel.shape, "float32"))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.999, "float32"))
    for call in goldens.both_modes(lambda x: model(x)):
        goldens.assert_close(call(keras.ops.ones((1, 3, 3, 4))), np.full((1, 2, 2, 4), 20.0))


# compiling 53 convolutions twice is cheap on TensorFlow only, and the arithmetic is tested above on every backend
@pytest.mark.parametrize(
    ("variant", "application"),
    [
        pytest.param(
            "resnet_v1_50_keras", "ResNet50", marks=() if goldens.BACKEND == "tensorflow" else pytest.mark.slow
        ),
        pytest.param("resnet_v1_101_keras", "ResNet101", marks=pytest.mark.slow),
        pytest.param("resnet_v1_152_keras", "ResNet152", marks=pytest.mark.slow),
    ],
)
def test_the_rows_of_keras_applications_equal_it(variant, application):
    theirs = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(None, None, 3))
    with networks.undrawn():
        backbone = ResNetV1(variant=variant)
    assert backbone.count_params() == theirs.count_params()
    rng = np.random.default_rng(0)
    for layer in theirs.layers:
        if layer.weights:
            # kernels as keras drew them; small random numbers elsewhere, so that each weight matters
            new = [
                value if value.ndim > 1 else value + rng.uniform(0, 0.1, value.shape) for value in layer.get_weights()
            ]
            layer.set_weights(new)
            backbone.get_layer(ours(layer.name)).set_weights(new)
    pixels = rng.integers(0, 256, (1, 65, 90, 3)).astype("float32")
    blocks = {f"C{stage}": _last_block(theirs, stage) for stage in range(2, 6)}
    reference = keras.Model(theirs.input, {"C1": theirs.get_layer("conv1_relu").output, **blocks})
    expected = reference(keras.applications.resnet.preprocess_input(pixels.copy()))
    levels = backbone(backbone.preprocess(keras.ops.convert_to_tensor(pixels)))
    assert list(levels) == ["C1", "C2", "C3", "C4", "C5"]
    for level, tensor in levels.items():
        assert goldens.relative_error(tensor, keras.ops.convert_to_numpy(expected[level])) < 1e-5, level


def _last_block(model, stage):
    names = [layer.name for layer in model.layers if layer.name.startswith(f"conv{stage}_block")]
    return model.get_layer([name for name in names if name.endswith("_out")][-1]).output


def test_a_row_says_whose_arithmetic_it_has():
    assert {name: row.arithmetic for name, row in resnet_v1.VARIANTS.items()} == {
        **{f"resnet_v1_{layers}": ZOO for layers in (50, 101, 152)},
        **{f"resnet_v1_{layers}_keras": KERAS_APPLICATIONS for layers in (50, 101, 152)},
        **{f"resnet_v1_{layers}_torch": TORCHVISION for layers in (50, 101, 152)},
    }
    # three convolutions in each block, the stem, and the dense layer that is not here
    assert [3 * sum(row.blocks) + 2 for row in resnet_v1.VARIANTS.values()] == [50, 101, 152] * 3


def test_pixel_scaling_by_hand():
    """RGB (255, 0, 128) minus the means; keras.applications' rows give blue first."""
    pixel = keras.ops.convert_to_tensor(np.array([[[[255.0, 0.0, 128.0]]]], "float32"))
    with networks.undrawn():
        zoo = ResNetV1(variant="resnet_v1_50").preprocess(pixel)
    goldens.assert_close(zoo[0, 0, 0], [131.32, -116.779, 24.061])
    stock = ResNetV1.preprocess(_Row("resnet_v1_50_keras"), pixel)
    goldens.assert_close(stock[0, 0, 0], [24.061, -116.779, 131.32])


class _Row:
    """What `preprocess` asks a backbone for: building a second network for one line would take seconds."""

    def __init__(self, variant):
        self.variant = variant


def test_an_unknown_variant_lists_the_near_ones():
    with pytest.raises(ValueError, match=r"Unknown ResNet V1 variant 'resnet_v1_51'. Did you mean .*resnet_v1_50"):
        ResNetV1(variant="resnet_v1_51")


@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_a_dilated_stage_at_full_size_holds_the_strided_one(size):
    """Without the stride, a dilation of 2 reaches the same pixels: every second number is the strided stage's."""
    inputs = keras.Input((None, None, 4))
    hyperparams = resnet_v1.default_hyperparams(ZOO)
    strided = keras.Model(inputs, resnet_v1.stage(inputs, 2, 3, 2, ZOO, hyperparams, name="stage"))
    dilated = keras.Model(inputs, resnet_v1.stage(inputs, 2, 3, 1, ZOO, hyperparams, name="stage", dilation_rate=2))
    dilated.set_weights(strided.get_weights())
    x = np.random.default_rng(0).normal(size=(1, *size, 4)).astype("float32")
    goldens.assert_close(keras.ops.convert_to_numpy(dilated(x))[:, ::2, ::2], strided(x))


@pytest.mark.backend_free
def test_levels_that_keep_a_stride_have_it_in_their_names():
    with networks.undrawn():
        backbone = ResNetV1(stage_strides=(1, 2, 1, 1), dilations=(1, 1, 2, 1))
    assert backbone.strides == {"C1": 2, "C2": 4, "C3": 8, "C4_stride_8": 8, "C5_stride_8": 8}
    assert backbone.split_level == "C4_stride_8"
    rates = {name: backbone.get_layer(f"{name}_block_1_middle_conv").dilation_rate for name in ("stage_4", "stage_5")}
    assert rates == {"stage_4": (2, 2), "stage_5": (1, 1)}
    assert ResNetV1.from_config(backbone.get_config()).strides == backbone.strides


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "wrong", [{"stage_strides": (1, 2, 2)}, {"stage_strides": (1, 4, 1, 1)}, {"dilations": (1, 1, 0, 1)}]
)
def test_strides_and_dilations_are_checked(wrong):
    with pytest.raises(ValueError, match="four stages, each with a stride of 1 or 2 and a dilation of 1 or more"):
        ResNetV1(**wrong)
