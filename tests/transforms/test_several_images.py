"""Augmentations that take several images: what they are given, and that a seed makes them the same."""

import numpy as np
import pytest

from keras_detect.data import DetectionDataset
from keras_detect.registry import part
from keras_detect.transforms import RandomHorizontalFlip
from keras_detect.transforms.augmentation import join_rows, move_objects
from keras_detect.transforms.resizers import FixedShapeResizer

SIDE = 16


@part
class SideBySide:
    """Two images beside one another, each squeezed to half the width (every second column)."""

    num_examples = 2

    def __call__(self, examples, seed):
        import tensorflow as tf

        halves = []
        for number, example in enumerate(examples):
            moved = move_objects(
                example,
                box=lambda y0, x0, y1, x1, n=number: (y0, (x0 + n) / 2, y1, (x1 + n) / 2),
                point=lambda y, x, n=number: (y, (x + n) / 2),
                raster=lambda raster, n=number: tf.pad(
                    raster[:, :, ::2], [[0, 0], [0, 0], [n * SIDE // 2, (1 - n) * SIDE // 2]]
                ),
            )
            halves.append(moved | {"image": example["image"][:, ::2]})
        return halves[0] | join_rows(halves) | {"image": tf.concat([half["image"] for half in halves], axis=1)}


def numbered(count=8):
    """Image i has the gray level 10 i and one box of class i that covers its left half, with a mask and a point."""
    images = [np.full((SIDE, SIDE, 3), 10 * i, np.uint8) for i in range(count)]
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[:, :, : SIDE // 2] = 1
    return DetectionDataset.from_arrays(
        images,
        [[[0, 0, 1, 0.5]]] * count,
        [[i] for i in range(count)],
        [str(i) for i in range(count)],
        masks=[mask] * count,
        keypoints=[[[[0.5, 0.25]]]] * count,
    )


def batches(data, augment, seed=3, **options):
    resizer = FixedShapeResizer(height=SIDE, width=SIDE)
    found = data.batches(resizer, 4, augment=augment, seed=seed, masks=True, max_boxes=2, **options)
    return [element for epoch in range(2) for element in found.as_numpy_iterator()]


@pytest.mark.parametrize("cache", [False, True])
def test_two_images_become_one(cache):
    partners = []
    for images, y in batches(numbered(), SideBySide(), cache=cache):
        for image, labels, boxes, masks, points in zip(
            images, y["labels"], y["boxes"], y["masks"], y["keypoints"], strict=True
        ):
            np.testing.assert_array_equal(image[:, : SIDE // 2], 10 * labels[0])
            np.testing.assert_array_equal(image[:, SIDE // 2 :], 10 * labels[1])
            np.testing.assert_allclose(boxes, [[0, 0, 1, 0.25], [0, 0.5, 1, 0.75]])
            np.testing.assert_allclose(points, [[[0.5, 0.125]], [[0.5, 0.625]]])
            for mask, start in zip(masks, (0, SIDE // 2), strict=True):
                expected = np.zeros((SIDE, SIDE))
                expected[:, start : start + SIDE // 4] = 1
                np.testing.assert_array_equal(mask, expected)
            partners.append((labels[0], labels[1]))
    assert [first for first, _ in partners] == list(range(8)) * 2  # each image has its turn in every epoch
    assert len({second for _, second in partners}) > 3
    assert partners[:8] != partners[8:]  # drawn anew in every epoch


def test_a_seed_makes_them_the_same_and_another_one_others():
    augment = [RandomHorizontalFlip(), SideBySide()]
    runs = [[y["labels"] for _, y in batches(numbered(), augment, seed)] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (np.array(runs[0]) != np.array(runs[2])).any()


def test_earlier_operations_reach_the_further_images_too():
    """Always mirrored first: every box is in the right half of its own half."""
    for _, y in batches(numbered(), [RandomHorizontalFlip(probability=1.0), SideBySide()]):
        np.testing.assert_allclose(y["boxes"][0], [[0, 0.25, 1, 0.5], [0, 0.75, 1, 1]])
    flips = np.array(
        [
            [box[1] % 0.5 > 0 for box in boxes]
            for _, y in batches(numbered(), [RandomHorizontalFlip(), SideBySide()])
            for boxes in y["boxes"]
        ]
    )
    assert (flips[:, 0] != flips[:, 1]).any()  # each with randomness of its own


def test_the_number_of_images_must_be_one():
    class Wrong:
        num_examples = 0

        def __call__(self, examples, seed):
            return examples[0]

    with pytest.raises(ValueError, match=r"num_examples of an augmentation is a positive int. Received: 0"):
        batches(numbered(), Wrong())
