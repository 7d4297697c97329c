"""One call restores from every kind of source; an unknown one says what there is."""

import os

import keras
import numpy as np
import pytest

from keras_detect.weights import sources
from keras_detect.weights.restore import RestoreError
from tests import tiny

WHOLE, BACKBONE = 0, 1


@pytest.fixture(scope="module")
def source():
    model = tiny.tiny_ssd()
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    source.save(folder / "model.keras")
    source.save_to_preset(folder / "preset")
    return folder


def given(kind, source, folder):
    paths = {"preset": folder / "preset", "file": folder / "preset" / "weights.h5", "keras": folder / "model.keras"}
    paths["uri"] = (folder / "preset").as_posix()
    return source if kind == "model" else paths[kind]


@pytest.mark.parametrize("kind", ["model", "preset", "uri", "file", "keras"])
def test_detectors_of_every_kind(kind, source, folder, monkeypatch):
    model = tiny.tiny_ssd()
    report = model.restore(given(kind, source, folder))
    assert len(report.restored) == len(model.named_weights()) and not report.kept
    for name, value in tiny.weights_of(source).items():
        np.testing.assert_array_equal(tiny.weights_of(model)[name], value, err_msg=name)
    other = tiny.tiny_ssd(num_classes=5)
    report = other.restore(given(kind, source, folder))
    assert report.kept and all("_class/" in name for name in report.kept)
    assert len(report.kept) + len(report.restored) == len(other.named_weights())
    two_stage = tiny.tiny_faster_rcnn()
    before = tiny.weights_of(two_stage)
    with pytest.raises(RestoreError):
        two_stage.restore(given(kind, source, folder))
    report = two_stage.restore(given(kind, source, folder), kind="classification")
    assert set(report.restored) == {name for name in before if name.startswith("backbone/")}
    for name, value in tiny.weights_of(two_stage).items():
        expected = tiny.weights_of(source)[name] if name in report.restored else before[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_re_heading_builds_one_model(source, monkeypatch):
    builds = []
    build = type(source).__init__
    monkeypatch.setattr(type(source), "__init__", lambda self, **parts: builds.append(1) or build(self, **parts))
    other = source.re_head(class_names=["a", "b"])
    assert len(builds) == 1 and other.class_names == ("a", "b")
    for name, value in tiny.weights_of(source).items():
        if "_class/" not in name:
            np.testing.assert_array_equal(tiny.weights_of(other)[name], value, err_msg=name)


def test_another_number_of_classes_of_a_preset_builds_one_model(source, folder, monkeypatch):
    builds = []
    build = type(source).__init__
    monkeypatch.setattr(type(source), "__init__", lambda self, **parts: builds.append(1) or build(self, **parts))
    assert type(source).from_preset(folder / "preset", num_classes=7).num_classes == 7
    assert len(builds) == 1


def test_an_unknown_source_says_what_there_is(tmp_path):
    model = tiny.tiny_ssd()
    (tmp_path / "notes.txt").touch()
    for missing in ("nowhere", tmp_path / "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=r"nowhere: no such checkpoint, file(.|\n)*preset(.|\n)*TensorFlow 2(.|\n)*"
        ):
            model.restore(missing)
    with pytest.raises(ValueError, match=r"notes\.txt: nothing in it(.|\n)*its prefix"):
        model.restore(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="nothing in it that can be restored"):
        model.restore(tmp_path)
    for name in ("pipe", "pipe.keras", "pipe.h5", "pipe.tflite", "pipe.pth", "pipe.safetensors"):  # reading would hang
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is a pipe, a socket or a device"):
            model.restore(tmp_path / name)
    with pytest.raises(TypeError, match=r"Received a int as a source of weights(.|\n)*detector of this package"):
        model.restore(3)
    with pytest.raises(ValueError, match="kind must be one of detection, classification"):
        model.restore(tmp_path, kind="all")


def test_a_reader_is_added_by_one_function(tmp_path, source, monkeypatch):
    """A container of numpy's, by our names."""
    monkeypatch.setattr(sources, "_READERS", dict(sources._READERS))

    class Reader:
        """Arrays of an .npz file."""

        def __init__(self, path):
            self.ignored, self.source, self.arrays = {}, os.fspath(path), dict(np.load(path))
            self.shapes = {name: value.shape for name, value in self.arrays.items()}

        def read(self, key):
            return self.arrays[key]

    @sources.register_reader("npz", what="an .npz file", opens=lambda path: sources.is_path(path, ".npz"))
    def npz(model, path, kind):
        return sources.Plan(reader=Reader(path), name_map=lambda name: name)

    np.savez(tmp_path / "weights.npz", **tiny.weights_of(source))
    model = tiny.tiny_ssd()
    model.restore(tmp_path / "weights.npz")
    value = keras.ops.convert_to_numpy(model.named_weights()["backbone/conv_1_conv/kernel"])
    np.testing.assert_array_equal(value, tiny.weights_of(source)["backbone/conv_1_conv/kernel"])
    with pytest.raises(FileNotFoundError, match=r"an \.npz file"):
        model.restore("nowhere")
