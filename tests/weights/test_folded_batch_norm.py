"""Folded batch norm: known for what it is, wherever it comes from, and un-folded without moving an output."""

import warnings

import keras
import numpy as np
import pytest

from keras_detect import weights
from keras_detect.data.shapes import shapes_dataset
from keras_detect.weights.folded_batch_norm import FoldedWeights, batch_norms, folded_layers
from tests import tiny
from tests.tiny import TINY_MODELS

RAW = {
    "ssd": ("box_encodings", "class_logits"),
    "faster_rcnn": ("rpn_box_encodings", "rpn_objectness"),
    "mask_rcnn": ("rpn_box_encodings", "rpn_objectness"),
    "center_net": ("objects/center", "objects/size"),
}


def fold(model, seed=0):
    """Gives every batch norm the weights of a folded one."""
    rng = np.random.default_rng(seed)
    for layer in batch_norms(model):
        shape = layer.gamma.shape
        layer.gamma.assign(np.full(shape, np.sqrt(1 + layer.epsilon)))
        layer.beta.assign(rng.uniform(0.2, 0.6, shape))
        layer.moving_mean.assign(np.zeros(shape))
        layer.moving_variance.assign(np.ones(shape))
    return model


def raw(model, images, name):
    outputs = model(model.preprocess(images), training=False)
    return [keras.ops.convert_to_numpy(value) for key in RAW[name] for value in keras.tree.flatten(outputs[key])]


@pytest.mark.parametrize("name", TINY_MODELS)
def test_outputs_stay_and_the_statistics_are_those_of_the_inputs(name):
    model = fold(TINY_MODELS[name]())
    images, _ = tiny.tiny_batch(batch_size=6)
    before, count = raw(model, images, name), len(batch_norms(model))
    assert len(folded_layers(model)) == count
    assert weights.unfold_batchnorm(model, images) == count
    for old, new in zip(before, raw(model, images, name), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-4)
    assert not folded_layers(model) and weights.unfold_batchnorm(model, images) == 0
    first = model.feature_extractor.backbone.get_layer("conv_1_bn")
    inputs = keras.Model(model.feature_extractor.backbone.inputs, first.input)(model.preprocess(images)["images"])
    inputs = keras.ops.convert_to_numpy(inputs)
    np.testing.assert_allclose(first.moving_mean, inputs.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(first.moving_variance, inputs.var((0, 1, 2), ddof=1), rtol=1e-4)


@pytest.mark.backend_free
def test_training_mode_is_prediction_mode_then():
    """On the images it was measured on, batch statistics are the moving ones: training starts where prediction is."""
    model = fold(tiny.tiny_ssd())
    images, _ = tiny.tiny_batch(batch_size=6)
    x = model.preprocess(images)
    names = RAW["ssd"]

    def moved():
        outputs = [model(x, training=training) for training in (False, True)]
        values = [[keras.ops.convert_to_numpy(output[name]) for name in names] for output in outputs]
        return max(float(np.abs(new - old).max()) for old, new in zip(*values, strict=True))

    folded = moved()
    fold(model)  # training moved the statistics
    weights.unfold_batchnorm(model, images)
    assert moved() < 0.02 < 0.1 < folded


@pytest.mark.backend_free
@pytest.mark.parametrize("kind", ["list", "paths", "dataset", "generator"])
def test_images_of_every_kind(kind, tmp_path):
    dataset = shapes_dataset(5, image_size=(48, 80), class_names=["circle", "square"])
    images = [example["image"] for example in dataset]
    given = {"list": images, "dataset": dataset, "generator": (image for image in images)}
    if kind == "paths":
        from PIL import Image

        given["paths"] = [tmp_path / f"{index}.png" for index in range(len(images))]
        for path, image in zip(given["paths"], images, strict=True):
            Image.fromarray(image).save(path)
    expected, model = fold(tiny.tiny_ssd()), fold(tiny.tiny_ssd())
    weights.unfold_batchnorm(expected, images)
    weights.unfold_batchnorm(model, given[kind])
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(value, tiny.weights_of(expected)[name], err_msg=name)


def test_no_image():
    with pytest.raises(ValueError, match="Received none"):
        weights.unfold_batchnorm(fold(tiny.tiny_ssd()), [])


@pytest.mark.backend_free
def test_fresh_trained_and_frozen_models_are_not_folded():
    model = tiny.tiny_ssd()
    assert not folded_layers(model)
    model.compile()
    images, y = tiny.tiny_batch()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*folded.*")
        model.fit(images, y, verbose=0)
    assert not folded_layers(model)


@pytest.mark.backend_free
def test_fit_warns_once_and_a_saved_model_knows(tmp_path):
    model = fold(tiny.tiny_ssd())
    model.save(tmp_path / "folded.keras")
    model.save_to_preset(tmp_path / "preset")
    images, y = tiny.tiny_batch()
    for loaded in (keras.saving.load_model(tmp_path / "folded.keras"), type(model).from_preset(tmp_path / "preset")):
        assert len(folded_layers(loaded)) == len(batch_norms(loaded))
    other = model.re_head(5)
    assert len(folded_layers(other)) == len(batch_norms(other))
    model.compile()
    with pytest.warns(UserWarning, match=r"11 batch norms hold folded weights.*unfold_batchnorm") as caught:
        model.fit(images, y, verbose=0)
    assert sum("folded" in str(entry.message) for entry in caught) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*folded.*")
        model.fit(images, y, verbose=0)


@pytest.mark.backend_free
def test_frozen_batch_norm_needs_no_unfolding():
    model = fold(tiny.tiny_ssd(freeze_batchnorm=True))
    model.compile()
    images, y = tiny.tiny_batch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(images, y, verbose=0)
    assert not [entry for entry in caught if "folded" in str(entry.message)]


@pytest.mark.backend_free
def test_restore_reports_and_unfolds():
    source, images = fold(tiny.tiny_ssd()), tiny.tiny_batch()[0]
    model = tiny.tiny_ssd()
    report = model.restore(source)
    assert report.folded == len(batch_norms(model)) and "hold folded weights" in report.summary()
    model = tiny.tiny_ssd()
    report = model.restore(source, calibration_images=images)
    assert report.folded == 0 and "folded" not in report.summary() and not folded_layers(model)


class Reader:
    """Two convolutions, the second without batch norm."""

    def __init__(self):
        self.source, self.advice, self.ignored = "file", "", {}
        self.shapes = {"a/kernel": (3, 3, 3, 4), "a/bias": (4,), "b/kernel": (1, 1, 4, 2), "b/bias": (2,)}

    def read(self, key):
        return np.full(self.shapes[key], 7.0, np.float32)


def test_a_folded_source_has_every_variable_of_a_batch_norm():
    source = FoldedWeights(Reader(), {"a": 0.001, "absent": 0.1})
    assert source.folded == 1
    assert set(source.shapes) == {
        *("a/kernel", "b/kernel", "b/bias"),
        *(f"a/BatchNorm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")),
    }
    values = {
        name: source.read(f"a/BatchNorm/{name}")[0] for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    assert values == {"gamma": np.float32(np.sqrt(1.001)), "beta": 7, "moving_mean": 0, "moving_variance": 1}
    assert source.read("b/bias")[0] == 7 and source.read("a/kernel").shape == (3, 3, 3, 4)
