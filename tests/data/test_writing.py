"""A data set appears at once, or nothing changes: kills, full disks, what is replaced and what stays."""

import json
import os
import types

import numpy as np
import pytest

from keras_detect import cli
from keras_detect.data import DetectionDataset, convert_dataset, load, load_dataset, shapes_dataset, write_dataset
from keras_detect.data.writing import MANIFEST
from tests import kills

FORMATS = ("coco", "voc", "yolo", "csv", "tfrecord")
OLDER, NEWER = 5, 3  # images


def drawn(count, seed=0, names=("circle", "star")):
    return shapes_dataset(count, seed=seed, image_size=24, class_names=list(names), empty_share=0.0)


def names(data):
    return sorted(record.file_name.rsplit(".", 1)[0] for record in data.records)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------- killed, full


class Convert(kills.Case):
    """`convert_data` over an older set of more images, or into a new folder."""

    format = "voc"
    over_an_older_one = True

    def __init__(self, folder):
        self.source = folder / "source"
        write_dataset(drawn(NEWER, seed=1), self.source, "coco")
        self.expected = {"new": names(drawn(NEWER, seed=1)), "old": names(drawn(OLDER))}

    def prepare(self, folder):
        if self.over_an_older_one:
            write_dataset(drawn(OLDER), folder / "out", self.format)

    def act(self, folder):
        convert_dataset(self.source, folder / "out", self.format, overwrite=True)

    def check(self, folder, error=None):
        found = self.found(folder)
        assert found in (("old", "new") if self.over_an_older_one else ("nothing", "new"))
        if error is not None:
            assert error.startswith("OSError") and "File too large" in error and str(folder / "out") in error
            assert len(error.splitlines()) == 1 and "part_of" not in error and "/new/" not in error
            assert found != "new" and os.listdir(folder) == (["out"] if self.over_an_older_one else [])
            return found
        self.act(folder)
        assert self.found(folder) == "new" and os.listdir(folder) == ["out"]
        return found

    def found(self, folder):
        if not (folder / "out").exists():
            return "nothing"
        data = load_dataset(folder / "out")
        assert data.class_names == ["circle", "star"]
        assert all(len(example["boxes"]) for example in data)
        return next(word for word, expected in self.expected.items() if expected == names(data))


class ConvertToCOCO(Convert):
    format = "coco"


class ConvertToYOLO(Convert):
    format = "yolo"


class ConvertToCSV(Convert):
    format = "csv"


class ConvertToTFRecord(Convert):
    format = "tfrecord"


class ConvertToNewVOC(Convert):
    over_an_older_one = False


class AddSplit(Convert):
    """A second split, which shares the folder of images and the class names with the first."""

    format = "yolo"

    def prepare(self, folder):
        write_dataset(drawn(OLDER), folder / "out", self.format, split="train")

    def act(self, folder):
        write_dataset(drawn(NEWER, seed=1), folder / "out", self.format, split="val", overwrite=True)

    def found(self, folder):
        assert names(load_dataset(folder / "out", "train")) == self.expected["old"]
        if len(load_dataset(folder / "out")) == OLDER:
            return "old"
        assert names(load_dataset(folder / "out", "val")) == self.expected["new"]
        return "new"


CASES = (Convert, ConvertToCOCO, ConvertToYOLO, ConvertToCSV, ConvertToTFRecord, AddSplit)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_killed_at_every_rename(case, tmp_path):
    assert set(kills.at_every_rename(case, tmp_path)) == {"old", "new"}


def test_killed_at_every_rename_of_a_new_folder(tmp_path):
    assert set(kills.at_every_rename(ConvertToNewVOC, tmp_path)) == {"nothing", "new"}


