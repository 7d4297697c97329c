"""Detections as the objects of other packages: pixels, names, masks and tracks arrive."""

import pickle

import numpy as np
import pytest

from keras_detect.data.pasting import paste
from keras_detect.export.errors import MissingPackageError
from keras_detect.inference import detect, detections
from keras_detect.inference.detections import Detections
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.inference.test_images import Echo


def found(**more):
    fields = {
        "boxes": np.float32([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 1.0, 1.0]]),
        "scores": np.float32([0.9, 0.6]),
        "labels": np.int32([1, 0]),
        "class_names": ["dog", "cat"],
    }
    return Detections({**fields, **more}, (50, 80))


def masks():
    """Over the boxes: the left half of the first, all of the second."""
    over_boxes = np.ones((2, 10, 16), np.float32)
    over_boxes[0, :, 8:] = 0.0
    return over_boxes


def test_detect_returns_them_with_the_size_of_the_image():
    model = Echo(FixedShapeResizer(height=8, width=8))
    result = detect(model, np.full((30, 40, 3), 255, np.uint8))
    assert isinstance(result, dict) and result.image_size == (30, 40)
    results = detect(model, [np.full((size, 40, 3), 255, np.uint8) for size in (30, 50)])
    assert [each.image_size for each in results] == [(30, 40), (50, 40)]
    again = pickle.loads(pickle.dumps(result))
    assert again.image_size == (30, 40) and again.keys() == result.keys()


def test_supervision():
    supervision = pytest.importorskip("supervision")
    keypoints = np.float32([[[0.5, 0.5]], [[0.1, 0.2]]])
    handed = found(masks=masks(), track_ids=np.int32([3, 4]), keypoints=keypoints).to_supervision()
    assert isinstance(handed, supervision.Detections) and len(handed) == 2
    np.testing.assert_allclose(handed.xyxy, [[16, 5, 32, 15], [0, 25, 80, 50]], atol=1e-4)
    np.testing.assert_allclose(handed.confidence, [0.9, 0.6])
    assert handed.class_id.tolist() == [1, 0] and handed.tracker_id.tolist() == [3, 4]
    assert handed.data["class_name"].tolist() == ["dog", "cat"]
    np.testing.assert_array_equal(handed.data["keypoints"], keypoints)
    assert handed.mask.dtype == bool and handed.mask.shape == (2, 50, 80)
    np.testing.assert_array_equal(handed.mask, paste(masks(), found()["boxes"], (50, 80)) > 0)
    assert handed.mask[0, 6:14, 17:23].all() and not handed.mask[0, :, 25:].any()  # 16 to 32 is the box
    assert handed.mask[1, 26:].all() and not handed.mask[1, :24].any()
    assert len(handed[handed.confidence > 0.8]) == 1
    drawn = supervision.BoxAnnotator().annotate(np.zeros((50, 80, 3), np.uint8), handed)
    assert drawn.any()
    nothing = Detections({key: value[:0] for key, value in found(masks=masks()).items()}, (50, 80)).to_supervision()
    assert len(nothing) == 0
    assert found(class_names=None).to_supervision().data["class_name"].tolist() == ["1", "0"]


def test_fiftyone():
    fiftyone = pytest.importorskip("fiftyone")
    handed = found(masks=masks(), track_ids=np.int32([3, 4]), keypoint_scores=np.float32([[0.5], [0.25]])).to_fiftyone()
    assert isinstance(handed, fiftyone.Detections)
    first, second = handed.detections
    assert (first.label, second.label, first.index) == ("dog", "cat", 3)
    np.testing.assert_allclose(first.bounding_box, [0.2, 0.1, 0.2, 0.2], atol=1e-6)
    assert first.confidence == pytest.approx(0.9)
    assert first.mask.shape == (10, 16) and first.mask[:, :8].all() and not first.mask[:, 8:].any()
    assert first.keypoint_scores == [0.5]
    assert Detections({key: value[:0] for key, value in found().items()}, (50, 80)).to_fiftyone().detections == []


@pytest.mark.parametrize("package", ["supervision", "fiftyone"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(detections.importlib, "import_module", missing)
    with pytest.raises(MissingPackageError, match=rf"pip install 'keras-detect\[{package}\]'"):
        getattr(found(), f"to_{package}")()
