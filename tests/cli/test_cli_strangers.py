"""What a stranger gets wrong on the command line: one clear line each, with the file and the way out."""

import json

import pytest
from PIL import Image

from keras_detect import cli
from keras_detect.data import shapes_dataset, write_dataset


def run(*arguments):
    return cli.run(cli.parse(["keras-detect", *map(str, arguments)]))


@pytest.fixture
def data(tmp_path):
    dataset = shapes_dataset(3, image_size=32, class_names=["circle", "star"], empty_share=0.0)
    for format in ("coco", "yolo"):
        write_dataset(dataset, tmp_path / format, format)
    return tmp_path


def annotations(folder):
    (path,) = folder.rglob("instances*.json")
    return path


def an_empty_annotation_file(data):
    annotations(data / "coco").write_text("")
    return data / "coco", "instances"


def a_broken_annotation_file(data):
    path = annotations(data / "coco")
    path.write_text(path.read_text()[:200])
    return data / "coco", "instances"


def a_category_that_does_not_exist(data):
    path = annotations(data / "coco")
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 77
    path.write_text(json.dumps(content))
    return data / "coco", "77"


def a_class_number_out_of_range(data):
    path = sorted((data / "yolo").rglob("shapes*.txt"))[0]
    path.write_text("9 0.5 0.5 0.2 0.2\n")
    return data / "yolo", path.name


def a_cut_off_image(data):
    path = sorted((data / "coco").rglob("*.png"))[0]
    Image.open(path).save(path, "JPEG", quality=95)
    path.write_bytes(path.read_bytes()[:-200])
    return data / "coco", path.name


def a_missing_image(data):
    path = sorted((data / "coco").rglob("*.png"))[0]
    path.unlink()
    return data / "coco", path.name


def a_wrong_path(data):
    return data / "cooc", "No such file or folder"


CASES = (
    an_empty_annotation_file,
    a_broken_annotation_file,
    a_category_that_does_not_exist,
    a_class_number_out_of_range,
    a_cut_off_image,
    a_missing_image,
    a_wrong_path,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_training_ends_in_one_line_that_names_the_cause(case, data, capsys):
    folder, message = case(data)
    assert run("train", "--data", folder, "--output", data / "run", "--epochs", 1) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("keras-detect train: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (data / "run").exists()
