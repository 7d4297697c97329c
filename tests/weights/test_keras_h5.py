"""Whole models in Keras' older `.h5` layout, of Keras 2 and 3, read by name; and `.keras` files of the same models."""

import json
import re

import h5py
import keras
import numpy as np
import pytest

from keras_detect import SSD
from keras_detect.weights.keras_h5 import KerasH5Error, KerasH5File
from tests import networks, tiny
from tests.weights.test_keras_applications import application, ssd, undrawn, values
from tests.weights.test_keras_model import assert_same, classifier
from tests.weights.test_keras_model import ssd as ssd_around

pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def narrow():
    """MobileNet 0.25 with a classifier of seven classes, and the same network inside another model."""
    top = application("MobileNet", alpha=0.25, include_top=True, input_shape=(64, 64, 3), classes=7)
    body = application("MobileNet", alpha=0.25)
    for layer in body.layers[1:]:
        layer.set_weights(top.get_layer(layer.name).get_weights())
    around = keras.Sequential([body, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, name="classes")])
    return top, around


def save_as_keras_2(model, path):
    """The file that Keras 2's `model.save(path)` wrote: names of variables with ":0", one attribute per list."""
    with h5py.File(path, "w") as file:
        layers = list(model.layers)
        file.attrs["keras_version"] = b"2.4.0"
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Functional", "config": {"layers": [{"config": _config(layer)} for layer in layers]}}
        ).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            own = group.create_group(layer.name)
            inside = layer.layers if isinstance(layer, keras.Model) else [layer]
            names = []
            for each in inside:
                for weight in each.weights:
                    name = "depthwise_kernel" if isinstance(each, keras.layers.DepthwiseConv2D) else weight.name
                    names.append(f"{each.name}/{name}:0")
                    own.create_dataset(names[-1], data=keras.ops.convert_to_numpy(weight))
            own.attrs["weight_names"] = [name.encode() for name in names]
        file.create_group("optimizer_weights").attrs["weight_names"] = [b"Adam/iter:0"]


def _config(layer):
    return {"name": layer.name, **({"epsilon": layer.epsilon} if hasattr(layer, "epsilon") else {})}


