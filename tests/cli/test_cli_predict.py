"""`keras-detect predict`: every kind of input and output, and one line for what is wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_detect.inference import video
from tests import tiny
from tests.cli.test_cli import run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    built = tiny.tiny_ssd(class_names=["cat", "dog", "owl"])
    built.score_threshold = 0.01
    built.save(path)
    return path


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("a.png", "deep/a.png", "deep/a_2.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 100, 3), dtype=np.uint8)).save(path)
    with video.video_writer(tmp_path / "in" / "clip.mp4", 5.0, (48, 64)) as writer:
        for _ in range(3):
            writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_tiles_videos_and_coco_results(model, inputs, capsys):
    arguments = ("--recursive", "--tile", 64, "--overlap", 0.3, "--coco_results", "--max_frames", 2)
    assert run("predict", "--model", model, "--images", "in", "--output", "in/out", *arguments) == 0
    assert "in 3 images, 2 frames of in/clip.mp4: in/out" in capsys.readouterr().out
    names = {"a.jpg", "a_2.jpg", "a_2_2.jpg", "clip.mp4", "clip.jsonl", "detections.json", "coco_results.json"}
    assert {path.name for path in (inputs / "in" / "out").iterdir()} == names
    written = json.loads((inputs / "in" / "out" / "detections.json").read_text())
    assert {name: entry["image"] for name, entry in written["images"].items()} == {
        "a.jpg": "in/a.png",
        "a_2.jpg": "in/deep/a.png",
        "a_2_2.jpg": "in/deep/a_2.png",
    }
    results = json.loads((inputs / "in" / "out" / "coco_results.json").read_text())
    assert len(results) == sum(len(entry["labels"]) for entry in written["images"].values()) > 3
    assert {entry["image_id"] for entry in results} == {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "in/*.gif"), "No image or video matches in/*.gif"),
        (("--images", "text.mp4"), "Not a readable video: text.mp4"),
        (("--images", "97"), "There is no camera 97"),
        (("--images", "in/a.png", "97"), "There is no camera 97"),
        (("--images", "in/a.png", "--overlap", "0.3"), "belong to --tile"),
        (("--images", "in/a.png", "--tile", "0"), "tile is an int or (height, width)"),
        (("--images", "in/a.png", "--tile", "1", "2", "3"), "--tile expects one side"),
        (("--images", "in/a.png", "--tile", "64", "--overlap", "1"), "from 0 to below 1"),
        (("--images", "in/a.png", "--max_frames", "0"), "--max_frames must be at least 1"),
        (("--images", "in/a.png", "--annotations", "x.json"), "--annotations has the ids for --coco_results"),
        (("--images", "in/a.png", "--coco_results", "--annotations", "x.json"), "No such annotation file: x.json"),
        (("--images", "in/clip.mp4", "--coco_results"), "Received videos only"),
        (("--images", "in/a.png", "--model", "text.tflite"), "text.tflite"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(arguments, message, model, inputs, capfd):
    for name in ("text.mp4", "text.tflite"):
        (inputs / name).write_text("neither a video nor a model")
    given = arguments if "--model" in arguments else ("--model", model, *arguments)
    assert run("predict", "--output", "out", *given) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("keras-detect predict: ") and message in line
    assert not (inputs / "out").exists()


def test_what_cannot_be_read_is_left_out(model, inputs, capsys):
    for name in ("bad.png", "bad.mp4"):
        (inputs / "in" / name).write_text("nothing of that kind")
    assert run("predict", "--model", model, "--images", "in", "--output", "out") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and all(line.startswith("skipped: ") for line in lines)
    assert "bad.png" in lines[0] and "bad.mp4" in lines[1]
    assert {path.name for path in (inputs / "out").iterdir()} == {"a.jpg", "clip.mp4", "clip.jsonl", "detections.json"}
