"""Augmentations that move boxes: each box of an example is painted in its own color, so its place can be read off."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_detect.transforms import RandomHorizontalFlip, RandomIoUCrop, RandomRotation90, RandomVerticalFlip
from keras_detect.transforms.geometric import cut_out

OPERATIONS = [
    RandomHorizontalFlip(probability=1.0),
    RandomVerticalFlip(probability=1.0),
    RandomRotation90(probability=1.0),
    RandomIoUCrop(),
]


def painted(rng, height=40, width=60, count=4):
    """Black ground, box j filled with gray level 10 (j + 1); boxes lie in their own quarters and do not overlap."""
    image, boxes = np.zeros((height, width, 3), np.uint8), []
    for j in range(count):
        top, left = (j // 2) * height // 2, (j % 2) * width // 2
        y0, y1 = np.sort(rng.choice(height // 2, 2, replace=False)) + top + [0, 1]
        x0, x1 = np.sort(rng.choice(width // 2, 2, replace=False)) + left + [0, 1]
        image[y0:y1, x0:x1] = 10 * (j + 1)
        boxes.append([y0 / height, x0 / width, y1 / height, x1 / width])
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(np.reshape(boxes, (-1, 4)), tf.float32),
        "labels": tf.range(count),
        "is_crowd": tf.zeros(count, tf.bool),
        "weights": tf.cast(tf.range(count), tf.float32) / 10.0,
    }


def run(operation, example, seed=(1, 2)):
    result = operation(example, tf.constant(seed, tf.int64))
    return {key: value.numpy() for key, value in result.items()}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_painted_boxes_move_with_the_image(operation):
    """Each surviving box bounds exactly the pixels of its color, and its other rows are still its own."""
    rng, survivors, moved = np.random.default_rng(0), 0, 0
    apply = tf.function(operation)
    for seed in range(40):
        example = painted(rng)
        result = run(apply, example, (seed, 5))
        assert result["image"].dtype == np.uint8
        height, width = result["image"].shape[:2]
        moved += result["image"].shape != example["image"].shape or not np.array_equal(
            result["image"], example["image"]
        )
        for box, label, weight in zip(result["boxes"], result["labels"], result["weights"], strict=True):
            rows, columns = np.nonzero(result["image"][:, :, 0] == 10 * (label + 1))
            bounds = [
                rows.min() / height,
                columns.min() / width,
                (rows.max() + 1) / height,
                (columns.max() + 1) / width,
            ]
            np.testing.assert_allclose(box, bounds, atol=1e-5)
            assert weight == pytest.approx(label / 10)
            survivors += 1
    assert moved >= 20 and survivors >= 40
    if not isinstance(operation, RandomIoUCrop):
        assert (moved, survivors) == (40, 160)


def test_a_quarter_turn_goes_to_the_left():
    """The right edge becomes the top: pixel (0, right) moves to (0, 0)."""
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 2] = 7
    boxes = tf.constant([[0.0, 2 / 3, 0.5, 1.0]])
    result = run(RandomRotation90(probability=1.0), {"image": tf.constant(image), "boxes": boxes})
    assert result["image"].shape == (3, 2, 3) and result["image"][0, 0, 0] == 7
    np.testing.assert_allclose(result["boxes"], [[0, 0, 1 / 3, 0.5]], atol=1e-6)


def test_cut_out_drops_by_the_center_and_clips():
    """20 x 20, patch rows 5...15, columns 10...20. Box 0 (rows 0...12, columns 8...16): center (6, 12) is inside: rows
    0...7 of 10 remain, columns 0...6 of 10. Box 1 (rows 0...8): center row 4 is outside. Box 2's center column 10 lies
    on the edge: outside.
    """
    boxes = np.array([[0, 8, 12, 16], [0, 11, 8, 19], [6, 5, 10, 15]]) / 20
    example = {
        "image": tf.reshape(tf.range(1200), (20, 20, 3)),
        "boxes": tf.constant(boxes, tf.float32),
        "labels": tf.constant([3, 4, 5]),
    }
    result = {key: value.numpy() for key, value in cut_out(example, tf.constant([5, 10, 15, 20])).items()}
    np.testing.assert_allclose(result["boxes"], [[0, 0, 0.7, 0.6]], atol=1e-6)
    assert result["labels"].tolist() == [3]
    np.testing.assert_array_equal(result["image"], np.arange(1200).reshape(20, 20, 3)[5:15, 10:20])


def test_iou_crop_keeps_its_promises():
    """With the one threshold 0.5, a crop overlaps an object by IoU 0.5 or more, or is the whole, or "any" patch.

    Patches have at least a tenth of the area (a pixel's rounding aside) and at least one object.
    """
    operation, shapes = tf.function(RandomIoUCrop(min_overlaps=(0.5,))), set()
    rng = np.random.default_rng(1)
    large = [[0.1, 0.1, 0.9, 0.6], [0.3, 0.5, 0.95, 0.95]]
    for seed in range(60):
        image = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
        example = {"image": tf.constant(image), "boxes": tf.constant(large), "labels": tf.constant([0, 1])}
        result = run(operation, example, (seed, 0))
        height, width = result["image"].shape[:2]
        assert height * width >= 0.09 * 2400 and len(result["boxes"]) >= 1
        assert 0.4 <= (width / height) / 1.5 <= 2.5
        shapes.add((height, width))
    assert len(shapes) > 25 and (40, 60) in shapes


def test_iou_crop_ignores_crowds_as_a_reason_to_crop():
    """A lone crowd region is no object to overlap: no patch is possible, the image stays whole."""
    boxes = tf.constant([[0.2, 0.2, 0.8, 0.8]])
    image = tf.zeros((30, 30, 3), tf.uint8)
    for seed in range(10):
        example = {"image": image, "boxes": boxes, "labels": tf.constant([0]), "is_crowd": tf.constant([True])}
        assert run(RandomIoUCrop(), example, (seed, 0))["image"].shape == (30, 30, 3)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_an_image_without_objects(operation):
    for seed in range(8):
        image = tf.zeros((1 + seed, 9, 3), tf.uint8)
        result = run(operation, {"image": image, "boxes": tf.zeros((0, 4)), "labels": tf.zeros(0, tf.int32)}, (seed, 0))
        assert result["boxes"].shape == (0, 4) and min(result["image"].shape) >= 1


@pytest.mark.parametrize("operation", [*OPERATIONS, RandomHorizontalFlip()], ids=repr)
def test_the_seed_decides(operation):
    example = painted(np.random.default_rng(3))
    first, again = run(operation, example, (4, 4)), run(operation, example, (4, 4))
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
    copy = type(operation).from_config(operation.get_config())
    assert copy == operation
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(operation))
    np.testing.assert_array_equal(run(revived, example, (4, 4))["image"], first["image"])


def test_probability():
    """Of 400 draws at 0.25 a hundred flip; 65...135 is four standard deviations (8.7) wide."""
    operation = tf.function(RandomHorizontalFlip(probability=0.25))
    image = tf.constant(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    example = {"image": image, "boxes": tf.zeros((0, 4))}
    flips = sum(int(operation(example, tf.constant([seed, 1], tf.int64))["image"][0, 0, 0] == 3) for seed in range(400))
    assert 65 <= flips <= 135
    assert run(RandomHorizontalFlip(probability=0.0), example)["image"][0, 0, 0] == 0


def test_settings_out_of_range():
    with pytest.raises(ValueError, match=r"\[0, 1\]. Received: probability=2"):
        RandomHorizontalFlip(probability=2)
    with pytest.raises(ValueError, match="min_area"):
        RandomIoUCrop(min_area=0.0)
    with pytest.raises(ValueError, match="max_aspect_ratio"):
        RandomIoUCrop(max_aspect_ratio=0.5)
    with pytest.raises(ValueError, match="trials"):
        RandomIoUCrop(trials=0)


def test_an_order_of_other_keypoints_is_refused():
    example = {
        "image": tf.zeros((4, 4, 3), tf.uint8),
        "boxes": tf.constant([[0.0, 0.0, 1.0, 1.0]]),
        "keypoints": tf.zeros((1, 5, 2)),
    }
    with pytest.raises(ValueError, match="Received 3 places for 5 keypoints"):
        RandomHorizontalFlip(probability=1.0, keypoint_permutation=(1, 0, 2))(example, tf.constant([0, 0], tf.int64))
