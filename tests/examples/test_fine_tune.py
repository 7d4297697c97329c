"""The notebook and the script that fine-tune, run whole on a few drawn images."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

from tests import tiny
from tests.examples.notebooks import outputs_of

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def environment(**settings):
    """This process' environment, backend and package."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": path, **settings}


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch):
    text = outputs_of("fine_tune_in_colab", tmp_path, monkeypatch)
    assert "val_map" in text
    assert "('circle', 'square', 'triangle')" in text
    assert text.count("image/png") >= 4  # data, curves, detections, the last image
    loaded = keras.saving.load_model(tmp_path / "work" / "detector.keras")
    assert loaded.class_names == ("circle", "square", "triangle")


@pytest.mark.slow  # the notebook above takes the same steps
def test_the_script_leaves_images_and_a_model(tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, EXAMPLES / "fine_tune.py", "--output", output, "--images", "8", "--epochs", "1"]
    tiny.portable_ssd(num_classes=2).save_to_preset(tmp_path / "preset")  # in a tenth of the packaged one's time
    command += ["--batch_size", "4", "--preset", tmp_path / "preset"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "best epoch: AP" in done.stdout
    assert {path.name for path in output.iterdir()} == {"detections.png", "model.keras", "images.png"}
