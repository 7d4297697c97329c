"""Our weight names of an SSD -> names of variables in upstream's TensorFlow 1 graphs: one row per layer."""

import dataclasses
from collections.abc import Callable

from keras_detect.tf_od_api.name_maps_layers import declared, ssd_tables
from keras_detect.tf_od_api.name_maps_tf1_inception_v3 import inception_v3_rows
from keras_detect.tf_od_api.name_maps_tf1_layers import BACKBONES, below, block_rows, resnet_v1_root

EXTRACTOR = "FeatureExtractor"
SHARED = "WeightSharedConvolutionalBoxPredictor"


@dataclasses.dataclass(frozen=True)
class Names:
    """What the scopes of a neck take from the backbone below it.

    Attributes:
        root: backbone -> the network's scope.
        last: layer of the coarsest level, from which the names of SSD's extra maps start.
        coarse: number of a coarse FPN level, 6 for P6 -> its scope.
    """

    root: Callable
    last: str = ""
    coarse: Callable | None = None


#: `checkpoint_family` of a backbone -> `Names`
NAMES = {
    "inception_v2": Names(lambda backbone: "InceptionV2", "Mixed_5c"),
    "inception_v3": Names(lambda backbone: "InceptionV3", "Mixed_7c"),
    "mobilenet_v1": Names(
        lambda backbone: "MobilenetV1", "Conv2d_13_pointwise", lambda level: f"bottom_up_Conv2d_{level + 8}"
    ),
    "mobilenet_v2": Names(lambda backbone: "MobilenetV2", "layer_19", lambda level: f"bottom_up_Conv2d_{level + 14}"),
    "resnet_v1": Names(resnet_v1_root, coarse=lambda level: f"bottom_up_block{level - 1}"),
}


def _extra_feature_maps(neck, backbone):
    """Each extra map is a 1x1 and a 3x3 convolution, named after the last level, its number, kernel and depth."""
    names, rows = declared(NAMES, backbone), {}
    root = f"{EXTRACTOR}/{names.root(backbone)}/{names.last}"
    for index, depth in enumerate(neck.extra_depths):
        number = index + len(neck.levels)
        half, whole = neck.depth(depth // 2), neck.depth(depth)
        rows |= block_rows(f"extra_{index}_reduce", f"{root}_1_Conv2d_{number}_1x1_{half}")
        side = neck.kernel_sizes[index] if neck.kernel_sizes else 3
        scope = f"{root}_2_Conv2d_{number}_{side}x{side}_s2_{whole}"
        rows |= block_rows(f"extra_{index}", scope)
        if neck.separable:
            rows |= block_rows(f"extra_{index}_each", f"{scope}_depthwise", "depthwise")
    return rows


def _feature_pyramid(neck, backbone):
    names, kind = declared(NAMES, backbone), "separable" if neck.separable else "conv"
    root = f"{EXTRACTOR}/{names.root(backbone)}/fpn"
    inner, coarse = neck.map_names[: len(neck.levels)], neck.map_names[len(neck.levels) :]
    rows = {f"{name}_project": f"{root}/projection_{number}" for number, name in enumerate(inner, start=1)}
    for number, name in enumerate(inner[:-1], start=1):
        rows |= block_rows(f"{name}_smooth", f"{root}/smoothing_{number}", kind)
    for name in coarse:
        rows |= block_rows(name, f"{root}/{names.coarse(int(name[1:]))}", kind)
    return rows


def _pooling_pyramid(neck, backbone):
    if not neck.depth:
        return {}
    root = declared(NAMES, backbone).root(backbone)
    return block_rows("base", f"{EXTRACTOR}/{root}/Base_Conv2d_1x1_{neck.depth}")


#: `checkpoint_family` of a neck -> its rows
NECKS = {"ssd": _extra_feature_maps, "fpn": _feature_pyramid, "ppn": _pooling_pyramid}


def _per_level_heads(predictor):
    rows, count = {}, len(predictor.num_anchors_per_location)
    for level in range(count):
        scope = f"BoxPredictor_{level}" if count > 1 else "BoxPredictor"
        for head, theirs in (("box", "BoxEncodingPredictor"), ("class", "ClassPredictor")):
            layer = f"level_{level}/level_{level}_{head}"
            rows[layer] = f"{scope}/{theirs}"
            if predictor.depthwise:
                rows |= block_rows(layer, f"{scope}/{theirs}_depthwise", "depthwise")
    return rows


TOWERS = {"tower": "PredictionTower", "box_tower": "BoxPredictionTower", "class_tower": "ClassPredictionTower"}


def _shared_heads(predictor):
    rows = {"shared_box": f"{SHARED}/BoxPredictor", "shared_class": f"{SHARED}/ClassPredictor"}
    for tower in predictor.tower_names:
        for layer in range(predictor.num_layers_before_predictor):
            rows[f"{tower}_{layer}"] = scope = f"{SHARED}/{TOWERS[tower]}/conv2d_{layer}"
            for level in range(len(predictor.num_anchors_per_location)):
                rows[f"level_{level}_{tower}_{layer}_bn"] = f"{scope}/BatchNorm/feature_{level}"
    return rows


#: `checkpoint_family` of a box predictor -> its rows
PREDICTORS = {"convolutional": _per_level_heads, "weight_shared": _shared_heads}


def tables(model):
    """`{group: {layer: scope}}`, groups as in `named_weights`. Raises `ValueError` for a part that has no row."""
    return ssd_tables(model, backbone_table(model), NECKS, PREDICTORS)


def backbone_table(model):
    """`{layer: scope}` of the backbone in a detector's checkpoint."""
    return below(EXTRACTOR, classifier_table(model))


def classifier_table(model):
    """`{layer: scope}` of the backbone in tf_slim's checkpoint of the ImageNet classifier."""
    backbone = model.feature_extractor.backbone
    return declared({**BACKBONES, "inception_v3": inception_v3_rows}, backbone)(backbone)


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`; those of a neck are in the same scope."""
    backbone = model.feature_extractor.backbone
    necks = r"fpn|Base_Conv2d_\w+|\w+_[12]_Conv2d_\d\w+"
    return rf"{EXTRACTOR}/{declared(NAMES, backbone).root(backbone)}/(?!({necks})/).*"


def unused_keys(model):
    """`((regex of a checkpoint key, reason), ...)` of what upstream saves with such a model and it does not use."""
    return ()
