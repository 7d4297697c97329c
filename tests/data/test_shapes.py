"""The synthetic data set: the same on every run, boxes tight around what was drawn."""

import numpy as np
import pytest

from keras_detect.data import shapes, shapes_dataset


def test_the_same_seed_gives_the_same_bits():
    first, second, other = (shapes_dataset(5, seed=seed, image_size=(32, 48)) for seed in (7, 7, 8))
    longer = shapes_dataset(6, seed=7, image_size=(32, 48))
    for ours, again, more in zip(first, second, longer, strict=False):
        for key in ("image", "boxes", "labels"):
            np.testing.assert_array_equal(ours[key], again[key])
            np.testing.assert_array_equal(ours[key], more[key])
    assert first[0]["image"].shape != other[0]["image"].shape or not np.array_equal(
        first[0]["image"], other[0]["image"]
    )


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_boxes_are_tight(monkeypatch, name):
    """White shapes on black, no noise: a pixel at least half covered is brighter than 127; their bounds are the box."""
    monkeypatch.setattr(shapes, "_ground", lambda rng, height, width: np.zeros((height, width, 3)))
    monkeypatch.setattr(shapes, "_paint", lambda rng, shape, under: np.full((*shape, 3), 255.0))
    data = shapes_dataset(12, seed=1, image_size=(48, 80), class_names=[name], max_objects=1, empty_share=0, noise=0)
    checked = 0
    for example in data:
        for box in example["boxes"]:
            height, width = example["image"].shape[:2]
            rows, columns = np.nonzero(example["image"][:, :, 0] > 127)
            bounds = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            np.testing.assert_allclose(box * [height, width, height, width], bounds, atol=1e-4)
            checked += 1
    assert checked >= 8


def test_what_the_images_hold():
    data = shapes_dataset(120, seed=0, image_size=(48, 96))
    labels = np.concatenate([record.labels for record in data.records])
    counts = [len(record.boxes) for record in data.records]
    assert set(labels) == set(range(len(data.class_names))) and data.class_names == list(shapes.SHAPES)
    assert min(counts) == 0 and max(counts) > 3
    assert len({example["image"].shape for example in data}) > 50
    overlapping = sum(_overlap(record.boxes) for record in data.records)
    assert overlapping > 20
    assert all((record.boxes >= 0).all() and (record.boxes <= 1).all() for record in data.records)


def _overlap(boxes):
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    return bool(np.triu((high > low).all(axis=-1), 1).any())


def test_hidden_objects_are_left_out(monkeypatch):
    """Every shape is stamped over the same place, so that of six only the last can be seen."""
    monkeypatch.setattr(
        shapes, "_stamp", lambda rng, height, width, outline: ((4, 6), np.full((10, 20), 255, np.uint8))
    )
    data = shapes_dataset(10, seed=0, image_size=40, empty_share=0)
    for example in data:
        np.testing.assert_allclose(example["boxes"] * 40, [[4, 6, 14, 26]], atol=1e-5)


def test_settings_and_errors():
    data = shapes_dataset(4, image_size=32, class_names=["ring", "star"], max_objects=2, empty_share=1.0)
    assert data.class_names == ["ring", "star"] and data[0]["image"].shape == (32, 32, 3)
    assert sum(len(example["boxes"]) for example in data) == 0
    with pytest.raises(ValueError, match=r"Unknown shape 'sqare'. Did you mean square"):
        shapes_dataset(1, class_names=["sqare"])
    with pytest.raises(ValueError, match="16 pixels"):
        shapes_dataset(1, image_size=8)
    with pytest.raises(ValueError, match="num_images"):
        shapes_dataset(0)
