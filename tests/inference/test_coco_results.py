"""COCO's results file: pixels, and the ids of an annotation file or of the order of files."""

import json

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from keras_detect.data import masks
from keras_detect.inference import detect_files
from keras_detect.inference.coco_results import COCOIds, coco_results
from keras_detect.inference.detections import Detections
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.inference.test_images import Echo


@pytest.fixture
def folder(tmp_path):
    for name, value in (("val/a.png", 200), ("val/b.png", 100), ("other/a.png", 250)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((50, 80, 3), value, np.uint8)).save(tmp_path / name)
    return tmp_path


def annotation_file(folder, **changes):
    content = {
        "images": [
            {"id": 42, "file_name": "b.png", "height": 50, "width": 80},
            {"id": 7, "file_name": "val/a.png", "height": 50, "width": 80},
            {"id": 9, "file_name": "other/a.png", "height": 50, "width": 80},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 42, "category_id": 18, "bbox": [16, 5, 16, 10], "area": 160, "iscrowd": 0}
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def echo():
    return Echo(FixedShapeResizer(height=8, width=8))  # a "dog" at 0.1, 0.2, 0.3, 0.4


def test_ids_of_an_annotation_file(folder):
    """COCO's own evaluation reads the file, and gives the detection full marks."""
    annotations = annotation_file(folder)
    detect_files(
        echo(),
        [folder / "val", folder / "other"],
        folder / "out",
        score_threshold=0.0,
        progress=False,
        coco_results=True,
        annotations=annotations,
    )
    results = json.loads((folder / "out" / "coco_results.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in results] == [(7, 18), (42, 18), (9, 18)]
    assert results[1]["bbox"] == [16.0, 5.0, 16.0, 10.0] and results[1]["score"] == round(100 / 255, 5)
    truth = COCO(str(annotations), print_function=lambda *_: None)
    found = truth.loadRes(str(folder / "out" / "coco_results.json"))
    evaluation = COCOeval_faster(truth, found, iouType="bbox", print_function=lambda *_: None)
    evaluation.params.imgIds = [42]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]
    assert precision[precision > -1].mean() == pytest.approx(1.0)


def test_ids_of_the_order_of_files(folder):
    (folder / "val" / "aa.png").write_text("no image at all")
    found = detect_files(echo(), folder / "val", folder / "out", score_threshold=0.0, progress=False, coco_results=True)
    assert len(found.errors) == 1
    results = json.loads((folder / "out" / "coco_results.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in results] == [(1, 2), (3, 2)]


def test_masks_are_written_as_run_lengths():
    fields = {
        "boxes": np.float32([[0, 0, 0.5, 1]]),
        "scores": np.float32([0.5]),
        "labels": np.int32([0]),
        "masks": np.ones((1, 3, 3), np.float32),
    }
    (entry,) = coco_results(Detections(fields, (4, 6)), "x", lambda label: label + 1)
    assert entry["image_id"] == "x" and entry["bbox"] == [0, 0, 6, 2]
    assert entry["segmentation"]["size"] == [4, 6]
    # the four rows are at 0, 1/3, 2/3 and 1: two of them in the box
    np.testing.assert_array_equal(masks.decode(entry["segmentation"], (4, 6)), [[1] * 6] * 2 + [[0] * 6] * 2)


def test_what_is_refused(folder):
    paths = [folder / "val" / "a.png"]
    for changes, names, message in (
        ({"images": []}, ("dog",), r"has no id, or several, for .*a\.png"),
        ({"images": 3}, ("dog",), "is not a COCO annotation file"),
        ({"images": [{"id": 1}]}, ("dog",), "is not a COCO annotation file.*file_name"),
        ({}, ("dog", "zebra"), "has no category for zebra. Received categories: dog, cat, person"),
        ({}, None, "the model has none"),
    ):
        with pytest.raises(ValueError, match=message):
            COCOIds(paths, names, annotation_file(folder, **changes))
    with pytest.raises(FileNotFoundError, match="No such annotation file"):
        COCOIds(paths, ("dog",), folder / "nowhere.json")
    (folder / "instances.json").write_text("{")
    with pytest.raises(ValueError, match="is not a COCO annotation file"):
        COCOIds(paths, ("dog",), folder / "instances.json")
    with pytest.raises(ValueError, match="without coco_results"):
        detect_files(echo(), paths, folder / "out", annotations=folder / "instances.json")
    assert not (folder / "out").exists()
