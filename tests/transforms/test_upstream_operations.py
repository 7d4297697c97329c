"""Upstream's deterministic preprocessing operations, each by what does its work here."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_detect.backbones import resnet_v1
from keras_detect.backbones.backbone import Backbone
from keras_detect.boxes import box_ops
from keras_detect.transforms import RandomHorizontalFlip, RandomRotation90, RandomVerticalFlip
from keras_detect.transforms.augmentation import keep_rows
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests.goldens import assert_close, golden_cases

OPERATIONS = {
    "prep/hflip": lambda info: RandomHorizontalFlip(
        probability=1.0, keypoint_permutation=tuple(info["keypoint_flip_permutation"])
    ),
    "prep/vflip": lambda info: RandomVerticalFlip(probability=1.0),
    "prep/rot90": lambda info: RandomRotation90(probability=1.0),
}


@golden_cases(*OPERATIONS)
def test_flips_and_turns(case):
    """Image, boxes, masks and keypoints; the horizontal flip also changes the keypoints' order."""
    operation = OPERATIONS[case.name](case.info)
    example = {key: tf.constant(value) for key, value in case.inputs.items()}
    for apply in (operation, tf.function(operation)):
        result = apply(example, tf.constant([0, 1], tf.int64))
        for key, expected in case.outputs.items():
            assert_close(result[key].numpy(), expected, tolerance=1e-6, err_msg=key)


@golden_cases("prep/normalize", "prep/subtract_mean")
def test_pixel_scaling_is_the_backbones(case, monkeypatch):
    """0...255 to -1...1, and minus a mean per channel; the golden's means are 10, 20, 30."""
    images = ops.convert_to_tensor(case.inputs["image"][None])
    if case.name == "prep/normalize":
        result = Backbone.preprocess(None, images)
    else:
        monkeypatch.setattr(resnet_v1, "RGB_MEANS", (10.0, 20.0, 30.0))
        backbone = resnet_v1.ResNetV1.__new__(resnet_v1.ResNetV1)
        object.__setattr__(
            backbone, "variant", next(name for name, row in resnet_v1.VARIANTS.items() if not row.arithmetic.bgr)
        )
        result = resnet_v1.ResNetV1.preprocess(backbone, images)
    assert_close(result[0], case.outputs["image"])


@golden_cases("prep/rgb_to_gray")
def test_gray(case):
    resizer = FixedShapeResizer(height=12, width=16, convert_to_grayscale=True)
    assert_close(resizer.resize_image(case.inputs["image"])[0], case.outputs["image"])


@golden_cases("prep/resize_to_min")
def test_resizing_by_the_smaller_side(case):
    """12 x 16 with a smaller side of 24: 24 x 32, corner on corner; images bilinear, masks nearest."""
    settings = {"min_dimension": 24, "max_dimension": 10_000, "kernel": "align_corners"}
    image, shape = KeepAspectRatioResizer(**settings).resize_image(case.inputs["image"])
    assert_close(image, case.outputs["image"])
    np.testing.assert_array_equal(shape, case.outputs["shape"])
    nearest = KeepAspectRatioResizer(**settings, method="nearest")
    planes, _ = nearest.resize_image(case.inputs["masks"].transpose(1, 2, 0))
    np.testing.assert_array_equal(planes.transpose(2, 0, 1), case.outputs["masks"])


@golden_cases("prep/scale_boxes")
def test_boxes_and_points_in_pixels(case):
    """Two points (y, x) behind one another are scaled like a box's corners."""
    height, width = case.inputs["image"].shape[:2]
    assert_close(box_ops.to_absolute(case.inputs["boxes"], height, width), case.outputs["boxes"])
    points = case.inputs["keypoints"]
    scaled = box_ops.to_absolute(points.reshape(-1, 4), height, width)
    assert_close(ops.reshape(scaled, points.shape), case.outputs["keypoints"])


@golden_cases("prep/retain_above")
def test_rows_above_a_weight(case):
    example = {key: tf.constant(value) for key, value in case.inputs.items()}
    kept = keep_rows(example, example["weights"] > case.info["threshold"])
    for key, expected in case.outputs.items():
        np.testing.assert_array_equal(kept[key].numpy(), expected)


@golden_cases("prep/one_hot_encoding")
def test_classes_of_a_whole_image(case):
    """Which of 5 classes the image has, for any number of them: Keras' own operation."""
    assert_close(ops.multi_hot(case.inputs["labels"], 5), case.outputs["y"])
