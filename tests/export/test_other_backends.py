"""A model under JAX or torch is exported by a second process, which says so, and answers like the model here."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_detect import export, schema
from tests import goldens, tiny

pytestmark = pytest.mark.skipif(goldens.BACKEND == "tensorflow", reason="TensorFlow needs no second process")


def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_the_second_process_writes_the_file_and_reports(tmp_path):
    model = tiny.tiny_ssd(class_names=["cat", "dog", "owl"])
    report = model.export(tmp_path / "exported", images=[image()], verbose=0)
    assert report.route == f"{goldens.BACKEND} -> .keras -> tensorflow"
    assert report.weights_digest == export.weights_digest(model)
    assert (report.matched, report.missing) == (report.detections, 0)
    found = export.open_exported(tmp_path / "exported")(image()[None])
    expected = keras.tree.map_structure(keras.ops.convert_to_numpy, model.predict_on_batch(image()[None]))
    np.testing.assert_allclose(found[schema.SCORES], expected[schema.SCORES], atol=1e-4)


def test_its_errors_arrive_here(tmp_path, monkeypatch):
    model = tiny.tiny_ssd()
    monkeypatch.setattr(type(model), "predict_on_batch", _shifted(type(model).predict_on_batch))
    with pytest.raises(export.ExportError, match="does not detect what predict detects"):
        model.export(tmp_path / "wrong", images=[image()], verbose=0)
    assert not (tmp_path / "wrong").exists()


def test_a_missing_tensorflow_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(export.MissingPackageError, match=r"tensorflow in this environment.*pip install tensorflow"):
        tiny.tiny_ssd().export(tmp_path / "exported", images=[image()], verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_every_format_answers_as_the_model_here(suffix, tmp_path):
    if suffix != ".tflite":
        pytest.importorskip("tf2onnx", reason="pip install 'keras-detect[export]' brings it")
    model = tiny.tiny_ssd(class_names=["cat", "dog", "owl"])
    report = model.export(tmp_path / f"exported{suffix}", images=[image()], verbose=0)
    assert report.route == f"{goldens.BACKEND} -> .keras -> tensorflow"
    assert report.missing == 0 and report.matched >= 0.95 * report.detections  # the last ones lie at the cut
    assert max(report.box_difference, report.score_difference) < 1e-4


def _shifted(right):
    def predict_on_batch(self, x):
        found = right(self, x)
        return {**found, schema.BOXES: np.asarray(found[schema.BOXES]) * 0.9}

    return predict_on_batch
