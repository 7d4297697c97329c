"""The readers: the two formats, splits, conventions, defects, and an error line for everything that can be wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from absl import logging
from PIL import Image

from keras_detect.data import DetectionDataset, check_dataset, load_dataset, shapes_dataset, write_coco
from tests import goldens

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def write_image(path, size=(40, 20), mode="RGB", **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 0).save(path, **save)


def voc(folder, objects, name="a", size=(40, 20), image_name=None, annotated=None):
    """One VOC annotation and its image; `objects` are (class, xmin, ymin, xmax, ymax)."""
    image_name = image_name or f"{name}.jpg"
    write_image(folder / "JPEGImages" / image_name, size)
    width, height = annotated or size
    body = "".join(OBJECT.format(*entry) for entry in objects)
    text = f"<annotation><filename>{image_name}</filename><size><width>{width}</width><height>{height}</height></size>"
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / f"{name}.xml").write_text(f"{text}{body}</annotation>")
    return folder


def coco(folder, annotations, categories=({"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}), **image):
    """One image of 40 x 20 with COCO annotations."""
    write_image(folder / "images" / "a.jpg")
    entry = {"id": 5, "file_name": "a.jpg", "width": 40, "height": 20} | image
    rows = [{"id": i + 1, "image_id": 5, "iscrowd": 0} | row for i, row in enumerate(annotations)]
    content = {"images": [entry], "annotations": rows, "categories": list(categories)}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_voc_corners_are_taken_without_a_shift(tmp_path):
    """xmin 4 of 40 wide: 0.1; ymin 5 of 20 high: 0.25; xmax 40: 1.0; ymax 10: 0.5. Classes sorted: cat, dog."""
    data = load_dataset(voc(tmp_path, [("dog", 4, 5, 40, 10), ("cat", 0, 0, 20, 20)]))
    example = data[0]
    np.testing.assert_allclose(example["boxes"], [[0.25, 0.1, 0.5, 1.0], [0, 0, 1, 0.5]], atol=1e-7)
    assert (data.class_names, example["labels"].tolist()) == (["cat", "dog"], [1, 0])
    assert (example["boxes"].dtype, example["labels"].dtype, example["image"].dtype) == (np.float32, np.int32, np.uint8)
    assert (example["file_name"], example["image_id"], example["image"].shape) == ("a.jpg", "a", (20, 40, 3))


@pytest.mark.parametrize("width", [-40, 0, float("nan"), float("inf"), "wide", [40], True, 10**400])
def test_a_coco_size_that_is_none_is_counted(tmp_path, width):
    data = load_dataset(coco(tmp_path, [{"bbox": [4, 5, 36, 5], "category_id": 7}], width=width))
    assert data.defects.counts() == {"invalid image sizes; the size of the file is used": 1}
    np.testing.assert_allclose(data[0]["boxes"], [[0.25, 0.1, 0.5, 1.0]], atol=1e-7)


@pytest.mark.parametrize(("width", "usable"), [("40", True), (40.0, True), (None, True), (1e30, False)])
def test_a_coco_size_is_that_of_the_image(tmp_path, width, usable):
    coco(tmp_path, [{"bbox": [4, 5, 36, 5], "category_id": 7}], width=width, **({} if width else {"height": None}))
    if usable:
        assert not load_dataset(tmp_path).defects.counts()
        return
    with pytest.raises(ValueError, match=r"drawn on an image of 1e\+30 x 20 pixels.*Received an image of 40 x 20"):
        load_dataset(tmp_path)


def test_coco_boxes_and_category_ids_with_gaps(tmp_path):
    """x 4, y 5, width 36, height 5: the same box; ids 3 and 7 become labels 0 and 1."""
    rows = [
        {"bbox": [4, 5, 36, 5], "category_id": 7, "area": 90.0},
        {"bbox": [0, 0, 20, 20], "category_id": 3, "area": 400.0, "iscrowd": 1},
    ]
    data = load_dataset(coco(tmp_path, rows))
    example = data[0]
    np.testing.assert_allclose(example["boxes"], [[0.25, 0.1, 0.5, 1.0], [0, 0, 1, 0.5]], atol=1e-7)
    assert (data.class_names, example["labels"].tolist()) == (["dog", "cat"], [1, 0])
    assert (example["is_crowd"].tolist(), example["areas"].tolist()) == ([False, True], [90.0, 400.0])
    given = load_dataset(tmp_path / "instances.json", class_names=["cat", "bird", "dog"])
    assert given[0]["labels"].tolist() == [0, 2]


def test_bccd_reads_the_same_both_ways(warnings):
    folder = goldens.require_shared("data/bccd")
    for split, images in (("train", 205), ("val", 87), ("test", 72), (None, 364)):
        as_coco, as_voc = (load_dataset(folder, split=split, format=name) for name in ("coco", "voc"))
        assert len(as_coco) == len(as_voc) == images
        assert as_coco.class_names == as_voc.class_names == ["Platelets", "RBC", "WBC"]
        by_name = {record.file_name: record for record in as_voc.records}
        for record in as_coco.records:
            np.testing.assert_array_equal(record.boxes, by_name[record.file_name].boxes)
            np.testing.assert_array_equal(record.labels, by_name[record.file_name].labels)
    # 4888 boxes, of which its README counts 2 without area.
    assert sum(len(record.boxes) for record in as_voc.records) == 4886
    assert warnings[-1].endswith("dropped boxes of zero area: 2 (BloodImage_00338.jpg, BloodImage_00343.jpg)")


def test_coco_free_has_crowds_gray_images_and_an_empty_one(warnings):
    data = load_dataset(goldens.require_shared("data/coco_free"))
    assert (len(data), sum(len(record.boxes) for record in data.records), len(data.class_names)) == (72, 505, 80)
    assert sum(int(record.is_crowd.sum()) for record in data.records) == 5
    assert [record.file_name for record in data.records if not len(record.boxes)] == ["000000000508.jpg"]
    gray = next(i for i, record in enumerate(data.records) if record.file_name == "000000000086.jpg")
    assert data[gray]["image"].shape[2] == 3
    assert len(load_dataset(goldens.require_shared("data/coco_free"), split="val")) == 33


def test_defective_boxes_are_repaired_with_one_warning(tmp_path, warnings):
    """On 40 x 20: one box sticks out to the right (clipped), one has no width, one is outside, one is reversed."""
    objects = [("c", 30, 10, 50, 20), ("c", 5, 5, 5, 9), ("c", 41, 2, 45, 9), ("c", 9, 9, 5, 5), ("c", 0, 0, 4, 4)]
    voc(tmp_path, objects)
    voc(tmp_path, [("c", 7, 7, 7, 9)], name="b")
    data = load_dataset(tmp_path)
    np.testing.assert_allclose(data[0]["boxes"], [[0.5, 0.75, 1, 1], [0, 0, 0.2, 0.1]], atol=1e-7)
    assert data[1]["boxes"].shape == (0, 4)
    assert len(warnings) == 1
    assert "dropped boxes of zero area: 2 (a.jpg, b.jpg)" in warnings[0]
    assert "dropped boxes outside the image: 1 (a.jpg)" in warnings[0]
    assert "dropped reversed boxes: 1 (a.jpg)" in warnings[0]
    assert "repaired boxes that extend beyond the image, clipped: 1 (a.jpg)" in warnings[0]


def test_a_coordinate_that_is_no_number_is_dropped(tmp_path, warnings):
    rows = [{"bbox": [1, 1, 2, None], "category_id": 3}, {"bbox": [1, 1, 2, 2], "category_id": 3}]
    assert len(load_dataset(coco(tmp_path, rows))[0]["boxes"]) == 1
    assert "not a number: 1 (a.jpg)" in warnings[0]


def test_an_image_without_objects_stays(tmp_path, warnings):
    voc(tmp_path, [])
    voc(tmp_path, [("c", 0, 0, 4, 4)], name="b")
    data = load_dataset(tmp_path)
    assert [len(example["boxes"]) for example in data] == [0, 1]
    assert not warnings


@pytest.mark.parametrize("place", ["splits", "ImageSets/Main"])
@pytest.mark.parametrize("line", ["b", "b.jpg", "b 1"])
def test_splits(tmp_path, place, line):
    voc(tmp_path, [("x", 0, 0, 4, 4)])
    voc(tmp_path, [("c", 0, 0, 4, 4)], name="b")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "val.txt").write_text(f"{line}\n\n")
    data = load_dataset(tmp_path, split="val")
    assert ([record.file_name for record in data.records], data.split) == (["b.jpg"], "val")
    assert data.class_names == ["c", "x"]  # over all splits
    with pytest.raises(ValueError, match=r"no split 'tset'.*Available: val"):
        load_dataset(tmp_path, split="tset")


def test_coco_one_file_per_split(tmp_path):
    """COCO's own layout: annotations/instances_<split>2017.json, images in <split>2017/."""
    for split in ("train", "val"):
        coco(tmp_path / split, [])
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / split / "instances.json").rename(tmp_path / "annotations" / f"instances_{split}2017.json")
        (tmp_path / split / "images").rename(tmp_path / f"{split}2017")
    data = load_dataset(tmp_path, split="val")
    assert data.records[0].image.path == str(tmp_path / "val2017" / "a.jpg")
    with pytest.raises(ValueError, match=r"several annotation files: .*train2017.json, .*val2017.json"):
        load_dataset(tmp_path)