@pytest.mark.parametrize(
    ("case", "trials"), [(Convert, 100), (ConvertToTFRecord, 10), (AddSplit, 10)], ids=["voc", "tfrecord", "split"]
)
def test_killed_at_random_moments(case, trials, tmp_path):
    found = kills.at_random_moments(case, tmp_path, trials=trials)
    assert sum(found.values()) == trials


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_full_disk_changes_nothing(case, tmp_path):
    assert kills.on_a_full_disk(case, tmp_path, sizes=(0, 1, 100, 500)) == {"old": 4}


def test_a_registered_format_is_whole_too(tmp_path, monkeypatch):
    """A user's writer that changes a file in place and then fails."""
    monkeypatch.setattr(load, "FORMATS", dict(load.FORMATS))

    def write(dataset, folder, split=None):
        for record in dataset.records:
            with open(folder / "set.mine", "a") as file:
                file.write(f"{record.file_name}\n")
            if record.file_name == "stop":
                raise OSError(28, "No space left on device")

    module = types.SimpleNamespace(
        recognizes=lambda path: False, read=lambda *arguments: None, write=write, holds=lambda field: True
    )
    load.register_format("mine", module)
    monkeypatch.setattr("keras_detect.data.convert.FORMATS", load.FORMATS)
    write_dataset(drawn(2), tmp_path / "out", "mine", split="train")
    before = files(tmp_path)
    assert len(before) == 2
    spoiled = DetectionDataset.from_arrays(
        [np.zeros((8, 8, 3), np.uint8)] * 2, [[]] * 2, [[]] * 2, ["circle", "star"], file_names=["a", "stop"]
    )
    with pytest.raises(OSError, match="No space left"):
        write_dataset(spoiled, tmp_path / "out", "mine", split="val")
    with pytest.raises(OSError, match="No space left"):
        write_dataset(spoiled, tmp_path / "other", "mine")
    assert files(tmp_path) == before


# ------------------------------------------------------------------------------------------- what is replaced and stays


@pytest.mark.parametrize("name", FORMATS)
def test_a_smaller_set_over_an_older_one(tmp_path, name):
    """Without `overwrite` it is refused and nothing changes; with it nothing of the older one is left."""
    folder = tmp_path / "out"
    write_dataset(drawn(OLDER), folder, name)
    before = files(folder)
    with pytest.raises(ValueError, match=rf"{folder} holds a data set already.*--overwrite"):
        write_dataset(drawn(NEWER, seed=1), folder, name)
    assert files(folder) == before
    write_dataset(drawn(NEWER, seed=1), folder, name, overwrite=True)
    write_dataset(drawn(NEWER, seed=1), tmp_path / "fresh", name)
    assert files(folder) == files(tmp_path / "fresh")
    assert sorted(os.listdir(tmp_path)) == ["fresh", "out"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_split_is_added_and_replaced_alone(tmp_path, name):
    write_dataset(drawn(OLDER), tmp_path / "out", name, split="train")
    write_dataset(drawn(OLDER, seed=1), tmp_path / "out", name, split="val")
    with pytest.raises(ValueError, match="splits: train, val"):
        write_dataset(drawn(2, seed=2), tmp_path / "out", name, split="val")
    write_dataset(drawn(2, seed=2), tmp_path / "out", name, split="val", overwrite=True)
    assert names(load_dataset(tmp_path / "out", "train")) == names(drawn(OLDER))
    assert names(load_dataset(tmp_path / "out", "val")) == names(drawn(2, seed=2))
    assert not [path for path in files(tmp_path / "out") if "shapes_1" in path]
    with pytest.raises(ValueError, match="same class names"):
        write_dataset(drawn(2, names=["ring"]), tmp_path / "out", name, split="test")
    with pytest.raises(ValueError, match="holds a data set already"):
        write_dataset(drawn(2), tmp_path / "out", name)


def test_an_image_that_two_splits_share_stays(tmp_path):
    data = drawn(3)
    write_dataset(data[:2], tmp_path / "out", "coco", split="train")
    write_dataset(data[1:], tmp_path / "out", "coco", split="val")
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3
    write_dataset(data[:1], tmp_path / "out", "coco", split="train", overwrite=True)
    assert names(load_dataset(tmp_path / "out", "val")) == names(data[1:])
    write_dataset(data[2:], tmp_path / "out", "coco", split="val", overwrite=True)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_files_of_others_are_never_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"files that keras_detect has not written, such as notes\.txt"):
            write_dataset(drawn(2), tmp_path / "mine", "voc", overwrite=overwrite)
    folder = tmp_path / "out"
    write_dataset(drawn(2), folder, "voc")
    (folder / "notes.txt").write_text("mine")
    (folder / "link").symlink_to("notes.txt")
    os.mkfifo(folder / "pipe")
    write_dataset(drawn(1, seed=1), folder, "yolo", overwrite=True)
    assert (folder / "link").read_text() == "mine" and (folder / "link").is_symlink()
    assert (folder / "pipe").is_fifo()
    assert not (folder / "Annotations").exists()
    (folder / "data.yaml").unlink()
    (folder / "label_map.json").write_text("{}")
    with pytest.raises(ValueError, match=r"label_map.json is a file that keras_detect has not written"):
        write_dataset(drawn(1, seed=1), folder, "csv", overwrite=True)
    assert (folder / "label_map.json").read_text() == "{}"


