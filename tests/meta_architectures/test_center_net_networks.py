"""The networks and necks of CenterNet in SSD and Faster R-CNN: those that fit detect, the others say why not."""

import keras
import numpy as np
import pytest

from keras_detect import CenterNet, FasterRCNN, schema
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.tf_od_api import name_maps
from tests import goldens, tiny
from tests.networks import undrawn
from tests.weights import golden_checkpoints

SIDE = 64
#: architecture and name of the neck
PAIRS = [(SSD, "ssd"), (SSD, "fpn"), (FasterRCNN, None), (FasterRCNN, "fpn")]


def built(architecture, backbone, neck):
    given = {} if neck is None else {"neck": neck}
    with undrawn():
        return architecture.from_backbone(backbone, num_classes=2, image_size=SIDE, weights=None, **given)


QUICK = () if goldens.BACKEND == "tensorflow" else pytest.mark.slow
BACKBONES = [
    pytest.param("resnet_v1_18", marks=QUICK),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet_v1_34", "resnet_v2_50", "resnet_v2_101", "resnet_v2_152")
    ),
]


@pytest.mark.parametrize(("architecture", "neck"), PAIRS, ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pair_that_fits(architecture, neck, backbone):
    check(built(architecture, backbone, neck))


@pytest.mark.backend_free
@pytest.mark.parametrize("architecture", [SSD, FasterRCNN])
@pytest.mark.parametrize("neck", ["center_net_pyramid", "center_net_deconvolution"])
def test_the_necks_of_center_net_give_one_map(architecture, neck):
    model = built(architecture, "resnet_v1_18", neck)
    assert (model.feature_extractor.level_names, tuple(model.feature_extractor.strides)) == (("P2",), (4,))
    check(model)


@pytest.mark.backend_free
def test_a_neck_of_one_map_of_another_name():
    """The coarsest level alone, as a user's neck may have it: one map, whose stride its size tells."""
    model = SSD.from_backbone(
        tiny.TinyBackbone(), num_classes=2, image_size=SIDE, neck=lambda levels: {"only": levels["C4"]}
    )
    assert (model.feature_extractor.level_names, model.feature_extractor.strides) == (("only",), (16,))
    check(model)


def check(model):
    """As many raw predictions as anchors, all finite."""
    inputs = model.preprocess(np.random.default_rng(0).uniform(0, 255, (1, SIDE, SIDE, 3)).astype("float32"))
    predictions = model(inputs, training=False)
    boxes = next(predictions[key] for key in (schema.RPN_BOX_ENCODINGS, schema.BOX_ENCODINGS) if key in predictions)
    assert np.isfinite(np.asarray(boxes)).all()
    assert boxes.shape[1] == predictions[schema.ANCHORS].shape[-2] > 0


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("architecture", "neck", "message"),
    [
        (SSD, "ssd", r"The default necks take the backbone levels C3, C4 and C5. Received: \['stack_0'\]"),
        (SSD, "fpn", r"The default necks take the backbone levels C3, C4 and C5. Received: \['stack_0'\]"),
        (FasterRCNN, None, r"split for two stages .* Received: 'backbone' \(Hourglass\) .* of one stride. Choose"),
        (FasterRCNN, "fpn", r"A feature pyramid for two stages starts at .*C2 or C3. Received: \['stack_0'\]"),
    ],
)
def test_an_hourglass_has_no_levels_for_them(architecture, neck, message):
    with pytest.raises(ValueError, match=message):
        built(architecture, "hourglass_10", neck)


@pytest.mark.backend_free
@pytest.mark.parametrize("architecture", [SSD, FasterRCNN])
def test_a_backbone_without_c2_has_no_map_of_stride_4(architecture):
    with pytest.raises(ValueError, match=r"CenterNetPyramid needs the backbone levels \('C2', .*\['C3', 'C4', 'C5'\]"):
        built(architecture, tiny.TinyBackbone(), "center_net_pyramid")


@pytest.mark.backend_free
def test_an_hourglass_starts_from_the_features_of_another_detector(tmp_path):
    """As from upstream's ExtremeNet: of its checkpoint, the feature extractor alone is read."""
    with undrawn():
        model = CenterNet.from_backbone("hourglass_10", num_classes=2, image_size=64, weights=None)
    keys = name_maps.backbone_checkpoint_keys(model)
    rng, named = np.random.default_rng(0), model.named_weights()
    values = {key: rng.normal(size=named[name].shape).astype("float32") for name, key in keys.items()}
    others = {"model/_prediction_head_dict/corners/0/layer_with_weights-0/kernel": np.ones((1, 1, 64, 4), "float32")}
    heads = {name: keras.ops.convert_to_numpy(named[name]) for name in set(named) - set(keys)}
    checkpoint = golden_checkpoints.write_checkpoint({**values, **others}, tmp_path)
    report = model.restore(checkpoint, kind="classification")
    assert dict(report.restored) == keys
    assert set(others) <= set(report.ignored)
    for name, key in keys.items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(named[name]), values[key], err_msg=name)
    for name, value in heads.items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(named[name]), value, err_msg=name)
