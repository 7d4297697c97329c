"""A CenterNet trained from the shell on keypoints, measured, and used: every file on the way has keypoints."""

import json

import numpy as np
import pytest

import keras_detect
from keras_detect.data import DetectionDataset, figures_dataset, write_dataset
from keras_detect.evaluation import evaluate_coco
from keras_detect.training.start import Start
from tests.cli.test_cli import run as shell
from tests.meta_architectures import test_center_net_defaults  # noqa: F401 - registers the backbone

pytestmark = pytest.mark.backend_free


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for split, count in (("train", 6), ("val", 2)):
        write_dataset(
            figures_dataset(count, seed=count, image_size=64, max_figures=2), folder / "data", "coco", split=split
        )
    options = "--model tests_from_stride_4 --architecture centernet --image_size 64 --epochs 1 --batch_size 2"
    arguments = ["train", "--data", str(folder / "data"), "--output", str(folder / "out"), *options.split()]
    assert shell(*arguments) == 0
    return folder


def test_training_measures_keypoints(run):
    head, *rows = (run / "out" / "history.csv").read_text().splitlines()
    assert {"keypoints_heatmap_loss", "val_keypoint_map", "val_keypoint_map_50", "val_map"} <= set(head.split(","))
    assert len(rows) == 1
    metrics = json.loads((run / "out" / "metrics.json").read_text())
    assert -1.0 <= metrics["keypoint_map"] <= 1.0 and "keypoint_mar_large" in metrics


def test_predict_writes_keypoints_and_draws_the_skeleton(run, monkeypatch):
    model = keras_detect.Model.from_preset(run / "out" / "model.keras")
    assert len(model.skeleton) == 6
    image = run / "data" / "images" / "figures_2_00000.png"
    found = model.detect(image, score_threshold=0.0)
    assert found["keypoints"].shape == (len(found["scores"]), 7, 2)
    drawn = []
    monkeypatch.setattr(
        "keras_detect.inference.files.draw_objects",
        lambda image, objects, names, skeleton=(), **options: (
            drawn.append(skeleton) or keras_detect.visualization.draw_objects(image, objects, names)
        ),
    )
    arguments = ["--model", run / "out" / "model.keras", "--images", image, "--coco_results"]
    assert shell("predict", *arguments, "--output", run / "found", "--score_threshold", 0) == 0
    assert drawn == [model.skeleton]
    (entry,) = json.loads((run / "found" / "detections.json").read_text())["images"].values()
    np.testing.assert_allclose(entry["keypoints"], found["keypoints"], atol=1e-4)
    first = json.loads((run / "found" / "coco_results.json").read_text())[0]["keypoints"]
    expected = (found["keypoints"][0] * 64)[:, ::-1]
    np.testing.assert_allclose(np.reshape(first, (-1, 3))[:, :2], expected, atol=0.01)


def test_each_class_with_keypoints_has_a_task():
    images = [np.zeros((64, 64, 3), np.uint8)] * 2
    points = [[[[0.2, 0.2], [0.4, 0.4]], [[np.nan, np.nan]] * 2, [[0.5, 0.5], [np.nan, np.nan]]]] * 2
    boxes, labels = [[[0.1, 0.1, 0.6, 0.6]] * 3] * 2, [[2, 1, 0]] * 2
    data = DetectionDataset.from_arrays(images, boxes, labels, ["a", "b", "c"], keypoints=points)
    model, _ = Start("tests_from_stride_4", "centernet", image_size=64).build(data, verbose=0)
    assert [task.class_id for task in model.tasks[1:]] == [0, 2]
    assert [task.name for task in model.tasks[1:]] == ["keypoints_0", "keypoints_2"]
    data = DetectionDataset.from_arrays(images, boxes, labels, ["a", "b", "c"])
    model, _ = Start("tests_from_stride_4", "centernet", image_size=64).build(data, verbose=0)
    assert len(model.tasks) == 1


def test_perfect_keypoints_are_measured_as_perfect():
    data = figures_dataset(3, seed=5, image_size=(64, 80))

    class Answers:
        resizer = keras_detect.transforms.FixedShapeResizer(height=32, width=32)
        class_names = data.class_names

        def predict_on_batch(self, x):
            ((_, y),) = data.batches(self, 3)
            y = {key: value.numpy() for key, value in y.items()}
            return {**{key: y[key] for key in ("boxes", "labels", "keypoints")}, "scores": 1.0 * (y["labels"] >= 0)}

    result = evaluate_coco(Answers(), data, progress=False)
    assert result["keypoint_map"] == result["map"] == 1.0
    assert evaluate_coco(Answers(), data, progress=False, keypoint_sigmas=[0.1] * 7)["keypoint_mar"] == 1.0
