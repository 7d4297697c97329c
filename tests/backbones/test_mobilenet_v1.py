"""MobileNetV1: sizes from the paper and from keras.applications, widths, uneven padding."""

import keras
import numpy as np

from keras_detect.backbones.mobilenet_v1 import MobileNetV1
from keras_detect.layers.conv_blocks import ConvHyperparams
from tests import goldens, networks


def small(**settings):
    with networks.undrawn():
        return MobileNetV1(width_multiplier=0.25, **settings)


def test_as_many_parameters_as_keras_applications():
    """3,228,864 without the classifier (keras.applications.MobileNet, alpha 1); ours differs in padding only."""
    with networks.undrawn():
        backbone = MobileNetV1()
    assert backbone.count_params() == 3_228_864
    assert backbone.channels == {"C1": 64, "C2": 128, "C3": 256, "C4": 512, "C5": 1024}


def test_width_and_smallest_depth():
    """A quarter of 32, 64, 128... is 8, 16, 32...; with `min_depth=24` the first three widths become 24."""
    assert small().channels == {"C1": 16, "C2": 32, "C3": 64, "C4": 128, "C5": 256}
    backbone = small(min_depth=24)
    assert backbone.channels == {"C1": 24, "C2": 32, "C3": 64, "C4": 128, "C5": 256}
    assert backbone.get_layer("stem_conv").filters == 24


def test_stride_two_pads_as_tensorflow_does():
    """A 3x3 kernel at stride 2 with its center tap alone: even sizes give pixels 1, 3, 5, odd ones 0, 2, 4.

    keras.applications pads one row and column behind at every size and gives 1, 3 for the odd size too.
    """
    backbone = small(hyperparams=ConvHyperparams(activation=None, batch_norm_epsilon=0.001))
    stem = keras.Model(backbone.inputs, backbone.get_layer("stem_conv").output)
    kernel = np.zeros((3, 3, 3, 8), "float32")
    kernel[1, 1, 0] = 1.0
    backbone.get_layer("stem_conv").kernel.assign(kernel)
    for size, first in ((6, 1), (5, 0)):
        x = np.arange(size * size * 3, dtype="float32").reshape(1, size, size, 3)
        goldens.assert_close(stem(keras.ops.convert_to_tensor(x))[0, :, :, 2], x[0, first::2, first::2, 0])


def test_pixels_span_minus_one_to_one():
    pixels = keras.ops.convert_to_tensor(np.array([[[[0.0, 127.5, 255.0]]]], "float32"))
    goldens.assert_close(small().preprocess(pixels)[0, 0, 0], [-1.0, 0.0, 1.0])
