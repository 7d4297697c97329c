"""Which images a run trains on and which choose its epoch, where nobody says so."""

import pytest

from keras_detect.data import load_dataset, shapes_dataset, write_dataset
from keras_detect.training.run_data import RunData

NAMES = ["circle", "square"]


def write(folder, **splits):
    """A COCO folder with so many images in each split."""
    for number, (split, count) in enumerate(splits.items()):
        write_dataset(shapes_dataset(count, seed=number, image_size=32, class_names=NAMES), folder, "coco", split=split)
    return folder


def read(*arguments, **settings):
    training, validation, said = RunData(*arguments, **settings).read()
    return len(training), None if validation is None else len(validation), said


def test_the_splits_of_a_folder_are_used(tmp_path):
    data = write(tmp_path, train=10, val=3, test=4)
    assert read(data) == (10, 3, "the split 'val'")
    assert read(data, train_split="test") == (4, 3, "the split 'val'")
    assert read(data, validation_split="test") == (10, 4, "the split 'test'")
    assert read(data, train_split="val") == (2, 1, "0.2 of the images, held out at random (seed 0)")
    assert read(data, validation_fraction=0.3)[:2] == (7, 3)
    assert read(data, validation_fraction=0) == (10, None, "none: the last epoch is kept")
    assert read(data, data)[:2] == (10, 3)
    assert read(data, shapes_dataset(2, image_size=32, class_names=NAMES))[:2] == (10, 2)


def test_without_a_split_for_validation_a_fifth_is_held_back(tmp_path):
    data = write(tmp_path / "data", train=10, test=4)
    assert read(data)[:2] == (8, 2)
    dataset = shapes_dataset(14, image_size=32, class_names=NAMES)
    training, validation, _ = RunData(dataset, seed=1).read()
    again, held, _ = RunData(dataset, seed=1).read()
    assert (len(training), len(validation)) == (11, 3)
    assert [r.file_name for r in held.records] == [r.file_name for r in validation.records]
    assert not {r.file_name for r in again.records} & {r.file_name for r in held.records}
    assert read(dataset[:1]) == (1, None, "none, since there is one image: the last epoch is kept")


def test_images_of_trainval_do_not_choose_its_epoch(tmp_path):
    names = [record.file_name for record in load_dataset(write(tmp_path, data=10)).records]
    (tmp_path / "splits").mkdir()
    for split, listed in {"trainval": names[:8], "val": names[4:8], "test": names[8:]}.items():
        (tmp_path / "splits" / f"{split}.txt").write_text("\n".join(listed))
    assert read(tmp_path) == (6, 2, "0.2 of the images, held out at random (seed 0)")
    assert read(tmp_path, validation_split="test")[:2] == (8, 2)


def test_what_cannot_be_meant_is_refused(tmp_path):
    data = write(tmp_path, val=2, test=2)
    with pytest.raises(ValueError, match=r"the splits val, test, none of which is called train.*--train_split"):
        read(data)
    assert read(data, train_split="test")[:2] == (2, 2)
    for named in ({"validation": data}, {"validation_split": "val"}):
        with pytest.raises(ValueError, match="Pass only one of them"):
            RunData(data, validation_fraction=0.2, **named)
    for fraction in (1, -0.1, float("nan"), "half"):
        with pytest.raises(ValueError, match=r"in \[0, 1\)"):
            RunData(data, validation_fraction=fraction)
    with pytest.raises(ValueError, match="names a part of a folder"):
        read(shapes_dataset(2, image_size=32, class_names=NAMES), train_split="train")
