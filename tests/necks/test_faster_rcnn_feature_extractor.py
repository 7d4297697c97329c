"""Two-stage feature extractors: the split of a backbone against the whole backbone."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.backbones.backbone import Backbone, get_backbone
from keras_detect.backbones.keras_models import from_keras_model
from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.necks.faster_rcnn_feature_extractor import FPNFeatureExtractor, SplitFeatureExtractor
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from tests import goldens, tiny
from tests.networks import undrawn


def pooled_backbone():
    """C1: mean of 2x2 pixels. C2: mean of 2x2 of those, times 3, plus 1."""
    inputs = keras.Input((None, None, 3))
    half = keras.layers.AveragePooling2D(2)(inputs)
    quarter = keras.layers.Rescaling(3.0, offset=1.0)(keras.layers.AveragePooling2D(2)(half))
    return Backbone(inputs=inputs, outputs={"C1": half, "C2": quarter}, strides={"C1": 2, "C2": 4}, name="pooled")


def drawn(backbone, seed=0):
    """`backbone` with numbers from numpy, so that batch norm does something."""
    rng = np.random.default_rng(seed)
    for weight in backbone.weights:
        scale = np.sqrt(2.0 / np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 1.0
        value = rng.normal(size=weight.shape) if len(weight.shape) > 1 else rng.uniform(0.5, 1.5, weight.shape)
        weight.assign((scale * value).astype("float32"))
    return backbone


def pixels(side=64, batch_size=2):
    return np.random.default_rng(1).uniform(-1, 1, (batch_size, side, side, 3)).astype("float32")


def both_parts(extractor):
    """Function: pixels -> the tail's map of the whole trunk's map."""
    return lambda images: extractor.extract_box_classifier_features(extractor.extract_proposal_features(images)[0])


def wrapped_keras_model():
    inputs = x = keras.Input((None, None, 3))
    for index, filters in enumerate((4, 4, 6, 8, 10), start=1):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu", name=f"conv_{index}")(x)
    levels = {"C3": "conv_3", "C4": "conv_4", "C5": "conv_5"}
    return from_keras_model(keras.Model(inputs, x, name="small"), levels=levels, preprocess="tf")


def test_parts_by_hand():
    extractor = SplitFeatureExtractor(backbone=pooled_backbone(), split="C1")
    image = np.repeat(np.arange(16.0).reshape(1, 4, 4, 1), 3, axis=-1).astype("float32")
    # rows 0..3, 4..7, 8..11, 12..15: the first 2x2 block is 0, 1, 4, 5 with mean 2.5, the next one two further
    half = np.array([[2.5, 4.5], [10.5, 12.5]])
    roi_features = np.stack([np.full((2, 2, 3), 1.0), np.full((2, 2, 3), 5.0)]).astype("float32")
    roi_features[0, 1, 1] = 5.0  # mean (1 + 1 + 1 + 5) / 4 = 2
    for trunk, tail in zip(
        goldens.both_modes(extractor.extract_proposal_features),
        goldens.both_modes(extractor.extract_box_classifier_features),
        strict=True,
    ):
        (feature_map,) = trunk(ops.convert_to_tensor(image))
        np.testing.assert_allclose(ops.convert_to_numpy(feature_map)[0, :, :, 0], half)
        # 2 * 3 + 1 = 7 and 5 * 3 + 1 = 16: RoIs do not see each other, and their number is free
        features = ops.convert_to_numpy(tail(ops.convert_to_tensor(roi_features)))
        np.testing.assert_allclose(features, [[[[7.0] * 3]], [[[16.0] * 3]]])
    assert (extractor.split, extractor.tail, extractor.level_names, extractor.strides) == ("C1", "C2", ("C1",), (2,))


@pytest.mark.parametrize(
    "build, split, tail",
    [
        (get_backbone("tests_tiny"), None, None),
        (get_backbone("tests_tiny"), "C3", "C4"),
        (get_backbone("tests_tiny"), "C3", "C5"),
        (wrapped_keras_model, None, None),
    ],
)
def test_the_parts_together_are_the_backbone(build, split, tail):
    backbone = drawn(build())
    extractor = SplitFeatureExtractor(backbone=backbone, split=split, tail=tail)
    images = pixels()
    expected = ops.convert_to_numpy(backbone(images, training=False)[tail or "C5"])
    for run in goldens.both_modes(both_parts(extractor)):
        goldens.assert_close(run(ops.convert_to_tensor(images)), expected, 1e-6)
    # called like a layer, it is the part before the split
    (feature_map,) = extractor(images)
    goldens.assert_close(feature_map, ops.convert_to_numpy(backbone(images, training=False)[split or "C4"]), 1e-6)


def test_pixels_are_scaled_by_the_backbone():
    with undrawn():
        extractor = SplitFeatureExtractor(backbone=get_backbone("resnet_v1_50")())
    black = ops.convert_to_numpy(extractor.preprocess(ops.zeros((1, 1, 1, 3))))
    np.testing.assert_allclose(black[0, 0, 0], [-123.68, -116.779, -103.939], rtol=1e-6)


def test_weights_count_once_and_are_the_backbones():
    backbone = get_backbone("tests_tiny")()
    extractor = SplitFeatureExtractor(backbone=backbone)
    assert [id(weight) for weight in extractor.weights] == [id(weight) for weight in backbone.weights]
    assert extractor.count_params() == backbone.count_params()
    assert len(extractor.losses) == len(backbone.losses) == 5  # L2 of five convolutions
    assert extractor.weight_groups() == {"backbone": [backbone]}


def test_training_moves_the_statistics_of_the_part_that_runs():
    extractor = SplitFeatureExtractor(backbone=drawn(get_backbone("tests_tiny")()))
    means = {
        layer.name: layer.moving_mean
        for layer in extractor.backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    before = {name: ops.convert_to_numpy(mean).copy() for name, mean in means.items()}
    (feature_map,) = extractor.extract_proposal_features(pixels(), training=True)
    moved = [name for name, mean in means.items() if (ops.convert_to_numpy(mean) != before[name]).any()]
    assert moved == ["conv_1_bn", "conv_2_bn", "conv_3_bn", "conv_4_bn"]
    extractor.extract_box_classifier_features(feature_map, training=True)
    assert (ops.convert_to_numpy(means["conv_5_bn"]) != before["conv_5_bn"]).any()


@pytest.mark.parametrize("build", [get_backbone("tests_tiny"), wrapped_keras_model])
def test_save_and_load_change_no_bit(build, tmp_path):
    extractor = SplitFeatureExtractor(backbone=drawn(build()), split="C3", name="features")
    path = tmp_path / "extractor.keras"
    extractor.save(path)
    loaded = keras.models.load_model(path)
    assert json.dumps(loaded.get_config()) == json.dumps(extractor.get_config())  # tuples are lists in JSON
    assert (loaded.split, loaded.tail, loaded.name) == ("C3", "C5", "features")
    images = pixels()
    np.testing.assert_array_equal(
        ops.convert_to_numpy(both_parts(loaded)(images)), ops.convert_to_numpy(both_parts(extractor)(images))
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "C2"}, r"one of its levels \['C3', 'C4', 'C5'\]. Received: split='C2', tail='C5'"),
        ({"tail": "C6"}, "Received: split='C4', tail='C6'"),
        ({"split": "C5", "tail": "C4"}, r"order \['C3', 'C4', 'C5'\]. Received: split='C5', tail='C4'"),
        ({"split": "C5"}, "Received: split='C5', tail='C5'"),
    ],
)
def test_a_wrong_level_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitFeatureExtractor(backbone=get_backbone("tests_tiny")(), **options)


def test_a_path_around_the_split_is_refused():
    inputs = keras.Input((None, None, 3))
    half = keras.layers.AveragePooling2D(2)(inputs)
    quarter = keras.layers.AveragePooling2D(2)(half)
    around = keras.layers.MaxPooling2D(2)(half)
    outputs = {"C1": half, "C2": quarter, "C3": keras.layers.AveragePooling2D(2)(quarter)}
    strides = {"C1": 2, "C2": 4, "C3": 8}
    assert SplitFeatureExtractor(backbone=Backbone(inputs=inputs, outputs=outputs, strides=strides), split="C2")
    joined = keras.layers.Add(name="join")([quarter, around])
    outputs["C3"] = keras.layers.AveragePooling2D(2)(joined)
    backbone = Backbone(inputs=inputs, outputs=outputs, strides=strides, name="bypass")
    with pytest.raises(ValueError, match=r"'C3' of 'bypass' is computed from more than 'C2': a path .* in join"):
        SplitFeatureExtractor(backbone=backbone, split="C2")
    assert SplitFeatureExtractor(backbone=backbone, split="C1").strides == (2,)
    outputs["C3"] = keras.layers.AveragePooling2D(2)(around)
    backbone = Backbone(inputs=inputs, outputs=outputs, strides=strides, name="beside")
    with pytest.raises(ValueError, match="'C3' of 'beside' is not computed from 'C2'"):
        SplitFeatureExtractor(backbone=backbone, split="C2")


# --- feature pyramid ---------------------------------------------------------------------------------------------


def tiny_pyramid(**options):
    neck = FeaturePyramid(coarse_levels=1, depth=4)
    return FPNFeatureExtractor(backbone=get_backbone("tests_tiny")(), neck=neck, roi_size=2, units=3, **options)


def test_pyramid_maps_and_names():
    extractor = tiny_pyramid()
    assert (extractor.level_names, extractor.strides) == (("P3", "P4", "P5", "P6"), (8, 16, 32, 64))
    maps = extractor.extract_proposal_features(pixels())
    assert [tuple(feature_map.shape) for feature_map in maps] == [(2, side, side, 4) for side in (8, 4, 2, 1)]
    groups = extractor.weight_groups()
    weights = [weight for layers in groups.values() for layer in layers for weight in layer.weights]
    assert sorted(map(id, weights)) == sorted(map(id, extractor.weights))
    assert set(groups) == {"backbone", "neck", "box_classifier_features"}


def test_dense_layers_by_hand():
    """ReLU is before the batch norm and after the second layer."""
    extractor = tiny_pyramid(hyperparams=ConvHyperparams(batch_norm_epsilon=0.0))
    dense_0, norm, dense_1 = (extractor.box_classifier.get_layer(name) for name in ("dense_0", "dense_0_bn", "dense_1"))
    # 16 numbers of a crop: unit 0 sums them, unit 1 takes minus the sum, unit 2 only its bias
    dense_0.kernel.assign(np.stack([np.ones(16), -np.ones(16), np.zeros(16)], axis=-1).astype("float32"))
    dense_0.bias.assign(np.array([0.0, 0.0, 5.0], "float32"))
    norm.moving_mean.assign(np.array([10.0, 3.0, 0.0], "float32"))
    norm.moving_variance.assign(np.array([4.0, 1.0, 1.0], "float32"))
    dense_1.kernel.assign(np.eye(3, dtype="float32"))
    dense_1.bias.assign(np.array([0.0, 0.0, 0.5], "float32"))
    # sum 32: (32 - 10) / 2 = 11. ReLU(-32) = 0: 0 - 3 = -3, which the last ReLU makes 0. 5 + 0.5 = 5.5
    for run in goldens.both_modes(extractor.extract_box_classifier_features):
        features = ops.convert_to_numpy(run(ops.full((7, 2, 2, 4), 2.0)))
        np.testing.assert_allclose(features, np.broadcast_to([[[11.0, 0.0, 5.5]]], (7, 1, 1, 3)), rtol=1e-6)


def test_without_batch_norm_as_in_the_paper():
    extractor = tiny_pyramid(hyperparams=ConvHyperparams(batch_norm=False))
    assert [layer.name for layer in extractor.box_classifier.layers if layer.weights] == ["dense_0", "dense_1"]


def test_pyramid_save_and_load_change_no_bit(tmp_path):
    extractor = tiny_pyramid()
    drawn(extractor)
    path = tmp_path / "extractor.keras"
    extractor.save(path)
    loaded = keras.models.load_model(path)
    assert json.dumps(loaded.get_config()) == json.dumps(extractor.get_config())
    for mine, theirs in zip(extractor(pixels()), loaded(pixels()), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs))
    roi_features = np.random.default_rng(2).normal(size=(3, 2, 2, 4)).astype("float32")
    mine, theirs = (ops.convert_to_numpy(e.extract_box_classifier_features(roi_features)) for e in (extractor, loaded))
    np.testing.assert_array_equal(mine, theirs)


def test_a_neck_without_a_pyramid_is_refused():
    neck = SsdFeatureMaps(levels=("C4", "C5"), extra_depths=(8,))
    with pytest.raises(ValueError, match=r"maps P2, P3, .* of one depth"):
        FPNFeatureExtractor(backbone=get_backbone("tests_tiny")(), neck=neck)


assert tiny.TinyBackbone  # the import registers "tests_tiny"
