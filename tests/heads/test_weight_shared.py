"""The weight-shared predictor: hand-worked heads, what is shared between the maps and what is not."""

import keras
import numpy as np
import pytest

from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.weights.named_weights import named_weights
from tests import goldens

EPSILON = 0.001


def predictor(channels=1, levels=2, **settings):
    defaults = {"num_classes": 1, "depth": 1, "kernel_size": 1, "num_layers_before_predictor": 1, "background": False}
    hyperparams = settings.pop("hyperparams", ConvHyperparams(activation="relu6", batch_norm_epsilon=EPSILON))
    layer = WeightSharedConvolutionalBoxPredictor(
        num_anchors_per_location=settings.pop("anchors", (2,) * levels),
        hyperparams=hyperparams,
        name="box_predictor",
        **{**defaults, **settings},
    )
    layer.build([(None, None, None, channels)] * levels)
    return layer


def weights(layer):
    names = named_weights({"box_predictor": [layer]})
    return {name.removeprefix("box_predictor/"): weight for name, weight in names.items()}


def assign(layer, **values):
    """Sets weights by name, "__" for "/"; a scalar fills the weight."""
    ours = weights(layer)
    for name, value in values.items():
        variable = ours[name.replace("__", "/")]
        variable.assign(np.broadcast_to(np.float32(value), variable.shape))


def tensors(*maps):
    return [keras.ops.convert_to_tensor(np.asarray(one, "float32")) for one in maps]


def run(layer, *maps):
    return {key: keras.ops.convert_to_numpy(value) for key, value in layer(tensors(*maps)).items()}


def test_heads_by_hand():
    """One channel, 1x1 kernels, two maps of 1 x 2 and 1 x 1 cells, two anchors.

    Box tower: relu6(norm(2 x)), where the norm of map 0 is the identity (variance 1 - epsilon) and that of map 1
    subtracts 5. Map 0, x = 1 and 4: relu6(2), relu6(8) = 2, 6. Map 1, x = 3: relu6(6 - 5) = 1.
    Box head: output k is 10 k times the tower, plus k; k = anchor * 4 + number.
    Class tower: relu6(-x) = 0 everywhere, so the logits are the bias.
    """
    layer = predictor()
    assign(layer, box_tower_0__kernel=2.0, class_tower_0__kernel=-1.0, shared_class__bias=[-3.0, 0.5])
    for level in range(2):
        for tower in ("box_tower", "class_tower"):
            assign(layer, **{f"level_{level}_{tower}_0_bn__moving_variance": 1 - EPSILON})
    assign(layer, level_1_box_tower_0_bn__moving_mean=5.0)
    order = np.arange(8.0)
    assign(layer, shared_box__kernel=10 * order, shared_box__bias=order)
    rows = [10 * order * tower + order for tower in (2.0, 6.0, 1.0)]
    for call in goldens.both_modes(lambda maps: layer(maps)):
        out = call(tensors([[[[1.0], [4.0]]]], [[[[3.0]]]]))
        goldens.assert_close(out["box_encodings"], np.reshape(rows, (1, 6, 4)))
        goldens.assert_close(out["class_logits"], np.reshape([-3.0, 0.5] * 3, (1, 6, 1)))


def test_only_batch_norm_belongs_to_a_map():
    layer = predictor(channels=3, depth=4, num_layers_before_predictor=2, kernel_size=3)
    assert set(weights(layer)) == {
        *(f"{tower}_tower_{i}/kernel" for tower in ("box", "class") for i in range(2)),
        *(
            f"level_{level}_{tower}_tower_{i}_bn/{name}"
            for level in range(2)
            for tower in ("box", "class")
            for i in range(2)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        ),
        *(f"shared_{head}/{name}" for head in ("box", "class") for name in ("kernel", "bias")),
    }
    same = np.random.default_rng(0).normal(size=(1, 2, 2, 3))
    out = run(layer, same, same)["box_encodings"]
    np.testing.assert_array_equal(out[:, :8], out[:, 8:])
    assign(layer, level_1_box_tower_1_bn__beta=0.7)
    changed = run(layer, same, same)["box_encodings"]
    np.testing.assert_array_equal(changed[:, :8], out[:, :8])
    assert np.abs(changed[:, 8:] - out[:, 8:]).min() > 0