def test_a_list_of_files_by_strangers_removes_nothing_outside(tmp_path):
    write_dataset(drawn(2), tmp_path / "out", "voc")
    (tmp_path / "secret").write_text("mine")
    listed = json.loads((tmp_path / "out" / MANIFEST).read_text())
    listed["splits"][0]["files"] += ["../secret", str(tmp_path / "secret"), "a\0b", "x" * 5000]
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(listed))
    write_dataset(drawn(1), tmp_path / "out", "voc", overwrite=True)
    assert (tmp_path / "secret").read_text() == "mine"
    for text in ("{", "[" * 100_000, "[]", '{"splits": 5}', '{"format": 1, "class_names": 2, "splits": [3]}'):
        (tmp_path / "out" / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match=f"{MANIFEST}, which lists .* is damaged.* Choose a new folder"):
            write_dataset(drawn(1), tmp_path / "out", "voc", overwrite=True)


def test_folders_that_cannot_be_exchanged(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Received a file"):
        write_dataset(drawn(1), tmp_path / "file", "voc")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="current folder"):
        write_dataset(drawn(1), ".", "voc")
    write_dataset(drawn(1), "new", "voc")
    (tmp_path / "link").symlink_to("new")
    write_dataset(drawn(2), tmp_path / "link", "voc", overwrite=True)
    assert (tmp_path / "link").is_symlink() and len(load_dataset(tmp_path / "new")) == 2


def test_names_of_strangers_become_names_of_files(tmp_path):
    """TFRecord names images as it likes."""
    image = np.zeros((8, 8, 3), np.uint8)
    odd = ["../../up", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "..", "con\n.png", "ü" * 300 + ".jpg"]
    data = DetectionDataset.from_arrays([image] * len(odd), [[[0, 0, 1, 1]]] * len(odd), [[0]] * len(odd), ["a"])
    records = [
        type(record)(**{**vars(record), "file_name": name}) for record, name in zip(data.records, odd, strict=True)
    ]
    for name in ("coco", "voc", "yolo", "csv"):
        write_dataset(DetectionDataset(records, ["a"]), tmp_path / name, name)
        assert len(load_dataset(tmp_path / name)) == len(odd)
    assert sorted(os.listdir(tmp_path)) == ["coco", "csv", "voc", "yolo"]


def test_from_the_shell(tmp_path, capsys):
    write_dataset(drawn(2), tmp_path / "in", "coco")
    command = ["convert_data", "--data", tmp_path / "in", "--to", "voc", "--output", tmp_path / "out"]
    run = lambda *more: cli.run(cli.parse(["keras-detect", *map(str, (*command, *more))]))  # noqa: E731
    assert run() == 0
    capsys.readouterr()
    assert run() == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "--overwrite" in error
    assert run("--overwrite") == 0
