"""Our layers -> scopes of LiteRT files: of upstream's TensorFlow 1 graphs (`detect.tflite`), or of our own models.

A row says which of our layers make one scope: a convolution and, where it has one, the batch norm behind it.
"""

import re

from keras_detect.backbones.mobilenet_v1 import BLOCKS as MOBILENET_V1_BLOCKS
from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES
from keras_detect.tf_od_api.name_maps_layers import declared

MOBILENET_V1 = "FeatureExtractor/MobilenetV1"
MOBILENET_V2 = "FeatureExtractor/MobilenetV2"


def _mobilenet_v1(backbone):
    rows = {f"{MOBILENET_V1}/Conv2d_0": ("stem_conv", "stem_bn")}
    for index in range(len(MOBILENET_V1_BLOCKS)):
        theirs, ours = f"{MOBILENET_V1}/Conv2d_{index + 1}", f"block_{index}"
        rows[f"{theirs}_depthwise"] = (f"{ours}_depthwise", f"{ours}_bn")
        rows[f"{theirs}_pointwise"] = (f"{ours}_project_conv", f"{ours}_project_bn")
    return rows


def _mobilenet_v2(backbone):
    rows = {
        f"{MOBILENET_V2}/Conv": ("stem_conv", "stem_bn"),
        f"{MOBILENET_V2}/Conv_1": ("head_conv", "head_bn"),
    }
    expansions = [stage.expansion for stage in MOBILENET_V2_STAGES for _ in range(stage.repeats)]
    for index, expansion in enumerate(expansions):
        theirs, ours = f"{MOBILENET_V2}/expanded_conv{f'_{index}' if index else ''}", f"block_{index}"
        if expansion > 1:
            rows[f"{theirs}/expand"] = (f"{ours}_expand_conv", f"{ours}_expand_bn")
        rows[f"{theirs}/depthwise"] = (f"{ours}_depthwise", f"{ours}_bn")
        rows[f"{theirs}/project"] = (f"{ours}_project_conv", f"{ours}_project_bn")
    return rows


#: `checkpoint_family` of a backbone -> its rows
BACKBONES = {"mobilenet_v1": _mobilenet_v1, "mobilenet_v2": _mobilenet_v2}

#: `checkpoint_family` of a backbone -> scope and last layer from which the extra maps are named
EXTRA_MAPS = {
    "mobilenet_v1": f"{MOBILENET_V1}/Conv2d_13_pointwise",
    "mobilenet_v2": f"{MOBILENET_V2}/layer_19",
}


def _extra_feature_maps(neck, backbone):
    prefix, rows = declared(EXTRA_MAPS, backbone), {}
    for index, depth in enumerate(neck.extra_depths):
        number = index + len(neck.levels)
        reduced, depth = (max(int(size * neck.depth_multiplier), neck.min_depth) for size in (depth // 2, depth))
        ours = f"extra_{index}"
        rows[f"{prefix}_1_Conv2d_{number}_1x1_{reduced}"] = (f"{ours}_reduce_conv", f"{ours}_reduce_bn")
        rows[f"{prefix}_2_Conv2d_{number}_3x3_s2_{depth}"] = (f"{ours}_conv", f"{ours}_bn")
    return rows


#: `checkpoint_family` of a neck -> its rows
NECKS = {"ssd": _extra_feature_maps}


def _per_level_heads(predictor):
    rows: dict[str, tuple[str, ...]] = {}
    for level in range(len(predictor.num_anchors_per_location)):
        for head, theirs in (("box", "BoxEncodingPredictor"), ("class", "ClassPredictor")):
            rows[f"BoxPredictor_{level}/{theirs}"] = (f"level_{level}/level_{level}_{head}",)
    return rows


#: `checkpoint_family` of a box predictor -> its rows
PREDICTORS = {"convolutional": _per_level_heads}


def backbone_scopes(model) -> dict[str, tuple[str, ...]]:
    """`{scope: our layers}` of the backbone. Raises `ValueError` for a backbone without a row."""
    backbone = model.feature_extractor.backbone
    rows = declared(BACKBONES, backbone)(backbone)
    return {scope: tuple(f"backbone/{layer}" for layer in layers) for scope, layers in rows.items()}


def scopes(model) -> dict[str, tuple[str, ...]]:
    """`{scope: our layers}` of an SSD. Raises `ValueError` for a part without a row."""
    extractor, predictor = model.feature_extractor, model.box_predictor
    groups = {
        "neck": declared(NECKS, extractor.neck)(extractor.neck, extractor.backbone),
        "box_predictor": declared(PREDICTORS, predictor)(predictor),
    }
    rows = backbone_scopes(model)
    for group, table in groups.items():
        rows |= {scope: tuple(f"{group}/{layer}" for layer in layers) for scope, layers in table.items()}
    return rows


def own_scopes(model) -> dict[str, tuple[str, ...]]:
    """`{name of a convolution: our layers}` of a model that was converted under its own layers' names."""
    weights = model.named_weights()
    layers = dict.fromkeys(name.rpartition("/")[0] for name in weights)
    rows: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if f"{layer}/kernel" in weights:
            norm = f"{re.sub('_(conv|depthwise)$', '', layer)}_bn"
            rows[layer.rsplit("/", 1)[-1]] = (layer, norm) if norm in layers else (layer,)
    return rows


def own_scope(scope: str, rows: dict[str, tuple[str, ...]]) -> str:
    """The row of `own_scopes` that a scope of a file names, by its convolution or the batch norm behind it.

    Keras counts the calls of a layer behind its name ("stem_conv_1"). A scope without a row stays as it is.
    """
    named = {layer.rsplit("/", 1)[-1]: name for name, layers in rows.items() for layer in layers}
    last = scope.rsplit("/", 1)[-1]
    return named.get(last) or named.get(re.sub(r"_\d+$", "", last)) or scope


def is_upstreams(scopes) -> bool:
    """Whether any of the scopes is one of upstream's graphs."""
    return any(scope.startswith(("FeatureExtractor/", "BoxPredictor_")) for scope in scopes)


def canonical(scope: str) -> str:
    """A scope as the tables have it: graphs of MobileNetV1 name its operators one level deeper than its variables."""
    return re.sub(r"\b(MobilenetV[12])/\1/", r"\1/", scope)
