"""Which keypoints change places in a mirrored image: by their names, as given, and through files and batches."""

import json
import logging

import numpy as np
import pytest

from keras_detect.data import DetectionDataset, load_dataset, write_dataset
from keras_detect.data.keypoints import pairs_by_name
from keras_detect.transforms import RandomHorizontalFlip, RandomVerticalFlip
from keras_detect.transforms.resizers import FixedShapeResizer

SIDE = 32
NAMES = ("nose", "left_ear", "right_ear")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (NAMES, ((1, 2),)),
        (("Right Eye", "tail", "Left Eye"), ((0, 2),)),
        (("ear_l", "ear_r", "l_hip", "r_hip"), ((0, 1), (2, 3))),
        (("leftEar", "rightEar", "earLeft", "earRight"), ((0, 1), (2, 3))),
        (("left_ear", "nose", "real", "leal"), ()),  # its counterpart is missing; an "l" within a word is no side
        ((), ()),
    ],
)
def test_pairs_by_name(names, pairs):
    assert pairs_by_name(names) == pairs


def painted(number=6, **facts):
    """Black images with a point of 2 x 2 pixels in red, green and blue for the three keypoints of their one object."""
    rng, examples = np.random.default_rng(0), []
    for _ in range(number):
        places = rng.permutation(np.arange(1, 15))[:6].reshape(3, 2)
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        for channel, (row, column) in enumerate(places):
            image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel] = 255
        points = (2 * places + 1) / SIDE
        examples.append({"image": image, "boxes": [[0, 0, 1, 1]], "labels": [0], "keypoints": [points]})
    return DetectionDataset.from_examples(examples, ["face"], **facts)


def batch(data, operation):
    ((images, y),) = data.batches(FixedShapeResizer(height=SIDE, width=SIDE), len(data), augment=operation, seed=1)
    return images.numpy(), y["keypoints"].numpy()[:, 0], y["keypoint_visibility"].numpy()[:, 0]


def channels_at(images, points):
    """The channel that is painted at each keypoint."""
    cells = np.floor(points * SIDE).astype(int)
    return [[int(np.argmax(image[y, x])) for y, x in rows] for image, rows in zip(images, cells, strict=True)]


@pytest.mark.parametrize("flip", [RandomHorizontalFlip, RandomVerticalFlip])
def test_a_flip_takes_the_order_from_the_data_set(flip):
    """What was painted as the left ear is the right one in the mirrored image: the second point finds color 3."""
    images, points, visibility = batch(painted(keypoint_names=NAMES), flip(probability=1.0))
    assert channels_at(images, points) == [[0, 2, 1]] * 6
    assert visibility.tolist() == [[2, 2, 2]] * 6
    images, points, _ = batch(painted(keypoint_names=NAMES, flip_pairs=[(0, 1)]), flip(probability=1.0))
    assert channels_at(images, points) == [[1, 0, 2]] * 6
    images, points, _ = batch(painted(keypoint_names=NAMES), flip(probability=1.0, keypoint_permutation=()))
    assert channels_at(images, points) == [[0, 1, 2]] * 6


def test_a_flip_says_where_nothing_tells_left_from_right(caplog):
    with caplog.at_level(logging.WARNING):
        images, points, _ = batch(painted(), RandomHorizontalFlip(probability=1.0))
    assert "neither flip_pairs nor keypoint_names" in caplog.text
    assert channels_at(images, points) == [[0, 1, 2]] * 6


def test_flip_pairs_are_kept_in_cocos_files(tmp_path):
    """COCO counts from 1, we from 0; pairs in the file go before those of the names."""
    data = painted(keypoint_names=NAMES, skeleton=[(0, 1), (0, 2)], flip_pairs=[(0, 2)])
    write_dataset(data, tmp_path / "data", "coco")
    file = tmp_path / "data" / "instances.json"
    content = json.loads(file.read_text())
    assert content["categories"][0]["flip_pairs"] == [[1, 3]]
    again = load_dataset(tmp_path / "data")
    assert (again.flip_pairs, again.subset([0]).keypoint_permutation) == (((0, 2),), (2, 1, 0))
    del content["categories"][0]["flip_pairs"]
    file.rename(file.with_name("person_keypoints_val2017.json"))  # COCO's name; nothing else is in the folder
    file.with_name("person_keypoints_val2017.json").write_text(json.dumps(content))
    assert load_dataset(tmp_path / "data").flip_pairs == ((1, 2),)
    content["categories"][0]["flip_pairs"] = [[1, 2], [2, 3]]
    file.with_name("person_keypoints_val2017.json").write_text(json.dumps(content))
    assert load_dataset(tmp_path / "data").defects.counts() == {"keypoint names or skeletons that cannot be used": 1}


def test_what_is_refused():
    with pytest.raises(ValueError, match="each keypoint in one pair at most"):
        painted(flip_pairs=[(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="keypoint 3, counted from 0, and the objects have 3"):
        batch(painted(flip_pairs=[(0, 3)]), RandomHorizontalFlip())
