"""Detection in tiles: how images are cut, how detections are merged, and that small objects are found."""

import dataclasses

import numpy as np
import pytest

from keras_detect import schema
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.evaluation import COCOEvaluator
from keras_detect.inference import detect, detect_each
from keras_detect.inference.detections import Detections
from keras_detect.inference.tiles import Tiling, merged
from keras_detect.transforms.resizers import FixedShapeResizer

CANVAS, SMALLEST = 64, 4  # the finder below sees images in this size, and objects from this many pixels of it


class FindsBlocks:
    """A detector with known answers: bright blocks are class 0, gray ones class 1, if they are large enough on its
    canvas."""

    class_names = ("bright", "gray")
    score_threshold = None
    jit_compile = False
    num_detections = 40

    def __init__(self, **suppression):
        self.resizer = FixedShapeResizer(height=CANVAS, width=CANVAS, method="area")
        self.final_suppression = MulticlassNonMaxSuppression(
            iou_threshold=0.5, max_total_detections=self.num_detections, **suppression
        )
        self.batches = []

    def predict_on_batch(self, x):
        images = x[schema.IMAGES] if isinstance(x, dict) else x
        self.batches.append(images.shape)
        found = {
            "boxes": np.zeros((len(images), self.num_detections, 4), np.float32),
            "scores": np.zeros((len(images), self.num_detections), np.float32),
            "labels": np.full((len(images), self.num_detections), -1, np.int32),
            "num_detections": np.zeros(len(images), np.int32),
        }
        for row, image in enumerate(images):
            pixels = np.asarray(self.resizer.resize_image(image.astype(np.float32))[0])[..., 0]
            for top, left, bottom, right in blocks(pixels > 60):
                if min(bottom - top, right - left) < SMALLEST or found["num_detections"][row] == self.num_detections:
                    continue
                value, index = pixels[(top + bottom) // 2, (left + right) // 2], found["num_detections"][row]
                found["boxes"][row, index] = np.array([top, left, bottom, right]) / CANVAS
                found["scores"][row, index] = 0.5 + (bottom - top) / (2 * CANVAS)
                found["labels"][row, index] = int(value < 180)
                found["num_detections"][row] += 1
        return found


def blocks(mask):
    """`(top, left, bottom, right)` of every rectangle of a mask of rectangles that do not touch."""
    mask, found = mask.copy(), []
    while mask.any():
        top, left = np.unravel_index(int(mask.argmax()), mask.shape)
        right = left + int(np.argmin(np.append(mask[top, left:], False)))
        bottom = top + int(np.argmin(np.append(mask[top:, left], False)))
        mask[top:bottom, left:right] = False
        found.append((top, left, bottom, right))
    return found


def drawn(height, width, boxes, values):
    """`(image, truth)`: blocks of gray values at boxes in pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    for (top, left, bottom, right), value in zip(boxes, values, strict=True):
        image[top:bottom, left:right] = value
    truth = {
        "boxes": (np.asarray(boxes) / [height, width, height, width]).astype(np.float32),
        "labels": np.asarray([int(value < 180) for value in values], np.int32),
    }
    return image, truth


def scattered(height=640, width=640, seed=0):
    """An image with a block of 12 to 24 pixels in each field of a grid, and one of 200 pixels in a corner."""
    rng = np.random.default_rng(seed)
    boxes, values = [(8, 8, 208, 208)], [255]
    for top in range(0, height - 63, 64):
        for left in range(0, width - 63, 64):
            if top >= 256 or left >= 256:
                (y, x), side = rng.integers(4, 36, 2), int(rng.integers(12, 25))
                boxes.append((top + y, left + x, top + y + side, left + x + side))
                values.append(int(rng.choice([255, 120])))
    return drawn(height, width, boxes, values)


def average_precision(images, results):
    evaluator = COCOEvaluator(FindsBlocks.class_names)
    for (image, truth), found in zip(images, results, strict=True):
        batch = {key: found[key][None] for key in ("boxes", "scores", "labels")}
        batch["num_detections"] = np.asarray([len(found["labels"])])
        evaluator.update({key: value[None] for key, value in truth.items()}, batch, [image.shape[:2]])
    return evaluator.result()


def test_tiles_lift_the_ap_of_small_objects():
    """Small blocks have 1 or 2 pixels of the network's canvas, and 6 to 12 of it in tiles of 128 pixels."""
    images, model = [scattered(seed=seed) for seed in (0, 1)], FindsBlocks()
    pixels = [image for image, _ in images]
    whole = average_precision(images, detect(model, pixels))
    tiled = average_precision(images, detect(model, pixels, tile=128, overlap=0.25))
    only_tiles = average_precision(images, detect(model, pixels, tile=128, overlap=0.25, whole_image=False))
    assert whole["map_small"] == 0.0 and whole["map_large"] > 0.8
    assert tiled["map_small"] > 0.8 and tiled["mar_small"] > 0.8
    assert tiled["map_large"] == pytest.approx(whole["map_large"], abs=0.01)
    assert only_tiles["map_large"] < 0.2


def test_every_object_is_found_once_and_none_is_lost():
    """Also more of them than one tile may report; a part that a border cuts off is no object."""
    image, truth = scattered()
    found = detect(FindsBlocks(), image, tile=(128, 160), overlap=0.25)
    assert isinstance(found, Detections) and found.image_size == (640, 640)
    assert len(found["labels"]) == len(truth["labels"]) > FindsBlocks.num_detections
    assert (np.diff(found["scores"]) <= 0).all()
    assert found["boxes"].dtype == np.float32 and found["labels"].dtype == np.int32
    unmatched = list(range(len(truth["labels"])))
    for box, label, name in zip(found["boxes"], found["labels"], found["class_names"], strict=True):
        near = [i for i in unmatched if np.abs(truth["boxes"][i] - box).max() < 4 / 640]
        assert len(near) == 1 and truth["labels"][near[0]] == label and FindsBlocks.class_names[label] == name
        unmatched.remove(near[0])


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "expected"),
    [
        ((100, 100), 100, 0.2, [(0, 0, 100, 100)]),
        ((60, 80), (100, 100), 0.2, [(0, 0, 60, 80)]),
        ((100, 250), 100, 0.0, [(0, 0, 100, 100), (0, 75, 100, 175), (0, 150, 100, 250), (0, 0, 100, 250)]),
        ((90, 180), 100, 0.2, [(0, 0, 90, 100), (0, 80, 90, 180), (0, 0, 90, 180)]),
        ((101, 40), 100, 0.0, [(0, 0, 100, 40), (1, 0, 101, 40), (0, 0, 101, 40)]),
    ],
)
def test_windows(size, tile, overlap, expected):
    assert Tiling.checked(tile, overlap, True).windows(*size).tolist() == [list(window) for window in expected]
    tiles = expected[:-1] if len(expected) > 1 else expected
    assert Tiling.checked(tile, overlap, False).windows(*size).tolist() == [list(window) for window in tiles]


