"""`check_dataset`: every kind of defect is found at once, with the action the loader really takes."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_detect.data import DetectionDataset, check_dataset, load_dataset, shapes_dataset, write_dataset
from keras_detect.data.record import DROPPED, KEPT, REFUSED, REPAIRED
from keras_detect.transforms.resizers import FixedShapeResizer
from tests import goldens
from tests.data.test_load import coco, voc, write_image


def found(report):
    """`{kind: (action, count, places)}`."""
    return {kind: (action, count, places) for action, kind, count, places in report.rows()}


def test_a_good_data_set(tmp_path):
    write_dataset(shapes_dataset(6, image_size=32, empty_share=0.0, class_names=["circle"]), tmp_path, "coco")
    report = check_dataset(tmp_path)
    assert (report.ok, report.images, found(report)) == (True, 6, {})
    assert str(report).endswith("6 images\nnothing is wrong\ntraining would start")


def test_real_data():
    report = check_dataset(goldens.require_shared("data/coco_free"), decode=False)
    rows = found(report)
    assert report.ok
    assert rows["gray images, repeated into three channels"] == (REPAIRED, 1, ("000000000086.jpg",))
    assert rows["images without objects, used as background"] == (KEPT, 1, ("000000000508.jpg",))
    assert rows["classes without objects"][1] == 11  # 69 of 80 classes, says its README
    bccd = check_dataset(goldens.require_shared("data/bccd"), decode=False)
    assert found(bccd)["boxes of zero area"][:2] == (DROPPED, 2)


def test_everything_wrong_with_a_coco_folder_in_one_table(tmp_path):
    box = {"bbox": [1, 1, 4, 4], "category_id": 3}
    rows = [
        box,
        box,  # twice: the same box and class
        box | {"bbox": [30, 10, 20, 5]},  # leaves the image of 40 x 20
        box | {"bbox": [50, 1, 4, 4]},  # outside
        box | {"bbox": [5, 5, 0, 4]},  # without area
        box | {"bbox": [9, 9, -4, 4]},  # reversed
        box | {"bbox": [1, 1, None, 4]},
        box | {"bbox": [1, 2, 3]},
        box | {"category_id": 99},
        box | {"image_id": 77},
        box | {"id": 1, "bbox": [2, 2, 4, 4]},  # the id of the first one
        box | {"bbox": [2, 2, 9, 9], "segmentation": {"size": [3, 3], "counts": "x"}},
    ]
    coco(tmp_path, rows)
    content = json.loads((tmp_path / "instances.json").read_text())
    write_image(tmp_path / "images" / "twin.jpg")
    write_image(tmp_path / "images" / "unlisted.jpg")
    (tmp_path / "images" / "text.jpg").write_text("no image")
    whole = (tmp_path / "images" / "a.jpg").read_bytes()
    (tmp_path / "images" / "cut.jpg").write_bytes(whole[:-10])
    names = ("a.jpg", "twin.jpg", "text.jpg", "cut.jpg", "absent.jpg")
    content["images"] = [{"id": 5 + i, "file_name": name, "width": 40, "height": 20} for i, name in enumerate(names)]
    content["images"] += [{"id": 5, "file_name": "b.jpg"}, {"id": 20}]
    content["images"] += [{"id": 21, "file_name": "unsized.jpg", "width": 80, "height": 20}]
    write_image(tmp_path / "images" / "unsized.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    report = check_dataset(tmp_path)
    counts = {kind: (action, count) for kind, (action, count, _) in found(report).items()}
    assert counts == {
        "unreadable images": (REFUSED, 1),
        "images that cannot be decoded: damaged or truncated": (REFUSED, 1),
        "annotations whose image is missing": (REFUSED, 1),
        "annotated sizes that differ from the file": (REFUSED, 1),
        "duplicate ids of images": (REFUSED, 1),
        'entries of "images" without id or file_name': (REFUSED, 1),
        "annotations without an image": (REFUSED, 1),
        "annotations without a readable bbox": (REFUSED, 1),
        "unknown class ids": (REFUSED, 1),
        "boxes outside the image": (DROPPED, 1),
        "boxes of zero area": (DROPPED, 1),
        "reversed boxes": (DROPPED, 1),
        "boxes with a coordinate that is not a number": (DROPPED, 1),
        "masks that cannot be used": (DROPPED, 1),
        "boxes that extend beyond the image, clipped": (REPAIRED, 1),
        "duplicate boxes of one class": (KEPT, 1),
        "duplicate ids of annotations, which are ignored": (KEPT, 1),
        "duplicate images": (KEPT, 1),
        "images without annotation, skipped": (KEPT, 1),
        "images without objects, used as background": (KEPT, 2),
        "classes without objects": (KEPT, 1),
    }
    assert (report.ok, report.images) == (False, 2)
    assert str(report).splitlines()[-1] == "training would not start: fix the refused entries"
    with pytest.raises(ValueError, match=r"instances\.json"):
        load_dataset(tmp_path)
    written = json.loads(json.dumps(report.to_dict()))
    assert written["training_would_start"] is False
    assert {"what": "reversed boxes", "count": 1, "loader": "dropped", "where": ["a.jpg"]} in written["found"]


def test_everything_wrong_with_a_voc_folder(tmp_path):
    voc(tmp_path, [("c", 0, 0, 4, 4)])
    voc(tmp_path, [("d", 1, 1, 4, 4)], name="other")
    for name, text in (("xml", "<annotation"), ("nobox", "<annotation><object><name>c</name></object></annotation>")):
        voc(tmp_path, [("c", 0, 0, 4, 4)], name=name)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    voc(tmp_path, [("c", 0, 0, 4, 4)], name="lost")
    (tmp_path / "JPEGImages" / "lost.jpg").rename(tmp_path / "JPEGImages" / "found.jpg")
    rows = found(check_dataset(tmp_path, class_names=["c"]))
    assert rows["unreadable annotations"] == (REFUSED, 1, ("xml.xml",))
    assert rows["annotations that are not Pascal VOC"] == (REFUSED, 1, ("nobox.xml",))
    assert rows["annotations whose image is missing"] == (REFUSED, 1, ("lost.xml",))
    assert rows["unknown class names"] == (REFUSED, 1, ("other.xml",))
    assert "found.jpg" in rows["images without annotation, skipped"][2]


@pytest.mark.parametrize(
    ("mode", "name", "kind"),
    [
        ("L", "a.png", "gray images, repeated into three channels"),
        ("CMYK", "a.jpg", "CMYK images, converted to RGB"),
        ("I;16", "a.png", "images of 16 bits or more, of which the high byte is used"),
        ("RGBA", "a.png", "images with transparency, which is ignored"),
        ("P", "a.png", "palette images, converted to RGB"),
    ],
)
def test_kinds_of_images(tmp_path, mode, name, kind):
    voc(tmp_path, [("c", 0, 0, 4, 4)], image_name=name)
    Image.new(mode, (40, 20)).save(tmp_path / "JPEGImages" / name)
    report = check_dataset(tmp_path)
    assert (report.ok, found(report)) == (True, {kind: (REPAIRED, 1, (name,))})


def test_exif_and_endings(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size in (("shown", (20, 40)), ("stored", (40, 20))):
        voc(tmp_path / name, [("c", 0, 0, 4, 4)], annotated=size)
        write_image(tmp_path / name / "JPEGImages" / "a.jpg", exif=exif)
    (action, count, _), *_ = found(check_dataset(tmp_path / "shown")).values()
    assert (action, count) == (REPAIRED, 1)
    assert next(iter(found(check_dataset(tmp_path / "stored")).values()))[0] == KEPT
    voc(tmp_path / "ending", [("c", 0, 0, 4, 4)])
    Image.new("RGB", (40, 20)).save(tmp_path / "ending" / "JPEGImages" / "a.jpg", "PNG")
    kind = "images whose suffix does not match their format, read by content"
    assert found(check_dataset(tmp_path / "ending")) == {kind: (KEPT, 1, ("a.jpg",))}


def test_in_memory_and_imbalance():
    """60 objects of class a, one of b (below 60 / 50), none of c; an image twice; a file name twice."""
    image = np.zeros((8, 8, 3), np.uint8)
    boxes = [[[0, 0, (i + 1) / 64, 1] for i in range(60)], [[0, 0, 1, 1]]]
    data = DetectionDataset.from_arrays([image, image], boxes, [[0] * 60, [1]], ["a", "b", "c"], file_names=["x", "x"])
    report = data.check()
    assert report.ok
    assert found(report) == {
        "classes with fewer than 1/50 of the most frequent one's objects": (KEPT, 1, ("b",)),
        "classes without objects": (KEPT, 1, ("c",)),
        "duplicate names of images": (KEPT, 1, ("x",)),
        "duplicate images": (KEPT, 1, ("x = x",)),
    }
    empty = DetectionDataset.from_arrays([image], [[]], [[]], ["a"]).check()
    assert not empty.ok
    assert found(empty)["data sets without any object"][0] == REFUSED


class OneAnchor:
    """What a check asks of a model: a resizer, and anchors in its predictions; here the left half of the image."""

    resizer = FixedShapeResizer(height=16, width=16)
    class_names = None

    def __call__(self, inputs, training=None):
        assert inputs.shape == (1, 16, 16, 3)
        return {"anchors": np.array([[0.0, 0.0, 1.0, 0.5]], np.float32)}


def test_objects_that_no_anchor_fits():
    """The anchor overlaps the left half by 1, the whole image by 0.5, the right half by 0; a crowd is not asked."""
    image = np.zeros((8, 8, 3), np.uint8)
    boxes = [[0, 0, 1, 0.5], [0, 0, 1, 1], [0, 0.5, 1, 1], [0, 0.6, 1, 1]]
    crowd = [[False, False, False, True]]
    data = DetectionDataset.from_arrays([image], [boxes], [[0] * 4], ["a"], is_crowd=crowd, file_names=["x"])
    kind = "objects that no anchor overlaps by 0.5: they get the best anchor, or none"
    assert found(data.check(model=OneAnchor()))[kind] == (KEPT, 1, ("x",))


def test_what_cannot_be_read_at_all(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        report = check_dataset(path)
        assert (report.ok, report.images, len(report.rows())) == (False, 0, 1)
    (coco(tmp_path, []) / "instances.json").write_text("{")
    ((action, kind, _, places),) = check_dataset(tmp_path).rows()
    assert action == REFUSED
    assert "is not readable JSON" in kind
    assert len(places) == 1


def test_sixteen_bits_of_color(tmp_path):
    """A PNG of one color, 0x1234, 0xabcd and 0x00ff per channel: Pillow and TensorFlow take 0x12, 0xab and 0x00."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    pixels = zlib.compress(20 * (b"\0" + 40 * bytes([0x12, 0x34, 0xAB, 0xCD, 0x00, 0xFF])))
    header = struct.pack(">IIBBBBB", 40, 20, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    voc(tmp_path, [("c", 0, 0, 4, 4)], image_name="a.png")
    (tmp_path / "JPEGImages" / "a.png").write_bytes(content)
    kind = "images of 16 bits or more, of which the high byte is used"
    assert found(check_dataset(tmp_path)) == {kind: (REPAIRED, 1, ("a.png",))}
    data = load_dataset(tmp_path)
    ((x, _),) = data.batches(FixedShapeResizer(height=20, width=40), 1)
    for seen in (data[0]["image"], np.asarray(x)[0]):
        assert np.unique(seen.reshape(-1, 3), axis=0).tolist() == [[0x12, 0xAB, 0x00]]


def test_class_names_that_are_not_the_models(tmp_path):
    """Training with such a model refuses the batches; a folder is read with the model's names."""

    class Named(OneAnchor):
        class_names = ("circle", "star")

    data = shapes_dataset(3, image_size=16, empty_share=0.0, class_names=["circle"])
    report = data.check(model=Named())
    assert found(report)["class names that differ from the model's"] == (REFUSED, 1, ("star",))
    assert not report.ok
    write_dataset(data, tmp_path, "coco")
    report = check_dataset(tmp_path, model=Named())
    assert report.ok
    assert found(report)["classes without objects"] == (KEPT, 1, ("star",))


def test_different_numbers_of_keypoints():
    """Batches fill the shorter ones up, and the check says so."""
    image = np.zeros((8, 8, 3), np.uint8)
    points = [np.full((1, count, 2), 0.5) for count in (3, 5)]
    data = DetectionDataset.from_arrays([image] * 2, [[[0, 0, 1, 1]]] * 2, [[0]] * 2, ["a"], keypoints=points)
    kind = "objects with different numbers of keypoints, padded with invisible ones: 3, 5"
    assert found(data.check())[kind][0] == KEPT and data.check().ok
    assert kind not in found(data.subset([0]).check())


@pytest.mark.parametrize("name", ["coco", "voc", "yolo", "csv", "tfrecord"])
def test_images_of_other_splits_are_not_missing(tmp_path, name):
    data = shapes_dataset(6, image_size=32, empty_share=0.0, class_names=["circle"])
    write_dataset(data.subset([0, 1]), tmp_path, name, split="train")
    write_dataset(data.subset([2, 3, 4]), tmp_path, name, split="val")
    for split, count in (("train", 2), ("val", 3)):
        report = check_dataset(tmp_path, split)
        assert (report.images, found(report)) == (count, {})


def test_split_lists_beside_yolos_labels_in_one_folder(tmp_path):
    """Only the label file without an image is an orphan, not that of the other split's image."""
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png")
    for name in ("a", "b", "orphan"):
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "classes.txt").write_text("c\n")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("a\n")
    rows = found(check_dataset(tmp_path, "train"))
    assert rows == {"annotations whose image is missing": (DROPPED, 1, ("orphan.txt",))}
