"""Position-sensitive crops: upstream's numbers, a case worked by hand, the gradient, and what is refused."""

import re

import numpy as np
import pytest

from keras_detect.kernels.position_sensitive import position_sensitive_crop
from keras_detect.kernels.roi import crop_and_resize
from tests import goldens
from tests.boxes.gradients import gradient
from tests.goldens import assert_close, both_modes

COMMITTED = goldens.DATA / "units_tf1_ps_crop.npz"
QUARTERS = np.array([[[0.0, 0.0, 1.0, 1.0]]], "float32")


def cases(path):
    """`{case: {"in/image": ..., "in/boxes": ..., "out/y": ...}}` of the file's position-sensitive crops."""
    found: dict = {}
    with np.load(path) as archive:
        for key in archive.files:
            if key.startswith("ps_crop/"):
                _, case, part = key.split("/", 2)
                found.setdefault(case, {})[part] = archive[key]
    return found


def check(name, case):
    """`b3x3_c6x6_native_pool`: bins, crop size, kernel, pooled or not."""
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    bins, size, pool = numbers[:2], numbers[2:4], name.endswith("_pool")
    image, boxes, expected = case["in/image"][None], case["in/boxes"][None], case["out/y"]
    expected = expected[:, 0, 0] if pool else expected
    outside = "cut" if "native" in name else "fade"  # upstream's two kernels
    for crop in both_modes(lambda x, b: position_sensitive_crop(x, b, size, bins, pool, outside)):
        assert_close(crop(image, boxes)[0], expected, err_msg=name)


@pytest.mark.parametrize("name", cases(COMMITTED))
def test_upstreams_numbers(name):
    check(name, cases(COMMITTED)[name])


def test_all_of_upstreams_numbers():
    found = cases(goldens.require_shared("golden_tf1") / "units_tf1.npz")
    assert len(found) == 14
    for name, case in found.items():
        check(name, case)


def test_each_bin_looks_at_its_own_channels():
    """A map of 4 x 4 cells, channel i everywhere i + 1: bins row by row are 1, 2, 3, 4, their mean 2.5."""
    features = np.broadcast_to(np.arange(1.0, 5.0, dtype="float32"), (1, 4, 4, 4))
    assert_close(position_sensitive_crop(features, QUARTERS, (2, 2), (2, 2)), [[[2.5]]])
    whole = position_sensitive_crop(features, QUARTERS, (4, 4), (2, 2), pool=False)
    assert_close(whole[0, 0, :, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])


def test_one_bin_is_a_plain_crop():
    features = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    boxes = np.array([[[0.1, 0.2, 0.7, 0.9]], [[0.0, 0.3, 0.5, 0.4]]], "float32")
    assert_close(
        position_sensitive_crop(features, boxes, (3, 2), (1, 1), pool=False), crop_and_resize(features, boxes, (3, 2))
    )


def test_the_gradient_is_the_share_of_each_cell():
    """The mean of four samples, one bin each at the corners of a 2 x 2 map's halves; the shares add up to 1 a bin."""
    features = np.zeros((1, 2, 2, 4), "float32")
    shares = gradient(lambda x: position_sensitive_crop(x, QUARTERS, (4, 4), (2, 2))[0, 0, 0], features)
    assert_close(shares.sum(axis=(0, 1, 2)), [0.25, 0.25, 0.25, 0.25])
    # the first bin has samples at 0 and 0.5 of both axes: weights 1 and 0.5 for pixel 0
    assert_close(shares[0, :, :, 0], np.outer([0.75, 0.25], [0.75, 0.25]) / 4)


@pytest.mark.parametrize(("size", "channels"), [((5, 6), 9), ((6, 6), 10)])
def test_bins_that_do_not_divide_are_refused(size, channels):
    with pytest.raises(ValueError, match=rf"3 x 3 bins .*crop_size=\({size[0]}, 6\), a map of {channels} channels"):
        position_sensitive_crop(np.zeros((1, 4, 4, channels), "float32"), QUARTERS, size, (3, 3))
