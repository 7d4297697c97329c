"""Presets inside the package: found by name, offline, before the zoo's rows and behind a user's folder."""

import os

import keras
import numpy as np
import pytest

from keras_detect.presets import directory, packaged, preset, store
from tests.presets.toy import Toy

X = np.ones((2, 5), "float32")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A toy, packaged under the name "toy"."""
    model = Toy()
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "weights")
    directory.save_preset(model, tmp_path / "weights" / "toy")
    return model


def outputs(model):
    return keras.ops.convert_to_numpy(model(X))


def test_by_name_without_a_cache(model, home):
    np.testing.assert_array_equal(outputs(store.load_preset("toy")), outputs(model))
    assert outputs(store.load_preset("toy", num_classes=7)).shape == (2, 7)
    assert outputs(store.load_preset("toy", num_classes=7, load_weights=False)).shape == (2, 7)
    assert store.find_preset("toy") == packaged.FOLDER / "toy"
    assert not home.exists()


def test_a_folder_of_the_same_name(model, tmp_path, monkeypatch):
    """A preset of the user's goes first; a folder that is none does not hide the packaged one."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("toy")
    np.testing.assert_array_equal(outputs(store.load_preset("toy")), outputs(model))
    mine = Toy(num_classes=4)
    store.save_preset(mine, "toy")
    np.testing.assert_array_equal(outputs(store.load_preset("toy")), outputs(mine))


def test_all_names_are_known(model):
    assert packaged.names() == ["toy"] and packaged.folder("toi") is None
    assert store.names() == sorted(["toy", *preset.names()])
    with pytest.raises(ValueError, match=r"Unknown preset 'toi'\. Did you mean toy"):
        store.load_preset("toi")
    with pytest.raises(ValueError, match=r"Unknown preset 'toi'\. Did you mean toy"):
        store.load_preset("toi", load_weights=False)


def test_without_weights_in_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "absent")
    assert packaged.names() == [] and store.names() == preset.names()
