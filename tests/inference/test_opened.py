"""Exported files as detectors: what they detect is what the model detects, resizing and tiles included."""

import json
import pathlib

import numpy as np
import pytest

from keras_detect import inference
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from tests import goldens, tiny

pytestmark = pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="other backends take the route of an export")


@pytest.fixture(scope="module")
def model():
    """One that pads: a file that stretched images instead would detect something else."""
    resizer = KeepAspectRatioResizer(min_dimension=64, max_dimension=64, pad_to_max_dimension=True)
    built = tiny.tiny_ssd(class_names=["cat", "dog", "owl"], resizer=resizer)
    built.score_threshold = 0.01
    return built


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    names = ["detector.onnx", "detector.tflite", "detector"]
    for name in names:
        model.export(folder / name, verbose=0)
    model.save(folder / "detector.keras")
    return folder


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "runtime"), [("detector.onnx", "onnxruntime"), ("detector.tflite", "litert"), ("detector", "tensorflow")]
)
def test_a_file_detects_what_the_model_detects(name, runtime, model, files, image):
    detector = inference.load_detector(files / name)
    assert detector.runtime == runtime and detector.class_names == ["cat", "dog", "owl"]
    assert detector.score_threshold == 0.01
    assert detector.final_suppression == model.final_suppression
    for options in ({}, {"tile": 64, "overlap": 0.25}):
        expected, found = (each.detect(image, **options) for each in (model, detector))
        assert found.image_size == (60, 150) and len(found["labels"]) == len(expected["labels"]) > 5
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=2e-3)
        near = np.abs(found["boxes"][:, None] - expected["boxes"][None]).max(axis=2).min(axis=1)
        assert near.max() < 0.01, (name, options)


def test_compiled_detectors_take_tiles(model, image):
    compiled = inference.compile(model)
    expected, found = (each.detect([image, image], tile=(60, 64)) for each in (model, compiled))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-3)


def test_a_keras_file_is_loaded_as_a_model(files, image):
    model = inference.load_detector(files / "detector.keras")
    assert type(model).__name__ == "SSD" and model.detect(image).image_size == (60, 150)


def test_what_is_no_detector(tmp_path, files):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tflite"):
        inference.load_detector(tmp_path / "nowhere.tflite")
    for name in ("text.tflite", "text.onnx"):
        (tmp_path / name).write_text("no detector at all")
        with pytest.raises(ValueError, match=name):
            inference.load_detector(tmp_path / name)
    metadata = next(pathlib.Path(files / "detector").rglob("detector.json"))
    content = json.loads(metadata.read_text())
    try:
        metadata.write_text(json.dumps({key: content[key] for key in content if key != "resizer"}))
        with pytest.raises(ValueError, match="does not say how its detector resizes"):
            inference.open_detector(files / "detector")
        unknown = {"module": None, "class_name": "Mine", "config": {}, "registered_name": "my_models>Mine"}
        metadata.write_text(json.dumps({**content, "resizer": unknown}))
        with pytest.raises(ValueError, match="Import the module that defines it"):
            inference.open_detector(files / "detector")
    finally:
        metadata.write_text(json.dumps(content))
