"""What every registered backbone promises. A new one needs no test code here: the registry is the list."""

import importlib
import pkgutil
import re

import keras
import numpy as np
import pytest

import keras_detect.backbones
from keras_detect.backbones.backbone import Backbone, backbone_names, get_backbone, register_backbone
from keras_detect.necks.faster_rcnn_feature_extractor import SplitFeatureExtractor
from tests import goldens, networks

for _module in pkgutil.iter_modules(keras_detect.backbones.__path__):
    if _module.name != "keras_models":  # wraps models of others and registers none
        importlib.import_module(f"keras_detect.backbones.{_module.name}")

HEIGHT, WIDTH = 67, 97  # odd, and so is every level but the last ones: 34 x 49, 17 x 25, 9 x 13, 5 x 7, 3 x 4


HEAVY = {"inception_resnet_v2"}  # 244 convolutions; its numbers have a test of their own


def _rows():
    """Every registered name; all but the smallest row of each class are slow."""
    seen = {get_backbone(name) for name in HEAVY}
    for name in sorted(backbone_names(), key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name)):
        family = getattr(get_backbone(name), "func", get_backbone(name))
        yield pytest.param(name, marks=pytest.mark.slow if family in seen else ())
        seen.add(family)


@pytest.fixture(scope="module", params=_rows())
def backbone(request):
    """The backbone with numbers from numpy, and its levels for one image of odd size."""
    with networks.undrawn():
        backbone = get_backbone(request.param)()
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        value = rng.uniform(0.5, 1.5, weight.shape)
        if len(weight.shape) > 1:
            value = rng.normal(size=weight.shape) * np.sqrt(2.0 / np.prod(weight.shape[:-1]))
        weight.assign(value.astype("float32"))
    return backbone, levels_of(backbone)


def has_one_stride(model):
    """Whether every level has the same stride, as in an hourglass: a network for CenterNet alone."""
    return len(set(model.strides.values())) == 1


def pixels():
    return np.random.default_rng(1).integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype("float32")


def levels_of(backbone):
    call = goldens.compiled(lambda images: backbone(backbone.preprocess(images), training=False))
    return {
        level: keras.ops.convert_to_numpy(tensor)
        for level, tensor in call(keras.ops.convert_to_tensor(pixels())).items()
    }


def test_levels_have_the_stated_strides_and_channels(backbone):
    model, levels = backbone
    assert set(levels) == set(model.strides) == set(model.channels)
    assert has_one_stride(model) or {"C3", "C4", "C5"} <= set(levels)
    for level, tensor in levels.items():
        stride = model.strides[level]
        # ceil: -(-a // b)
        assert tensor.shape == (1, -(-HEIGHT // stride), -(-WIDTH // stride), model.channels[level]), level
    assert list(levels) == sorted(levels, key=lambda level: model.strides[level])


def test_levels_are_finite_and_not_constant(backbone):
    for level, tensor in backbone[1].items():
        assert np.isfinite(tensor).all(), level
        assert tensor.std() > 0, level


def test_pixels_are_scaled_one_by_one(backbone):
    """Black, gray and white land in order, within a few hundred, and a pixel's scale ignores its neighbors."""
    model, _ = backbone
    shades = np.repeat(np.array([0.0, 127.5, 255.0], "float32"), 3).reshape(1, 1, 3, 3)
    scaled = keras.ops.convert_to_numpy(model.preprocess(keras.ops.convert_to_tensor(shades)))[0, 0]
    assert scaled.shape == (3, 3)
    assert (np.diff(scaled, axis=0) > 0).all()
    assert np.abs(scaled).max() < 300
    np.testing.assert_allclose(scaled[1], (scaled[0] + scaled[2]) / 2, atol=1e-4)
    alone = keras.ops.convert_to_numpy(model.preprocess(keras.ops.convert_to_tensor(shades[:, :, 1:2])))[0, 0]
    np.testing.assert_array_equal(alone[0], scaled[1])


@pytest.mark.backend_free
def test_layer_names_are_unique_and_free_of_counters(backbone):
    """Weight maps go by layer names, so they must not depend on what was built before."""
    model, _ = backbone
    names = [layer.name for layer in model.layers if layer.weights]
    assert len(set(names)) == len(names)
    automatic = re.compile(r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|dense)(_\d+)?")
    assert not [name for name in names if automatic.fullmatch(name)]


def test_the_split_for_two_stages_gives_the_whole(backbone):
    """What runs before the split and what runs on RoI features, one behind the other, is the network itself."""
    model, levels = backbone
    if has_one_stride(model):
        with pytest.raises(ValueError, match=r"at a level from which a coarser one is computed. Received: .*stack_0"):
            SplitFeatureExtractor(backbone=model)
        return
    extractor = SplitFeatureExtractor(backbone=model)
    assert [id(weight) for weight in extractor.weights] == [id(weight) for weight in model.weights]
    if goldens.BACKEND == "jax":  # a second compilation
        return
    whole = goldens.compiled(
        lambda images: extractor.extract_box_classifier_features(extractor.extract_proposal_features(images)[0])
    )
    features = whole(model.preprocess(keras.ops.convert_to_tensor(pixels())))
    goldens.assert_close(features, levels[extractor.tail], err_msg=extractor.tail)


@pytest.mark.backend_free  # the models of `test_models.py` are saved on every backend
def test_save_and_load_change_no_bit(backbone, tmp_path):
    model, levels = backbone
    path = tmp_path / "backbone.keras"
    model.save(path)
    with networks.undrawn():
        loaded = keras.models.load_model(path)
    assert type(loaded) is type(model)
    assert loaded.get_config() == model.get_config()
    assert (loaded.strides, loaded.channels) == (model.strides, model.channels)
    for mine, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(theirs))
    for level, tensor in levels_of(loaded).items():
        np.testing.assert_array_equal(tensor, levels[level], err_msg=level)


def test_a_row_is_filed_with_its_settings():
    assert get_backbone("resnet_v1_101").keywords == {"variant": "resnet_v1_101"}
    with pytest.raises(ValueError, match="'resnet_v1_101' is already registered"):
        register_backbone("resnet_v1_101")(type("Other", (Backbone,), {}))
    # the same file run twice, as a notebook does
    register_backbone("resnet_v1_101", variant="resnet_v1_101")(get_backbone("resnet_v1_101").func)


def test_an_unknown_backbone_lists_the_near_names():
    with pytest.raises(ValueError, match=r"Unknown backbone 'resnet_v1_51'. Did you mean .*resnet_v1_50"):
        get_backbone("resnet_v1_51")


def test_wrong_levels_are_refused():
    inputs = keras.Input((None, None, 3))
    half = keras.layers.AveragePooling2D(2)(inputs)
    for outputs, strides, message in (
        ({"C1": half}, {"C2": 4}, r"Received levels \['C1'\] and strides for \['C2'\]"),
        ({"C1": half}, {"C1": 4}, "'C1' must have stride 2. Received stride 4"),
        ({"C1": keras.layers.GlobalAveragePooling2D()(half)}, {"C1": 2}, "must be a feature map"),
    ):
        with pytest.raises(ValueError, match=message):
            Backbone(inputs=inputs, outputs=outputs, strides=strides)