def test_a_shared_tower_serves_both_heads():
    layer = predictor(share_tower=True, separable=True, tower_bias=True, kernel_size=3)
    assert {name for name in weights(layer) if name.startswith("tower_0")} == {
        "tower_0/depthwise_kernel",
        "tower_0/pointwise_kernel",
        "tower_0/bias",
    }
    assert not any("box_tower" in name or "class_tower" in name for name in weights(layer))
    # 1 + 1 depthwise, 1 + 1 pointwise, bias and norm (4 x 2 maps) of the tower; heads: 9 + 8 + 8 and 9 + 2 + 2
    assert sum(np.prod(weight.shape, dtype=int) for weight in layer.weights) == (9 + 1 + 1 + 8) + 25 + 13


def test_the_first_logits_are_the_prior():
    """An empty map gives relu6(0) = 0 in the tower, and the head its bias: sigmoid(-4.6) = 0.01."""
    layer = predictor(background=True, num_classes=2, channels=3)
    out = run(layer, np.zeros((1, 2, 2, 3)), np.zeros((1, 1, 1, 3)))
    np.testing.assert_array_equal(out["class_logits"], np.full((1, 10, 3), np.float32(-4.6)))
    np.testing.assert_array_equal(out["box_encodings"], 0.0)


@pytest.mark.parametrize("layers", [0, 2])
def test_without_batch_norm_the_towers_have_biases(layers):
    layer = predictor(
        channels=3, num_layers_before_predictor=layers, hyperparams=ConvHyperparams(batch_norm=False, activation=None)
    )
    assert sum("tower" in name and name.endswith("/bias") for name in weights(layer)) == 2 * layers
    assert not any("_bn/" in name for name in weights(layer))
    assert run(layer, np.ones((2, 1, 1, 3)), np.ones((2, 1, 1, 3)))["class_logits"].shape == (2, 4, 1)


def test_training_moves_the_statistics_of_each_map_by_its_own_batch():
    """Momentum 0.9, kernel 1: map 0 holds 1 and 3 (mean 2), map 1 holds 10 and 30 (mean 20) -> 0.2 and 2.0.

    The unbiased variances are 2 and 200: 0.9 + 0.2 = 1.1 and 0.9 + 20 = 20.9.
    """
    layer = predictor(hyperparams=ConvHyperparams(batch_norm_momentum=0.9))
    assign(layer, box_tower_0__kernel=1.0)
    layer(tensors([[[[1.0], [3.0]]]], [[[[10.0], [30.0]]]]), training=True)
    after = {name: keras.ops.convert_to_numpy(weight) for name, weight in weights(layer).items()}
    for level, mean, variance in ((0, 0.2, 1.1), (1, 2.0, 20.9)):
        norm = f"level_{level}_box_tower_0_bn"
        np.testing.assert_allclose(after[f"{norm}/moving_mean"], [mean], rtol=1e-5)
        np.testing.assert_allclose(after[f"{norm}/moving_variance"], [variance], rtol=1e-5)


def test_the_configuration_builds_the_same_layer():
    layer = predictor(
        channels=3, separable=True, share_tower=True, hyperparams=ConvHyperparams(activation="swish", l2_weight=1e-4)
    )
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    if not copy.built:
        copy.build([(None, None, None, 3)] * 2)
    copy.set_weights(layer.get_weights())
    maps = [np.random.default_rng(1).normal(size=(2, size, size, 3)) for size in (3, 2)]
    ours, theirs = run(layer, *maps), run(copy, *maps)
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key])
    assert copy.hyperparams == layer.hyperparams
    assert len(copy.losses) == len(layer.losses) == 1  # the tower's depthwise kernel: heads and pointwise have none


def test_half_precision_ends_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    out = predictor(channels=3)(tensors(np.ones((1, 2, 2, 3)), np.ones((1, 1, 1, 3))))
    assert {keras.backend.standardize_dtype(value.dtype) for value in out.values()} == {"float32"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "at least one class. Received: num_classes=0"),
        ({"anchors": (3, 6)}, r"Received: num_anchors_per_location=\(3, 6\). Use ConvolutionalBoxPredictor"),
        ({"anchors": (2, 2, 2)}, "anchors for 3 feature maps. Received 2 feature maps"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        predictor(**settings)


def test_maps_of_different_depth_are_refused():
    layer = WeightSharedConvolutionalBoxPredictor(num_classes=1, num_anchors_per_location=(2, 2))
    with pytest.raises(ValueError, match=r"same number of channels. Received: \[8, 16\]"):
        layer.build([(None, None, None, 8), (None, None, None, 16)])
