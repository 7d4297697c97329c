"""The worst images of a report: counted by hand, drawn with the ground truth beside the detections."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_detect.data import DetectionDataset
from keras_detect.evaluation import Collected, ConfusionMatrix, write_report
from tests.evaluation.test_pascal_voc import FAR, LEFT, RIGHT, image

NAMES = ["a", "b"]


@pytest.fixture
def three():
    """Image 0 without an error, 1 with one missed object, 2 with a confusion and a false alarm."""
    truths = [([LEFT], [0]), ([LEFT, RIGHT], [0, 1]), ([LEFT], [0])]
    found = [([LEFT], [0], [0.9]), ([LEFT, RIGHT], [0, 1], [0.9, 0.2]), ([LEFT, FAR], [1, 0], [0.9, 0.8])]
    collected = Collected(NAMES)
    for ground_truth, detections in zip(truths, found, strict=True):
        collected.update(image(*ground_truth), image(*detections), image_sizes=[[40, 60]])
    images = [np.full((40, 60, 3), 80, np.uint8)] * 3
    boxes, labels = [np.array(boxes) for boxes, _ in truths], [np.array(labels) for _, labels in truths]
    files = ["good.png", "missed.png", "confused.png"]
    return collected, DetectionDataset.from_arrays(images, boxes, labels, NAMES, file_names=files)


def test_errors_are_counted_per_image(three):
    errors = ConfusionMatrix(NAMES, collected=three[0]).errors_per_image()
    assert {kind: list(numbers) for kind, numbers in errors.items()} == {
        "confused": [0, 0, 1],
        "false_alarms": [0, 0, 1],
        "missed": [0, 1, 0],
    }


def test_the_report_shows_the_worst_images_first(three, tmp_path):
    collected, dataset = three
    report = write_report(collected, tmp_path / "report", dataset=dataset)
    assert [(entry["file_name"], entry["errors"]) for entry in report["worst_images"]] == [
        ("confused.png", 2),
        ("missed.png", 1),
    ]
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    assert sorted(path.name for path in (tmp_path / "report").glob("worst_*")) == ["worst_1.jpg", "worst_2.jpg"]
    with Image.open(tmp_path / "report" / "worst_1.jpg") as drawn:
        pixels = np.asarray(drawn.convert("RGB"), int)
    half = pixels.shape[1] // 2
    colored = np.ptp(pixels, axis=-1) > 60  # boxes and labels; the image is gray
    assert colored[:, :half].any()
    assert colored[:, half:].any()
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.index("confused.png: 1 confused, 1 false alarms, 0 missed") < page.index("missed.png: 0 confused")
    assert "Score thresholds" in page


def test_a_data_set_of_other_images_is_refused(three, tmp_path):
    collected, dataset = three
    with pytest.raises(ValueError, match="2 of them, 3 collected"):
        write_report(collected, tmp_path / "report", dataset=dataset.subset([0, 1]))
    assert not (tmp_path / "report").exists()
