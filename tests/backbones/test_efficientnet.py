"""EfficientNet: sizes against keras.applications, a block by hand, taps, drop-connect rates, pixel scaling."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.backbones import efficientnet, torch_arithmetic
from keras_detect.backbones.backbone import get_backbone
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.layers.drop_connect import DropConnect
from tests import goldens, networks

PARTS = {
    "expand_conv": "expand_conv",
    "expand_bn": "expand_bn",
    "dwconv": "depthwise",
    "bn": "bn",
    "se_reduce": "se_reduce_conv",
    "se_expand": "se_expand_conv",
    "project_conv": "project_conv",
    "project_bn": "project_bn",
}


def built(**settings):
    with networks.undrawn():
        return EfficientNet(**settings)


b0 = functools.cache(built)
b1_cut = functools.cache(functools.partial(built, variant="b1", taps="b0"))


def ours(name):
    """Our layer of a keras.applications' layer: "block2a_se_reduce" is "stage_1_block_0_se_reduce_conv"."""
    if not name.startswith("block"):
        return name
    block, part = name.split("_", 1)
    return f"stage_{int(block[5]) - 1}_block_{ord(block[6]) - ord('a')}_{PARTS[part]}"


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param("b0", marks=() if goldens.BACKEND == "tensorflow" else pytest.mark.slow),
        *(pytest.param(f"b{number}", marks=pytest.mark.slow) for number in range(1, 8)),
    ],
)
def test_levels_equal_those_of_keras_applications(variant):
    """The same weights, sides that are multiples of 32. The top convolution and its norm are all that we leave out."""
    theirs = getattr(keras.applications, f"EfficientNet{variant.upper()}")(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    backbone = built(variant=variant)
    weighted = [layer for layer in theirs.layers if layer.weights and layer.name.startswith(("stem", "block"))]
    assert sum(layer.count_params() for layer in weighted) == backbone.count_params()
    rng = np.random.default_rng(0)
    for layer in weighted:
        new = [value if value.ndim > 1 else value + rng.uniform(0, 0.1, value.shape) for value in layer.get_weights()]
        layer.set_weights(new)
        backbone.get_layer(ours(layer.name)).set_weights(new)
    names = [layer.name for layer in theirs.layers if layer.name.endswith(("_add", "_project_bn"))]
    ends = {
        level: [name for name in names if name[5] == str(stage + 1)] for level, stage in efficientnet.LEVELS.items()
    }
    # the last layer of a stage is its last shortcut's sum, or the norm of a block without one
    reference = keras.Model(theirs.inputs, {level: theirs.get_layer(found[-1]).output for level, found in ends.items()})
    pixels = rng.integers(0, 256, (1, 64, 96, 3)).astype("float32")
    scaled = backbone.preprocess(ops.convert_to_tensor(pixels))
    # theirs divides by 255 itself, and has neutral statistics behind it as long as it has no ImageNet weights
    expected = reference(scaled * 255.0)
    levels = backbone(scaled)
    assert list(levels) == ["C1", "C2", "C3", "C4", "C5"]
    for level, tensor in levels.items():
        assert goldens.relative_error(tensor, ops.convert_to_numpy(expected[level])) < 1e-4, level


def test_rows_of_the_table():
    """Channels of B1 are B0's, of B7 twice as many; B4: 1.4 * 24 = 33.6 -> 32, 1.4 * 40 = 56, 1.4 * 112 = 156.8 -> 160.

    Repeats are rounded up: B1 has 1.1 * (1, 2, 2, 3, 3, 4, 1) -> (2, 3, 3, 4, 4, 5, 2).
    """
    rows = efficientnet.VARIANTS
    assert sorted(rows) == [f"b{number}" for number in range(8)]

    def widths(name):
        return [rows[name].filters(stage.filters) for stage in efficientnet.STAGES]

    assert widths("b0") == widths("b1") == [16, 24, 40, 80, 112, 192, 320]
    assert widths("b4") == [24, 32, 56, 112, 160, 272, 448]
    assert widths("b7") == [32, 48, 80, 160, 224, 384, 640]
    assert [rows["b1"].repeats(stage) for stage in efficientnet.STAGES] == [2, 3, 3, 4, 4, 5, 2]
    # 0.9 * 1.1 * 9 = 8.91 and more would be lost: 9.9 rounds to 8, which is too little, so 16
    assert rows["b2"].filters(9) == 16
    assert rows["b0"].filters(1) == 8


def test_taps():
    """With B0's taps, B1's C3 is its second block of three, and the second block of the last stage does not exist."""
    full, cut = built(variant="b1"), b1_cut()
    blocks = {
        tap: {layer.name[:15] for layer in model.layers if layer.name.startswith("stage")}
        for tap, model in (("stages", full), ("b0", cut))
    }
    assert blocks["stages"] - blocks["b0"] == {"stage_6_block_1"}
    assert len(blocks["b0"]) == 22
    ends = {"C1": "stage_0_block_0_project_bn", "C2": "stage_1_block_1_add", "C3": "stage_2_block_1_add"}
    ends |= {"C4": "stage_4_block_2_add", "C5": "stage_6_block_0_project_bn"}
    assert {level: tensor._keras_history.operation.name for level, tensor in cut.output.items()} == ends
    ends = {"C1": "stage_0_block_1_add", "C2": "stage_1_block_2_add", "C3": "stage_2_block_2_add"}
    ends |= {"C4": "stage_4_block_3_add", "C5": "stage_6_block_1_add"}
    assert {level: tensor._keras_history.operation.name for level, tensor in full.output.items()} == ends
    names = {layer.name for layer in built(taps="b0").layers}
    assert names == {layer.name for layer in b0().layers}


def test_drop_connect_grows_with_the_block():
    """B0 has 16 blocks; the k-th has 0.2 * k / 16: the first shortcut is block 2 (0.025), the last one 14 (0.175)."""
    rates = [layer.rate for layer in b0().layers if isinstance(layer, DropConnect)]
    goldens.assert_close(rates, [0.2 * block / 16 for block in (2, 4, 6, 7, 9, 10, 12, 13, 14)])
    # 22 of B1's 23 blocks are built with B0's taps: the rates are those of the whole network
    rates = [layer.rate for layer in b1_cut().layers if isinstance(layer, DropConnect)]
    goldens.assert_close([rates[0], rates[-1]], [0.2 / 23, 0.2 * 20 / 23])
    assert not [layer for layer in built(drop_connect_rate=0.0).layers if isinstance(layer, DropConnect)]


def test_a_seed_fixes_what_training_drops():
    layers = [layer for layer in built(seed=3).layers if isinstance(layer, DropConnect)]
    assert [layer.seed for layer in layers] == [3 + block for block in (2, 4, 6, 7, 9, 10, 12, 13, 14)]


def test_squeeze_and_excitation_by_hand():
    """Channel means 2 and 6. Reduce: 1 * 2 + 0 * 6 - 1 = 1, swish(1) = 0.731059. Expand: weights 2, 0 and biases 0, 3.

    Gates: sigmoid(1.462117) = 0.811863 and sigmoid(3) = 0.952574.
    """
    inputs = keras.Input((None, None, 2))
    hyperparams = ConvHyperparams(l2_weight=0.2)
    model = keras.Model(inputs, efficientnet.squeeze_excite(inputs, 1, hyperparams=hyperparams, name="se"))
    model.get_layer("se_reduce_conv").set_weights([np.reshape([1.0, 0.0], (1, 1, 2, 1)), np.array([-1.0])])
    model.get_layer("se_expand_conv").set_weights([np.reshape([2.0, 0.0], (1, 1, 1, 2)), np.array([0.0, 3.0])])
    x = np.array([[[[1.0, 4.0], [3.0, 8.0]]]], "float32")
    for call in goldens.both_modes(lambda value: model(value)):
        goldens.assert_close(call(ops.convert_to_tensor(x)), x * np.array([0.811863, 0.952574]))
    # half of 0.2, and the biases decay too: 0.1 * (1 + 1 + 4 + 9)
    goldens.assert_close(sum(ops.convert_to_numpy(loss) for loss in model.losses), 1.5)


def test_depthwise_kernels_do_not_decay():
    backbone = b0()
    decayed = {weight.path.split("/")[-2] for weight in backbone.trainable_weights if weight.regularizer is not None}
    assert not [name for name in decayed if name.endswith("_depthwise")]
    # 16 blocks: 15 expansions, 16 projections, 2 * 16 gates and the stem; the gates' biases besides
    assert len(decayed) == 15 + 16 + 32 + 1
    assert len(backbone.losses) == len(decayed) + 32


def test_pixel_scaling_by_hand():
    """255 * (0.485, 0.456, 0.406) is 0; 255 is (1 - mean) / deviation."""
    means = [255.0 * mean for mean in torch_arithmetic.MEAN]
    pixels = ops.convert_to_tensor(np.array([[[means, [255.0] * 3, [0.0] * 3]]], "float32"))
    scaled = ops.convert_to_numpy(b0().preprocess(pixels))[0, 0]
    np.testing.assert_allclose(scaled[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(scaled[1], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rtol=1e-5)
    np.testing.assert_allclose(scaled[2], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_registered_by_size():
    assert get_backbone("efficientnet_b5").keywords == {"variant": "b5"}


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"Unknown EfficientNet variant 'b8'\. Did you mean"):
        EfficientNet(variant="b8")
    with pytest.raises(ValueError, match=r"\('stages', 'b0'\). Received: taps='b1'"):
        EfficientNet(taps="b1")