def test_windows_cover_and_overlap():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size, overlap = rng.integers(1, 400, 2), float(rng.uniform(0, 0.9))
        tile = rng.integers(1, 200, 2)
        windows = Tiling.checked(tuple(tile), overlap, False).windows(*size)
        for axis in (0, 1):
            starts = np.unique(windows[:, axis])
            side = min(tile[axis], size[axis])
            assert set(windows[:, axis + 2] - windows[:, axis]) == {side}
            assert starts[0] == 0 and starts[-1] + side == size[axis]
            assert (np.diff(starts) <= max(1, side * (1 - overlap)) + 1).all()


def test_an_image_of_one_tile_is_seen_as_without():
    model, (image, _) = FindsBlocks(), scattered(400, 400)
    expected = detect(model, image)
    for found in (detect(model, image, tile=400), detect(model, image, tile=(2000, 401))):
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key])
    assert model.batches == [(1, 400, 400, 3)] * 3


def test_tiles_of_several_images_share_batches():
    model = FindsBlocks()
    images = [scattered(256, 256)[0], scattered(256, 320)[0], np.zeros((50, 60, 3), np.uint8)]
    found = detect(model, images, tile=128, overlap=0.0, whole_image=False, batch_size=4)
    assert model.batches[:2] == [(4, 128, 128, 3)] * 2
    assert [result.image_size for result in found] == [(256, 256), (256, 320), (50, 60)]
    for image, result in zip(images, found, strict=True):
        alone = detect(model, image, tile=128, overlap=0.0, whole_image=False)
        np.testing.assert_allclose(result["boxes"], alone["boxes"], atol=1e-6)
    read = []

    def endless():
        while True:
            read.append(1)
            yield images[0]

    next(detect_each(model, endless(), batch_size=6, tile=128, overlap=0.0, whole_image=False))
    assert len(read) == 2


