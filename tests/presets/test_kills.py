"""Presets and the cache, killed at every rename and at 100 moments: the old or the new, whole, and no more."""

import os
import shutil
import tarfile

import pytest

from keras_detect import files
from keras_detect.presets import cache, directory, store
from keras_detect.presets.directory import PRESET_FILES, save_preset
from tests import kills
from tests.presets.toy import Toy


def classes(folder):
    """The number of classes of a preset by its config, its label map and its weights, whose digest is compared."""
    assert directory.is_preset(folder)
    config = directory.read_json(folder / directory.CONFIG)["config"]
    assert set(directory.read_json(folder / directory.LABEL_MAP)) == {"class_names"}
    with directory.open_weights(folder) as weights:
        assert weights.shapes["head/kernel"] == (4, config["num_classes"]) and len(weights.shapes) == 8
    return config["num_classes"]


class SavePreset(kills.Case):
    """`save_to_preset` over an older preset."""

    def __init__(self, folder):
        self.old, self.new = Toy(num_classes=2), Toy(num_classes=5)

        save_preset(self.old, folder / "old")
        self.folder = folder

    def prepare(self, folder):
        shutil.copytree(self.folder / "old", folder / "preset")

    def act(self, folder):
        save_preset(self.new, folder / "preset")

    def check(self, folder, error=None):
        found = classes(folder / "preset")
        if error is None:
            save_preset(self.new, folder / "preset")
            assert classes(folder / "preset") == 5
        else:
            assert "File too large" in error and f"'{folder}/preset'" in error and "\n" not in error
        assert os.listdir(folder) == ["preset"]
        return {2: "old", 5: "new"}[found]


class WithoutExchange(SavePreset):
    """The same where two folders cannot be exchanged in one step."""

    def act(self, folder):
        def exchange(*_):
            raise OSError(38, "Function not implemented")

        files.exchange = exchange
        super().act(folder)


class FromPreset(kills.Case):
    """`from_preset` of an archive, which is fetched, unpacked, checked and cached."""

    def __init__(self, folder):
        save_preset(Toy(num_classes=3), folder / "toy")
        with tarfile.open(folder / "toy.tar.gz", "w:gz") as tar:
            tar.add(folder / "toy", arcname="toy")
        self.url = (folder / "toy.tar.gz").as_uri()

    def act(self, folder):
        os.environ["KERAS_DETECT_HOME"] = str(folder / "home")
        store.find_preset(self.url, progress=False)

    def check(self, folder, error=None):
        os.environ["KERAS_DETECT_HOME"] = str(folder / "home")
        home = cache.home()
        home.mkdir(exist_ok=True)
        found = [name for name in os.listdir(home) if not name.startswith(".work-")]
        if error is not None:
            assert "KERAS_DETECT_HOME" in error and "File too large" in error and not os.listdir(home)
            return "refused"
        assert all(classes(home / name) == 3 for name in found)
        self.act(folder)
        with cache.work_folder():  # any write sweeps
            pass
        (name,) = os.listdir(home)
        assert classes(home / name) == 3 and sorted(os.listdir(home / name)) == sorted(PRESET_FILES)
        return "cached" if found else "nothing"


@pytest.mark.parametrize("case", [SavePreset, WithoutExchange, FromPreset])
def test_killed_at_every_rename(tmp_path, case):
    assert len(kills.at_every_rename(case, tmp_path)) == 2


@pytest.mark.parametrize("case", [SavePreset, FromPreset])
def test_killed_at_100_random_moments(tmp_path, case):
    assert sum(kills.at_random_moments(case, tmp_path).values()) == 100


def test_a_full_disk(tmp_path):
    assert kills.on_a_full_disk(FromPreset, tmp_path, [0, 300, 3000]) == {"refused": 3}
    assert kills.on_a_full_disk(SavePreset, tmp_path, [0, 300, 2000, 10**6]) == {"old": 3, "new": 1}
