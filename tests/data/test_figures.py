"""The drawn stick figures: the same on every run, keypoints on what was painted, scales of 1 to 8, some hidden."""

import numpy as np
import pytest

from keras_detect.data import figures_dataset, shapes
from keras_detect.data.shapes import KEYPOINT_NAMES


@pytest.fixture(scope="module")
def data():
    return figures_dataset(60, seed=3, image_size=(96, 128))


def test_the_same_seed_gives_the_same_bits(data):
    again = figures_dataset(2, seed=3, image_size=(96, 128))
    for ours, first in zip(again, data, strict=False):
        for key in ("image", "boxes", "keypoints", "keypoint_visibility"):
            np.testing.assert_array_equal(ours[key], first[key])


def test_what_the_images_hold(data):
    assert (data.num_keypoints, data.keypoint_names, data.class_names) == (7, KEYPOINT_NAMES, ["figure"])
    assert data.flip_pairs == ((3, 4), (5, 6)) and len(data.skeleton) == 6
    counts = [len(record.boxes) for record in data.records]
    assert max(counts) == 4 and min(counts) >= 1
    heights = []
    for record in data.records:
        sides = np.array([record.image.height, record.image.width])
        points, boxes = record.get("keypoints"), record.boxes
        assert ((points >= boxes[:, None, :2] - 1e-6) & (points <= boxes[:, None, 2:] + 1e-6)).all()
        heights += (np.ptp(points * sides, axis=1).max(axis=1) / sides.min()).tolist()
    assert max(heights) / min(heights) > 5
    seen = np.concatenate([record.get("keypoint_visibility").ravel() for record in data.records])
    assert set(seen) == {1, 2} and 0.02 < np.mean(seen == 1) < 0.3


def test_visible_keypoints_are_where_the_figure_was_painted(monkeypatch):
    """On black ground, figure i in gray 50 (i + 1), patches black: what is visible has the gray of its figure."""
    monkeypatch.setattr(shapes, "_ground", lambda rng, height, width: np.zeros((height, width, 3)))
    grays = iter(range(50, 10**6, 1))
    monkeypatch.setattr(shapes, "_color", lambda rng, under: np.full(3, float(next(grays) % 200 + 50)))
    checked = 0
    for example in figures_dataset(20, seed=1, image_size=128, photo_share=0.0, noise=0.0):
        image = example["image"].astype(int)[..., 0]
        for points, visibility in zip(example["keypoints"], example["keypoint_visibility"], strict=True):
            cells = np.floor(points * image.shape).astype(int)[visibility == 2]
            values = image[cells[:, 0], cells[:, 1]]
            assert np.ptp(values[values > 0]) <= 40, values  # edges are mixed with what is under them
            checked += len(values)
    assert checked > 150


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least 64 pixels"):
        figures_dataset(1, image_size=32)
    with pytest.raises(ValueError, match="num_images=0"):
        figures_dataset(0)
