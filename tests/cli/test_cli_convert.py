"""`keras-detect convert`: a config and a checkpoint in, a model file out; bad input ends in one line and no file."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect import cli
from tests import goldens
from tests.networks import undrawn
from tests.weights.golden_checkpoints import write_checkpoint, write_golden_checkpoint

NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_golden_checkpoint(NAME, tmp_path_factory.mktemp("checkpoint"))


def arguments(**changes):
    values = {"pipeline_config": goldens.golden(f"{NAME}.config"), **changes}
    return ["convert", *(part for name, value in values.items() for part in (f"--{name}", str(value)))]


def run(capsys, **changes):
    """`(exit status, stdout, stderr)` of the command, in this process; JAX would draw 20 s in another one."""
    with undrawn():
        status = cli.run(cli.parse(["keras-detect", *arguments(**changes)]))
    return status, *capsys.readouterr()


def test_a_model_file_that_is_the_restored_model(checkpoint, tmp_path, capsys):
    output = tmp_path / "new" / "model.keras"
    status, text, _ = run(capsys, checkpoint=checkpoint, output=output)
    assert status == 0 and "variables restored, 90 classes" in text and str(output) in text
    assert os.listdir(output.parent) == ["model.keras"]
    with undrawn():
        saved = keras.saving.load_model(output)
        direct = keras_detect.from_pipeline_config(goldens.golden(f"{NAME}.config"))
    direct.restore(checkpoint)
    ours, theirs = saved.named_weights(), direct.named_weights()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours[name]), keras.ops.convert_to_numpy(value), err_msg=name
        )
    image = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3)).astype("float32")
    found, wanted = saved.predict_on_batch(image), direct.predict_on_batch(image)
    np.testing.assert_allclose(np.asarray(found["scores"]), np.asarray(wanted["scores"]), atol=1e-6)


def test_bad_input_is_one_line_and_leaves_the_old_file(checkpoint, tmp_path, capsys):
    output = tmp_path / "model.keras"
    output.write_text("an older model")
    other = write_checkpoint({"model/_other/kernel": np.zeros((2, 2), np.float32)}, tmp_path / "other")
    (tmp_path / "broken.config").write_text("model {\n ssd {\n")
    (tmp_path / "folder.keras").mkdir()
    cases = (
        ({"pipeline_config": tmp_path / "absent.config", "checkpoint": checkpoint}, "No pipeline config at"),
        ({"pipeline_config": tmp_path / "broken.config", "checkpoint": checkpoint}, "broken.config:3"),
        ({"checkpoint": tmp_path / "absent"}, "no such checkpoint"),
        ({"checkpoint": other}, "model/_other"),
        ({"checkpoint": checkpoint, "output": tmp_path / "model.h5"}, "output must name a .keras file"),
        ({"checkpoint": checkpoint, "output": tmp_path / "folder.keras"}, "Received a folder: "),
    )
    for changes, message in cases:
        status, text, error = run(capsys, **{"output": output, **changes})
        assert status == 2 and message in error and error.count("\n") == 1 and not text, error
    assert output.read_text() == "an older model"
    assert sorted(os.listdir(tmp_path)) == ["broken.config", "folder.keras", "model.keras", "other"]


def test_a_failed_write_leaves_nothing(checkpoint, tmp_path, capsys, monkeypatch):
    def save(self, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras_detect.SSD, "save", save)
    status, _, error = run(capsys, checkpoint=checkpoint, output=tmp_path / "model.keras")
    assert status == 2 and "No space left on device" in error
    assert not os.listdir(tmp_path)


def test_the_console_script(tmp_path):
    code = "from keras_detect.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        *arguments(pipeline_config=tmp_path / "absent", checkpoint="x", output="y.keras"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root()}
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("keras-detect convert: No pipeline config at")
    assert not os.listdir(tmp_path)


def root():
    return os.path.dirname(os.path.dirname(os.path.abspath(keras_detect.__file__)))
