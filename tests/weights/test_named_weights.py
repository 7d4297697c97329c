"""Names of weights that depend on the model alone, and the file that holds weights by them."""

import h5py
import keras
import numpy as np
import pytest

from keras_detect import SSD, Backbone
from keras_detect.registry import serializable
from keras_detect.weights.named_weights import (
    ModelWeights,
    WeightsFile,
    copy_weights,
    is_weights_file,
    named_weights,
    stable_names,
    write_weights,
)
from keras_detect.weights.restore import RestoreError
from tests import tiny


@serializable
class Unnamed(Backbone):
    """Layers that Keras names, and counts through the session."""

    def __init__(self, **kwargs):
        inputs = x = keras.Input((None, None, 3))
        levels = {}
        for level in range(1, 6):
            x = keras.layers.Conv2D(4, 3, 2, padding="same", use_bias=False)(x)
            x = levels[f"C{level}"] = keras.layers.BatchNormalization()(x)
        levels = {level: levels[level] for level in ("C3", "C4", "C5")}
        super().__init__(inputs=inputs, outputs=levels, strides={"C3": 8, "C4": 16, "C5": 32}, **kwargs)


def detector():
    return SSD.from_backbone(Unnamed(name="backbone"), num_classes=2, image_size=64)


def test_names_that_keras_counts_are_counted_anew():
    first, second = detector(), detector()
    assert list(first.named_weights()) == list(second.named_weights())
    ours = [name for name in second.named_weights() if name.startswith("backbone/")]
    assert ours[0] == "backbone/conv2d/kernel" and "backbone/conv2d_4/kernel" in ours
    assert {name.split("/")[1] for name in ours} == {
        f"{layer}{number}" for layer in ("conv2d", "batch_normalization") for number in ("", "_1", "_2", "_3", "_4")
    }
    assert len(second.named_weights()) == len(second.weights) and len(ours) == 5 * (1 + 4)
    for name, weight in first.named_weights().items():
        assert tuple(weight.shape) == tuple(second.named_weights()[name].shape)


def test_given_names_stay():
    layers = [keras.layers.Dense(1, name=name) for name in ("b", "dense_7", "a")]
    layers += [keras.layers.Conv2D(1, 1, name="conv2d_3"), keras.layers.Dense(1)]
    assert stable_names(layers) == ["b", "dense", "a", "conv2d", "dense_1"]


def test_variables_without_names():
    layer = keras.layers.Layer(name="mine")
    for shape in ((1,), (2,), (3,)):
        layer.add_weight(shape=shape)
    layer.add_weight(shape=(4,), name="same")
    layer.add_weight(shape=(5,), name="same")
    shapes = {name: tuple(weight.shape) for name, weight in named_weights({"group": [layer]}).items()}
    names = ["variable", "variable_1", "variable_2", "same", "same_1"]
    assert shapes == {f"group/mine/{name}": (size,) for size, name in enumerate(names, start=1)}


@pytest.mark.parametrize("build", [detector, tiny.tiny_faster_rcnn])
def test_a_file_fills_a_twin(tmp_path, build):
    model, twin = build(), build()
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    path = write_weights(model, tmp_path / "weights.h5")
    assert is_weights_file(path)
    with WeightsFile(path) as source:
        report = copy_weights(source, twin)
    assert not report.kept and not report.ignored and len(report.restored) == len(model.named_weights())
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(tiny.weights_of(twin)[name], value, err_msg=name)


def test_all_that_does_not_fit_is_listed(tmp_path):
    model, twin = tiny.tiny_ssd(), tiny.tiny_ssd()
    path = write_weights(model, tmp_path / "weights.h5")
    with h5py.File(path, "a") as file:
        del file["backbone/conv_2_conv/kernel"]
        file["backbone/other/kernel"] = np.zeros(3)
    before = tiny.weights_of(twin)
    with WeightsFile(path) as source, pytest.raises(RestoreError) as error:
        copy_weights(source, twin)
    assert "backbone/conv_2_conv/kernel" in str(error.value) and "backbone/other/kernel" in str(error.value)
    with pytest.raises(RestoreError, match="shapes differ"):
        copy_weights(ModelWeights(tiny.tiny_ssd(num_classes=5)), twin)
    for name, value in tiny.weights_of(twin).items():
        np.testing.assert_array_equal(value, before[name])
    report = copy_weights(ModelWeights(tiny.tiny_ssd(num_classes=5)), twin, other_classes=True)
    assert report.kept and all("_class/" in name for name in report.kept)


def test_other_files_are_told_apart(tmp_path):
    model = tiny.tiny_ssd()
    model.save_weights(tmp_path / "keras.weights.h5")
    (tmp_path / "text.h5").write_text("no")
    whole = write_weights(model, tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("keras.weights.h5", "`load_weights` reads"),
        ("text.h5", "not an HDF5"),
        ("half.h5", "trunc"),
    ):
        assert not is_weights_file(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            WeightsFile(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        WeightsFile(tmp_path / "absent.h5")


def test_integers_keep_their_type_and_float16_is_read_as_float32(tmp_path):
    class Counted:
        """A model of three variables."""

        name = "counted"

        def __init__(self):
            self.count = keras.Variable(2**20 + 1, dtype="int32", name="count")
            self.value = keras.Variable([[1 / 3, 70.0]], dtype="float32", name="value")
            self.offset = keras.Variable([1 / 3], dtype="float32", name="offset")

        def named_weights(self):
            return {"a/count": self.count, "a/value": self.value, "a/offset": self.offset}

    model, twin = Counted(), Counted()
    twin.count.assign(0)
    write_weights(model, tmp_path / "weights.h5", "float16")
    with WeightsFile(tmp_path / "weights.h5") as source:
        copy_weights(source, twin)
    assert int(twin.count.numpy() if hasattr(twin.count, "numpy") else twin.count) == 2**20 + 1
    value = keras.ops.convert_to_numpy(twin.value)
    np.testing.assert_array_equal(value, np.asarray([[1 / 3, 70.0]], "float16").astype("float32"))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(twin.offset), np.float32([1 / 3]))
