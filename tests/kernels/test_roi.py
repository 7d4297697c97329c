"""Crops of feature maps: upstream's numbers, cases worked by hand, borders, gradients, boxes of no use."""

import numpy as np
import pytest
from keras import ops

from keras_detect.kernels import dispatch, roi
from keras_detect.kernels.roi import (
    crop_and_resize,
    multilevel_crop_and_resize,
    multilevel_roi_align,
    roi_align,
)
from tests import goldens
from tests.boxes.gradients import gradient
from tests.goldens import assert_close, both_modes, golden_cases

RNG = np.random.default_rng(3)
FEATURES = RNG.normal(size=(2, 6, 7, 3)).astype("float32")
COARSE = RNG.normal(size=(2, 3, 4, 3)).astype("float32")
BOXES = np.array(
    [
        [[0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]],
        [[0.5, 0.5, 0.55, 0.6], [-0.3, 0.4, 0.4, 1.2], [0.9, 0.8, 0.2, 0.1]],
    ],
    "float32",
)
RAMP = (10.0 * np.arange(5.0)[:, None] + np.arange(5.0)).astype("float32").reshape(1, 5, 5, 1)


def portable(function):
    """`function` without native kernels."""

    def run(*args):
        with dispatch.portable_kernels():
            return function(*args)

    return run


def all_ways(function):
    """Eagerly and compiled; without native kernels too where there are any, on TensorFlow through XLA."""
    if goldens.BACKEND == "tensorflow":
        import tensorflow as tf

        return [*both_modes(function), tf.function(portable(function), jit_compile=True)]
    return [function, portable(function)] if goldens.BACKEND == "torch" else both_modes(function)


@pytest.mark.parametrize("outside", roi.OUTSIDE)
@golden_cases("ops/native_crop_and_resize", "ops/matmul_crop_and_resize")
def test_crop_and_resize_matches_upstream(case, outside):
    for crop in all_ways(lambda x, boxes: crop_and_resize(x, boxes, case.info["crop_size"], outside)):
        assert_close(crop(case.inputs["x"], case.inputs["boxes"]), case.outputs["y"])


@golden_cases("ops/multilevel_roi_align")
def test_multilevel_roi_align_matches_upstream(case):
    """Upstream places cells between the outermost pixels' centers; 4 x 4 cells of 2 x 2 samples."""
    arguments = [case.inputs[name] for name in ("f0", "f1", "boxes", "levels")]
    for align in all_ways(lambda f0, f1, boxes, levels: multilevel_roi_align([f0, f1], boxes, levels, 4, 2, "corners")):
        assert_close(align(*arguments), case.outputs["y"])


def test_a_crop_by_hand():
    """5 x 5 pixels of value 10 y + x; rows 0.25 * 4 = 1 to 3, columns 2 to 4, in steps of 1; one sample: the middle."""
    box = np.array([[[0.25, 0.5, 0.75, 1.0]]], "float32")
    for crop in all_ways(lambda x, boxes: crop_and_resize(x, boxes, 3)):
        assert_close(crop(RAMP, box)[0, 0, :, :, 0], [[12, 13, 14], [22, 23, 24], [32, 33, 34]])
    for crop in all_ways(lambda x, boxes: crop_and_resize(x, boxes, (1, 2))):
        assert_close(crop(RAMP, box)[0, 0, :, :, 0], [[22, 24]])


def test_outside_the_features():
    """Ones of 5 x 5, rows at -0.125 * 4 = -0.5 and 4.5: half of a one and half of a zero when fading, 0 when cut.

    Rows at -2 and 6 are farther out than one pixel: 0. RoIAlign repeats the border for up to one pixel.
    """
    ones = np.ones((1, 5, 5, 1), "float32")
    near = np.array([[[-0.125, 0.0, 1.125, 1.0], [-0.5, 0.0, 1.5, 1.0]]], "float32")
    for outside, expected in (("fade", 0.5), ("cut", 0.0)):
        for crop in all_ways(lambda x, boxes, outside=outside: crop_and_resize(x, boxes, 2, outside)):
            assert_close(crop(ones, near)[0, :, :, :, 0], [[[expected] * 2] * 2, [[0.0] * 2] * 2])
    # cells of 2 samples: rows -0.5 + (0.5, 1.5) * 5 / 2 - 0.5 inside; then from -0.4 * 5 - 0.5 = -2.5 on in steps of 1
    box = np.array([[[-0.4, 0.0, 0.4, 1.0]]], "float32")
    for align in all_ways(lambda x, boxes: roi_align(x, boxes, (4, 1), 1)):
        assert_close(align(ones, box)[0, 0, :, 0, 0], [0.0, 1.0, 1.0, 1.0])  # rows -2, -1, 0, 1


