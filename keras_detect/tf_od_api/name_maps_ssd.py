"""Our weight names of an SSD, RetinaNet or EfficientDet -> checkpoint keys of upstream: one row per layer."""

import re

from keras_detect.tf_od_api.name_maps_layers import (
    declared,
    efficientnet_layers,
    feature_pyramid_rows,
    mobilenet_v1_layers,
    mobilenet_v2_layers,
    numbered,
    resnet_v1_layers,
    ssd_tables,
)

EXTRACTOR = "model/_feature_extractor"
PREDICTOR = "model/_box_predictor"
CLASSIFICATION = f"{EXTRACTOR}/classification_backbone"


def _efficientnet(backbone):
    """Upstream keeps the blocks that its levels need under one name, and all that follow under another."""
    needed = numbered(efficientnet_layers(backbone, "b0"), f"{EXTRACTOR}/_efficientnet")
    return numbered(efficientnet_layers(backbone, backbone.taps), CLASSIFICATION) | needed


def _efficientnet_unused(backbone):
    built = len(efficientnet_layers(backbone, backbone.taps))
    # the rest of the last stage, and the 1x1 convolution, its batch norm and the dense layer behind it
    numbers = range(built, len(efficientnet_layers(backbone, "stages")) + 3)
    pattern = rf"{re.escape(CLASSIFICATION)}/layer_with_weights-({'|'.join(map(str, numbers))})/.*"
    return ((pattern, "behind the last feature level: the end of the ImageNet classifier, which no detector reads"),)


#: `checkpoint_family` of a backbone -> its rows
BACKBONES = {
    "efficientnet": _efficientnet,
    "mobilenet_v1": lambda backbone: numbered(mobilenet_v1_layers(), CLASSIFICATION),
    "mobilenet_v2": lambda backbone: numbered(mobilenet_v2_layers(), CLASSIFICATION),
    "resnet_v1": lambda backbone: numbered(resnet_v1_layers(backbone), CLASSIFICATION),
}

#: `checkpoint_family` of a backbone -> function of it -> `((regex of a checkpoint key, reason), ...)` of what upstream
#: saves and no detector uses
UNUSED = {"efficientnet": _efficientnet_unused}

#: `checkpoint_family` of a backbone -> upstream's attribute for the extra feature maps, where it is another one
GENERATORS = {"mobilenet_v2": "feature_map_generator"}


def _extra_feature_maps(neck, backbone):
    """Each extra map is a list [1x1 conv, bn, activation, 3x3 conv, bn, activation], numbered behind the levels."""
    generator = GENERATORS.get(backbone.checkpoint_family, "_feature_map_generator")
    rows = {}
    for index in range(len(neck.extra_depths)):
        prefix = f"{EXTRACTOR}/{generator}/convolutions/{index + len(neck.levels)}"
        for layer, position in (("reduce_conv", 0), ("reduce_bn", 1), ("conv", 3), ("bn", 4)):
            rows[f"extra_{index}_{layer}"] = f"{prefix}/{position}"
    return rows


def _feature_pyramid(neck, backbone):
    return feature_pyramid_rows(neck, f"{EXTRACTOR}/_fpn_features_generator", f"{EXTRACTOR}/_coarse_feature_layers")


def _bifpn(neck, backbone):
    """Nodes are numbered as they are computed; the first entry of a list is the activation or the resampling."""
    rows, stage = {}, f"{EXTRACTOR}/_bifpn_stage"
    for number, node in enumerate(neck.nodes()):
        rows[f"{node.name}_combine"] = f"{stage}/node_combine_op/{number}"
        rows[f"{node.name}_separable"] = f"{stage}/node_post_combine_block/{number}/1"
        rows[f"{node.name}_bn"] = f"{stage}/node_post_combine_block/{number}/2"
        for index in range(len(node.inputs)):
            for position, layer in enumerate(("conv", "bn")):
                key = f"{stage}/node_input_blocks/{number}/{index}/1/{position}"
                rows[f"{node.name}_input_{index}_{layer}"] = key
    return rows


#: `checkpoint_family` of a neck -> its rows
NECKS = {"bifpn": _bifpn, "ssd": _extra_feature_maps, "fpn": _feature_pyramid}


def _per_level_heads(predictor):
    rows = {}
    for level in range(len(predictor.num_anchors_per_location)):
        for head, group, layers in (
            ("box", "box_encodings", "_box_encoder_layers"),
            ("class", "class_predictions_with_background", "_class_predictor_layers"),
        ):
            rows[f"level_{level}/level_{level}_{head}"] = f"{PREDICTOR}/_prediction_heads/{group}/{level}/{layers}/0"
    return rows


TOWERS = {"tower": "PredictionTower", "box_tower": "BoxPredictionTower", "class_tower": "ClassPredictionTower"}


def _shared_heads(predictor):
    """Per map, a tower is the list [convolution, batch norm, activation] * n; the convolutions are found by scope."""
    rows = {
        "shared_box": f"{PREDICTOR}/_box_prediction_head/_box_encoder_layers/0",
        "shared_class": f"{PREDICTOR}/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0",
    }
    heads = ("box_encodings", "class_predictions_with_background")
    for tower, head in zip(predictor.tower_names, heads, strict=False):
        for layer in range(predictor.num_layers_before_predictor):
            rows[f"{tower}_{layer}"] = f"{PREDICTOR}/_head_scope_conv_layers/{TOWERS[tower]}/{layer}"
            for level in range(len(predictor.num_anchors_per_location)):
                norm = f"{PREDICTOR}/_base_tower_layers_for_heads/{head}/{level}/{3 * layer + 1}"
                rows[f"level_{level}_{tower}_{layer}_bn"] = norm
    return rows


#: `checkpoint_family` of a box predictor -> its rows
PREDICTORS = {"convolutional": _per_level_heads, "weight_shared": _shared_heads}


def tables(model):
    """`{group: {layer: key}}`, groups as in `named_weights`. Raises `ValueError` for a part that has no row."""
    return ssd_tables(model, backbone_table(model), NECKS, PREDICTORS)


def backbone_table(model):
    """`{layer: key}` of the backbone, in the network's order."""
    backbone = model.feature_extractor.backbone
    return declared(BACKBONES, backbone)(backbone)


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    return rf"{EXTRACTOR}/(classification_backbone|_efficientnet)/.*"


def unused_keys(model):
    """`((regex of a checkpoint key, reason), ...)` of what upstream saves with such a model and it does not use."""
    backbone = model.feature_extractor.backbone
    return UNUSED[backbone.checkpoint_family](backbone) if backbone.checkpoint_family in UNUSED else ()
