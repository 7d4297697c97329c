"""Crops of masks: cases worked by hand, and upstream's crop of feature maps on the same numbers."""

import numpy as np

from keras_detect.kernels.rasters import crop_rasters
from keras_detect.kernels.roi import crop_and_resize
from tests.goldens import assert_close, both_modes


def test_by_hand():
    """A raster of 5 x 5 whose columns 2 to 4 are the object; a box over columns 1 to 3 in three samples: 0, 1, 1.

    In five samples, half a pixel apart: 0, 1/2, 1, 1, 1. Along an axis of one sample it is in the middle.
    """
    raster = np.zeros((1, 2, 5, 5), np.uint8)
    raster[0, 1, :, 2:] = 255  # everything above 0 is 1
    boxes, rows = np.array([[[0.0, 0.25, 1.0, 0.75]]], "float32"), np.array([[1]], "int32")
    for size, expected in (((2, 3), [[0, 1, 1]] * 2), ((1, 5), [[0, 0.5, 1, 1, 1]])):
        for crop in both_modes(lambda raster, rows, boxes, size=size: crop_rasters(raster, rows, boxes, size)):
            assert_close(crop(raster, rows, boxes)[0, 0], np.array(expected, "float32"))
    other = crop_rasters(raster, np.zeros((1, 1), "int32"), boxes, (2, 3))
    assert not np.asarray(other).any()


def test_equals_the_crop_of_a_feature_map():
    """Also where boxes reach beyond the raster."""
    rng = np.random.default_rng(0)
    rasters = rng.integers(0, 2, (2, 3, 9, 12)).astype(np.uint8)
    boxes = np.sort(rng.uniform(-0.2, 1.2, (2, 5, 2, 2)), axis=2).reshape(2, 5, 4).astype("float32")
    rows = rng.integers(0, 3, (2, 5)).astype("int32")
    (crop,) = both_modes(lambda *arguments: crop_rasters(*arguments, (7, 6)))[-1:]
    ours = np.asarray(crop(rasters, rows, boxes))
    for image in range(2):
        for place in range(5):
            features = rasters[image, rows[image, place]][None, :, :, None].astype("float32")
            theirs = crop_and_resize(features, boxes[image, place][None, None], (7, 6))
            assert_close(ours[image, place], np.asarray(theirs)[0, 0, :, :, 0], 1e-5)
