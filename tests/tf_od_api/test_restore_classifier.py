"""The backbone alone: from a checkpoint of an ImageNet classifier, or of a detector with any heads."""

import re

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.tf_od_api import name_maps, name_maps_ssd
from keras_detect.weights.restore import RestoreError
from tests import goldens
from tests.networks import undrawn
from tests.weights.golden_checkpoints import golden_weights, write_checkpoint

SSD = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
LAYER = r"(.*)/layer_with_weights-(\d+)/(.*)"
BACKBONE = "classification_backbone|_efficientnet|_feature_extractor_for_proposal_features"
CROPS = "_feature_extractor_for_box_classifier_features"


def build(name):
    with undrawn():
        return keras_detect.from_pipeline_config(goldens.golden(f"{name}.config"), num_classes=3)


def classifier_weights(name):
    """`{key: value}` of the golden's backbone as upstream's classifiers have it, with a dense layer behind.

    The layers of a Faster R-CNN that run on crops follow those that run on the image.
    """
    found = {}
    for key, value in golden_weights(name).items():
        match = re.fullmatch(LAYER, key)
        if match and re.search(rf"({BACKBONE}|{CROPS})$", match[1]):
            found[match[1].endswith(CROPS), int(match[2]), match[3]] = value
    first = 1 + max((number for crops, number, _ in found if not crops))
    numbered = {(number + first * crops, variable): value for (crops, number, variable), value in found.items()}
    weights = {
        f"feature_extractor/layer_with_weights-{number}/{name}": value for (number, name), value in numbered.items()
    }
    last = max(number for number, _ in numbered)
    if "efficientdet" not in name:  # whose golden has the classifier's end already
        last += 1
        weights[f"feature_extractor/layer_with_weights-{last}/kernel"] = np.zeros((8, 10), "float32")
        weights[f"feature_extractor/layer_with_weights-{last}/bias"] = np.zeros(10, "float32")
    return weights, last


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("derived_ssd_mobilenet_v1_300x300", 2),
        (SSD, 2),
        # 1x1 convolution 1, batch norm 4, dense 2
        ("ssd_efficientdet_d0_512x512_coco17_tpu-8", 7),
        ("faster_rcnn_resnet50_v1_640x640_coco17_tpu-8", 2),
    ],
)
def test_a_classifiers_checkpoint_fills_the_backbone(name, behind, tmp_path):
    model, golden = build(name), golden_weights(name)
    weights, last = classifier_weights(name)
    prefix = write_checkpoint(weights | {"head/kernel": np.zeros(3, "float32")}, tmp_path)
    report = model.restore(prefix, kind="classification")
    names = model.named_weights()
    assert set(report.restored) == {weight for weight in names if weight.startswith("backbone/")}
    assert set(report.restored) | set(report.kept) == set(names)
    detector = name_maps.checkpoint_keys(model)
    for weight in report.restored:
        value = keras.ops.convert_to_numpy(names[weight])
        np.testing.assert_array_equal(value, golden[detector[weight]], err_msg=weight)
    reasons = list(report.ignored.values())
    assert reasons.count("the end of the ImageNet classifier") == behind
    assert report.ignored["head/kernel"] == "not part of the backbone"
    deeper = weights | {f"feature_extractor/layer_with_weights-{last + 1}/kernel": np.zeros(3, "float32")}
    with pytest.raises(RestoreError, match=rf"1 variables .* not used by the model.*\n.*weights-{last + 1}/kernel"):
        model.restore(write_checkpoint(deeper, tmp_path / "deeper"), kind="classification")
    with pytest.raises(RestoreError, match="check `kind`"):
        model.restore(prefix)


def test_the_backbone_of_a_detector_whose_heads_upstream_has_not(tmp_path, monkeypatch):
    model, weights = build(SSD), golden_weights(SSD)
    prefix = write_checkpoint(weights, tmp_path)
    keys = name_maps.checkpoint_keys(model)
    for table in ("NECKS", "PREDICTORS"):
        monkeypatch.setattr(name_maps_ssd, table, {})
    with pytest.raises(
        ValueError, match=r"'SsdFeatureMaps', which declares checkpoint_family='ssd'.* With kind='class"
    ):
        model.restore(prefix)
    report = model.restore(prefix, kind="classification")
    assert len(report.restored) == 52 * 5  # convolutions and their batch norms
    names = model.named_weights()
    for weight in report.restored:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(names[weight]), weights[keys[weight]], err_msg=weight)
