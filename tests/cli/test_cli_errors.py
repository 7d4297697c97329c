"""Thirty errors as a user meets them: one line each, in words, that names what the user named and says the way out."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_detect import cli
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data that are right and data that are not, images of both kinds, a model and files that are none."""
    place = tmp_path_factory.mktemp("errors")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
    }
    wrong = {**content, "annotations": [{**content["annotations"][0], "category_id": 9}]}
    for name, text in (("cells", json.dumps(content)), ("empty", ""), ("list", "[]"), ("ids", json.dumps(wrong))):
        (place / name / "images").mkdir(parents=True)
        Image.fromarray(np.full((60, 80, 3), 90, "uint8")).save(place / name / "images" / "a.jpg")
        (place / name / "annotations.json").write_text(text)
    shutil.copy(place / "cells" / "images" / "a.jpg", place / "a.jpg")
    for name, data in (
        ("cut.jpg", (place / "a.jpg").read_bytes()[:500]),
        ("text.jpg", b"hello"),
        ("bad.keras", b"no"),
        ("bad.tflite", b"no"),
        ("typo.config", b"model { ssd {"),
    ):
        (place / name).write_bytes(data)
    (place / "nothing").mkdir()
    tiny.portable_ssd(class_names=["cell", "dot", "ring"]).save(place / "model.keras")
    return place


_PREDICT = "predict --model model.keras --output drawn --images "
_EXPORT = "export --model model.keras "
ERRORS = {
    "": "keras-detect: expects a command: benchmark, check, ",
    "trian": "keras-detect: unknown command 'trian'. Did you mean train? ",
    "train --data cells": "train: the following arguments are required: --output ",
    "train --data nowhere --output o": "No such file or folder: nowhere. Give the folder with the images",
    "train --data nothing --output o": "The folder nothing is empty. Expected: COCO (",
    "train --data empty --output o": "empty/annotations.json is not readable JSON (Expecting value: line",
    "train --data list --output o": "list/annotations.json lacks: images, annotations, categories. Expected: COCO (",
    "train --data ids --output o": "Annotation 1 in ids/annotations.json has category_id 9, which",
    "train --data cells --output o --epochs ten": "argument --epochs: expects an integer. Received: 'ten' (see",
    "train --data cells --output o --learning_rate x": "--learning_rate: expects a number. Received: 'x' (see",
    "train --data cells --output o --train_split val": "has no split 'val'. It has no splits: leave the split out.",
    "train --data cells --output a.jpg": "The output is a folder. a.jpg is a file.",
    "train --data cells --output o --model ./gone": "No such file or folder: ./gone. Give the path of a model, or the ",
    "train --data cells --output o --model resnet500": "Did you mean resnet_v2_50, resnet_v1_50, resnet_v2_152 (regis",
    "check --data cells --from pascal": "unknown value 'pascal'. Known: coco, voc, yolo, csv, tfrecord. (see",
    "evaluate --model gone.keras --data cells": "No such model: gone.keras",
    "evaluate --model bad.keras --data cells": "bad.keras: not a .keras file, or truncated; save it again with model",
    "evaluate --model nothing --data cells": "nothing is not a preset: config.json is missing. A preset folder holds ",
    _PREDICT + "gone.jpg": "No such image or folder: gone.jpg",
    _PREDICT + "nothing": "The folder nothing holds no image or video. The folders in it are searched with recursive=",
    _PREDICT
    + "text.jpg": "Not a readable image: text.jpg (no image format is recognized). Replace or remove the file.",
    _PREDICT + "cut.jpg": "Not a readable image: cut.jpg (Truncated File Read). Replace or remove the file.",
    _PREDICT + "a.jpg --tile 0": "tile is an int or (height, width), in pixels, 1 or more. Received: tile=0",
    "predict --model model.keras --images a.jpg --output cut.jpg": "The output is a folder. cut.jpg is a file.",
    _EXPORT + "--output x.tfl": "The format is determined by the file suffix: '.tflite' (litert), '.onnx' (onnx)",
    _EXPORT + "--output x.onnx --precision float16": "precision 'float16' of onnx. Did you mean float32? Known names: ",
    _EXPORT + "--output x.tflite --precision int8": "Pass a folder, a data set or a list of images (--data).",
    _EXPORT + "--output x.onnx --batch_size zero": "--batch_size: expects a number, or any. Received: 'zero' (see",
    "benchmark --model model.keras --repeats 0": "repeats must be a positive integer. Received: repeats=0",
    "convert --pipeline_config typo.config --checkpoint nothing --output m.keras": "typo.config:1: model.ssd: the text",
}


@pytest.mark.parametrize("words", ERRORS)
def test_an_error_is_one_line_in_words(words, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    try:
        status = cli.run(cli.parse(["keras-detect", *words.split()]))
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr().err.strip()
    assert status == 2 and ERRORS[words] in printed
    assert printed.splitlines()[-1].startswith("keras-detect") and "Traceback" not in printed
    assert str(place) not in printed, "the path is not the one that was given"
