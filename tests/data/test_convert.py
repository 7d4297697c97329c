"""Every format to every other: no box is lost, what both hold is the same, and what is lost is counted."""

import json
import pathlib

import numpy as np
import pytest

from keras_detect import schema
from keras_detect.data import DetectionDataset, load_dataset, masks, read_label_map, write_dataset
from keras_detect.data.load import FORMATS
from keras_detect.data.record import box_areas
from tests import goldens

PAIRS = [(first, second) for first in FORMATS for second in FORMATS]
ROWS = ("is_crowd", "is_difficult", "is_group_of", "areas", "weights")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of coco_free with all 5 crowds, the empty one, the gray one and some others; and of each format."""
    data = load_dataset(goldens.require_shared("data/coco_free"))
    special = [i for i, record in enumerate(data.records) if record.is_crowd.any() or not len(record.boxes)]
    gray = [i for i, record in enumerate(data.records) if record.file_name == "000000000086.jpg"]
    data = data.subset(sorted({*special, *gray, 0, 1, 2, 40}))
    written = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp(name)
        written[name] = (folder, write_dataset(data, folder, name))
    return data, written


@pytest.fixture(scope="module")
def everything():
    """Two drawn images whose three boxes have all that an example can have, and one image without boxes."""
    rng = np.random.default_rng(0)
    shapes = [(20, 30), (25, 15), (16, 16)]
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    boxes = [[[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]], [[0.25, 0.3, 0.75, 0.8]], []]
    planes = [rng.integers(0, 2, (len(rows), *shape), np.uint8) for rows, shape in zip(boxes, shapes, strict=True)]
    points = [rng.uniform(0, 1, (len(rows), 4, 2)).astype(np.float32) for rows in boxes]
    seen = [rng.integers(1, 3, (len(rows), 4)) for rows in boxes]
    points[0][1, 2], seen[0][1, 2] = np.nan, 0
    return DetectionDataset.from_arrays(
        images,
        boxes,
        [[2, 0], [1], []],
        ["a, b", 'ü "q"', "c: d", "none of these"],
        is_crowd=[[False, True], [False], []],
        is_difficult=[[True, False], [False], []],
        is_group_of=[[False, False], [True], []],
        weights=[[1.0, 0.5], [0.25], []],
        areas=[[10.0, 20.0], [30.0], []],
        masks=planes,
        keypoints=points,
        keypoint_visibility=seen,
        file_names=["a.png", "dir/b.jpg", "c"],
    )


def by_stem(data):
    return {pathlib.PurePosixPath(record.file_name).stem: record for record in data.records}


def assert_same(first, second, held):
    assert second.class_names == first.class_names
    theirs = by_stem(second)
    assert theirs.keys() == by_stem(first).keys()
    for name, record in by_stem(first).items():
        other = theirs[name]
        size = (record.image.height, record.image.width)
        assert (other.image.height, other.image.width) == size
        np.testing.assert_allclose(other.boxes, record.boxes, atol=1e-6)
        np.testing.assert_array_equal(other.labels, record.labels)
        for key in held & set(ROWS):
            values, missing = record.get(key), 1.0 if key == "weights" else False
            got = other.get(key)
            if key == "areas" and values is None:
                values = box_areas(record.boxes) * np.prod(size)
            values = np.full(len(record.boxes), missing) if values is None else values
            got = np.full(len(record.boxes), missing) if got is None else got
            np.testing.assert_allclose(got, values, rtol=1e-6, err_msg=key)
        if "masks" in held and record.get("masks") is not None:
            np.testing.assert_array_equal(
                masks.stack(other.get("masks") or (), size), masks.stack(record.get("masks"), size)
            )
        if "keypoints" in held and record.get("keypoints") is not None and len(record.boxes):
            np.testing.assert_allclose(other.get("keypoints"), record.get("keypoints"), atol=1e-6)
            np.testing.assert_array_equal(other.get("keypoint_visibility"), record.get("keypoint_visibility"))


def kept(*formats):
    """What all formats hold; of VOC not the difficult ones, because crowds are marked as difficult too."""
    fields = schema.object_fields(schema.GROUND_TRUTH)
    held = {field.key for field in fields if all(FORMATS[name].holds(field) for name in formats)}
    return held - {"is_difficult"} if "voc" in formats else held


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_round_trip_between_two_formats_loses_no_box(photos, tmp_path, first, second):
    data, written = photos
    assert sum(int(record.is_crowd.sum()) for record in data.records) == 5
    through = load_dataset(written[first][0])
    assert_same(data, through, kept(first))
    write_dataset(through, tmp_path, second)
    assert_same(data, load_dataset(tmp_path), kept(first, second))


@pytest.mark.parametrize("name", FORMATS)
def test_images_keep_their_pixels(photos, name):
    """JPEG files keep their bytes; the gray image is among them."""
    data, written = photos
    through = {pathlib.PurePosixPath(e["file_name"]).stem: e["image"] for e in load_dataset(written[name][0])}
    for example in data:
        stem = pathlib.PurePosixPath(example["file_name"]).stem
        np.testing.assert_array_equal(through[stem], example["image"])


def test_what_a_format_cannot_hold_is_counted(photos):
    data, written = photos
    objects = sum(len(record.boxes) for record in data.records)
    with_mask = sum(mask is not None for record in data.records for mask in record.get("masks") or ())
    assert written["coco"][1] == written["tfrecord"][1] == {}
    assert written["voc"][1]["crowds, now marked as difficult"] == 5
    assert written["yolo"][1]["crowds, now ordinary boxes"] == 5
    assert written["csv"][1] == {"masks": with_mask}
    assert objects >= with_mask == written["yolo"][1]["masks"] > 40
    assert "objects' keypoints" not in written["yolo"][1]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_flags_masks_keypoints_and_difficult_names(everything, tmp_path, first, second):
    """Class names with a comma, a colon, quotes and an umlaut, and one that no object has."""
    write_dataset(everything, tmp_path / "one", first)
    through = load_dataset(tmp_path / "one")
    write_dataset(through, tmp_path / "two", second)
    again = load_dataset(tmp_path / "two")
    assert_same(everything, again, kept(first, second))
    if first == second == "voc":
        assert by_stem(again)["a"].get("is_difficult").tolist() == [True, True]


def test_everything_lost_is_counted(everything, tmp_path):
    assert write_dataset(everything, tmp_path, "yolo") == {
        "crowds, now ordinary boxes": 1,
        "marks of difficult objects": 1,
        "marks of groups": 1,
        "annotated areas other than the box's": 3,
        "weights": 2,
        "masks": 3,
        "objects' keypoints": 3,
    }


@pytest.mark.parametrize("name", FORMATS)
def test_two_splits_share_a_folder(everything, tmp_path, name):
    """Two different images of one name get two names."""
    train, val = everything.subset([0, 2]), everything.subset([1])
    clash = everything.subset([0])
    for split, data in (("train", train), ("val", val), ("test", clash)):
        write_dataset(data, tmp_path, name, split=split)
    for split, data in (("train", train), ("val", val), ("test", clash)):
        again = load_dataset(tmp_path, split)
        assert (len(again), again.class_names) == (len(data), everything.class_names)
        for ours, theirs in zip(data, again, strict=True):
            np.testing.assert_array_equal(ours["image"], theirs["image"])
            np.testing.assert_allclose(ours["boxes"], theirs["boxes"], atol=1e-6)


def test_images_of_one_name_stay_two(tmp_path):
    images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 9)]
    data = DetectionDataset.from_arrays(images, [[[0, 0, 1, 1]]] * 2, [[0]] * 2, ["a"], file_names=["x/a", "y/a"])
    for name in ("coco", "voc", "yolo", "csv"):
        write_dataset(data, tmp_path / name, name)
        assert sorted(int(example["image"][0, 0, 0]) for example in load_dataset(tmp_path / name)) == [0, 9]


def test_unknown_format(everything, tmp_path):
    with pytest.raises(ValueError, match="coco, voc, yolo, csv, tfrecord"):
        write_dataset(everything, tmp_path, "labelme")


def test_the_label_map_of_the_record(everything, tmp_path):
    write_dataset(everything, tmp_path, "tfrecord")
    assert read_label_map(tmp_path / "label_map.pbtxt").class_names == everything.class_names


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_lost_on_the_way_leaves_nothing_that_looks_whole(tmp_path, name):
    """The second of two images vanishes after the data set was read: no format is recognized in what was written."""
    source = tmp_path / "source"
    images = [np.full((20, 20, 3), shade, np.uint8) for shade in (10, 200)]
    boxes = [[[0.1, 0.1, 0.9, 0.9]]] * 2
    names = ["first.png", "second.png"]
    drawn = DetectionDataset.from_arrays(images, boxes, [[0], [0]], ["square"], file_names=names)
    write_dataset(drawn, source, "coco")
    data = load_dataset(source)
    next(source.rglob("second.png")).unlink()
    target = tmp_path / "target"
    with pytest.raises((OSError, ValueError), match="second"):
        write_dataset(data, target, name)
    assert not any(part.name.startswith("part_of") for part in tmp_path.rglob("*"))
    if target.exists():
        with pytest.raises((FileNotFoundError, ValueError)):
            load_dataset(target)


@pytest.mark.parametrize("name", FORMATS)
def test_spaces_around_class_names(tmp_path, name):
    """Categories "cat " are common in exported COCO files, beside "cat" too."""
    image = np.zeros((8, 8, 3), np.uint8)
    for number, names in enumerate((["dog", "cat "], ["cat", "cat ", " dog"])):
        rows = [[[0, 0, 0.5, (label + 1) / 4] for label in range(len(names))]]
        data = DetectionDataset.from_arrays([image], rows, [range(len(names))], names)
        write_dataset(data, tmp_path / str(number), name)
        assert_same(data, load_dataset(tmp_path / str(number)), set())


def test_a_blank_class_is_no_csv(tmp_path):
    data = DetectionDataset.from_arrays([np.zeros((8, 8, 3), np.uint8)], [[[0, 0, 1, 1]]], [[0]], [" "])
    with pytest.raises(ValueError, match="blank class"):
        write_dataset(data, tmp_path, "csv")
    assert not list(tmp_path.iterdir())


def test_names_and_skeleton_of_keypoints_are_kept(tmp_path):
    """COCO counts the points of a skeleton from 1, we from 0."""
    example = {"image": np.zeros((8, 8, 3), np.uint8), "boxes": [[0, 0, 1, 1]], "labels": [0]}
    example["keypoints"] = [[[0.5, 0.5], [0.25, 0.75]]]
    data = DetectionDataset.from_examples([example], ["a"], keypoint_names=["nose", "tail"], skeleton=[(0, 1)])
    write_dataset(data, tmp_path, "coco")
    written = json.loads((tmp_path / "instances.json").read_text())["categories"]
    assert written == [{"id": 1, "name": "a", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}]
    again = load_dataset(tmp_path)
    assert (again.keypoint_names, again.skeleton) == (("nose", "tail"), ((0, 1),))
    assert again.subset([0]).skeleton == ((0, 1),)
    written[0]["skeleton"] = [[1, 3]]
    content = json.loads((tmp_path / "instances.json").read_text()) | {"categories": written}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    spoiled = load_dataset(tmp_path)
    assert spoiled.skeleton == ()
    assert spoiled.defects.counts() == {"keypoint names or skeletons that cannot be used": 1}