def test_boxes_that_touch_the_border_do_not_lose_it_by_rounding():
    """y (H - 1) + 13 step may round to more than H - 1 = 39; the crop of ones is one there all the same.

    Floats near 39 are 3.8e-6 apart, and a position takes a few roundings on each axis: 5e-5.
    """
    low = RNG.uniform(0.0, 0.9, (1, 400, 1)).astype("float32")
    boxes = np.concatenate([low, low, np.ones_like(low), np.ones_like(low)], axis=-1)
    for crop in all_ways(lambda x, boxes: crop_and_resize(x, boxes, 14)):
        assert_close(crop(np.ones((1, 40, 40, 1), "float32"), boxes), np.ones((1, 400, 14, 14, 1)), 5e-5)


def test_roi_align_by_hand():
    """4 pixels 0 1 2 3 per row: cell 1 of 2 spans 0 to 2, samples at 0.5 and 1.5, that is pixels 0 and 1: mean 0.5."""
    row = np.broadcast_to(np.arange(4.0, dtype="float32").reshape(1, 1, 4, 1), (1, 4, 4, 1))
    for align in all_ways(lambda x, boxes: roi_align(x, boxes, 2)):
        assert_close(align(row, np.array([[[0, 0, 1, 1.0]]], "float32"))[0, 0, :, :, 0], [[0.5, 2.5]] * 2)


@pytest.mark.parametrize("cut", [crop_and_resize, roi_align])
def test_a_box_from_a_level_is_the_box_from_that_map(cut):
    several = {crop_and_resize: multilevel_crop_and_resize, roi_align: multilevel_roi_align}[cut]
    for levels in ([[0, 1, 1], [1, 0, 0]], [[1] * 3] * 2):
        levels = np.array(levels, "int32")
        each = [ops.convert_to_numpy(cut(x, BOXES, (3, 2))) for x in (FEATURES, COARSE)]
        expected = np.where(levels[..., None, None, None] == 0, *each)
        for crop in all_ways(lambda f, c, b, levels: several([f, c], b, levels, (3, 2))):
            assert_close(crop(FEATURES, COARSE, BOXES, levels), expected)


@pytest.mark.parametrize("way", [lambda function: function, portable], ids=["native", "portable"])
@pytest.mark.parametrize("outside", ["fade", "cut", "edge"])
def test_the_gradient_of_the_features(outside, way):
    """Crops are linear: the gradient of sum(w crop(x)) along any direction d is sum(w crop(d)), exactly."""
    weights = RNG.normal(size=(2, 3, 4, 5, 3)).astype("float32")
    direction = RNG.normal(size=FEATURES.shape).astype("float32")

    def crop(x):
        return roi_align(x, BOXES, (4, 5)) if outside == "edge" else crop_and_resize(x, BOXES, (4, 5), outside)

    slope = (gradient(way(lambda x: ops.sum(ops.multiply(crop(x), weights))), FEATURES) * direction).sum()
    assert_close(slope, (ops.convert_to_numpy(crop(direction)) * weights).sum(), 1e-4)


def test_boxes_get_no_gradient():
    assert (gradient(lambda boxes: ops.sum(crop_and_resize(FEATURES, boxes, 3) ** 2), BOXES) == 0.0).all()
    assert (gradient(lambda boxes: ops.sum(roi_align(FEATURES, boxes, 3) ** 2), BOXES) == 0.0).all()


@pytest.mark.parametrize("outside", roi.OUTSIDE)
def test_a_single_pixel_fills_its_crops(outside):
    """Extent 1: every position of a box is y * 0 = 0."""
    for crop in all_ways(lambda x, boxes: crop_and_resize(x, boxes, (2, 3), outside)):
        assert_close(crop(np.full((1, 1, 1, 2), 5.0, "float32"), BOXES[:1]), np.full((1, 3, 2, 3, 2), 5.0))


def test_gradients_of_many_boxes_on_one_small_map_are_whole_every_time():
    """TensorFlow's own gradient kernel loses some of them when its threads meet on a pixel."""
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 0.6, (4, 64, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, (4, 64, 2))], axis=-1).astype("float32")
    features = rng.normal(size=(4, 4, 4, 12)).astype("float32")
    # the gradient of the sum of all crops: each of 14 x 14 samples gives its weights, which add up to 1
    every = [gradient(lambda x: ops.sum(crop_and_resize(x, boxes, (14, 14), "cut")), features) for _ in range(25)]
    np.testing.assert_allclose(every[0].sum(axis=(1, 2)), 64 * 14 * 14, rtol=1e-5)
    for other in every[1:]:
        np.testing.assert_array_equal(other, every[0])


def test_wrong_arguments():
    for features, boxes in ((FEATURES[0], BOXES), (FEATURES, BOXES[0]), (FEATURES, BOXES[..., :3])):
        with pytest.raises(ValueError, match="feature maps"):
            crop_and_resize(features, boxes, 3)
    with pytest.raises(ValueError, match="one C"):
        multilevel_crop_and_resize([FEATURES, COARSE[..., :2]], BOXES, np.zeros((2, 3), "int32"), 3)
    with pytest.raises(ValueError, match="sampling_ratio"):
        roi_align(FEATURES, BOXES, 3, 0)
