"""Maps brought to the size of another, by hand."""

import numpy as np
import pytest

from keras_detect.layers.upsample_like import CropLike, UpsampleLike
from tests import goldens


def feature(values):
    return np.asarray(values, "float32")[None, ..., None]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2, 4), [[1, 1, 2, 2], [1, 1, 2, 2]]), ((1, 3), [[1, 1, 2]]), ((1, 4), [[1, 1, 2, 2]])],
)
def test_upsample_like_by_hand(size, expected):
    for call in goldens.both_modes(UpsampleLike()):
        goldens.assert_close(call(feature([[1.0, 2.0]]), feature(np.zeros(size)))[0, :, :, 0], expected)


@pytest.mark.parametrize(("size", "expected"), [((2, 3), [[1, 2, 3], [4, 5, 6]]), ((1, 2), [[1, 2]])])
def test_crop_like_by_hand(size, expected):
    for call in goldens.both_modes(CropLike()):
        cropped = call(feature([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), feature(np.zeros(size)))
        goldens.assert_close(cropped[0, :, :, 0], expected)
