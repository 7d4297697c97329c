"""A field added to the tables of `schema` travels everywhere without another edit."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_detect import schema
from keras_detect.data import load_dataset, write_coco, write_dataset
from keras_detect.data.convert import lost
from keras_detect.evaluation import Collected
from keras_detect.inference.files import detect_files
from keras_detect.transforms import RandomHorizontalFlip, RandomIoUCrop
from keras_detect.transforms.resizers import FixedShapeResizer
from keras_detect.visualization import class_color, draw_objects
from tests.tiny import tiny_ssd

# an object 4 x 8 pixels large at (2, 2) of an image 10 x 20, and its right half
BOX, PART = [2, 2, 8, 4], [6, 2, 10, 2, 10, 6, 6, 6]


@pytest.fixture
def fields(monkeypatch):
    """A number, points, a raster and a per-image input that the package does not know."""
    monkeypatch.setattr(schema, "_OBJECT_FIELDS", dict(schema._OBJECT_FIELDS))
    monkeypatch.setattr(schema, "_IMAGE_FIELDS", dict(schema._IMAGE_FIELDS))
    schema.register_object_field(schema.ObjectField(key="heights", singular="height", padding=-2.0, default=-1.0))
    schema.register_object_field(
        schema.ObjectField(key="corners", singular="corners", shape=("C", 2), moves=schema.AS_POINTS, default=0.5)
    )
    schema.register_object_field(
        schema.ObjectField(key="parts", singular="part", shape=("H", "W"), dtype="uint8", moves=schema.AS_RASTER)
    )
    schema.register_image_field(schema.ImageField(key="weather", shape=("S",), padding=9.0, annotated=True))


@pytest.fixture
def folder(tmp_path):
    """A COCO folder of two images; the first has two objects, of which the second says less."""
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    images = [{"id": i, "file_name": f"{name}.png", "height": 10, "width": 20} for i, name in enumerate("ab")]
    images[1]["weather"] = [1.0, 2.0]
    full = {"bbox": BOX, "height": 1.75, "corners": [[0.2, 0.1], [0.6, 0.5]], "part": [PART]}
    annotations = [full | {"id": 1, "image_id": 0, "category_id": 1}]
    annotations += [{"id": 2, "image_id": 0, "category_id": 1, "bbox": BOX, "corners": [[0.3, 0.2]]}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


RESIZER = FixedShapeResizer(height=20, width=40)


def test_from_a_coco_file_through_augmentation_and_batches_to_y_and_metrics(fields, folder):
    data = load_dataset(folder)
    augment = [RandomHorizontalFlip(probability=1.0), RandomIoUCrop(min_overlaps=(), min_area=1.0, max_aspect_ratio=1)]
    ((x, y),) = data.batches(RESIZER, 2, augment=augment, masks=True, max_boxes=3).as_numpy_iterator()
    np.testing.assert_allclose(y["heights"], [[1.75, -1, -2], [-2, -2, -2]])
    # mirrored; the second object has one corner, and the default (mirrored too) for the other
    expected = [[[0.2, 0.9], [0.6, 0.5]], [[0.3, 0.8], [0.5, 0.5]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(y["corners"][0], expected, atol=1e-6)
    part = np.zeros((20, 40), np.uint8)
    part[4:12, 20:28] = 1  # x 6...10 of 20 is 10...14 from the other side, twice as large
    np.testing.assert_array_equal(y["parts"][0, 0], part)
    assert not y["parts"][0, 1:].any() and not y["parts"][1].any()
    np.testing.assert_array_equal(x["weather"], [[9, 9], [1, 2]])
    assert x["images"].shape == (2, 20, 40, 3)
    collected = Collected(["a"])
    collected.update(y, {"boxes": np.zeros((2, 0, 4)), "labels": np.zeros((2, 0)), "scores": np.zeros((2, 0))})
    np.testing.assert_allclose(collected.ground_truth()["heights"], [1.75, -1])
    assert collected.ground_truth()["parts"][0]["size"] == [20, 40]


@pytest.mark.parametrize("format", ["coco", "tfrecord", "csv", "yolo"])
def test_through_the_writers(fields, folder, tmp_path, format):
    data = load_dataset(folder)
    held = {field.key for field in schema.object_fields(schema.GROUND_TRUTH)} & {"heights", "corners", "parts"}
    missing = write_dataset(data, tmp_path / "out", format)
    again = load_dataset(tmp_path / "out")
    for key in held:
        if missing.get(key):
            assert again.records[0].get(key) is None
        elif key == "parts":
            np.testing.assert_array_equal(again.records[0].read_raster(key), data.records[0].read_raster(key))
        else:
            np.testing.assert_allclose(again.records[0].get(key), data.records[0].get(key))
    expected = {"coco": {}, "tfrecord": {}, "csv": {"corners": 2, "parts": 1}}
    expected["yolo"] = expected["csv"] | {"heights": 1}
    assert {key: count for key, count in missing.items() if key in held} == expected[format]
    assert lost(data, format) == missing
    if format == "coco":
        np.testing.assert_array_equal(again[1]["weather"], [1, 2])
        assert write_coco(again, tmp_path / "twice").read_text().count('"weather"') == 1


def test_from_a_models_output_through_detect_to_json_and_drawing(fields, tmp_path, monkeypatch):
    model = tiny_ssd(class_names=["a", "b", "c"])
    postprocess = model.postprocess

    def with_further_fields(*args, **kwargs):
        found = postprocess(*args, **kwargs)
        ones = keras.ops.ones_like(found["scores"])
        corners = keras.ops.stack([ones[..., None] * 0.25, ones[..., None] * 0.75], axis=-1)
        # boxes and their captions stay away from the corners
        boxes = keras.ops.zeros_like(found["boxes"]) + keras.ops.array([0.6, 0.1, 0.9, 0.4])
        return {**found, "boxes": boxes, "heights": ones * 1.5, "corners": corners}

    monkeypatch.setattr(model, "postprocess", with_further_fields)
    images = np.zeros((64, 64, 3), np.uint8)
    Image.fromarray(images).save(tmp_path / "a.png")
    found = model.detect(tmp_path / "a.png", score_threshold=0.0)
    assert len(found["scores"]) > 1
    np.testing.assert_array_equal(found["heights"], np.full(len(found["scores"]), 1.5))
    assert found["corners"].shape == (len(found["scores"]), 1, 2)
    detect_files(model, tmp_path / "a.png", tmp_path / "out", score_threshold=0.0, progress=False)
    (entry,) = json.loads((tmp_path / "out" / "detections.json").read_text())["images"].values()
    assert entry["heights"] == [1.5] * len(found["scores"])
    assert entry["corners"][0] == [[0.25, 0.75]]
    drawn = np.asarray(draw_objects(images, found, model.class_names))
    best = class_color(int(found["labels"][0]))
    assert tuple(drawn[80, 240]) == best  # the dot of the best detection, on an image enlarged to 320 pixels
