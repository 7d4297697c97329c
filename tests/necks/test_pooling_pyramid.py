"""PPN's neck: which maps it gives, and that a detector is built on it by its name."""

import keras
import numpy as np
import pytest

from keras_detect.layers.conv_blocks import ConvHyperparams
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.pooling_pyramid import PoolingPyramid
from tests import tiny  # noqa: F401 - registers the backbone


def test_each_map_is_the_largest_of_four_cells():
    inputs = keras.Input((5, 7, 3))
    maps = PoolingPyramid(num_layers=3)({"C4": inputs, "C5": inputs})
    assert list(maps) == ["pooled_0", "pooled_1", "pooled_2"]
    image = np.random.default_rng(0).random((1, 5, 7, 3), "float32")
    first, second, third = (np.asarray(value) for value in keras.Model(inputs, list(maps.values()))(image))
    np.testing.assert_array_equal(first, image)
    assert second.shape == (1, 3, 4, 3) and third.shape == (1, 2, 2, 3)
    np.testing.assert_array_equal(second[0, 0, 0], image[0, :2, :2].max(axis=(0, 1)))
    np.testing.assert_array_equal(second[0, 2, 3], image[0, 4, 6])


def test_a_depth_of_its_own():
    inputs = keras.Input((8, 8, 3))
    maps = PoolingPyramid(level="C5", num_layers=2, depth=4, hyperparams=ConvHyperparams())({"C5": inputs})
    assert [value.shape[-1] for value in maps.values()] == [4, 4]
    assert PoolingPyramid.from_config(PoolingPyramid(depth=4).get_config()) == PoolingPyramid(depth=4)


def test_by_name():
    model = SSD.from_backbone("tests_tiny", num_classes=2, neck="ppn", image_size=64, weights=None)
    assert model.feature_extractor.neck == PoolingPyramid()
    assert len(model.feature_extractor.outputs) == 6


def test_what_it_refuses():
    with pytest.raises(ValueError, match="num_layers=0"):
        PoolingPyramid(num_layers=0)
    with pytest.raises(ValueError, match=r"needs the backbone level C4\. Received: \['C5'\]"):
        PoolingPyramid()({"C5": keras.Input((8, 8, 3))})
