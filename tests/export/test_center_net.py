"""A CenterNet's boxes, keypoints and masks leave Keras: every format answers as `predict`."""

import numpy as np
import pytest

from keras_detect import schema
from keras_detect.export import open_exported
from keras_detect.export.verification import compare
from tests import tiny

pytestmark = pytest.mark.backend_free
PACKAGES = {
    "saved_model": "tensorflow",
    "model.onnx": "tf2onnx",
    "model.tflite": "ai_edge_litert",
    "model.xml": "openvino",
}


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_center_net_with_keypoints(num_classes=None, class_names=["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def with_masks():
    return tiny.tiny_center_net_with_masks(num_classes=None, class_names=["cat", "dog", "owl"])


@pytest.mark.parametrize("name", PACKAGES)
def test_masks_are_those_of_predict(name, with_masks, images, tmp_path):
    pytest.importorskip(PACKAGES[name])
    report = with_masks.export(tmp_path / name, images=images, image_size=64, verbose=0)
    assert report.missing == 0 and report.matched == report.detections == 40
    expected = with_masks.predict_on_batch(images[0][None])[schema.MASKS]
    found = open_exported(tmp_path / name)(images[0][None])[schema.MASKS]
    assert np.ptp(expected) > 0.001
    np.testing.assert_allclose(np.sort(found, 1), np.sort(expected, 1), atol=1e-5)


@pytest.mark.parametrize("name", PACKAGES)
def test_it_answers_as_predict(name, model, images, tmp_path):
    pytest.importorskip(PACKAGES[name])
    report = model.export(tmp_path / name, images=images, image_size=64, verbose=0)
    assert report.missing == 0 and report.matched == report.detections == 40
    assert max(report.box_difference, report.score_difference) < 1e-5
    expected = model.predict_on_batch(images[0][None])
    found = open_exported(tmp_path / name)(images[0][None])
    for key in (schema.KEYPOINTS, schema.KEYPOINT_SCORES):
        assert np.abs(expected[key]).max() > 0.05
        np.testing.assert_allclose(np.sort(found[key], 1), np.sort(expected[key], 1), atol=1e-5)


def test_other_keypoints_are_another_detection(model, images):
    found = {key: np.array(value) for key, value in model.predict_on_batch(np.stack(images)).items()}
    assert compare(found, found, 1e-3).matched == 40
    other = {**found, schema.KEYPOINTS: found[schema.KEYPOINTS].copy()}
    row = int(np.argmax(np.abs(found[schema.KEYPOINTS][0]).sum((1, 2))))  # of the class that has keypoints
    other[schema.KEYPOINTS][0, row] += 0.01
    assert compare(found, other, 1e-3).matched == 39
