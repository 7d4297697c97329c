"""What `from_backbone` starts from, and that the model remembers it."""

import json
import logging
import time
import urllib.error
import urllib.request
import zipfile

import keras
import numpy as np
import pytest

from keras_detect import SSD, EfficientDet, FasterRCNN, RetinaNet
from keras_detect.backbones import imagenet_weights
from keras_detect.backbones.imagenet_weights import UnavailableWeightsError
from keras_detect.presets import packaged
from keras_detect.weights.named_weights import WeightsFile
from tests import tiny
from tests.networks import undrawn

SETTINGS = {"num_classes": 2, "image_size": 64}
PRESET = "ssd_mobilenet_v2_oidv4"


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, logger="absl")
    logging.getLogger("absl").propagate = True
    return caplog


def backbone_weights(model):
    return {name: value for name, value in tiny.weights_of(model).items() if name.startswith("backbone/")}


@pytest.mark.parametrize("meta", [SSD, FasterRCNN])
def test_mobilenet_v2_starts_from_the_package(meta, log):
    with undrawn():
        model = meta.from_backbone("mobilenet_v2", **SETTINGS)
    with WeightsFile(packaged.folder(PRESET) / "weights.h5") as file:
        for name, value in backbone_weights(model).items():
            np.testing.assert_array_equal(value, file.read(name), err_msg=name)
    assert model.started_from == f"backbone of the packaged preset '{PRESET}'"
    assert "random" not in log.text


def test_a_random_start_is_said_once_with_the_way_out(log):
    model = SSD.from_backbone("tests_tiny", **SETTINGS)
    assert model.started_from == "random weights"
    (message,) = (record.getMessage() for record in log.records if "random" in record.getMessage())
    assert "\n" not in message and "'tests_tiny' starts from random weights" in message and PRESET in message
    log.clear()
    assert SSD.from_backbone("tests_tiny", weights=None, **SETTINGS).started_from == "random weights"
    assert not log.records


def test_random_weights_where_the_package_holds_some():
    with undrawn():
        model = SSD.from_backbone("mobilenet_v2", weights=None, **SETTINGS)
    assert not any(value.any() for name, value in backbone_weights(model).items() if name.endswith("/kernel"))


def test_a_backbone_object_stays_as_it_is(log):
    backbone = tiny.TinyBackbone(name="backbone")
    before = [weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight) for weight in backbone.weights]
    model = SSD.from_backbone(backbone, **SETTINGS)
    for weight, value in zip(backbone.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    assert "as it was given" in model.started_from and not log.records


def test_what_the_package_does_not_hold():
    with pytest.raises(ValueError, match=r"holds weights for the backbones mobilenet_v2, .*for 'tests_tiny'.*imagenet"):
        SSD.from_backbone("tests_tiny", weights="packaged", **SETTINGS)


@pytest.mark.parametrize("meta", [SSD, RetinaNet, FasterRCNN, EfficientDet])
def test_a_file(meta, tmp_path):
    source = tiny.tiny_ssd()
    source.save(tmp_path / "source.keras")
    settings = {"neck": "fpn"} if meta is FasterRCNN else {}
    model = meta.from_backbone("tests_tiny", weights=tmp_path / "source.keras", **SETTINGS, **settings)
    for name, value in backbone_weights(source).items():
        np.testing.assert_array_equal(tiny.weights_of(model)[name], value, err_msg=name)
    assert model.started_from == f"weights of {tmp_path / 'source.keras'}, backbone alone"
    with pytest.raises(FileNotFoundError):
        meta.from_backbone("tests_tiny", weights=tmp_path / "nowhere.keras", **SETTINGS, **settings)


def test_it_travels_with_the_model(tmp_path):
    model = SSD.from_backbone("tests_tiny", weights=None, **SETTINGS)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert json.loads(archive.read("config.json"))["config"]["started_from"] == "random weights"
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.started_from == loaded.re_head(3).started_from == "random weights"
    loaded.save_to_preset(tmp_path / "preset")
    assert json.loads((tmp_path / "preset" / "metadata.json").read_text())["started_from"] == "random weights"
    assert SSD.from_preset(tmp_path / "preset").started_from == "random weights"
    model.restore(loaded)
    assert "ssd" in model.started_from


class TestOffline:
    @pytest.fixture(autouse=True, params=["refused", "silent"])
    def offline(self, request, monkeypatch, tmp_path):
        def refuse(*_, **__):
            if request.param == "silent":
                time.sleep(30)
            raise urllib.error.URLError("Name or service not known")

        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        monkeypatch.setattr(imagenet_weights, "_PROBE_SECONDS", 0.5)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    @pytest.mark.parametrize("backbone", ["mobilenet_v2", "MobileNetV3Small", "resnet_v1_50_keras"])
    def test_imagenet_fails_at_once_with_the_way_out(self, backbone):
        started = time.monotonic()
        with pytest.raises(
            UnavailableWeightsError, match=r"cannot be fetched \((Name|no answer).*weights='packaged'"
        ) as error:
            SSD.from_backbone(backbone, weights="imagenet", **SETTINGS)
        assert time.monotonic() - started < 5 and "\n" not in str(error.value)


def test_imagenet_reaches_the_backbone(monkeypatch):
    """The weights of the network that keras.applications returns, without a download."""
    monkeypatch.setattr(imagenet_weights, "_probe", lambda: None)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    monkeypatch.setattr(keras.applications, "MobileNetV2", lambda **settings: network)
    with undrawn():
        model = SSD.from_backbone("mobilenet_v2", weights="imagenet", **SETTINGS)
    ours = backbone_weights(model)["backbone/stem_conv/kernel"]
    np.testing.assert_array_equal(ours, network.get_layer("Conv1").get_weights()[0])
    assert model.started_from == "ImageNet weights, backbone alone"
