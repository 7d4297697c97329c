"""Upstream's input transformation: records, resized and padded to static shapes, by our pipeline."""

import shutil

import numpy as np
import tensorflow as tf

from keras_detect.data import DetectionDataset, load_dataset
from keras_detect.transforms import RandomHorizontalFlip, RandomIoUCrop, RandomRotation90, RandomVerticalFlip
from keras_detect.transforms.geometric import cut_out
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests import goldens
from tests.goldens import assert_close, golden_cases

RESIZERS = {
    "fixed": FixedShapeResizer(height=24, width=24, kernel="legacy"),
    "keep_pad": KeepAspectRatioResizer(min_dimension=24, max_dimension=24, pad_to_max_dimension=True, kernel="legacy"),
}
FLAGS = {"is_crowd": "is_crowd", "is_difficult": "difficult", "is_group_of": "group_of"}


@golden_cases("transform/*")
def test_upstreams_input(case, tmp_path):
    """The golden's boxes are relative to the padded image, ours to the true one; its model preprocesses (x - 100) / 2
    before resizing, which our pipeline leaves to the model, so that it rounds to whole gray levels: 0.25 after it.
    """
    kind, number = case.name.split("/")[1:]
    shutil.copy(goldens.golden("units2.tfrecord"), tmp_path / "units2.tfrecord")
    shutil.copy(goldens.golden("units2_label_map.pbtxt"), tmp_path / "map.pbtxt")
    data = load_dataset(tmp_path)
    assert data.class_names == ["Cat", "dog", "bird"]
    batches = data.batches(RESIZERS[kind], 1, max_boxes=6, masks=True)
    x, y = list(batches.as_numpy_iterator())[int(number)]
    y = {key: value[0] for key, value in y.items()}
    expected = case.outputs
    true_shape = x["resized_image_shapes"][0] if isinstance(x, dict) else np.array([24, 24, 3])
    image = (x["images"] if isinstance(x, dict) else x)[0]
    np.testing.assert_array_equal(true_shape, expected["true_image_shape"])
    np.testing.assert_array_equal(y["image_size"], expected["original_image_spatial_shape"])
    assert_close(y["boxes"] * np.tile(true_shape[:2] / 24, 2).astype(np.float32), expected["groundtruth_boxes"])
    ids = np.array([1, 2, 5])[y["labels"]]
    one_hot = (ids[:, None] == np.arange(1, 6)) & (y["labels"] >= 0)[:, None]
    np.testing.assert_array_equal(one_hot, expected["groundtruth_classes"])
    np.testing.assert_array_equal(one_hot, expected["groundtruth_confidences"])
    assert (y["labels"] >= 0).sum() == expected["num_groundtruth_boxes"]
    for ours, theirs in FLAGS.items():
        np.testing.assert_array_equal(y[ours], expected[f"groundtruth_{theirs}"].astype(bool))
    np.testing.assert_array_equal(y["weights"], expected["groundtruth_weights"])
    np.testing.assert_array_equal(y["areas"], expected["groundtruth_area"])
    np.testing.assert_array_equal(y["masks"], expected["groundtruth_instance_masks"])
    np.testing.assert_array_equal(y["labels"] >= 0, expected["groundtruth_instance_mask_weights"])
    scaled = (data[int(number)]["image"].astype(np.float32) - 100.0) / 2.0
    assert_close(RESIZERS[kind].resize_image(scaled)[0], expected["image"])
    height, width = true_shape[:2]
    rounded = (image[:height, :width].astype(np.float32) - 100.0) / 2.0
    np.testing.assert_allclose(rounded, expected["image"][:height, :width], atol=0.2501)


