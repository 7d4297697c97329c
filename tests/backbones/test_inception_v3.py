"""Inception V3: channels of its levels, and the kernels of keras.applications."""

import keras
import pytest

from keras_detect.backbones.inception_v3 import InceptionV3
from tests import networks


@pytest.fixture(scope="module")
def backbone():
    with networks.undrawn():
        return InceptionV3()


@pytest.mark.backend_free
def test_levels(backbone):
    assert backbone.channels == {"C1": 64, "C2": 192, "C3": 288, "C4": 768, "C5": 2048}
    assert list(backbone.strides.values()) == [2, 4, 8, 16, 32]
    with pytest.raises(ValueError, match="width_multiplier=0"):
        InceptionV3(width_multiplier=0)
    with pytest.raises(ValueError, match="padding='full'"):
        InceptionV3(padding="full")


@pytest.mark.slow
@pytest.mark.backend_free
def test_its_kernels_and_sizes_are_those_of_keras_applications():
    with networks.undrawn():
        backbone = InceptionV3(padding="valid")
    theirs = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(299, 299, 3))

    def kernels(model):
        return sorted(tuple(layer.kernel.shape) for layer in model.layers if isinstance(layer, keras.layers.Conv2D))

    assert kernels(backbone) == kernels(theirs) and len(kernels(theirs)) == 94
    assert tuple(backbone.compute_output_shape((1, 299, 299, 3))["C5"])[1:] == tuple(theirs.output_shape)[1:]
