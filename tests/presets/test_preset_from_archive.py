"""The tool that makes a preset folder, with its model card, of an archive."""

import hashlib
import json
import tarfile

import numpy as np

import keras_detect
from tests import tiny
from tools import preset_from_archive


def test_a_folder_ready_for_upload(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    model = tiny.tiny_ssd(class_names=("a", "b", "c"))
    model.save_to_preset(tmp_path / "tiny")
    archive = tmp_path / "tiny_model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "tiny", arcname="tiny")
    folder = preset_from_archive.convert(archive, tmp_path / "new", "float32")
    names = {"config.json", "weights.h5", "label_map.json", "metadata.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    metadata = json.loads((folder / "metadata.json").read_text())
    assert (metadata["source"], metadata["source_sha256"]) == ("tiny_model.tar.gz", digest)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: keras\n") and digest in card and "# tiny_model\n" in card
    again = keras_detect.Model.from_preset(folder)
    assert again.class_names == ("a", "b", "c")
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(tiny.weights_of(again)[name], value, err_msg=name)
