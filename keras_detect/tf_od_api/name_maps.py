"""Our weight names -> checkpoint keys of the original, as tables: one row per layer."""

import re

from keras_detect.backbones import efficientnet
from keras_detect.tf_od_api import name_maps_faster_rcnn
from keras_detect.tf_od_api.name_maps_layers import (
    feature_pyramid_rows,
    mobilenet_v1_layers,
    mobilenet_v2_layers,
    numbered,
    resnet_v1_layers,
)

EXTRACTOR = "model/_feature_extractor"
PREDICTOR = "model/_box_predictor"

# the last component of a key where ours differs: layer-name suffix, our variable, the original's
VARIABLE_NAMES = {
    ("_depthwise", "kernel"): "depthwise_kernel",
    ("_combine", "combine_weights"): "bifpn_combine_weights",
}


def _efficientnet_layers(backbone, taps):
    """Layers up to the last block that a level is taken from with `taps`."""
    row, layers = efficientnet.VARIANTS[backbone.variant], ["stem_conv", "stem_bn"]
    for number, stage in enumerate(efficientnet.STAGES):
        for index in range(efficientnet.blocks_built(row, number, taps)):
            block = f"stage_{number}_block_{index}"
            layers += [f"{block}_expand_conv", f"{block}_expand_bn"] if stage.expansion > 1 else []
            layers += [f"{block}_depthwise", f"{block}_bn", f"{block}_se_reduce_conv", f"{block}_se_expand_conv"]
            layers += [f"{block}_project_conv", f"{block}_project_bn"]
    return layers


def _efficientnet(backbone):
    """The original keeps the blocks that its levels need under one name, and all that follow under another."""
    needed = numbered(_efficientnet_layers(backbone, "b0"), f"{EXTRACTOR}/_efficientnet")
    return numbered(_efficientnet_layers(backbone, backbone.taps), CLASSIFICATION) | needed


def _efficientnet_unused(backbone):
    built = len(_efficientnet_layers(backbone, backbone.taps))
    # the rest of the last stage, and the 1x1 convolution, its batch norm and the dense layer behind it
    numbers = range(built, len(_efficientnet_layers(backbone, "stages")) + 3)
    pattern = rf"{re.escape(CLASSIFICATION)}/layer_with_weights-({'|'.join(map(str, numbers))})/.*"
    return ((pattern, "behind the last feature level: the end of the ImageNet classifier, which no detector reads"),)


CLASSIFICATION = f"{EXTRACTOR}/classification_backbone"

#: where the original looks for the backbone in a checkpoint of an ImageNet classifier
CLASSIFIER = "feature_extractor"

BACKBONES = {
    "EfficientNet": _efficientnet,
    "MobileNetV1": lambda backbone: numbered(mobilenet_v1_layers(), CLASSIFICATION),
    "MobileNetV2": lambda backbone: numbered(mobilenet_v2_layers(), CLASSIFICATION),
    "ResNetV1": lambda backbone: numbered(resnet_v1_layers(backbone), CLASSIFICATION),
}


def _extra_feature_maps(neck, backbone):
    """Each extra map is a list [1x1 conv, bn, activation, 3x3 conv, bn, activation], numbered behind the levels."""
    generator = "feature_map_generator" if type(backbone).__name__ == "MobileNetV2" else "_feature_map_generator"
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


NECKS = {"BiFPN": _bifpn, "SsdFeatureMaps": _extra_feature_maps, "FeaturePyramid": _feature_pyramid}


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


PREDICTORS = {
    "ConvolutionalBoxPredictor": _per_level_heads,
    "WeightSharedConvolutionalBoxPredictor": _shared_heads,
}

#: groups of `DetectionModel.named_weights` that hold the class head, left out when the number of classes differs
CLASS_HEAD = r"box_predictor/.*(_class|class_head|box_head)/.*"

#: backbone class -> function of the backbone -> `((regex of a checkpoint key, reason), ...)` of what the original
#: saves and no detector uses
UNUSED = {"EfficientNet": _efficientnet_unused}


def ignored_keys(model):
    """`((regex of a checkpoint key, reason), ...)`: what the original's checkpoint of `model` holds and `model` not."""
    if name_maps_faster_rcnn.is_two_stage(model):
        return ()
    backbone = model.feature_extractor.backbone
    return UNUSED.get(type(backbone).__name__, lambda backbone: ())(backbone)


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    if name_maps_faster_rcnn.is_two_stage(model):
        return name_maps_faster_rcnn.backbone_keys(model)
    return rf"{EXTRACTOR}/(classification_backbone|_efficientnet)/.*"