def test_what_is_written_is_read_again(tmp_path):
    data = shapes_dataset(6, seed=2, image_size=(40, 60))
    write_coco(data, tmp_path, split="train")
    again = load_dataset(tmp_path, split="train")
    assert again.class_names == data.class_names
    for ours, theirs in zip(data, again, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        np.testing.assert_allclose(ours["boxes"], theirs["boxes"], atol=1e-6)
        np.testing.assert_array_equal(ours["labels"], theirs["labels"])


def test_exif_rotation_follows_the_annotated_size(tmp_path):
    """The file stores 40 x 20 with orientation 6 (turn right to see it): shown, it is 20 wide and 40 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size, shape in (("shown", (20, 40), (40, 20, 3)), ("stored", (40, 20), (20, 40, 3))):
        voc(tmp_path / name, [("c", 0, 0, 4, 4)], annotated=size)
        write_image(tmp_path / name / "JPEGImages" / "a.jpg", exif=exif)
        assert load_dataset(tmp_path / name)[0]["image"].shape == shape


@pytest.mark.parametrize(
    ("mode", "name", "value", "expected"),
    [
        ("L", "a.png", 100, (100, 100, 100)),
        ("RGBA", "a.png", (10, 200, 30, 0), (10, 200, 30)),
        ("P", "a.png", 0, (0, 0, 0)),
        ("I;16", "a.png", 0x8042, (128, 128, 128)),
        ("1", "a.png", 1, (255, 255, 255)),
        ("CMYK", "a.jpg", (0, 0, 0, 0), (255, 255, 255)),
        ("LA", "a.png", (50, 255), (50, 50, 50)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name, value, expected):
    voc(tmp_path, [("c", 0, 0, 4, 4)], image_name=name)
    Image.new(mode, (40, 20), value).save(tmp_path / "JPEGImages" / name)
    image = load_dataset(tmp_path)[0]["image"]
    assert image.shape == (20, 40, 3)
    assert (image.dtype, tuple(image[3, 3].tolist())) == (np.uint8, expected)


def wrong_voc(tmp_path, text):
    voc(tmp_path, [("c", 0, 0, 4, 4)])
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    return tmp_path


def broken(tmp_path, what):
    """A data set with one thing wrong."""
    box = {"bbox": [1, 1, 4, 4], "category_id": 3}
    if what == "wrong path":
        return tmp_path / "nowhere"
    if what == "images only":
        write_image(tmp_path / "a.jpg")
    elif what == "xml":
        return wrong_voc(tmp_path, "<annotation><object>")
    elif what == "no box":
        return wrong_voc(tmp_path, "<annotation><object><name>c</name></object></annotation>")
    elif what == "missing image":
        (voc(tmp_path, [("c", 0, 0, 4, 4)]) / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "b.jpg")
    elif what == "text as image":
        (voc(tmp_path, [("c", 0, 0, 4, 4)]) / "JPEGImages" / "a.jpg").write_text("no image")
    elif what == "other size":
        voc(tmp_path, [("c", 0, 0, 4, 4)], annotated=(80, 40))
    elif what == "json":
        (coco(tmp_path, []) / "instances.json").write_text("{")
    elif what == "json keys":
        (coco(tmp_path, []) / "instances.json").write_text('{"images": []}')
    elif what == "json list":
        (coco(tmp_path, []) / "instances.json").write_text("[1]")
    elif what == "category":
        coco(tmp_path, [box | {"category_id": 9}])
    elif what == "bbox":
        coco(tmp_path, [box | {"bbox": [1, 2, 3]}])
    elif what == "foreign image":
        coco(tmp_path, [box | {"image_id": 99}])
    elif what == "missing coco image":
        coco(tmp_path, [box], file_name="b.jpg")
    elif what == "text file":
        (tmp_path / "a.txt").write_text("")
        return tmp_path / "a.txt"
    return tmp_path


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("wrong path", FileNotFoundError, r"No such file or folder: .*nowhere"),
        ("empty folder", ValueError, r"is empty. Expected: COCO .*, Pascal VOC"),
        ("images only", ValueError, r"holds 1 image and no annotations"),
        ("text file", ValueError, r"a.txt is not a file of annotations"),
        ("xml", ValueError, r"a.xml is not readable XML"),
        ("no box", ValueError, r"a.xml is not a Pascal VOC annotation"),
        ("missing image", FileNotFoundError, r"Image not found: a.jpg, annotated in .*a.xml"),
        ("text as image", ValueError, r"Not a readable image: .*a.jpg"),
        ("other size", ValueError, r"a.jpg were drawn on an image of 80 x 40 .* Received an image of 40 x 20"),
        ("json", ValueError, r"instances.json is not readable JSON"),
        ("json keys", ValueError, r"instances.json lacks: annotations, categories"),
        ("json list", ValueError, r"instances.json lacks"),
        ("category", ValueError, r"Annotation 1 in .*instances.json has category_id 9"),
        ("bbox", ValueError, r"needs \"bbox\".*Received: \[1, 2, 3\]"),
        ("foreign image", ValueError, r"image_id 99"),
        ("missing coco image", FileNotFoundError, r"Image not found: b.jpg"),
    ],
)
def test_one_clear_line_for_what_is_wrong(tmp_path, what, error, message):
    with pytest.raises(error, match=message) as caught:
        load_dataset(broken(tmp_path, what))
    assert "\n" not in str(caught.value)


def test_unknown_classes_and_formats(tmp_path):
    voc(tmp_path, [("platelet", 0, 0, 4, 4)])
    with pytest.raises(ValueError, match=r"a.xml: Unknown class 'platelet'. Did you mean Platelets\?"):
        load_dataset(tmp_path, class_names=["RBC", "Platelets"])
    with pytest.raises(ValueError, match="coco, voc, yolo, csv, tfrecord"):
        load_dataset(tmp_path, format="labelme")


def test_reading_does_not_import_tensorflow():
    code = "import sys, keras_detect.data, keras_detect.transforms, keras_detect.evaluation\n"
    code += "assert 'tensorflow' not in sys.modules"
    environment = {"KERAS_BACKEND": "jax", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_two_categories_of_one_id_are_refused(tmp_path):
    """Else every cat would silently be a dog."""
    coco(tmp_path, [{"bbox": [0, 0, 4, 4], "category_id": 1}], [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}])
    with pytest.raises(ValueError, match=r"instances\.json needs a unique id. Received id 1 twice"):
        load_dataset(tmp_path)


def test_an_image_id_that_is_no_id(tmp_path):
    coco(tmp_path, [], id=1.5)
    with pytest.raises(ValueError, match=r"integer or text. Received: 1.5"):
        load_dataset(tmp_path)


def test_areas_below_zero_become_the_boxs(tmp_path, warnings):
    """COCO's metrics would pass an object with area -1 over; its box has 6 x 7 = 42 pixels."""
    box = {"bbox": [1, 1, 6, 7], "category_id": 3}
    coco(tmp_path, [box | {"area": -1.0}, box | {"area": 0.0}, box | {"area": 20.0}])
    np.testing.assert_allclose(load_dataset(tmp_path)[0]["areas"], [42.0, 0.0, 20.0])
    assert "repaired areas that are not a number >= 0, replaced by the area of the box: 1 (a.jpg)" in warnings[0]


@pytest.mark.parametrize(
    ("value", "crowd", "counted"),
    [
        ("0", False, 0),
        ("1", True, 0),
        (0, False, 0),
        (1, True, 0),
        (0.0, False, 0),
        (1.0, True, 0),
        (True, True, 0),
        (False, False, 0),
        (None, False, 0),
        ("", False, 0),
        (" True ", True, 0),
        ("FALSE", False, 0),
        ("yes", True, 0),
        ("no", False, 0),
        ("0.0", False, 0),
        (-1, False, 0),
        (2, False, 1),
        ("2", False, 1),
        (0.5, False, 1),
        (float("nan"), False, 1),
        (10**400, False, 1),
        ("a" * 10**6, False, 1),
        ("crowd", False, 1),
        ([1], False, 1),
        ({}, False, 1),
    ],
)
def test_what_means_a_crowd(tmp_path, value, crowd, counted):
    """In COCO's JSON, and in examples in memory; what is neither true nor false is counted and no crowd."""
    data = load_dataset(coco(tmp_path, [{"bbox": [1, 1, 4, 4], "category_id": 3, "iscrowd": value}]))
    assert data.records[0].is_crowd.tolist() == [crowd]
    assert data.defects.counts().get('values of "iscrowd" that are neither true nor false', 0) == counted
    example = {"image": np.zeros((8, 8, 3), np.uint8), "boxes": [[0, 0, 1, 1]], "labels": [0], "is_crowd": [value]}
    if value == [1]:  # an array like any other
        return
    if counted:
        with pytest.raises(ValueError, match=r"neither true nor false|is_crowd"):
            DetectionDataset.from_examples([example], ["a"])
    else:
        assert DetectionDataset.from_examples([example], ["a"]).records[0].is_crowd.tolist() == [crowd]


def test_flags_of_tables_and_of_pascal_voc(tmp_path):
    heads = "filename,class,xmin,ymin,xmax,ymax,is_crowd,IsGroupOf\n"
    write_image(tmp_path / "csv" / "images" / "a.jpg")
    cells = (("1", "-1"), ("0", "1"), ("TRUE", "0"), ("maybe", "2"), ("", ""))
    rows = "".join(f"a.jpg,c,{i},1,{i + 5},5,{first},{second}\n" for i, (first, second) in enumerate(cells))
    (tmp_path / "csv" / "a.csv").write_text(heads + rows)
    data = load_dataset(tmp_path / "csv")
    assert data.records[0].is_crowd.tolist() == [True, False, True, False, False]
    assert data.records[0].get("is_group_of").tolist() == [False, True, False, False, False]
    assert sum(data.defects.counts().values()) == 2
    voc(tmp_path / "voc", [("c", 0, 0, 4, 4)] * 3)
    file = tmp_path / "voc" / "Annotations" / "a.xml"
    parts = file.read_text().split("</object>")
    values = ("1", "2", "False")
    file.write_text(
        "</object>".join(f"{part}<difficult>{value}</difficult>" for part, value in zip(parts, values, strict=False))
        + "</object>"
        + parts[-1]
    )
    data = load_dataset(tmp_path / "voc")
    assert data.records[0].get("is_difficult").tolist() == [True, False, False]
    assert data.defects.counts() == {'values of "difficult" that are neither true nor false': 1}


LONG = ["a" * 100_000, 10**4000, "\x1b[31m" * 1000, "line\n" * 1000, [["x" * 1000] * 1000] * 3, {"k" * 10_000: 1}]


@pytest.mark.parametrize("value", LONG, ids=["letters", "digits", "controls", "lines", "list", "mapping"])
@pytest.mark.parametrize("place", ["id", "image_id", "category_id", "bbox", "name", "file_name", "image", "height"])
def test_long_values_are_cut_in_messages(tmp_path, place, value):
    """The way out is there however long an id, a name or a value is; so in the table of `check`."""
    coco(tmp_path, [{"id": 1, "bbox": [1, 1, 4, 4], "category_id": 3}])
    content = json.loads((tmp_path / "instances.json").read_text())
    row = content["annotations"][0]
    if place == "name":
        content["categories"][0]["name"] = value
        row["category_id"] = 77
    elif place in ("file_name", "height"):
        content["images"][0] |= {place: value, "width": value} if place == "height" else {place: value}
    elif place == "image":
        content["images"].append(value)
    else:
        row[place] = value
        row |= {"category_id": 77} if place == "id" else {}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    try:
        load_dataset(tmp_path, class_names=["other"] if place == "name" else None)
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and message.isprintable()
        assert len(message) < 900 and ("instances.json" in message or "a.jpg" in message)
        assert message.rstrip()[-1] in ".)" or "Received" in message
    else:
        assert place == "height"
    assert all(len(line) < 700 for line in str(check_dataset(tmp_path)).splitlines())
