"""`convert` killed while it writes: the older model or the new one, whole, and nothing else."""

import json
import os
import shutil
import zipfile

from keras_detect import files
from keras_detect.tf_od_api import convert
from tests import kills
from tests.presets.toy import Toy


class Restored:
    """A finished model in the place of one that a config and a checkpoint make, which write nothing."""

    def __init__(self, model):
        self.save = model.save

    def restore(self, checkpoint, moving_averages):
        return checkpoint


class Convert(kills.Case):
    def __init__(self, folder):
        self.old, self.new = Toy(num_classes=2), Toy(num_classes=5)
        self.folder = folder
        self.converted(self.old, folder)

    def converted(self, model, folder):
        convert.from_pipeline_config = lambda _: Restored(model)
        convert._uses_averages = lambda _: False
        convert.convert_checkpoint("pipeline.config", "ckpt-0", folder / "model.keras")

    def prepare(self, folder):
        shutil.copyfile(self.folder / "model.keras", folder / "model.keras")

    def act(self, folder):
        self.converted(self.new, folder)

    def check(self, folder, error=None):
        with zipfile.ZipFile(folder / "model.keras") as file:
            assert file.testzip() is None and "model.weights.h5" in file.namelist()
            found = json.loads(file.read("config.json"))["config"]["num_classes"]
        if error is None:
            files.write_file(folder / "model.keras", "the next write")
        else:
            assert f"'{folder}/model.keras'" in error and "File too large" in error and "\n" not in error
        assert os.listdir(folder) == ["model.keras"]
        return {2: "old", 5: "new"}[found]


def test_killed_at_every_rename(tmp_path):
    assert set(kills.at_every_rename(Convert, tmp_path)) == {"old", "new"}


def test_killed_at_100_random_moments(tmp_path):
    assert sum(kills.at_random_moments(Convert, tmp_path).values()) == 100


def test_a_full_disk(tmp_path):
    assert kills.on_a_full_disk(Convert, tmp_path, [0, 100, 5000, 10**8]) == {"old": 3, "new": 1}
