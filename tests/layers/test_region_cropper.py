"""RoI features of the second stage: levels, pooling inside the crop, gradients, boxes of no use."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.kernels.roi import crop_and_resize, roi_align
from keras_detect.layers.region_cropper import METHODS, RegionCropper, box_levels
from tests.boxes.gradients import gradient
from tests.goldens import assert_close, both_modes
from tests.kernels.test_roi import BOXES, COARSE, FEATURES, all_ways, portable


def test_levels_by_hand():
    """Image 448 x 448, 4 levels, canonical level 2: sides 448, 224, 223, 112, 56, 10 of the image in pixels.

    2 + floor(log2(side / 224)): 3, 2, 1, 1, 0, below 0. No area: level 0.
    """
    sides = np.array([448, 224, 223, 112, 56, 10, 0], "float32") / 448.0
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)[None]
    for levels in both_modes(lambda boxes: box_levels(boxes, 4, (448, 448))):
        np.testing.assert_array_equal(ops.convert_to_numpy(levels(boxes)), [[3, 2, 1, 1, 0, 0, 0]])
    levels = box_levels(boxes, 5, ops.convert_to_tensor([448, 448]), canonical_size=112, canonical_level=1)
    np.testing.assert_array_equal(ops.convert_to_numpy(levels), [[3, 2, 1, 1, 0, 0, 0]])


def pooled(crops, size, stride):
    """Maxima of windows inside `crops [B, P, h, w, C]`, by loops."""
    height, width = ((side - size) // stride + 1 for side in crops.shape[2:4])
    rows = [[crops[:, :, i : i + size, j : j + size].max((2, 3)) for j in range(0, width * stride, stride)]
            for i in range(0, height * stride, stride)]  # fmt: skip
    return np.stack([np.stack(row, axis=2) for row in rows], axis=2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size, stride", [(1, 1), (2, 2), (3, 2), (1, 2)])
def test_the_cropper_crops_and_pools(method, size, stride):
    """Windows that tile, overlap, leave cells out; boxes that reach outside."""
    rng = np.random.default_rng(3)
    boxes = np.concatenate([BOXES, rng.uniform(-0.2, 1.2, (2, 37, 4)).astype("float32")], axis=1)
    cropper = RegionCropper(crop_size=(6, 5), pool_size=size, pool_stride=stride, method=method)
    crops = ops.convert_to_numpy({"crop_and_resize": crop_and_resize, "roi_align": roi_align}[method](
        FEATURES, boxes, (6, 5)))  # fmt: skip
    for crop in all_ways(lambda x, boxes: cropper([x], boxes, (64, 64))):
        assert_close(crop(FEATURES, boxes), pooled(crops, size, stride))
    assert (2, 40, *cropper.output_size, 3) == pooled(crops, size, stride).shape


def test_the_cropper_takes_each_box_from_its_level():
    """Image 448 x 448: the canonical level of two maps is the finer one, which a side above 448 px leaves."""
    cropper = RegionCropper(crop_size=4, canonical_level=1)
    boxes = np.array([[[0, 0, 1, 1], [0.5, 0.5, 0.75, 0.75]]] * 2, "float32")  # sides 448 and 112: level 1 and 0
    alone = [RegionCropper(crop_size=4)([x], boxes, (448, 448)) for x in (FEATURES, COARSE)]
    expected = np.stack([ops.convert_to_numpy(alone[1])[:, 0], ops.convert_to_numpy(alone[0])[:, 1]], axis=1)
    for crop in all_ways(lambda f, c, boxes: cropper([f, c], boxes, (448, 448))):
        assert_close(crop(FEATURES, COARSE, boxes), expected)


@pytest.mark.parametrize("way", [lambda function: function, portable], ids=["native", "portable"])
@pytest.mark.parametrize("cropper", [RegionCropper(crop_size=6), RegionCropper(crop_size=6, method="roi_align")])
@pytest.mark.parametrize("levels", [1, 2])
def test_the_gradient_of_pooled_crops_is_the_finite_difference(cropper, way, levels):
    """Piecewise linear: a central difference of step 1e-3 along a direction errs only where a maximum changes hands."""
    rng = np.random.default_rng(4)  # its own numbers, regardless of the tests before: a few draws have such a maximum
    boxes = np.concatenate([BOXES, rng.uniform(0, 1, (2, 30, 4)).astype("float32")], axis=1)
    weights = rng.normal(size=(2, 33, 3, 3, 3)).astype("float32")
    direction = rng.normal(size=FEATURES.shape).astype("float32")

    def value(x):
        maps = [x, ops.average_pool(x, 2, 2, data_format="channels_last")][:levels]
        return ops.sum(ops.multiply(cropper(maps, boxes, (448, 448)), weights))

    slope = float((gradient(way(value), FEATURES) * direction).sum())
    ends = [float(value(ops.convert_to_tensor(FEATURES + sign * 1e-3 * direction))) for sign in (1, -1)]
    assert abs(slope - (ends[0] - ends[1]) / 2e-3) < 0.02 * np.abs(weights).sum() ** 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("levels", [1, 2])
def test_boxes_of_no_use_give_finite_crops(method, levels):
    """Zero, reversed, far outside, endless, not a number; and none at all. An all-zero box is the first pixel."""
    nan, inf = np.nan, np.inf
    boxes = [[0, 0, 0, 0], [0.8, 0.9, 0.1, 0.2], [7, 7, 9, 9], [-1e30, 0, 1e30, 1], [nan] * 4, [0, 0, inf, 1]]
    boxes = np.array([boxes] * 2, "float32")
    cropper, maps = RegionCropper(crop_size=4, method=method), [FEATURES, COARSE][:levels]
    for crop in all_ways(lambda boxes: cropper(maps, boxes, (64, 64))):
        crops = ops.convert_to_numpy(crop(boxes))
        assert np.isfinite(crops).all()
        if levels == 1:
            assert_close(crops[:, 0], np.broadcast_to(FEATURES[:, :1, :1], (2, 2, 2, 3)))
        assert (crops[:, 2] == 0.0).all()
        assert tuple(crop(boxes[:, :0]).shape) == (2, 0, 2, 2, 3)


def test_half_precision_keeps_its_type():
    for crop in all_ways(lambda x, boxes: RegionCropper(crop_size=4)([ops.cast(x, "bfloat16")], boxes, (64, 64))):
        crops = crop(FEATURES, BOXES)
        assert keras.backend.standardize_dtype(crops.dtype) == "bfloat16"
        exact = RegionCropper(crop_size=4)([FEATURES], BOXES, (64, 64))
        assert_close(ops.cast(crops, "float32"), ops.convert_to_numpy(exact), 1e-2)


def test_settings_round_trip_and_are_checked():
    cropper = RegionCropper(crop_size=(17, 16), pool_size=1, pool_stride=1, outside="cut", canonical_level=2)
    assert RegionCropper.from_config(cropper.get_config()) == cropper
    assert cropper.output_size == (17, 16) and RegionCropper().output_size == (7, 7)
    for boxes in (BOXES[0], BOXES[..., :3], BOXES[0, 0]):
        for maps in ([FEATURES], [FEATURES, COARSE]):
            with pytest.raises(ValueError, match="one C, for boxes"):
                RegionCropper(crop_size=4)(maps, boxes, (64, 64))
    for wrong in ({"method": "crop"}, {"outside": "edge"}, {"pool_size": 0}, {"crop_size": 0}, {"crop_size": 1}):
        with pytest.raises(ValueError, match="Received"):
            RegionCropper(**wrong)
