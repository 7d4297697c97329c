"""The tables find a part by the family that it declares, and never by the name of its class."""

import keras
import pytest

from keras_detect import SSD
from keras_detect.backbones import Hourglass, MobileNetV2
from keras_detect.backbones.backbone import Backbone, backbone_names
from keras_detect.tf_od_api import name_maps, name_maps_center_net_features
from keras_detect.weights import keras_applications
from tests.networks import undrawn


def ssd(backbone):
    return SSD.from_backbone(backbone, num_classes=2, image_size=64, weights=None)


def impostor(family):
    """A backbone that is called like a built-in one and is another network."""

    def build(self, **kwargs):
        inputs = x = keras.Input((None, None, 3))
        levels = {}
        for level in range(1, 6):
            x = levels[f"C{level}"] = keras.layers.Conv2D(8, 3, 2, padding="same", name=f"conv_{level}")(x)
        levels = {level: levels[level] for level in ("C3", "C4", "C5")}
        Backbone.__init__(self, inputs=inputs, outputs=levels, strides={"C3": 8, "C4": 16, "C5": 32}, **kwargs)

    return type("MobileNetV2", (Backbone,), {"__init__": build, "checkpoint_family": family})(name="backbone")


@pytest.fixture(scope="module")
def built_in():
    with undrawn():
        return name_maps.checkpoint_keys(ssd(MobileNetV2(name="backbone")))


def test_a_subclass_of_any_name_restores_by_what_it_inherits(built_in):
    class Mine(MobileNetV2):
        """Other pixels, the same layers."""

    with undrawn():
        model = ssd(Mine(name="backbone"))
    assert name_maps.checkpoint_keys(model) == built_in
    assert keras_applications.family_of(model.feature_extractor.backbone) is keras_applications.FAMILIES["mobilenet_v2"]


@pytest.mark.parametrize("entry", [name_maps.checkpoint_keys, name_maps.backbone_checkpoint_keys])
def test_a_name_alone_is_refused(entry):
    model = ssd(impostor(None))
    with pytest.raises(
        ValueError, match=r"families efficientnet, mobilenet_v1.* 'MobileNetV2', which declares no chec"
    ):
        entry(model)
    with pytest.raises(ValueError, match="'MobileNetV2', which declares checkpoint_family=None"):
        keras_applications.family_of(model.feature_extractor.backbone)
    with pytest.raises(ValueError, match="declares checkpoint_family='mine'"):
        entry(ssd(impostor("mine")))


def test_a_subclass_may_renounce_its_family():
    class MobileNetV2WithMore(MobileNetV2):
        checkpoint_family = None

    with undrawn(), pytest.raises(ValueError, match="declares no checkpoint_family"):
        name_maps.checkpoint_keys(ssd(MobileNetV2WithMore(name="backbone")))


def test_a_wrong_declaration_is_refused_by_the_strict_match():
    with pytest.raises(ValueError, match=r"maps the layer 'backbone/conv_1' to a key .* `checkpoint_family = None`"):
        name_maps.checkpoint_keys(ssd(impostor("mobilenet_v2")))


def test_every_declared_family_has_rows():
    """Of the built-in backbones, Inception V100 alone has no checkpoint of upstream."""
    known = {*name_maps.name_maps_ssd.BACKBONES, *name_maps.name_maps_faster_rcnn.LAYERS}
    known |= {*name_maps_center_net_features.LAYERS, Hourglass.checkpoint_family}
    one_stage = {"efficientnet", "inception_resnet_v2", "mobilenet_v1", "mobilenet_v2", "resnet_v1"}
    assert known == one_stage | {"resnet_v1_basic", "resnet_v2", "hourglass"}
    assert {"inception_v100", "mobilenet_v2", "inception_resnet_v2"} <= set(backbone_names())
