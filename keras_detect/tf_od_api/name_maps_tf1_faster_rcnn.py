"""Our weight names of a Faster R-CNN -> scopes of upstream's TensorFlow 1 checkpoints: one row per layer."""

import re

from keras_detect.tf_od_api.name_maps_layers import declared
from keras_detect.tf_od_api.name_maps_tf1_layers import BACKBONES

FIRST = "FirstStageFeatureExtractor"
SECOND = "SecondStageFeatureExtractor"
REGIONS = "FirstStageBoxPredictor"
BOXES = "SecondStageBoxPredictor"

UNUSED_BLOCK = "the first stage's last block, which upstream builds and does not use"


#: `checkpoint_family` of a backbone -> what of the network is in the second stage's scope
SECOND_STAGE = {
    "resnet_v1": r"resnet_v1_\d+/block4/",
    "inception_v2": r"InceptionV2/Mixed_5",
    "inception_resnet_v2": r"InceptionResnetV2/(Mixed_7a|Repeat_2|Block8|Conv2d_7b)",
}

#: `checkpoint_family` of a backbone -> what the first stage's scope has and does not use
UNUSED = {"resnet_v1": rf"{FIRST}/resnet_v1_\d+/block4/.*"}


def _box_heads(predictor):
    return {"box_head": f"{BOXES}/BoxEncodingPredictor", "class_head": f"{BOXES}/ClassPredictor"}


def _position_sensitive_heads(predictor):
    names = {"reduce": "reduce_depth", "box_head": "refined_locations", "class_head": "class_predictions"}
    return {ours: f"{BOXES}/{theirs}" for ours, theirs in names.items()}


def _mask_head(predictor):
    layers = [f"conv_{index}" for index in range(predictor.num_convolutions)]
    layers += ["upsample_conv"] if predictor.upsampling == "nearest" else []
    rows = {}
    for index, layer in enumerate([*layers, "mask_head"]):
        scope = f"{BOXES}/Conv{f'_{index}' if index else ''}"
        rows |= {layer: scope, f"{layer}_bn": f"{scope}/BatchNorm"} if layer != "mask_head" else {layer: scope}
    return rows


def _region_predictor(predictor):
    heads = {"box": "BoxEncodingPredictor", "class": "ClassPredictor"}
    return {"shared_conv": "Conv"} | {
        f"heads/level_0/level_0_{ours}": f"{REGIONS}/{theirs}" for ours, theirs in heads.items()
    }


#: `checkpoint_family` of a predictor -> its rows
PREDICTORS = {"mask_rcnn": _box_heads, "position_sensitive": _position_sensitive_heads}
MASK_PREDICTORS = {"mask_rcnn_masks": _mask_head}
REGION_PREDICTORS = {"region_proposal": _region_predictor}


def tables(model):
    """`{group: {layer: scope}}`, groups as in `named_weights`. Raises `ValueError` for a part that has no row."""
    groups = {
        "backbone": backbone_table(model),
        "region_predictor": declared(REGION_PREDICTORS, model.region_predictor)(model.region_predictor),
    }
    if model.number_of_stages > 1:
        groups["box_predictor"] = declared(PREDICTORS, model.box_predictor)(model.box_predictor)
    if "mask_predictor" in model.parts:
        groups["mask_predictor"] = declared(MASK_PREDICTORS, model.mask_predictor)(model.mask_predictor)
    return groups


def backbone_table(model):
    """`{layer: scope}` of the backbone in a detector's checkpoint, which has its last part in the second stage.

    Scopes are counted there anew: the second repeated block of one kind is the second stage's first.
    """
    second = re.compile(declared(SECOND_STAGE, model.feature_extractor.backbone))
    return {
        layer: f"{SECOND}/{scope.replace('/Repeat_2/', '/Repeat/')}" if second.match(scope) else f"{FIRST}/{scope}"
        for layer, scope in classifier_table(model).items()
    }


def classifier_table(model):
    """`{layer: scope}` of the backbone in tf_slim's checkpoint of the ImageNet classifier."""
    backbone = model.feature_extractor.backbone
    return declared(BACKBONES, backbone)(backbone)


def backbone_keys(model):
    """Regex of the checkpoint's names that belong to the backbone of `model`."""
    return rf"({FIRST}|{SECOND})/.*"


def unused_keys(model):
    """`((regex of a name in the checkpoint, reason), ...)` of what upstream saves with such a model without a use."""
    family = model.feature_extractor.backbone.checkpoint_family
    return ((UNUSED[family], UNUSED_BLOCK),) if family in UNUSED else ()
