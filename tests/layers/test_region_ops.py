"""Crops of feature maps: the original's numbers, cases worked by hand, borders, gradients, boxes of no use."""

import pytest

from keras_detect.layers import region_ops
from keras_detect.layers.region_ops import crop_and_resize, multilevel_roi_align
from tests.goldens import assert_close, both_modes, golden_cases


@pytest.mark.parametrize("outside", region_ops.OUTSIDE)
@golden_cases("ops/native_crop_and_resize", "ops/matmul_crop_and_resize")
def test_crop_and_resize_matches_the_original(case, outside):
    for crop in both_modes(lambda x, boxes: crop_and_resize(x, boxes, case.info["crop_size"], outside)):
        assert_close(crop(case.inputs["x"], case.inputs["boxes"]), case.outputs["y"])


@golden_cases("ops/multilevel_roi_align")
def test_multilevel_roi_align_matches_the_original(case):
    """The original places cells between the outermost pixels' centres; 4 x 4 cells of 2 x 2 samples."""
    maps, boxes, levels = [case.inputs["f0"], case.inputs["f1"]], case.inputs["boxes"], case.inputs["levels"]
    for align in both_modes(lambda maps, boxes, levels: multilevel_roi_align(maps, boxes, levels, 4, 2, False)):
        assert_close(align(maps, boxes, levels), case.outputs["y"])
