"""Faster R-CNN with a feature pyramid on any Keras model: from C2 where the network has one, else from C3."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_detect.backbones import keras_models
from keras_detect.boxes.anchor_generators import MultiscaleGridAnchorGenerator
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from tests import goldens, tiny
from tests.networks import undrawn
from tests.weights.test_keras_applications import randomize

#: name in keras.applications -> channels of C2, C3, C4, C5; the two NASNets take images of one size only
CHANNELS = {
    "ConvNeXtBase": (128, 256, 512, 1024),
    "ConvNeXtLarge": (192, 384, 768, 1536),
    "ConvNeXtSmall": (96, 192, 384, 768),
    "ConvNeXtTiny": (96, 192, 384, 768),
    "ConvNeXtXLarge": (256, 512, 1024, 2048),
    "DenseNet121": (128, 256, 512, 1024),
    "DenseNet169": (128, 256, 640, 1664),
    "DenseNet201": (128, 256, 896, 1920),
    "EfficientNetB0": (144, 240, 672, 1280),
    "EfficientNetB1": (144, 240, 672, 1280),
    "EfficientNetB2": (144, 288, 720, 1408),
    "EfficientNetB3": (192, 288, 816, 1536),
    "EfficientNetB4": (192, 336, 960, 1792),
    "EfficientNetB5": (240, 384, 1056, 2048),
    "EfficientNetB6": (240, 432, 1200, 2304),
    "EfficientNetB7": (288, 480, 1344, 2560),
    "EfficientNetV2B0": (32, 192, 672, 1280),
    "EfficientNetV2B1": (32, 192, 672, 1280),
    "EfficientNetV2B2": (32, 224, 720, 1408),
    "EfficientNetV2B3": (40, 224, 816, 1536),
    "EfficientNetV2L": (64, 384, 1344, 1280),
    "EfficientNetV2M": (48, 320, 1056, 1280),
    "EfficientNetV2S": (48, 256, 960, 1280),
    "InceptionResNetV2": (192, 320, 1088, 1536),
    "InceptionV3": (192, 288, 768, 2048),
    "MobileNet": (128, 256, 512, 1024),
    "MobileNetV2": (144, 192, 576, 1280),
    "MobileNetV3Large": (72, 240, 672, 960),
    "MobileNetV3Small": (72, 96, 288, 576),
    "ResNet101": (256, 512, 1024, 2048),
    "ResNet101V2": (256, 512, 1024, 2048),
    "ResNet152": (256, 512, 1024, 2048),
    "ResNet152V2": (256, 512, 1024, 2048),
    "ResNet50": (256, 512, 1024, 2048),
    "ResNet50V2": (256, 512, 1024, 2048),
    "VGG16": (256, 512, 512, 512),
    "VGG19": (256, 512, 512, 512),
    "Xception": (128, 256, 728, 2048),
}
FAST = {"MobileNetV3Small", "VGG16"}


def detector(network, **settings):
    with undrawn():
        return FasterRCNN.from_backbone(network, num_classes=2, image_size=64, neck="fpn", **settings)


def check_pyramid(model, first):
    """Maps, strides and anchors start at level `first`; an RoI of 224 pixels is the last but one's."""
    extractor = model.feature_extractor
    levels = range(first, 7)
    assert extractor.level_names == tuple(f"P{level}" for level in levels)
    assert extractor.strides == tuple(2**level for level in levels)
    anchors = MultiscaleGridAnchorGenerator(min_level=first, max_level=6)
    assert model.proposal_stage.anchor_generator == anchors
    maps = extractor.extract_proposal_features(keras.Input((128, 128, 3)))  # InceptionV3 takes no 64 pixels
    sides = [128 // 2**level for level in levels]
    assert [tuple(tensor.shape[1:3]) for tensor in maps] == [(side, side) for side in sides]


def test_the_table_holds_every_network_that_takes_images_of_any_size():
    assert set(CHANNELS) == set(keras_models.application_names()) - {"NASNetLarge", "NASNetMobile"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST and goldens.BACKEND == "tensorflow" else pytest.mark.slow)
        for name in CHANNELS
    ],
)
def test_every_network_of_keras_applications_has_a_pyramid_from_c2(name):
    model = detector(name)
    backbone = model.feature_extractor.backbone
    assert backbone.channels == dict(zip(("C2", "C3", "C4", "C5"), CHANNELS[name], strict=True))
    check_pyramid(model, first=2)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", ["NASNetMobile", pytest.param("NASNetLarge", marks=pytest.mark.slow)])
def test_a_network_for_one_size_says_so(name):
    with pytest.raises(ValueError, match="takes no image of any size"):
        detector(name)


def without_c2(name="without_c2"):
    """A stem of stride 8, then strides 16 and 32."""
    x = inputs = keras.Input((None, None, 3))
    for index, (filters, stride) in enumerate(((6, 8), (8, 2), (10, 2))):
        x = layers.Conv2D(filters, stride, strides=stride, activation="relu", name=f"conv_{index}")(x)
    return keras.Model(inputs, x, name=name)


def check_training(model):
    """One step gives finite losses and moves a kernel of the backbone."""
    randomize(model, 0)
    x, y = tiny.tiny_batch(batch_size=1, num_classes=2)
    model.compile(keras.optimizers.SGD(1e-4), run_eagerly=goldens.BACKEND == "tensorflow")  # tracing takes a minute
    before = tiny.weights_of(model)
    assert np.isfinite(list(model.train_on_batch(x, y, return_dict=True).values())).all()
    after = tiny.weights_of(model)
    changed = [name for name, value in before.items() if (value != after[name]).any()]
    assert any(name.startswith("backbone/") and name.endswith("/kernel") for name in changed)


@pytest.mark.backend_free
def test_without_c2_the_pyramid_starts_at_c3_and_trains():
    model = detector(without_c2(), preprocess="unit")
    assert model.feature_extractor.backbone.levels == {"C3": "conv_0", "C4": "conv_1", "C5": "conv_2"}
    check_pyramid(model, first=3)
    check_training(model)


@pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="compiles for minutes elsewhere")
def test_a_network_of_keras_applications_trains():
    check_training(detector("MobileNetV3Small"))


def test_a_pyramid_needs_c2_or_c3():
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 16, strides=16, name="conv_0")(x)
    with pytest.raises(ValueError, match=r"needs a level of stride 8. 'coarse' has levels of stride \[16\]"):
        detector(keras.Model(inputs, x, name="coarse"), preprocess="unit")