@pytest.mark.parametrize("kind", ["keras 3", "keras 2", ".keras"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_whole_model_of_keras_applications(narrow, kind, nested, tmp_path, caplog):
    source = narrow[nested]
    path = tmp_path / ("model.keras" if kind == ".keras" else "model.h5")
    save_as_keras_2(source, path) if kind == "keras 2" else source.save(path)
    model = ssd("mobilenet_v1", width_multiplier=0.25)
    report = model.restore(path, kind="classification")
    expected = {name: keras.ops.convert_to_numpy(weight) for name, weight in _weights_by_name(narrow[0]).items()}
    for name, key in report.restored.items():
        np.testing.assert_array_equal(values(model)[name], expected[key], err_msg=name)
    assert len(report.restored) == len(model.feature_extractor.backbone.weights)
    if not nested:
        assert "conv_preds/kernel" in report.ignored
    elif kind != ".keras":
        assert {"classes/kernel", "classes/bias"} <= report.ignored.keys()


def _weights_by_name(network):
    return {f"{layer.name}/{weight.name}": weight for layer in network.layers for weight in layer.weights}


@pytest.mark.parametrize("nested", [False, True])
def test_a_whole_model_around_our_own_backbone(nested, tmp_path):
    source, body = classifier(nested)
    source.save(tmp_path / "model.h5")
    save_as_keras_2(source, tmp_path / "older.h5")
    for name in ("model.h5", "older.h5"):
        model = ssd_around()
        report = model.restore(tmp_path / name, kind="classification")
        assert_same(body, model)
        assert {"classes/kernel", "classes/bias"} <= report.ignored.keys()


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_from_backbone_takes_the_path(narrow, suffix, tmp_path):
    """Of one of our backbones, and of a network of keras.applications that is wrapped."""
    with undrawn():
        network = keras.applications.MobileNetV3Small(
            input_shape=(64, 64, 3), weights=None, classes=3, include_preprocessing=False
        )
    network.get_layer("conv").set_weights([np.random.default_rng(0).normal(size=(3, 3, 3, 16))])
    path = tmp_path / f"model{suffix}"
    network.save(path)
    wrapped = SSD.from_backbone("MobileNetV3Small", num_classes=2, image_size=64, weights=path)
    assert wrapped.started_from == f"weights of {path} of keras.applications.MobileNetV3Small, backbone alone"
    theirs = network.get_layer("conv").get_weights()[0]
    ours = tiny.weights_of(wrapped)
    assert any(np.array_equal(value, theirs) for value in ours.values() if value.shape == theirs.shape)
    narrow[0].save(path)
    with pytest.raises(ValueError, match=rf"model\{suffix}: the model in it is another network: it has no layer"):
        SSD.from_backbone("MobileNetV3Small", num_classes=2, image_size=64, weights=path)


def test_what_does_not_fit_is_named(narrow, tmp_path):
    path = tmp_path / "model.h5"
    narrow[0].save(path)
    model = ssd("mobilenet_v1", width_multiplier=0.5)
    before = tiny.weights_of(model)
    with pytest.raises(ValueError, match=r"(?s)shapes differ.*conv1/kernel"):
        model.restore(path, kind="classification")
    with pytest.raises(ValueError, match=r"model\.h5: the model in it is another network: it has no layer 'Conv1'"):
        ssd("mobilenet_v2").restore(path, kind="classification")
    with pytest.raises(ValueError, match=r"model\.h5: the model in it is another network: it has no layer 'st"):
        ssd_around().restore(path, kind="classification")
    with h5py.File(path, "a") as file:
        del file["model_weights"]["conv_pw_3_bn"]
        file["model_weights"].attrs["layer_names"] = [
            name for name in file["model_weights"].attrs["layer_names"] if b"conv_pw_3_bn" not in _bytes(name)
        ]
        more = file["model_weights"].create_group("more")
        more.create_dataset("more/kernel:0", data=np.zeros((3, 3, 2, 2)))
        more.attrs["weight_names"] = ["more/kernel:0"]
        names = list(file["model_weights"].attrs["layer_names"])
        file["model_weights"].attrs["layer_names"] = [*map(_bytes, names), b"more"]
    with pytest.raises(
        ValueError, match=r"(?s)not in the checkpoint.*conv_pw_3_bn.*not used by the model.*more/kernel"
    ):
        ssd("mobilenet_v1", width_multiplier=0.25).restore(path, kind="classification")
    after = tiny.weights_of(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def _bytes(name):
    return name if isinstance(name, bytes) else name.encode()


def written(path, **changes):
    """A file of one layer with one variable; `changes` say what is wrong with it."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = changes.get("layers", [b"a"])
        layer = group.create_group("a")
        layer.attrs["weight_names"] = changes.get("weights", [b"a/kernel:0"])
        if "link" in changes:
            layer["a/kernel:0"] = changes["link"]
        else:
            layer.create_dataset("a/kernel:0", **changes.get("data", {"data": np.zeros((2, 2))}))
    return path


DAMAGES = {
    "a layer that is not there": {"layers": [b"b"]},
    "a variable that is not there": {"weights": [b"a/bias:0"]},
    "a variable twice": {"weights": [b"a/kernel:0", b"a/kernel:1"], "data": {"data": np.zeros(2)}},
    "names that are numbers": {"layers": [1, 2]},
    "a group in place of an array": {"weights": [b"a"]},
    "texts": {"data": {"data": [b"text"]}},
    "a link to another file": {"link": h5py.ExternalLink("/etc/passwd", "/a")},
    "a soft link": {"link": h5py.SoftLink("/model_weights")},
    "a bomb": {"data": {"shape": (1 << 20, 1 << 10), "dtype": "f4", "compression": "gzip", "fillvalue": 1.0}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_end_in_one_line(damage, tmp_path):
    path = written(tmp_path / "model.h5", **DAMAGES[damage])
    with pytest.raises(KerasH5Error, match=re.escape(str(path))) as error:
        KerasH5File(path)
    assert "\n" not in str(error.value)


def test_a_truncated_whole_model(narrow, tmp_path):
    narrow[0].save(tmp_path / "model.h5")
    whole = (tmp_path / "model.h5").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.h5").write_bytes(whole[: int(share * len(whole))])
        with networks.undrawn(), pytest.raises(ValueError, match=r"cut\.h5") as error:
            ssd("mobilenet_v1", width_multiplier=0.25).restore(tmp_path / "cut.h5", kind="classification")
        assert "\n" not in str(error.value)


def test_long_lists_of_names_are_split(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        group = file.create_group("model_weights")
        names = [f"layer_{number}" for number in range(12)]
        for number, name in enumerate(names):
            group.attrs[f"layer_names{number}"] = [name]
            layer = group.create_group(name)
            layer.attrs["weight_names0"] = [f"{name}/kernel"]
            layer.create_dataset(f"{name}/kernel", data=np.full(3, number))
    file = KerasH5File(tmp_path / "model.h5")
    assert list(file.networks[0]) == names
    np.testing.assert_array_equal(file.read(file.networks[0]["layer_11"]["kernel"][0]), np.full(3, 11))
