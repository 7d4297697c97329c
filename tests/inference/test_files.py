"""`detect_files`: a drawing per image, and one JSON file with every field."""

import errno
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from keras_detect.inference import detect, detect_files, image_files
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.inference.test_images import Echo


@pytest.fixture
def folder(tmp_path):
    for name, value in (("a.png", 200), ("b.png", 100), ("deep/a.png", 250)):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_every_image_is_drawn_and_every_field_written(folder, tmp_path):
    more = {
        "masks": np.stack([np.eye(8), np.zeros((8, 8))]).astype("uint8"),
        "keypoints": np.float32([[[0.5, np.nan]], [[0, 0]]]),
    }
    model = Echo(FixedShapeResizer(height=8, width=8), **more)
    (folder / "text.jpg").write_text("no image at all")
    found, _, errors = detect_files(model, [folder, folder / "deep"], tmp_path / "out", batch_size=2, progress=False)
    assert list(found) == ["a.jpg", "b.jpg", "a_2.jpg"]
    assert len(errors) == 1 and "text.jpg" in str(errors[0])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*found, "detections.json"}
    written = json.loads((tmp_path / "out" / "detections.json").read_text())["images"]
    assert written == found
    entry = written["a_2.jpg"]
    assert entry["image"] == str(folder / "deep" / "a.png")
    assert entry["boxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert entry["scores"] == [round(250 / 255, 5)]
    assert entry["labels"] == [1] and entry["class_names"] == ["dog"]
    assert entry["keypoints"] == [[[0.5, None]]]
    assert entry["masks"][0]["size"] == [8, 8]
    assert len(model.batches) == 2


def test_what_cannot_be_read(folder, tmp_path):
    model = Echo(FixedShapeResizer(height=8, width=8))
    (tmp_path / "text.jpg").write_text("no image at all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"text\.jpg"):
        detect_files(model, tmp_path / "text.jpg", tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="holds no image"):
        image_files(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        image_files([folder, tmp_path / "nowhere"])
    assert [path.name for path in image_files([folder / "b.png", folder])] == ["b.png", "a.png", "b.png"]


@pytest.mark.parametrize("writes", range(4))
def test_a_full_disk_changes_nothing(folder, tmp_path, monkeypatch, writes):
    """The disk is full at the first, second, ... file, in the middle of it; the older results stay."""
    model = Echo(FixedShapeResizer(height=8, width=8))
    detect_files(model, folder / "b.png", tmp_path / "out", progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    written = []

    def write_bytes(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2] if len(written) == writes else content)
        if len(written) == writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)

    monkeypatch.setattr(pathlib.Path, "write_bytes", write_bytes)
    for output in ("out", "new/folder"):
        written.clear()
        if writes == 3:
            assert len(detect_files(model, folder, tmp_path / output, progress=False)[0]) == 2
            continue
        with pytest.raises(OSError, match=rf"No space left on device; nothing was written.*{output}"):
            detect_files(model, folder, tmp_path / output, progress=False)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
        assert not (tmp_path / "new").exists()


def test_too_many_pixels(folder, tmp_path):
    model = Echo(FixedShapeResizer(height=8, width=8))
    Image.new("RGB", (30, 20)).save(folder / "large.png")
    found, _, errors = detect_files(model, folder, tmp_path / "out", progress=False, max_pixels=500)
    assert len(found) == 2 and len(errors) == 1
    assert "large.png has 30 x 20 = 600 pixels" in str(errors[0])
    with pytest.raises(ValueError, match="The limit is 500"):
        detect(model, folder / "large.png", max_pixels=500)
