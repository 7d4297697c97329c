"""CSV tables: the headings that are understood, numbers by hand, and what is wrong with others."""

import numpy as np
import pytest

from keras_detect.data import load_dataset
from tests.data.test_load import write_image

HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def table(folder, text, name="boxes.csv"):
    write_image(folder / "images" / "a.jpg")
    (folder / name).write_text(text)
    return folder


def test_pixels(tmp_path):
    """xmin 4 of 40: 0.1; ymin 5 of 20: 0.25; xmax 40: 1; ymax 10: 0.5."""
    rows = 'a.jpg,40,20,dog,4,5,40,10\na.jpg,40,20,"cat, big",0,0,20,20\n\n'
    data = load_dataset(table(tmp_path, HEAD + rows))
    np.testing.assert_allclose(data[0]["boxes"], [[0.25, 0.1, 0.5, 1.0], [0, 0, 1, 0.5]], atol=1e-7)
    assert (data.class_names, data[0]["labels"].tolist()) == (["cat, big", "dog"], [1, 0])


def test_open_images_columns_are_normalized(tmp_path):
    text = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\na,x,/m/1,1,0.1,1,0.25,0.5,1\n"
    data = load_dataset(table(tmp_path, text))
    np.testing.assert_allclose(data[0]["boxes"], [[0.25, 0.1, 0.5, 1.0]], atol=1e-7)
    assert data[0]["is_group_of"].tolist() == [True]


def test_optional_columns_and_empty_images(tmp_path):
    text = HEAD.strip() + ",is_crowd,area,weight\na.jpg,40,20,c,0,0,4,4,true,9,0.5\nb.jpg,40,20,,,,,,,,\n"
    write_image(tmp_path / "images" / "b.jpg")
    data = load_dataset(table(tmp_path, text))
    assert [len(example["boxes"]) for example in data] == [1, 0]
    assert (data[0]["is_crowd"].tolist(), data[0]["areas"].tolist()) == ([True], [9.0])
    assert data[0]["weights"].tolist() == [0.5]


def test_splits_by_column_and_by_file(tmp_path):
    text = HEAD.strip() + ",split\na.jpg,40,20,c,0,0,4,4,val\nb.jpg,40,20,d,0,0,4,4,train\n"
    write_image(tmp_path / "images" / "b.jpg")
    data = load_dataset(table(tmp_path, text), "val")
    assert [record.file_name for record in data.records] == ["a.jpg"]
    with pytest.raises(ValueError, match=r"no split 'test'. Available: train, val"):
        load_dataset(tmp_path, "test")
    table(tmp_path, HEAD + "a.jpg,40,20,c,0,0,4,4\n", "test.csv")
    assert len(load_dataset(tmp_path, "test")) == 1
    with pytest.raises(ValueError, match=r"several tables: boxes.csv, test.csv"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (HEAD + "a.jpg,40,20,c,0,0,four,4\n", ValueError, "boxes.csv, line 2 is not a box"),
        (HEAD + "a.jpg,40,20,,0,0,4,4\n", ValueError, "line 2 is not a box"),
        (HEAD + "a.jpg,40,20,c,0,0,4,4,5\n", ValueError, "line 2 is not a box"),
        (HEAD + "b.jpg,40,20,c,0,0,4,4\n", FileNotFoundError, "Image not found: b.jpg"),
        (HEAD + "a.jpg,80,20,c,0,0,4,4\n", ValueError, "drawn on an image of 80 x 20"),
        (HEAD, ValueError, "No object is annotated"),
        (HEAD + 'a.jpg,"40\n', ValueError, "not a readable CSV"),
        ("a.jpg,c,0,0,4,4\n", ValueError, "Missing: file, class, ymin"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path, text, error, message):
    with pytest.raises(error, match=message) as caught:
        load_dataset(table(tmp_path, text) / "boxes.csv")
    assert "\n" not in str(caught.value)


def test_unknown_class(tmp_path):
    table(tmp_path, HEAD + "a.jpg,40,20,c,0,0,4,4\n")
    with pytest.raises(ValueError, match=r"Unknown class 'c'"):
        load_dataset(tmp_path, class_names=["d"])


def test_every_split_has_the_labels_of_all(tmp_path):
    """Classes b and c in one split, a in the other: 0, 1, 2 for a, b, c in both, by a column and by files."""
    (tmp_path / "column").mkdir()
    (tmp_path / "files").mkdir()
    head = HEAD.strip() + ",split\n"
    rows = {"train": "a.jpg,40,20,c,0,0,4,4\na.jpg,40,20,b,1,1,4,4\n", "val": "b.jpg,40,20,a,0,0,4,4\n"}
    text = head + "".join(line + f",{split}\n" for split, lines in rows.items() for line in lines.split())
    table(tmp_path / "column", text)
    for split, lines in rows.items():
        table(tmp_path / "files", HEAD + lines, f"{split}.csv")
    for place in ("column", "files"):
        write_image(tmp_path / place / "images" / "b.jpg")
        for split, labels in (("train", [2, 1]), ("val", [0])):
            data = load_dataset(tmp_path / place, split)
            assert (data.class_names, data[0]["labels"].tolist()) == (["a", "b", "c"], labels)
    assert load_dataset(tmp_path / "files" / "val.csv").class_names == ["a"]


def test_spaces_around_a_class_do_not_matter(tmp_path):
    data = load_dataset(table(tmp_path, HEAD + "a.jpg,40,20, c ,0,0,4,4\na.jpg,40,20,c,1,1,4,4\n"))
    assert (data.class_names, data[0]["labels"].tolist()) == (["c"], [0, 0])
