"""Our weight names -> checkpoint keys of the original, as tables: one row per layer."""

from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES

EXTRACTOR = "model/_feature_extractor"
PREDICTOR = "model/_box_predictor"

# the last component of a key where ours differs: layer-name suffix, our variable, the original's
VARIABLE_NAMES = {("_depthwise", "kernel"): "depthwise_kernel"}


def _numbered(layers, prefix):
    """Rows for a backbone whose weighted layers the original numbers in graph order."""
    return {layer: f"{prefix}/layer_with_weights-{index}" for index, layer in enumerate(layers)}


def _mobilenet_v2_layers():
    layers = ["stem_conv", "stem_bn"]
    expansions = [stage.expansion for stage in MOBILENET_V2_STAGES for _ in range(stage.repeats)]
    for index, expansion in enumerate(expansions):
        block = f"block_{index}"
        layers += [f"{block}_expand_conv", f"{block}_expand_bn"] if expansion > 1 else []
        layers += [f"{block}_depthwise", f"{block}_bn", f"{block}_project_conv", f"{block}_project_bn"]
    return [*layers, "head_conv", "head_bn"]


BACKBONES = {
    "MobileNetV2": _numbered(_mobilenet_v2_layers(), f"{EXTRACTOR}/classification_backbone"),
}


def _extra_feature_maps(neck):
    """Each extra map is a list [1x1 conv, bn, activation, 3x3 conv, bn, activation], numbered behind the levels."""
    rows = {}
    for index in range(len(neck.extra_depths)):
        prefix = f"{EXTRACTOR}/feature_map_generator/convolutions/{index + len(neck.levels)}"
        for layer, position in (("reduce_conv", 0), ("reduce_bn", 1), ("conv", 3), ("bn", 4)):
            rows[f"extra_{index}_{layer}"] = f"{prefix}/{position}"
    return rows


NECKS = {"SsdFeatureMaps": _extra_feature_maps}


def _per_level_heads(predictor):
    rows = {}
    for level in range(len(predictor.num_anchors_per_location)):
        for head, group, layers in (
            ("box", "box_encodings", "_box_encoder_layers"),
            ("class", "class_predictions_with_background", "_class_predictor_layers"),
        ):
            rows[f"level_{level}/level_{level}_{head}"] = f"{PREDICTOR}/_prediction_heads/{group}/{level}/{layers}/0"
    return rows


PREDICTORS = {"ConvolutionalBoxPredictor": _per_level_heads}

#: groups of `DetectionModel.named_weights` that hold the class head, left out when the number of classes differs
CLASS_HEAD = r"box_predictor/.*_class/"


def checkpoint_keys(model):
    """`{our weight name: checkpoint key}` for every weight of an SSD, `named_weights()` order.

    Raises:
        ValueError: for a part the tables do not know, or a weight without a row.
    """
    extractor = model.feature_extractor
    rows = {f"backbone/{name}": key for name, key in _table(BACKBONES, extractor.backbone).items()}
    rows |= {f"neck/{name}": key for name, key in _table(NECKS, extractor.neck)(extractor.neck).items()}
    predictor = model.box_predictor
    rows |= {f"box_predictor/{name}": key for name, key in _table(PREDICTORS, predictor)(predictor).items()}
    keys = {}
    for name in model.named_weights():
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
            "Use restore(..., kind='classification') for the backbone alone, or load_weights."
        )
    return tables[kind]
