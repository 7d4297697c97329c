"""The first two Python blocks of README.md, run whole on a few drawn images; what they print and write is there."""

import pathlib
import re
import shutil

import pytest

from keras_detect.data import write_coco
from keras_detect.data.shapes import shapes_dataset
from keras_detect.training.demo import PHOTO

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.backend_free
def test_the_first_two_blocks_run(tmp_path, monkeypatch, capsys):
    first, second = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[:2]
    assert "frcnn_inception_v100" in first and "ssd_mobilenet_v2_oidv4" in second
    monkeypatch.chdir(tmp_path)
    for split, count, seed in (("train", 2, 0), ("val", 1, 1)):
        dataset = shapes_dataset(count, seed=seed, image_size=64, class_names=["circle", "square"])
        write_coco(dataset, tmp_path / "cells", split=split)
    for name in ("photo.jpg", "street.jpg"):
        shutil.copy(PHOTO, name)
    assert "epochs=40" in first
    variables: dict = {}
    exec(first.replace("epochs=40", "epochs=1"), variables)
    assert "boxes" in capsys.readouterr().out and pathlib.Path("cells.keras").is_file()
    exec(second, variables)
    assert "Person" in variables["found"]["class_names"] and pathlib.Path("found.png").is_file()
