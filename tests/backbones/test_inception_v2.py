"""Inception V2: channels and sizes of its levels, its separable first convolution, and its width."""

import json

import numpy as np
import pytest

from keras_detect.backbones.inception_v2 import InceptionV2
from tests import goldens, networks

CHANNELS = {"C1": 64, "C2": 192, "C3": 320, "C4_mixed_4c": 576, "C4": 576, "C5": 1024}


def built(**settings):
    with networks.undrawn():
        return InceptionV2(**settings)


@pytest.mark.backend_free
def test_levels_and_parameters():
    backbone = built()
    assert backbone.channels == CHANNELS
    assert list(backbone.strides.values()) == [2, 4, 8, 16, 16, 32]
    variables = json.loads(goldens.golden("faster_rcnn_inception_v2_coco.vars.json").read_text())["variables"]
    shapes = [tuple(entry["shape"]) for entry in variables if "FeatureExtractor" in entry["key"]]
    assert sorted(map(tuple, (weight.shape for weight in backbone.weights))) == sorted(shapes)
    assert backbone.count_params() == sum(int(np.prod(shape)) for shape in shapes) == 10_183_192


@pytest.mark.backend_free
def test_the_first_convolution_is_separable():
    """7 x 7 kernels, eight per color, then a 1x1 convolution; SAME at stride 2; one batch norm behind both."""
    backbone = built()
    stem = backbone.get_layer("stem_separable")
    assert stem.depthwise_kernel.shape == (7, 7, 3, 8) and stem.pointwise_kernel.shape == (1, 1, 24, 64)
    assert (stem.strides, stem.padding, stem.use_bias) == ((2, 2), "same", False)
    assert [layer.name for layer in backbone.layers if layer.name.startswith("stem_") and layer.weights][:2] == [
        "stem_separable",
        "stem_bn",
    ]


@pytest.mark.backend_free
def test_width():
    """A quarter: 64 -> 16 channels, five depthwise kernels of 16 / 3; 32 and less become 16, the smallest."""
    small = built(width_multiplier=0.25)
    # C3: 16 of 64, 24 of 96, 24 of 96, 16 of 64
    assert small.channels == {"C1": 16, "C2": 48, "C3": 80, "C4_mixed_4c": 144, "C4": 144, "C5": 256}
    assert small.get_layer("stem_separable").depthwise_kernel.shape == (7, 7, 3, 5)
    with pytest.raises(ValueError, match="width_multiplier=0"):
        InceptionV2(width_multiplier=0)