def checkpoint_keys(model):
    """`{our weight name: checkpoint key}` for every weight of an SSD or a Faster R-CNN, `named_weights()` order.

    Raises:
        ValueError: for a part the tables do not know, or a weight without a row.
    """
    if name_maps_faster_rcnn.is_two_stage(model):
        tables = name_maps_faster_rcnn.tables(model, _table)
    else:
        extractor = model.feature_extractor
        backbone, neck, predictor = extractor.backbone, extractor.neck, model.box_predictor
        tables = {
            "backbone": _backbone_table(model),
            "neck": _table(NECKS, neck)(neck, backbone),
            "box_predictor": _table(PREDICTORS, predictor)(predictor),
        }
    rows = {f"{group}/{layer}": key for group, table in tables.items() for layer, key in table.items()}
    return _variable_keys(model.named_weights(), rows)


def backbone_checkpoint_keys(model):
    """`{our weight name: checkpoint key}` of the backbone alone, in a detector's checkpoint, whatever its heads are.

    Raises:
        ValueError: for a backbone the tables do not know.
    """
    return _backbone_weight_keys(model, _backbone_table(model))


def classifier_keys(model):
    """`{our weight name: checkpoint key}` of the backbone, as a checkpoint of the ImageNet classifier alone has it.

    The original's configs name such checkpoints as `fine_tune_checkpoint` of the type "classification"; there, the
    layers of the whole network are numbered below `CLASSIFIER`.
    """
    # a detector's table has the layers in the network's order; it may have them in two parts, each numbered from 0
    if name_maps_faster_rcnn.is_two_stage(model):
        layers = numbered(_backbone_table(model), CLASSIFIER)
    else:
        numbers = _backbone_table(model)
        layers = {layer: f"{CLASSIFIER}/{key.rsplit('/', 1)[-1]}" for layer, key in numbers.items()}
    return _backbone_weight_keys(model, layers)


def ignored_classifier_keys(model):
    """`((regex of a checkpoint key, reason), ...)`: what a classifier's checkpoint holds behind the backbone."""
    backbone = model.feature_extractor.backbone
    used = {int(re.search(r"-([0-9]+)/", key).group(1)) for key in classifier_keys(model).values()}
    behind = 1  # the dense layer, or the convolution in its place
    if type(backbone).__name__ == "EfficientNet":
        behind = len(_efficientnet_layers(backbone, "stages")) + 3 - len(used)
    numbers = "|".join(str(max(used) + 1 + index) for index in range(behind))
    return (
        (rf"{CLASSIFIER}/layer_with_weights-({numbers})/.*", "the end of the ImageNet classifier"),
        (rf"(?!{CLASSIFIER}/).*", "not part of the backbone"),
    )


def _backbone_table(model):
    if name_maps_faster_rcnn.is_two_stage(model):
        return name_maps_faster_rcnn.backbone_table(model.feature_extractor, _table)
    backbone = model.feature_extractor.backbone
    return _table(BACKBONES, backbone)(backbone)


def _backbone_weight_keys(model, table):
    names = [name for name in model.named_weights() if name.startswith("backbone/")]
    return _variable_keys(names, {f"backbone/{layer}": key for layer, key in table.items()})


def _variable_keys(names, rows):
    """`{weight name: checkpoint key}` of the weights `names`, by the rows `{layer: key}`."""
    keys = {}
    for name in names:
        layer, variable = name.rsplit("/", 1)
        if layer not in rows:
            raise ValueError(f"No row of the name tables maps '{layer}' to a checkpoint key of the original.")
        suffix = next(
            (new for (end, old), new in VARIABLE_NAMES.items() if layer.endswith(end) and old == variable), variable
        )
        keys[name] = f"{rows[layer]}/{suffix}"
    return keys


def _table(tables, part):
    kind = type(part).__name__
    if kind not in tables:
        raise ValueError(
            f"The original has no '{kind}': its checkpoints restore into {', '.join(sorted(tables))}. "
            "With kind='classification', a backbone that the original has is restored alone, and any other one from a "
            "Keras model around it; load_weights reads what save_weights wrote."
        )
    return tables[kind]