def test_masks_follow_augmentation(tmp_path):
    """Every box is the bound of its mask before and after flips, turns and crops."""
    rng = np.random.default_rng(0)
    boxes, planes = [], []
    for _ in range(6):
        y0, x0 = rng.integers(0, 12, 2)
        y1, x1 = y0 + rng.integers(4, 12), x0 + rng.integers(4, 12)
        plane = np.zeros((1, 24, 24), np.uint8)
        plane[0, y0:y1, x0:x1] = 1
        boxes.append([[y0 / 24, x0 / 24, y1 / 24, x1 / 24]])
        planes.append(plane)
    images = [np.repeat(plane[0, :, :, None] * 200, 3, axis=2).astype(np.uint8) for plane in planes]
    data = DetectionDataset.from_arrays(images, boxes, [[0]] * 6, ["a"], masks=planes)
    steps = (RandomHorizontalFlip(), RandomVerticalFlip(), RandomRotation90(), RandomIoUCrop())
    batches = data.batches(FixedShapeResizer(height=48, width=48), 2, augment=steps, seed=1, masks=True)
    seen = 0
    for _ in range(4):
        for x, y in batches.as_numpy_iterator():
            assert y["masks"].shape == (2, 1, 48, 48)
            for image, box, label, mask in zip(x, y["boxes"][:, 0], y["labels"][:, 0], y["masks"][:, 0], strict=True):
                if label < 0:
                    assert not mask.any()
                    continue
                rows, columns = np.nonzero(mask)
                bounds = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
                np.testing.assert_allclose(bounds, box * 48, atol=2.1)
                assert np.mean((image[:, :, 0] > 100) == mask) > 0.95
                seen += 1
    assert seen > 15


def keypoint_data():
    """Two images of 40 x 20 (height, width): one object with two points and a hidden one, then one without any."""
    image = np.zeros((40, 20, 3), np.uint8)
    nan = float("nan")
    points = [[[0.25, 0.5], [nan, nan], [0.75, 0.25]]]
    examples = [
        {
            "image": image,
            "boxes": [[0.1, 0.1, 0.9, 0.9]],
            "labels": [0],
            "keypoints": points,
            "keypoint_visibility": [[2, 0, 1]],
        },
        {"image": image, "boxes": [[0.2, 0.2, 0.4, 0.4]], "labels": [0]},
    ]
    return DetectionDataset.from_examples(examples, class_names=["a"])


def test_keypoints_come_with_the_boxes():
    """Points that are not annotated are 0 and not visible, and so are the rows of an object without points."""
    ((_, y),) = keypoint_data().batches(FixedShapeResizer(height=16, width=16), 2, max_boxes=2)
    assert y["keypoints"].shape == (2, 2, 3, 2)
    np.testing.assert_allclose(y["keypoints"][0, 0], [[0.25, 0.5], [0, 0], [0.75, 0.25]])
    np.testing.assert_array_equal(y["keypoint_visibility"], [[[2, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    assert not np.any(y["keypoints"][0, 1]) and not np.any(y["keypoints"][1])


def test_keypoints_turn_and_leave_with_their_image():
    """A horizontal flip: x -> 1 - x, and the first and the last point change places.

    A crop: rows 16 to 36 of 40 stay, and 0.75 of all is 0.7 of them.
    """
    flip = RandomHorizontalFlip(probability=1.0, keypoint_permutation=(2, 1, 0))
    resizer = FixedShapeResizer(height=16, width=16)
    ((_, y),) = keypoint_data().subset([0]).batches(resizer, 1, augment=flip, seed=0)
    np.testing.assert_allclose(y["keypoints"][0, 0], [[0.75, 0.75], [0, 0], [0.25, 0.5]])
    np.testing.assert_array_equal(y["keypoint_visibility"][0, 0], [1, 0, 2])

    def crop(example, seed):
        return cut_out(example, tf.constant([16, 0, 36, 20]))

    ((_, y),) = keypoint_data().subset([0]).batches(resizer, 1, augment=crop, seed=0)
    np.testing.assert_allclose(y["keypoints"][0, 0], [[0, 0], [0, 0], [0.7, 0.25]], rtol=1e-6)
    np.testing.assert_array_equal(y["keypoint_visibility"][0, 0], [0, 0, 1])


def test_objects_with_fewer_keypoints_are_filled_up():
    """One of 1 and one of 2 points in images of 8 x 8: both get 2 places, and the added one is not visible."""
    example = {"image": np.zeros((8, 8, 3), np.uint8), "boxes": [[0, 0, 1, 1]], "labels": [0]}
    examples = [example | {"keypoints": np.full((1, number, 2), 0.5)} for number in (1, 2)]
    data = DetectionDataset.from_examples(examples, class_names=["a"])
    ((_, y),) = data.batches(FixedShapeResizer(height=8, width=8), 2)
    np.testing.assert_array_equal(y["keypoints"][:, 0], [[[0.5, 0.5], [0, 0]], [[0.5, 0.5], [0.5, 0.5]]])
    np.testing.assert_array_equal(y["keypoint_visibility"][:, 0], [[2, 0], [2, 2]])
