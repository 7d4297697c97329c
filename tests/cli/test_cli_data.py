"""The sub-commands about data: `convert_data`, `check`, `statistics`, and what `train` says before its first epoch."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from keras_detect import cli
from keras_detect.data import load_dataset, shapes_dataset, write_dataset
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*arguments):
    return cli.run(cli.parse(["keras-detect", *map(str, arguments)]))


@pytest.fixture
def drawn(tmp_path):
    data = shapes_dataset(4, image_size=32, class_names=["circle", "star"], empty_share=0.0)
    for split, part in (("train", data[:3]), ("val", data[3:])):
        write_dataset(part, tmp_path / "drawn", "coco", split=split)
    return tmp_path / "drawn"


def test_convert_data(drawn, tmp_path, capsys):
    splits = ("--splits", "train", "val")
    assert run("convert_data", "--data", drawn, "--to", "yolo", "--output", tmp_path / "yolo", *splits) == 0
    assert len(load_dataset(tmp_path / "yolo", "train")) == 3
    assert "3 images" in capsys.readouterr().out
    assert run("convert_data", "--data", drawn, "--to", "voc", "--output", drawn, *splits) == 2
    assert "output must differ" in capsys.readouterr().err
    assert run("convert_data", "--data", tmp_path / "yolo", "--from", "coco", "--to", "voc", "--output", tmp_path) == 2


def test_check_says_whether_training_would_start(drawn, tmp_path, capsys):
    assert run("check", "--data", drawn, "--split", "train", "--output", tmp_path / "check.json") == 0
    assert "training would start" in capsys.readouterr().out
    image = drawn / "images" / "shapes_0_00001.png"
    Image.open(image).save(image, "JPEG", quality=95)  # its header is whole, its last rows are not
    image.write_bytes(image.read_bytes()[:-200])
    assert run("check", "--data", drawn, "--split", "train", "--output", tmp_path / "check.json") == 1
    assert "refused" in capsys.readouterr().out
    assert json.loads((tmp_path / "check.json").read_text())["training_would_start"] is False
    assert run("train", "--data", drawn, "--train_split", "train", "--output", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "images that cannot be decoded: damaged or truncated: 1 (shapes_0_00001.png)" in error
    assert not (tmp_path / "run").exists()


def test_statistics(drawn, tmp_path, capsys):
    assert run("statistics", "--data", drawn, "--split", "train", "--output", tmp_path / "s", "--num_anchors", 2) == 0
    assert "k-means anchors" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"statistics.json", "statistics.png", "gallery.png"}
    assert json.loads((tmp_path / "s" / "statistics.json").read_text())["images"] == 3


def test_without_a_split_every_split_is_read_and_stated(drawn, tmp_path, capsys):
    lone = drawn / "images" / "in_no_split.png"
    Image.new("RGB", (32, 32)).save(lone)
    assert run("check", "--data", drawn, "--output", tmp_path / "check.json") == 0
    assert f"{drawn} (splits: train with 3 images, val with 1 image): 4 images\n" in capsys.readouterr().out
    report = json.loads((tmp_path / "check.json").read_text())
    unlisted = [entry for entry in report["found"] if entry["where"] == ["in_no_split.png"]]
    assert [entry["count"] for entry in unlisted] == [1]  # of the folder, and not of each split
    lone.unlink()
    assert run("statistics", "--data", drawn, "--output", tmp_path / "s") == 0
    assert "(splits: train with 3 images, val with 1 image): 4 images\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "s" / "statistics.json").read_text())["images"] == 4
    assert run("convert_data", "--data", drawn, "--to", "csv", "--output", tmp_path / "csv") == 0
    assert [len(load_dataset(tmp_path / "csv", split)) for split in ("train", "val")] == [3, 1]
    assert run("check", "--data", tmp_path / "csv") == 0
    assert "train with 3 images, val with 1 image" in capsys.readouterr().out
    shutil.copy(drawn / "instances_val.json", drawn / "instances_mine.json")  # the name of no usual split
    assert run("convert_data", "--data", drawn, "--to", "csv", "--output", tmp_path / "more") == 2
    assert "several annotation files: instances_mine.json" in capsys.readouterr().err
    assert run("check", "--data", drawn) == 1


def test_the_same_image_in_two_splits_is_a_duplicate(drawn, capsys):
    first, second = (drawn / "images" / f"shapes_0_0000{number}.png" for number in (0, 3))
    shutil.copy(first, second)
    assert run("check", "--data", drawn) == 0
    assert "duplicate images" in capsys.readouterr().out


def test_statistics_compares_a_model_of_other_classes(drawn, tmp_path, capsys):
    tiny.tiny_ssd(class_names=["a", "b", "c"], num_classes=None).save(tmp_path / "model.keras")
    assert run("statistics", "--data", drawn, "--model", tmp_path / "model.keras", "--output", tmp_path / "s") == 0
    assert "the model's current anchors" in capsys.readouterr().out


def test_the_module_is_the_command(tmp_path):
    """`python -m keras_detect.cli` does what `keras-detect` does, and ends with its status."""
    command = [sys.executable, "-m", "keras_detect.cli", "check", "--data", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert "No such file or folder" in ended.stdout
