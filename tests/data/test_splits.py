"""The parts of a data set: which there are, and a random one of exact size for a seed."""

import numpy as np
import pytest

from keras_detect.data import dataset_splits, load_dataset, random_split, shapes_dataset, write_dataset
from keras_detect.data.splits import split_for

NAMES = ["circle", "square"]


@pytest.fixture(scope="module")
def shapes():
    return shapes_dataset(11, image_size=32, class_names=NAMES)


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "csv", "tfrecord"])
def test_the_splits_that_a_writer_wrote(format, shapes, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_dataset(shapes[:2], whole, format)
    assert dataset_splits(whole) == (["train"] if format == "yolo" else [])  # its data.yaml always names one
    for split in ("train", "val", "test"):
        write_dataset(shapes[:2], parts, format, split=split)
    found = dataset_splits(parts)
    assert set(found) == {"train", "val", "test"}
    for split in found:
        assert len(load_dataset(parts, split)) == 2


def test_lists_and_names_of_folders(shapes, tmp_path):
    write_dataset(shapes[:3], tmp_path, "coco")
    (tmp_path / "splits").mkdir()
    for split in ("trainval", "validation"):
        (tmp_path / "splits" / f"{split}.txt").write_text(load_dataset(tmp_path).records[0].file_name)
    found = dataset_splits(tmp_path)
    assert found == ["trainval", "validation"]
    assert (split_for("train", found), split_for("validation", found)) == ("trainval", "validation")
    assert split_for("test", found) is None
    assert len(load_dataset(tmp_path, "trainval")) == 1


def test_no_data_has_no_splits(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dataset_splits(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is empty"):
        dataset_splits(tmp_path)


@pytest.mark.parametrize(("fraction", "held"), [(0.2, 2), (0.25, 3), (0.5, 6), (0.01, 1), (0.99, 10)])
def test_a_random_part_has_the_exact_size(fraction, held, shapes):
    """Of 11 images: 2.2, 2.75, 5.5 (Python rounds to the even 6), 0.11 and 10.89."""
    rest, part = random_split(shapes, fraction, seed=3)
    assert (len(rest), len(part)) == (11 - held, held)
    names = [record.file_name for record in shapes.records]
    ours, theirs = ([record.file_name for record in dataset.records] for dataset in (rest, part))
    assert sorted(ours + theirs) == sorted(names)
    assert ours == [name for name in names if name in ours] and theirs == [name for name in names if name in theirs]


def test_the_seed_decides_the_part(shapes):
    parts = [[r.file_name for r in random_split(shapes, 0.3, seed)[1].records] for seed in (0, 0, 1, 2)]
    assert parts[0] == parts[1]
    assert len({tuple(part) for part in parts}) == 3
    expected = sorted(np.random.default_rng(0).permutation(11)[:3])
    assert parts[0] == [shapes.records[index].file_name for index in expected]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_lies_between_nothing_and_everything(fraction, shapes):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
        random_split(shapes, fraction)
    with pytest.raises(ValueError, match="1 image cannot be split"):
        random_split(shapes[:1], 0.5)