def parts_of(windows, image_size, boxes, scores, labels, **more):
    """Detections in windows, from boxes in pixels of the image."""
    parts = []
    for window, inside, strengths, classes in zip(windows, boxes, scores, labels, strict=True):
        corner = np.array([window[0], window[1]] * 2)
        sides = np.array([window[2] - window[0], window[3] - window[1]] * 2)
        fields = {
            "boxes": ((np.asarray(inside, np.float32).reshape(-1, 4) - corner) / sides).astype(np.float32),
            "scores": np.asarray(strengths, np.float32),
            "labels": np.asarray(classes, np.int32),
        }
        fields |= {key: value[len(parts)] for key, value in more.items()}
        parts.append(Detections(fields, tuple(sides[:2])))
    return parts


def test_merging_follows_the_models_own_suppression():
    windows, size = np.array([[0, 0, 100, 100], [0, 50, 100, 150]]), (100, 150)
    boxes = [[[20, 60, 40, 80]], [[20, 60, 40, 84]]]  # IoU 0.83
    for options, labels, expected in (
        ({}, [[0], [0]], [0.9]),
        ({}, [[0], [1]], [0.9, 0.8]),
        ({"class_agnostic": True}, [[0], [1]], [0.9]),
        ({"iou_threshold": 0.9}, [[0], [0]], [0.9, 0.8]),
        ({"soft_nms_sigma": 0.5, "iou_threshold": 1.0}, [[0], [0]], [0.9, 0.8 * np.exp(-((20 / 24) ** 2))]),
    ):
        model = FindsBlocks()
        model.final_suppression = dataclasses.replace(model.final_suppression, **options)
        parts = parts_of(windows, size, boxes, [[0.9], [0.8]], labels)
        np.testing.assert_allclose(merged(model, parts, windows, size, 0.3)["scores"], expected, atol=1e-5)
    assert len(merged(model, parts, windows, size, 0.7)["scores"]) == 1


def test_a_part_at_a_border_gives_way_to_the_whole_object():
    windows, size = np.array([[0, 0, 100, 100], [0, 80, 100, 180]]), (100, 180)
    cut, whole = [20, 85, 40, 100], [20, 85, 40, 130]  # IoU 0.33, and the part has the larger score
    parts = parts_of(windows, size, [[cut], [whole]], [[0.9], [0.5]], [[0], [0]])
    found = merged(FindsBlocks(), parts, windows, size, 0.3)
    np.testing.assert_allclose(found["boxes"] * [100, 180, 100, 180], [whole], atol=1e-4)
    parts = parts_of(windows, size, [[cut], [whole]], [[0.9], [0.5]], [[0], [1]])
    assert len(merged(FindsBlocks(), parts, windows, size, 0.3)["labels"]) == 2
    inner = [20, 85, 40, 95]  # not cut: an object in front of another
    parts = parts_of(windows, size, [[inner], [whole]], [[0.9], [0.5]], [[0], [0]])
    assert len(merged(FindsBlocks(), parts, windows, size, 0.3)["labels"]) == 2


def test_every_field_moves_with_its_tile():
    windows, size = np.array([[0, 0, 10, 10], [0, 10, 10, 20]]), (10, 20)
    keypoints = [np.zeros((0, 1, 2), np.float32), np.float32([[[0.5, 0.5]]])]
    mask = np.random.default_rng(0).uniform(size=(1, 5, 5))  # over its box, which alone moves
    masks = [np.zeros((0, 5, 5)), mask]
    more = {"keypoints": keypoints, "masks": masks, "track_ids": [np.zeros(0, np.int32), np.int32([7])]}
    parts = parts_of(windows, size, [[], [[2, 12, 6, 18]]], [[], [0.9]], [[], [1]], **more)
    found = merged(FindsBlocks(), parts, windows, size, 0.3)
    np.testing.assert_allclose(found["boxes"], [[0.2, 0.6, 0.6, 0.9]], atol=1e-6)
    np.testing.assert_allclose(found["keypoints"], [[[0.5, 0.75]]], atol=1e-6)
    np.testing.assert_array_equal(found["masks"], mask)
    assert found["track_ids"].tolist() == [7] and found["class_names"] == ["gray"]
    nothing = merged(FindsBlocks(), [parts[0], parts[0]], windows, size, 0.3)
    assert nothing["boxes"].shape == (0, 4) and nothing["class_names"] == []


def test_what_is_refused():
    image = np.zeros((50, 50, 3), np.uint8)
    for tile in (0, -1, (10,), (10, 0), 3.5, "640", True):
        with pytest.raises(ValueError, match=r"tile is an int or \(height, width\)"):
            detect(FindsBlocks(), image, tile=tile)
    for overlap in (1, -0.1, "0.2", True, float("nan")):
        with pytest.raises(ValueError, match="from 0 to below 1"):
            detect(FindsBlocks(), image, tile=20, overlap=overlap)
