"""`train` killed at every rename and at random moments: its folder holds a whole model or none, and it can continue."""

import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_detect.data import write_coco
from keras_detect.data.shapes import shapes_dataset
from keras_detect.training import train
from keras_detect.training.resume import read_checkpoint
from tests import kills, tiny

SETTINGS = {"model": "tests_tiny", "image_size": tiny.IMAGE_SIZE, "epochs": 2, "batch_size": 4, "ema_momentum": 0.9}
SETTINGS["augment"] = "flip"  # of the augmentations that draw, the one that is built in the least time
FILES = {"model.keras", "history.csv", "curve.png", "metrics.json", "run.json", "checkpoint.npz"}


def weights(path):
    """Of a `.keras` file, read without TensorFlow, whose threads a forked process has not."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        json.loads(archive.read("config.json"))
        with archive.open("model.weights.h5") as content, h5py.File(content) as file:
            found = {}
            file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None)
    assert found
    return found


def write_data(folder):
    for split, count, seed in (("train", 8, 0), ("val", 3, 1)):
        write_coco(
            shapes_dataset(count, seed=seed, image_size=64, class_names=["circle", "square"]), folder, split=split
        )


def check_folder(folder):
    """Raises unless every file in a run's folder is whole; the unfinished ones have names of their own."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    names -= {name for name in names if name.startswith("part_of_")}
    assert names <= FILES
    if "checkpoint.npz" in names:
        read_checkpoint(folder / "checkpoint.npz")
    for name in names & {"run.json", "metrics.json"}:
        json.loads((folder / name).read_text())
    if "model.keras" not in names:
        return "no model"
    weights(folder / "model.keras")
    return "a model"


class Train(kills.Case):
    seconds = 3600  # a run takes ten, on a busy machine hundreds

    def __init__(self, folder):
        self.data = folder / "data"
        write_data(self.data)

    def act(self, folder):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.run_functions_eagerly(True)  # four steps take less time than tracing one
        train(train=self.data, output=folder / "run", **SETTINGS, resume=True, checkpoint_every=1, verbose=0)

    def check(self, folder, error=None):
        return check_folder(folder / "run")


class TrainAndGoOn(Train):
    """After the kill the same call continues, and ends with the weights of the uninterrupted run."""

    whole = None

    def prepare(self, folder):
        if self.whole is None:
            (self.data / "run").mkdir()
            self._again(self.data)
            self.whole = weights(self.data / "run" / "model.keras")

    def _again(self, folder):
        answer = kills._ended(*kills._forked(lambda: self.act(folder)), limit=self.seconds)
        assert "error" not in answer, answer

    def check(self, folder, error=None):
        found = super().check(folder)
        self._again(folder)
        ours = weights(folder / "run" / "model.keras")
        assert ours.keys() == self.whole.keys()
        for name, value in self.whole.items():
            np.testing.assert_array_equal(ours[name], value)
        assert not [path for path in (folder / "run").iterdir() if path.name.startswith("part_of_")]
        return found


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files(tmp_path):
    found = kills.at_random_moments(Train, tmp_path, trials=100, seed=0, copies=True)
    assert sum(found.values()) == 100


@pytest.mark.slow
def test_a_run_killed_at_any_rename_goes_on(tmp_path):
    assert set(kills.at_every_rename(TrainAndGoOn, tmp_path, copies=True)) == {"no model", "a model"}


COMMAND = "import sys; from tests import tiny; from keras_detect import cli; sys.argv[0] = 'keras-detect'; cli.main()"


def command(data, output):
    arguments = ("train", "--data", data, "--output", output)
    settings = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]
    line = [sys.executable, "-c", COMMAND, *map(str, arguments), *settings, "--checkpoint_every", "1", "--resume"]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ)


def ended(process, limit):
    """Whether a command ended with status 0 by itself; it is killed once it has taken `limit` seconds of CPU time."""
    while process.poll() is None:
        if kills.cpu_seconds(process.pid) >= limit:
            process.kill()
            process.communicate()
            return False
        time.sleep(0.005)
    assert process.returncode == 0, process.stderr.read()
    return True


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """`(data, weights, seconds of CPU time)` of the command without a kill."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "data")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended(command(folder / "data", folder / "run"), math.inf)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return folder / "data", weights(folder / "run" / "model.keras"), seconds


@pytest.mark.slow
def test_the_same_command_goes_on_after_each_of_20_sigkills(uninterrupted, tmp_path):
    """On the backend of this test, as processes of their own; a run may be killed again on its way to the end."""
    data, whole, seconds = uninterrupted
    drawn, killed, run = random.Random(0), 0, 0
    while killed < 20:
        while not ended(
            command(data, tmp_path / f"run_{run}"), seconds * drawn.uniform(0.3, 1.0) if killed < 20 else math.inf
        ):
            killed += 1
            check_folder(tmp_path / f"run_{run}")
        ours = weights(tmp_path / f"run_{run}" / "model.keras")
        for name, value in whole.items():
            np.testing.assert_array_equal(ours[name], value)
        run += 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_an_epoch_ends_the_command_in_one_line(number, status, uninterrupted, tmp_path):
    process = command(uninterrupted[0], tmp_path / "run")
    while not (tmp_path / "run" / "checkpoint.npz").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate()
    lines = [line for line in errors.splitlines() if line.startswith("keras-detect train: stopped by ")]
    assert (process.returncode, len(lines), "Traceback" in errors) == (status, 1, False)
    assert "--resume" in lines[0]
