"""Masks are outputs of an exported Mask R-CNN, and equal to those of `predict`."""

import numpy as np
import pytest

from keras_detect import schema
from keras_detect.data.dataset import DetectionDataset
from keras_detect.export import open_exported
from keras_detect.export.average_precision import average_precisions
from keras_detect.export.verification import compare
from tests import tiny

pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_mask_rcnn(class_names=["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def images():
    return [np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)]


def test_a_saved_model_has_upstreams_detection_masks(model, images, tmp_path):
    tf = pytest.importorskip("tensorflow")
    report = model.export(tmp_path / "saved_model", images=images, verbose=0)
    assert report.missing == 0 and report.matched == report.detections > 0
    found = open_exported(tmp_path / "saved_model")(images[0][None])
    assert found[schema.MASKS].shape == (1, model.num_detections, 8, 8)
    signature = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    assert signature.structured_outputs["detection_masks"].dtype == tf.float32


@pytest.fixture(scope="module")
def annotated(images):
    """One image with one object, whose mask is the left half of its box."""
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 16:48, 16:32] = True
    example = {"image": images[0], "boxes": [[0.25, 0.25, 0.75, 0.75]], "labels": [1], "masks": mask}
    return DetectionDataset.from_examples([example], ["cat", "dog", "owl"])


def test_ap_of_masks_beside_that_of_boxes(annotated):
    def detect(images, mask=((1.0, 0.0), (1.0, 0.0))):
        return {
            schema.BOXES: np.asarray([[[0.25, 0.25, 0.75, 0.75]]], np.float32),
            schema.SCORES: np.ones((1, 1), np.float32),
            schema.LABELS: np.ones((1, 1), np.int32),
            schema.NUM_DETECTIONS: np.ones(1, np.int32),
            schema.MASKS: np.repeat(np.repeat(np.asarray([[mask]], np.float32), 16, axis=2), 16, axis=3),
        }

    assert average_precisions(detect, annotated) == {"boxes": pytest.approx(1.0), "masks": pytest.approx(1.0)}
    right = average_precisions(lambda images: detect(images, ((0.0, 1.0), (0.0, 1.0))), annotated)
    assert right == {"boxes": pytest.approx(1.0), "masks": pytest.approx(0.0)}


def test_onnx_has_masks(model, images, annotated, tmp_path):
    pytest.importorskip("onnxruntime")
    report = model.export(tmp_path / "model.onnx", images=images, representative_data=annotated, verbose=0)
    assert report.missing == 0 and report.matched == report.detections > 0
    assert report.mask_average_precision["file"] == pytest.approx(report.mask_average_precision["predict"], abs=1e-3)
    assert "mask AP" in str(report) and report.keypoint_average_precision is None
    assert open_exported(tmp_path / "model.onnx")(images[0][None])[schema.MASKS].shape[2:] == (8, 8)


def test_another_mask_is_another_detection():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.5, (1, 4, 2))
    found = {
        schema.BOXES: np.concatenate([corner, corner + 0.3], axis=-1),
        schema.SCORES: np.array([[0.9, 0.8, 0.7, 0.6]]),
        schema.LABELS: np.array([[0, 1, 0, 1]]),
        schema.NUM_DETECTIONS: np.array([4]),
        schema.MASKS: rng.uniform(size=(1, 4, 5, 5)),
    }
    assert compare(found, found, 1e-3).matched == 4
    other = {**found, schema.MASKS: found[schema.MASKS].copy()}
    other[schema.MASKS][0, 2] = 1.0 - other[schema.MASKS][0, 2]
    assert (compare(found, other, 1e-3).matched, compare(found, other, 1e-3).missing) == (3, 2)
    del other[schema.MASKS]
    assert compare(found, other, 1e-3).matched == 0


def test_litert_has_masks(model, images, tmp_path):
    report = model.export(tmp_path / "model.tflite", images=images, verbose=0)
    assert report.missing == 0 and report.matched == report.detections > 0
    assert open_exported(tmp_path / "model.tflite")(images[0][None])[schema.MASKS].shape[2:] == (8, 8)
