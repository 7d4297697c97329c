"""The feature pyramid: a pyramid of one channel worked by hand, odd sizes, names and separable convolutions."""

import keras
import numpy as np
import pytest

from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.necks.fpn import FeaturePyramid
from tests import goldens

EPSILON = 0.001


def pyramid_model(channels=(1, 1, 1), **settings):
    """A functional model of the neck over levels C3, C4, ..., and the neck."""
    neck = FeaturePyramid(**settings)
    inputs = {
        level: keras.Input((None, None, size), name=level) for level, size in zip(neck.levels, channels, strict=True)
    }
    return keras.Model(inputs, neck(inputs)), neck


def make_identity(model):
    """Kernels that copy their input (the center tap), no biases, batch norm without effect."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, "float32")
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1.0
            layer.kernel.assign(kernel)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1 - EPSILON, "float32"))


def feature(rows):
    return keras.ops.convert_to_tensor(np.asarray(rows, "float32")[None, ..., None])


def test_identity_kernels_by_hand():
    """P5 = C5; P4 = relu6(C4 + doubled P5); P3 = relu6(C3 + doubled P4); P6 is P5 at every second pixel.

    The sum that P3 receives is rectified already: C4 + P5 = 4 + 3 = 7 goes down as 6. P6 is made by a 3x3 kernel at
    stride 2 over 1 x 2 pixels: TensorFlow's SAME pads no column in front, so its center is at column 1.
    """
    model, _ = pyramid_model(depth=1, coarse_levels=1, hyperparams=ConvHyperparams(batch_norm_epsilon=EPSILON))
    make_identity(model)
    c5 = [[-2.0, 3.0]]  # 1 x 2
    c4 = [[4.0, 1.0, 0.5, 2.5], [0.0, -9.0, 2.0, 4.0]]  # 2 x 4
    c3 = np.full((4, 8), -1.0)
    p4 = np.array([[2.0, 0.0, 3.5, 5.5], [0.0, 0.0, 5.0, 6.0]])  # [2, -1, 3.5, 5.5], [-2, -11, 5, 7] rectified
    p3 = np.maximum(np.repeat(np.repeat(p4, 2, 0), 2, 1) - 1.0, 0.0)
    features = {"C3": feature(c3), "C4": feature(c4), "C5": feature(c5)}
    for call in goldens.both_modes(lambda inputs: model(inputs)):
        maps = call(features)
        assert list(maps) == ["P3", "P4", "P5", "P6"]
        goldens.assert_close(maps["P5"][0, :, :, 0], c5)
        goldens.assert_close(maps["P4"][0, :, :, 0], p4)
        goldens.assert_close(maps["P3"][0, :, :, 0], p3)
        goldens.assert_close(maps["P6"][0, :, :, 0], [[3.0]])


def test_the_coarse_maps_start_from_the_projection_and_not_from_the_backbone():
    """C5 = 1 is projected to 2 * 1 + 1 = 3; P6 and P7 copy what is before them: 3 and 3, not 1."""
    model, _ = pyramid_model(depth=1, hyperparams=ConvHyperparams(batch_norm_epsilon=EPSILON))
    make_identity(model)
    projection = model.get_layer("P5_project")
    projection.kernel.assign([[[[2.0]]]])
    projection.bias.assign([1.0])
    maps = model({level: feature(np.ones((size, size))) for level, size in (("C3", 4), ("C4", 2), ("C5", 1))})
    for name in ("P5", "P6", "P7"):
        goldens.assert_close(maps[name], np.full((1, 1, 1, 1), 3.0))


def test_odd_sizes_double_and_lose_the_last_row_or_column():
    """An image of 33 x 71 has levels of 5 x 9, 3 x 5 and 2 x 3; 2 x 3 doubles to 4 x 6 and is cut to 3 x 5."""
    model, _ = pyramid_model(depth=1, hyperparams=ConvHyperparams(batch_norm_epsilon=EPSILON, activation=None))
    make_identity(model)
    features = {"C3": feature(np.zeros((5, 9))), "C4": feature(np.zeros((3, 5))), "C5": feature([[1, 2, 3], [4, 5, 6]])}
    p4 = [[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]
    for call in goldens.both_modes(lambda inputs: model(inputs)):
        maps = call(features)
        goldens.assert_close(maps["P4"][0, :, :, 0], p4)
        p3 = [np.repeat(row, 2)[:9] for row in (p4[0], p4[0], p4[1], p4[1], p4[2])]
        goldens.assert_close(maps["P3"][0, :, :, 0], p3)
        assert [tuple(maps[name].shape[1:3]) for name in ("P6", "P7")] == [(1, 2), (1, 1)]


def test_separable_convolutions_smooth_and_coarsen_but_do_not_project():
    model, neck = pyramid_model(channels=(2, 3, 4), depth=8, separable=True, hyperparams=ConvHyperparams(l2_weight=0.1))
    kinds = {layer.name: type(layer).__name__ for layer in model.layers if layer.weights}
    separable = {name for name, kind in kinds.items() if kind == "SeparableConv2D"}
    assert separable == {"P3_smooth_separable", "P4_smooth_separable", "P6_separable", "P7_separable"}
    assert {name for name, kind in kinds.items() if kind == "Conv2D"} == {"P3_project", "P4_project", "P5_project"}
    assert neck.map_names == ("P3", "P4", "P5", "P6", "P7")
    # projections (2 + 3 + 4) * 8 + 3 * 8; four separable 3 * 3 * 8 + 8 * 8 and their norms 4 * 8
    assert model.count_params() == 96 + 4 * (72 + 64 + 32)
    assert len(model.losses) == 3 + 4  # the projections and the depthwise kernels, not the pointwise ones


def test_two_levels_and_no_coarse_maps():
    model, neck = pyramid_model(channels=(2, 2), levels=("C2", "C3"), coarse_levels=0, depth=4)
    assert neck.map_names == ("P2", "P3")
    assert list(model.output) == ["P2", "P3"]


def test_a_pyramid_is_its_settings():
    neck = FeaturePyramid(depth=64, hyperparams=ConvHyperparams(activation="swish"))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(neck))
    assert copy == neck
    assert copy != FeaturePyramid(depth=65, hyperparams=ConvHyperparams(activation="swish"))


def test_levels_with_a_gap_are_refused():
    for levels in (("C3", "C5"), ("C4", "C3"), ("C4_expansion", "C5"), ()):
        with pytest.raises(ValueError, match="halve their size from one to the next"):
            FeaturePyramid(levels=levels)


def test_a_missing_level_is_named():
    inputs = {level: keras.Input((None, None, 1)) for level in ("C2", "C3", "C4")}
    with pytest.raises(ValueError, match=r"needs the backbone levels .*'C5'.* Received: \['C2', 'C3', 'C4'\]"):
        FeaturePyramid()(inputs)
