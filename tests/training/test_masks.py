"""A Mask R-CNN trained from the shell on polygons, measured, and used: every file on the way has masks."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

import keras_detect
from keras_detect.data import DetectionDataset
from keras_detect.evaluation import COCOEvaluator, evaluate_coco
from tests import tiny  # registers the backbone
from tests.cli.test_cli import run as shell

pytestmark = pytest.mark.backend_free

TRIANGLE = [20.0, 8.0, 52.0, 40.0, 20.0, 40.0]


def write(folder, split, count, seed):
    """A COCO folder of images with one triangle each, the last one without a mask."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        polygon = (np.reshape(TRIANGLE, (-1, 2)) + rng.integers(-6, 7, 2)).ravel().tolist()
        image = Image.fromarray(rng.integers(0, 80, (48, 64, 3), dtype=np.uint8))
        ImageDraw.Draw(image).polygon(polygon, fill=(250, 230, 40))
        image.save(folder / "images" / f"{split}_{number}.png")
        images.append({"id": number, "file_name": f"{split}_{number}.png", "height": 48, "width": 64})
        x, y = np.reshape(polygon, (-1, 2)).T
        box = [x.min(), y.min(), np.ptp(x), np.ptp(y)]
        masks = [] if number == count - 1 else [polygon]
        entry = {"id": number + 1, "image_id": number, "category_id": 1, "bbox": box, "segmentation": masks}
        annotations.append({**entry, "area": box[2] * box[3] / 2, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "triangle"}]}
    (folder / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for split, count in (("train", 6), ("val", 3)):
        write(folder / "data", split, count, seed=count)
    options = "--model tests_tiny --architecture mask_rcnn --image_size 64 --epochs 1 --batch_size 2 --augment crop"
    arguments = ["train", "--data", str(folder / "data"), "--output", str(folder / "out"), *options.split()]
    assert shell(*arguments) == 0
    return folder


def test_training_measures_masks(run):
    head, *rows = (run / "out" / "history.csv").read_text().splitlines()
    assert {"mask_loss", "val_mask_map", "val_mask_map_50", "val_map"} <= set(head.split(","))
    assert len(rows) == 1
    metrics = json.loads((run / "out" / "metrics.json").read_text())
    assert -1.0 <= metrics["mask_map"] <= 1.0 and "triangle" in metrics["mask_map_per_class"]


def test_the_model_detects_masks_and_predict_writes_them(run):
    model = keras_detect.Model.from_preset(run / "out" / "model.keras")
    found = model.detect(run / "data" / "images" / "val_0.png", score_threshold=0.0)
    pasted = keras_detect.masks.paste(found["masks"], found["boxes"], found.image_size)
    assert pasted.shape == (len(found["scores"]), 48, 64)
    arguments = ["--model", run / "out" / "model.keras", "--images", run / "data" / "images" / "val_0.png"]
    assert shell("predict", *arguments, "--output", run / "found", "--score_threshold", 0) == 0
    (entry,) = json.loads((run / "found" / "detections.json").read_text())["images"].values()
    decoded = [keras_detect.masks.decode(mask, (48, 64)) for mask in entry["masks"]]
    np.testing.assert_array_equal(decoded, pasted)


def test_masks_are_compared_as_annotated(run):
    """A detector that answers with the annotations: every number of masks is 1 but for their coarse cells."""
    data = keras_detect.load_dataset(run / "data", "val")

    class Answers:
        ground_truth_keys = ("masks",)
        resizer = keras_detect.transforms.FixedShapeResizer(height=32, width=32)
        class_names = data.class_names

        def predict_on_batch(self, x):
            boxes = np.stack([record.boxes for record in data.records[: len(x)]])
            rows, columns = np.mgrid[0:1:29j, 0:1:29j]
            masks = np.tile((columns <= rows).astype(np.float32), (len(x), 1, 1, 1))
            ones = np.ones((len(x), 1))
            return {"boxes": boxes, "scores": ones, "labels": 0 * ones, "num_detections": ones[:, 0], "masks": masks}

    result = evaluate_coco(Answers(), data, progress=False)
    assert result["map"] == 1.0
    assert result["mask_map_75"] == 1.0 and result["mask_map"] > 0.85
    batches = data.batches(Answers(), 3, masks=True)  # the same at the size of the network's input
    assert evaluate_coco(Answers(), batches, class_names=["triangle"], progress=False)["mask_map_50"] == 1.0


def test_data_without_masks_are_refused(tmp_path):
    images = [np.zeros((48, 64, 3), np.uint8)] * 4
    data = DetectionDataset.from_arrays(images, [[[0.1, 0.1, 0.6, 0.6]]] * 4, [[0]] * 4, ["a"])
    with pytest.raises(ValueError, match="A MaskRCNN learns masks, and none of the 3 training images has any"):
        keras_detect.training.train(
            tiny.tiny_mask_rcnn(num_classes=1), data, output=tmp_path / "out", validation_fraction=0.25, verbose=0
        )


def test_the_shared_collection_serves_both(run):
    evaluator = COCOEvaluator(["a"])
    other = COCOEvaluator(["a"], evaluator.collected, compare="masks")
    assert other.result()["mask_map"] == -1.0
