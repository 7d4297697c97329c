"""Exported files as detectors: what they detect is what the model detects, resizing and tiles included.

`tests/export` opens a file of the other formats.
"""

import numpy as np
import pytest

from keras_detect import inference
from keras_detect.inference import compiled
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
def path(model, tmp_path_factory):
    pytest.importorskip("tf2onnx")
    file = tmp_path_factory.mktemp("exported") / "detector.onnx"
    model.export(file, verbose=0)
    return file


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8)


def test_a_file_detects_what_the_model_detects(model, path, image):
    detector = inference.load_detector(path)
    assert detector.runtime == "onnxruntime" and detector.class_names == ["cat", "dog", "owl"]
    assert detector.score_threshold == 0.01
    assert detector.final_suppression == model.final_suppression
    for options in ({}, {"tile": 64, "overlap": 0.25}):
        expected, found = (each.detect(image, **options) for each in (model, detector))
        assert found.image_size == (60, 150) and len(expected["labels"]) > 5
        assert abs(len(found["labels"]) - len(expected["labels"])) <= 2  # pixels are rounded before a file takes them
        np.testing.assert_allclose(found["scores"][:5], expected["scores"][:5], atol=5e-3)


def test_a_file_that_does_not_say_how_it_resizes_is_refused(path, monkeypatch):
    runner = compiled.open_exported(path)
    said = dict(runner.metadata)
    monkeypatch.setattr(compiled, "open_exported", lambda *_: runner)
    runner.metadata = {key: value for key, value in said.items() if key != "resizer"}
    with pytest.raises(ValueError, match="does not say how its detector resizes"):
        inference.open_detector(path)
    unknown = {"module": "mine", "class_name": "Mine", "config": {}, "registered_name": "my_models>Mine"}
    runner.metadata = {**said, "resizer": unknown}
    with pytest.raises(ValueError, match="Import the module that defines it"):
        inference.open_detector(path)


def test_what_is_no_detector(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tflite"):
        inference.load_detector(tmp_path / "nowhere.tflite")
    for name in ("text.tflite", "text.onnx"):
        (tmp_path / name).write_text("not a detector at all")
        with pytest.raises(ValueError, match=name):
            inference.load_detector(tmp_path / name)
