"""Backbones that do not fit a detector get help: what was wanted, what came, what to do."""

import keras
import pytest

from keras_detect.backbones.backbone import Backbone, backbone_names, get_backbone, register_backbone
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps

META_ARCHITECTURES = pytest.mark.parametrize("meta", [SSD, FasterRCNN])
STRIDES = {f"C{level}": 2**level for level in range(1, 6)}


def network():
    """`(inputs, {"C1": ..., "C5": ...})`: five convolutions at stride 2."""
    x = inputs = keras.Input((None, None, 3))
    levels = {}
    for level in STRIDES:
        x = keras.layers.Conv2D(4, 3, 2, padding="same", name=level.lower())(x)
        levels[level] = x
    return inputs, levels


def backbone(*without):
    inputs, levels = network()
    kept = {level: tensor for level, tensor in levels.items() if level not in without}
    return Backbone(inputs=inputs, outputs=kept, strides={level: STRIDES[level] for level in kept}, name="mine")


def test_a_missing_level_is_named():
    for build, message in (
        (
            lambda: FasterRCNN.from_backbone(backbone("C4"), num_classes=2),
            r"'mine' is split .* \['C1', 'C2', 'C3', 'C5'\]",
        ),
        (lambda: FasterRCNN.from_backbone(backbone("C5"), num_classes=2), r"split must be before the tail.*split='C4'"),
        (
            lambda: FasterRCNN.from_backbone(backbone("C4"), num_classes=2, neck="fpn"),
            r"needs the backbone levels .*C4",
        ),
        (
            lambda: SSD.from_backbone(backbone("C4"), num_classes=2, neck=FeaturePyramid(levels=("C3", "C4", "C5"))),
            r"FeaturePyramid needs the backbone levels .*'C4'.* Received: \['C1', 'C2', 'C3', 'C5'\]",
        ),
        (
            lambda: SSD.from_backbone(backbone("C5"), num_classes=2, neck=SsdFeatureMaps(levels=("C4", "C5"))),
            r"needs the backbone levels .*C5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_a_stride_that_the_network_does_not_have():
    """Of 8 * 32 = 256 pixels, a level at stride 8 makes 32 cells; this one makes 64, so its stride is 4."""
    inputs, levels = network()
    outputs = {"C3": levels["C2"], "C4": levels["C4"], "C5": levels["C5"]}
    message = r"'C3' is stated to have stride 8\. Received .* makes 64 x 64 cells of 256 x 256 pixels, stride 4\."
    with pytest.raises(ValueError, match=message):
        Backbone(inputs=inputs, outputs=outputs, strides={"C3": 8, "C4": 16, "C5": 32})


def test_strides_may_be_a_pixel_off_without_padding():
    """256 pixels: three unpadded 3 x 3 convolutions at stride 2 give 127, 63 and 31 cells instead of 128, 64, 32."""
    x = inputs = keras.Input((None, None, 3))
    for _ in range(3):
        x = keras.layers.Conv2D(4, 3, 2)(x)
    assert Backbone(inputs=inputs, outputs={"C3": x}, strides={"C3": 8}).strides == {"C3": 8}


def test_strides_that_differ_by_side():
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.AveragePooling2D((2, 4))(x)
    with pytest.raises(ValueError, match=r"'C1' is stated to have stride 2\. Received .* makes 8 x 4 cells of 16 x 16"):
        Backbone(inputs=inputs, outputs={"C1": x}, strides={"C1": 2})


def test_an_output_that_is_no_map():
    inputs, levels = network()
    pooled = keras.layers.GlobalAveragePooling2D()(levels["C5"])
    with pytest.raises(
        ValueError, match=r"'C5' must be a feature map \[B, h, w, c\]\. Received shape \(None, 4\)\. Cut"
    ):
        Backbone(inputs=inputs, outputs={**levels, "C5": pooled}, strides=STRIDES)


@META_ARCHITECTURES
def test_an_unknown_name_lists_the_near_ones(meta):
    with pytest.raises(ValueError, match=r"Unknown backbone 'inception_v10'\. Did you mean inception_v100"):
        meta.from_backbone("inception_v10", num_classes=2)
    with pytest.raises(ValueError, match="Unknown backbone 'qqq'"):
        meta.from_backbone("qqq", num_classes=2)


@META_ARCHITECTURES
def test_what_is_no_backbone(meta):
    with pytest.raises(ValueError, match=r"A backbone is a registered name, a Backbone or .* Received: dict"):
        meta.from_backbone({"C3": None}, num_classes=2)


def test_a_name_registered_twice_names_the_owner_and_keeps_it():
    ours = get_backbone("inception_v100")
    other = type("Other", (Backbone,), {"__module__": "somebody"})
    message = r"'inception_v100' is already registered by .*InceptionV100\. Received a second one: somebody\.Other\."
    with pytest.raises(ValueError, match=message):
        register_backbone("inception_v100")(other)
    assert get_backbone("inception_v100") is ours
    for name in ("", None, 3):
        with pytest.raises(ValueError, match="registered under a non-empty string"):
            register_backbone(name)(other)
    assert "" not in backbone_names()
