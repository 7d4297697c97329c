"""The page on a new backbone: its code, block after block as one script, and what it says of the package."""

import pathlib
import re

import keras
import numpy as np
import pytest

import keras_detect
from tests import networks

PAGE = pathlib.Path(__file__).parents[2] / "examples" / "new_model" / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow  # tests/test_adding.py and the notebook of an own backbone take the same steps
def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    """With fewer images and two blocks in the place of eight; every other line is executed as it stands."""
    monkeypatch.chdir(tmp_path)
    small = "\n".join(blocks())
    for line, smaller in (
        ("IMAGES, EPOCHS, SIZE = 400, 10, 160", "IMAGES, EPOCHS, SIZE = 16, 1, 64"),
        ('("C3", 128, 64, 2), ("C4", 256, 96, 5)', '("C3", 128, 64, 0), ("C4", 256, 96, 1)'),
    ):
        assert small.count(line) == 1
        small = small.replace(line, smaller)
    script = {"__name__": "new_model"}
    exec(compile(small, str(PAGE), "exec"), script)
    printed = capsys.readouterr().out
    assert "Unknown backbone 'my_inceptoin'. Did you mean my_inception" in printed
    assert "C3 stride 8 channels 32" in printed and "C4 stride 16 channels 64" in printed
    assert "'val_map'" in printed and "classification_loss" in printed
    assert "classes/kernel" in printed  # the report names what was left
    rates = re.findall(r"^ *(\d\.\de[-+]\d\d) +\d+\.\d+$", printed, re.MULTILINE)
    assert len(rates) == len(script["losses"]) == 6  # two steps per epoch, three epochs
    np.testing.assert_allclose([float(rates[0]), float(rates[-1])], [1e-5, 1e-5 * 1e4 ** (5 / 6)], rtol=0.05)
    low, high = map(float, re.search(r"(-?\d+\.\d+) to (-?\d+\.\d+), mean", printed).groups())
    assert -1 <= low < high <= 1
    assert len(script["frozen"].trainable_weights) < len(script["model"].trainable_weights)
    assert (tmp_path / "detector.keras").exists()


def test_the_backbone_of_the_page_is_inception_v100():
    """The same weights in the same order, and so the same levels."""
    script = {"__name__": "new_model_class"}
    for block in blocks()[:5]:
        if "shapes_dataset" in block or "class MyInception" in block or block.startswith("def "):
            exec(compile(block.replace('"my_inception"', '"my_inception_again"'), str(PAGE), "exec"), script)
    with networks.undrawn():
        mine, ours = script["MyInception"](), keras_detect.backbones.InceptionV100()
    assert [tuple(weight.shape) for weight in mine.weights] == [tuple(weight.shape) for weight in ours.weights]
    assert mine.count_params() == 2_787_432
    rng = np.random.default_rng(0)
    for weight, other in zip(mine.weights, ours.weights, strict=True):
        value = rng.uniform(0.5, 1.5, weight.shape)
        if len(weight.shape) > 1:
            value = rng.normal(size=weight.shape) * np.sqrt(2.0 / np.prod(weight.shape[:-1]))
        weight.assign(value.astype("float32"))
        other.assign(value.astype("float32"))
    pixels = keras.ops.convert_to_tensor(rng.integers(0, 256, (1, 64, 96, 3)).astype("float32"))
    theirs = ours(ours.preprocess(pixels))
    for level, tensor in mine(mine.preprocess(pixels)).items():
        wanted = keras.ops.convert_to_numpy(theirs[level])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(tensor), wanted, atol=1e-4 * np.abs(wanted).max())
