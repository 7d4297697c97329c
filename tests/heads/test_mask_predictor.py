"""The mask head: one class at a time equals all classes at once, sizes, upstream's depth."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.heads.mask_predictor import MaskPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams
from tests.goldens import assert_close, jitted

FEATURES = np.random.default_rng(0).normal(size=(6, 4, 4, 5)).astype("float32")
LABELS = np.array([2, 0, 1, 2, 0, 0], "int32")


@pytest.mark.parametrize("upsampling", ["transposed", "resize", "nearest"])
@pytest.mark.parametrize("agnostic", [False, True])
def test_the_mask_of_a_class_is_that_of_all(upsampling, agnostic):
    head = MaskPredictor(
        num_classes=3, mask_size=8, num_convolutions=1, depth=6, class_agnostic=agnostic, upsampling=upsampling
    )
    head.build(FEATURES.shape)
    head.mask_head.bias.assign(np.arange(1.0, head.num_masks + 1.0))
    every = np.asarray(jitted(lambda x: head(x))(FEATURES))
    assert every.shape == (6, 8, 8, 1 if agnostic else 3)
    one = np.asarray(jitted(lambda x, labels: head(x, labels=labels))(FEATURES, LABELS))
    rows = np.zeros(6, int) if agnostic else LABELS
    assert_close(one, every[np.arange(6), :, :, rows], 1e-6)
    again = MaskPredictor.from_config(head.get_config())
    assert again.get_config() == head.get_config()


def test_features_are_enlarged_with_their_corners_aligned():
    """Without convolutions and with an identity as the last one: 2 x 2 cells become 3 x 3, their means between them."""
    head = MaskPredictor(num_classes=1, mask_size=3, num_convolutions=0, upsampling="resize")
    head.build((None, 2, 2, 1))
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1] = 1.0
    head.mask_head.kernel.assign(kernel)
    masks = head(ops.array([[[[0.0], [2.0]], [[4.0], [6.0]]]]))
    assert_close(masks[0, :, :, 0], np.array([[0, 1, 2], [2, 3, 4], [4, 5, 6]], "float32"))


def test_a_region_of_one_cell_is_repeated():
    head = MaskPredictor(num_classes=2, mask_size=4, num_convolutions=0, upsampling="resize")
    head.build((None, 1, 1, 3))
    assert head(ops.ones((2, 1, 1, 3))).shape == (2, 4, 4, 2)


def test_batch_norm_stands_behind_each_convolution_but_the_last():
    head = MaskPredictor(num_classes=2, mask_size=8, num_convolutions=2, depth=4, hyperparams=ConvHyperparams())
    head.build(FEATURES.shape)
    norms = [layer for layer in head.steps if isinstance(layer, keras.layers.BatchNormalization)]
    assert [layer.name for layer in norms] == ["conv_0_bn", "conv_1_bn", "upsample_conv_bn"]
    assert not head.steps[0].use_bias and head.mask_head.use_bias


def test_depth_zero_is_upstreams():
    """1536 channels, 90 classes: (2 log2 1536 + 3 log2 90) / 5 = 8.13; 1024 and 3: 4.95. It stays for others."""
    for channels, classes, depth in ((1536, 90, 256), (1024, 3, 32), (1024, 1, 16)):
        head = MaskPredictor(num_classes=classes, mask_size=8, num_convolutions=1, depth=0)
        head.build((None, 4, 4, channels))
        assert head.depth == head.get_config()["depth"] == depth


def test_what_is_refused():
    with pytest.raises(ValueError, match="upsampling must be one of"):
        MaskPredictor(num_classes=2, upsampling="bilinear")
    with pytest.raises(ValueError, match="0 or more"):
        MaskPredictor(num_classes=2, depth=-1)
    with pytest.raises(ValueError, match="twice the features'"):
        MaskPredictor(num_classes=2, mask_size=9).build((None, 4, 4, 3))
    with pytest.raises(ValueError, match="a multiple of the features'"):
        MaskPredictor(num_classes=2, mask_size=9, upsampling="nearest").build((None, 4, 4, 3))
