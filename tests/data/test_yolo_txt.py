"""YOLO's text files: layouts, numbers by hand, and what is wrong with others."""

import numpy as np
import pytest

from keras_detect.data import check_dataset, load_dataset
from keras_detect.data.record import DROPPED, KEPT
from tests.data.test_load import write_image


def yolo(folder, lines, names="names: [cat, dog]\n", split="train", images="images/{}", labels="labels/{}", name="a"):
    """One image of 40 x 20 with label lines."""
    write_image(folder / images.format(split) / f"{name}.jpg")
    place = folder / labels.format(split)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.txt").write_text(lines)
    if names:
        (folder / "data.yaml").write_text(f"{split}: {images.format(split)}\n{names}")
    return folder


def test_numbers(tmp_path):
    """Center (0.5, 0.25), size 0.5 x 0.1: y 0.2...0.3, x 0.25...0.75."""
    data = load_dataset(yolo(tmp_path, "1 0.5 0.25 0.5 0.1\n\n0 0.5 0.5 1 1\n"))
    np.testing.assert_allclose(data[0]["boxes"], [[0.2, 0.25, 0.3, 0.75], [0, 0, 1, 1]], atol=1e-7)
    assert (data.class_names, data[0]["labels"].tolist()) == (["cat", "dog"], [1, 0])
    turned = load_dataset(tmp_path, class_names=["dog", "bird", "cat"])
    assert turned[0]["labels"].tolist() == [0, 2]


def test_polygons_become_masks(tmp_path):
    """A rectangle x 0.25...0.75, y 0...0.5 of 40 x 20: 20 x 10 pixels."""
    data = load_dataset(yolo(tmp_path, "0 0.25 0 0.75 0 0.75 0.5 0.25 0.5\n1 0.5 0.5 0.2 0.2\n"))
    np.testing.assert_allclose(data[0]["boxes"][0], [0, 0.25, 0.5, 0.75])
    masks = data[0]["masks"]
    assert (masks.shape, masks[1].sum()) == ((2, 20, 40), 0)
    assert abs(int(masks[0].sum()) - 200) <= 20
    assert masks[0, 5, 20] == 1


@pytest.mark.parametrize(
    "names",
    [
        "nc: 2\nnames: ['cat', \"dog\"]\n",
        "names:\n  0: cat\n  1: dog # good\n",
        "names:\n- cat\n- dog\n",
        "names: {1: dog, 0: cat}\n",
        "# a\n---\nnames: [\n  cat,\n  dog,\n]\ndownload: https://example.org/a#b\n",
    ],
)
def test_data_yaml(tmp_path, names):
    assert load_dataset(yolo(tmp_path, "", names)).class_names == ["cat", "dog"]
    assert load_dataset(tmp_path / "data.yaml", "train").class_names == ["cat", "dog"]


def test_roboflows_and_darknets_layouts(tmp_path):
    export = yolo(tmp_path / "r", "0 0.5 0.5 1 1", images="train/images", labels="train/labels")
    text = "train: ../train/images\nval: ../valid/images\nnames: [cat]\n"
    (export / "data.yaml").write_text(text)
    assert len(load_dataset(export, "train")[0]["boxes"]) == 1
    flat = yolo(tmp_path / "f", "0 0.5 0.5 1 1", names="", images=".", labels=".")
    (flat / "classes.txt").write_text("cat\n")
    assert len(load_dataset(flat)[0]["boxes"]) == 1
    listed = yolo(tmp_path / "l", "0 0.5 0.5 1 1", names="")
    (listed / "val.txt").write_text("images/train/a.jpg\n")
    (listed / "data.yaml").write_text("val: val.txt\nnames: [cat]\n")
    assert len(load_dataset(listed, "val")[0]["boxes"]) == 1


def test_files_without_a_partner(tmp_path):
    yolo(tmp_path, "0 0.5 0.5 1 1")
    write_image(tmp_path / "images" / "train" / "empty.jpg")
    (tmp_path / "labels" / "train" / "orphan.txt").write_text("0 0.5 0.5 1 1")
    report = check_dataset(tmp_path)
    assert report.ok
    rows = {kind: (action, places) for action, kind, _, places in report.rows()}
    assert rows["images without annotation file, treated as empty"] == (KEPT, ("empty.jpg",))
    assert rows["annotations whose image is missing"] == (DROPPED, ("orphan.txt",))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("2 0.5 0.5 1 1", r"a.txt, line 1 has class 2. Known: 0...1"),
        ("0 0.5 0.5 1", r"a.txt, line 1 is not \"class cx cy width height\""),
        ("\n0 a b c d", r"a.txt, line 2 is not"),
        ("0.5 0.5 0.5 1 1", r"a.txt, line 1 is not"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(yolo(tmp_path, lines))


def test_yaml_and_splits_that_are_wrong(tmp_path):
    yolo(tmp_path, "")
    with pytest.raises(ValueError, match=r"no split 'test'. Available: train"):
        load_dataset(tmp_path, "test")
    for text, message in (
        ("names: [x\n", "line 2: did not find expected"),
        ("a: b: c\n- 3 }\nnames", "line 1: mapping values are not allowed"),
        ("[" * 100_000, "is not readable as data.yaml"),
        ("- a\n- b\n", "no keys such as train"),
        ("names: [{a: b}]\n", "one string per class"),
        ("names: {0: [a]}\n", "one string per class"),
        ("names: {x: a}\n", "numbers before the names"),
        ("train: {a: b}\nnames: [a]\n", "train in .* must be a folder"),
        ("train: nowhere\nnames: [a]\n", "names nowhere"),
        ("train: images/train\n", "names no classes"),
    ):
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_dataset(tmp_path / "data.yaml")


def test_class_names_stay_as_written(tmp_path):
    """YAML 1.1 reads `no` as false, 007 and 1_0 as numbers, ~ as nothing; class names are texts."""
    names = "names: [no, 007, 1_0, 'it''s', \"x, y\", 1.50, 2020-01-01]\nval: ~\npath: null\n"
    expected = ["no", "007", "1_0", "it's", "x, y", "1.50", "2020-01-01"]
    assert load_dataset(yolo(tmp_path, "", names)).class_names == expected


def test_what_other_programs_need_is_passed_over(tmp_path):
    """The block of a download script and nested entries, as in Ultralytics' own files."""
    names = """names:
  0: cat  # the first
  1: dog
nc: 2
roboflow: {workspace: x, license: [CC, BY]}
kpt:
  shape: [17, 3]
  flip:
    - [0, 1]
download: |
  import os  # a: b
  names: ['other']

  print("- done: yes")
"""
    assert load_dataset(yolo(tmp_path, "", names)).class_names == ["cat", "dog"]
