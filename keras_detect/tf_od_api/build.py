"""`from_pipeline_config`: a keras_detect model from a `pipeline.config` of upstream."""

import dataclasses
import os
import re
from typing import Any

from keras_detect import compat, text_proto
from keras_detect.backbones.backbone import get_backbone
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.config_bounds import MAX_WEIGHTS
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.messages import shown
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.bifpn import BiFPN
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.registry import check_num_classes, unknown_name
from keras_detect.text_proto.node import located
from keras_detect.tf_od_api import build_parts
from keras_detect.tf_od_api.build_center_net import center_net
from keras_detect.tf_od_api.build_faster_rcnn import faster_rcnn
from keras_detect.tf_od_api.check_numbers import check_numbers


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What an extractor type of upstream is made of."""

    backbone: str
    neck: str
    levels: tuple = ("C3", "C4", "C5")


EXTRACTORS = {
    "ssd_mobilenet_v1_keras": Extractor("mobilenet_v1", "ssd", ("C4", "C5")),
    "ssd_mobilenet_v1_fpn_keras": Extractor("mobilenet_v1", "fpn"),
    "ssd_mobilenet_v2_keras": Extractor("mobilenet_v2", "ssd", ("C4_expansion", "C5")),
    "ssd_mobilenet_v2_fpn_keras": Extractor("mobilenet_v2", "fpn"),
    "ssd_resnet50_v1_fpn_keras": Extractor("resnet_v1_50", "fpn"),
    "ssd_resnet101_v1_fpn_keras": Extractor("resnet_v1_101", "fpn"),
    "ssd_resnet152_v1_fpn_keras": Extractor("resnet_v1_152", "fpn"),
    **{f"ssd_efficientnet-b{size}_bifpn_keras": Extractor(f"b{size}", "bifpn") for size in range(8)},
}

#: meta-architectures that cannot be built yet, and what is missing
MISSING = {
    "experimental_model": "experimental models have no counterpart",
}


def from_pipeline_config(path_or_text: str | os.PathLike[str], num_classes: int | None = None) -> Any:
    """Builds the model that a `pipeline.config` of the TensorFlow Object Detection API describes.

    The weights are new; `model.restore(checkpoint)` reads upstream's. A field that changes the result and is not
    supported is refused.

    Args:
        path_or_text: path of a `pipeline.config` (or of the folder that holds it), or its text.
        num_classes: K, 1 or more, instead of the config's.

    Returns:
        A `DetectionModel`, uncompiled.

    Raises:
        PipelineConfigError: a `ValueError` that says file, line, field, and what is supported.
        FileNotFoundError: no such file.
        ValueError: `num_classes` is not a positive integer.
    """
    check_num_classes(num_classes, "the config's")
    config = text_proto.read(path_or_text)
    model = config.message("model", required=True)
    for name, reason in MISSING.items():
        if model.has(name):
            raise model.error(name, f"{reason}; supported: {', '.join(BUILDERS)}")
    check_numbers(model)
    name, node = model.oneof(*BUILDERS)
    try:
        with compat.limited_variables(MAX_WEIGHTS):
            built = BUILDERS[name](node, num_classes)
    except compat.VariableLimitError as error:
        raise node.error(None, f"cannot be built: {error}") from error
    model.refuse_unread()
    return built


@located
def _ssd(node, num_classes):
    node.ignore("inplace_batchnorm_update")  # how statistics are updated, not what they become
    build_parts.refuse_values(
        node, explicit_background_class=False, use_confidences_as_targets=False, implicit_example_weight=1.0
    )
    anchors = build_parts.anchor_generator(node.message("anchor_generator", required=True))
    background = node.scalar("add_background_class", bool, True)
    assigner = build_parts.target_assigner(node)
    extractor = _feature_extractor(node.message("feature_extractor", required=True), node, anchors)
    return SSD(
        resizer=build_parts.resizer(node.message("image_resizer", required=True)),
        feature_extractor=extractor,
        box_predictor=_box_predictor(
            node.message("box_predictor", required=True),
            num_classes=build_parts.class_count(node, num_classes),
            num_anchors_per_location=anchors.num_anchors_per_location(),
            box_code_size=assigner.box_coder.code_size,
            background=background,
        ),
        anchor_generator=anchors,
        target_assigner=assigner,
        detection_loss=build_parts.one_stage_loss(node),
        postprocessor=build_parts.postprocessor(node.message("post_processing", required=True), background),
        freeze_batchnorm=node.scalar("freeze_batchnorm", bool, False),
    )


@located
def _feature_extractor(node, ssd, anchors):
    kind = node.scalar("type", str, "")
    if kind not in EXTRACTORS:
        raise node.error("type", unknown_name("feature extractor", kind, EXTRACTORS))
    row = EXTRACTORS[kind]
    build_parts.refuse_values(node, pad_to_multiple=1, use_explicit_padding=False)
    hyperparams, force_bias = build_parts.conv_hyperparams(node.message("conv_hyperparams", required=True))
    scaling = {
        "width_multiplier": node.scalar("depth_multiplier", float, 1.0),
        "min_depth": node.scalar("min_depth", int, 16),
    }
    overrides = node.scalar("override_base_feature_extractor_hyperparams", bool, False)
    lite = node.scalar("use_depthwise", bool, False)
    settings = {"name": "backbone"} | ({"hyperparams": hyperparams} if overrides else {})
    if row.neck == "bifpn":
        backbone, neck = (
            EfficientNet(variant=row.backbone, taps="b0", **settings),
            _bifpn(node, hyperparams, force_bias),
        )
    else:
        mobile = re.match("mobilenet", row.backbone)
        if not mobile and scaling["width_multiplier"] != 1.0:
            raise node.error("depth_multiplier", f"found {scaling['width_multiplier']}; supported: 1.0")
        if row.backbone == "mobilenet_v2":
            settings |= build_parts.mobilenet_v2_width(scaling["width_multiplier"])
        backbone = get_backbone(row.backbone)(**((scaling if mobile else {}) | settings))
        if row.neck == "fpn":
            neck = _fpn(node, row, hyperparams, scaling, lite)
        elif lite:
            raise node.error("use_depthwise", "found true; supported: false with this extractor")
        else:
            neck = _extra_maps(node, row, hyperparams, scaling, len(anchors.num_anchors_per_location()))
    return SSDFeatureExtractor(backbone=backbone, neck=neck, name="feature_extractor")


@located
def _extra_maps(node, row, hyperparams, scaling, num_layers):
    found = node.scalar("num_layers", int, 6)
    if found != num_layers:
        raise node.error("num_layers", f"found {found}; supported: {num_layers}, the anchor generator's")
    depths = (512, 256, 256, 128)[: num_layers - len(row.levels)]
    return SsdFeatureMaps(
        levels=row.levels,
        extra_depths=depths,
        min_depth=scaling["min_depth"],
        depth_multiplier=scaling["width_multiplier"],
        hyperparams=hyperparams,
    )


@located
def _fpn(node, row, hyperparams, scaling, lite):
    fpn = node.message("fpn")
    first, last = fpn.scalar("min_level", int, 3), fpn.scalar("max_level", int, 7)
    depth = fpn.scalar("additional_layer_depth", int, 256)
    if not 2 <= first <= 5 <= last:
        raise fpn.error("min_level", f"found levels {first} to {last}; supported: from 2...5 to at least 5")
    return FeaturePyramid(
        levels=tuple(f"C{level}" for level in range(first, 6)),
        coarse_levels=last - 5,
        depth=max(int(depth * scaling["width_multiplier"]), scaling["min_depth"]),
        separable=lite,
        hyperparams=hyperparams,
    )


@located
def _bifpn(node, hyperparams, force_bias):
    bifpn = node.message("bifpn", required=True)
    first = bifpn.scalar("min_level", int, 3)
    methods = ("fast_attention", "attention", "sum")
    method = bifpn.scalar("combine_method", str, "fast_attention")
    if method not in methods:
        raise bifpn.error("combine_method", f"found {shown(method)!r}; supported: {', '.join(methods)}")
    return BiFPN(
        levels=tuple(f"C{level}" for level in range(first, 6)),
        max_level=bifpn.scalar("max_level", int, 7),
        num_iterations=bifpn.scalar("num_iterations", int),
        num_filters=bifpn.scalar("num_filters", int),
        combine_method=method,
        use_bias=force_bias,
        hyperparams=hyperparams,
    )


@located
def _box_predictor(node, **shared):
    name, settings = node.oneof("convolutional_box_predictor", "weight_shared_convolutional_box_predictor")
    hyperparams, force_bias = build_parts.conv_hyperparams(settings.message("conv_hyperparams", required=True))
    if settings.has("box_encodings_clip_range"):
        raise settings.error("box_encodings_clip_range", "is not supported; supported: leaving it out")
    shared |= {
        "kernel_size": settings.scalar("kernel_size", int, 1 if name.startswith("conv") else 3),
        "class_bias": settings.scalar("class_prediction_bias_init", float, 0.0),
        "name": "box_predictor",
    }
    code_size = settings.scalar("box_code_size", int, 4)
    if code_size != shared["box_code_size"]:
        raise settings.error(
            "box_code_size", f"found {code_size}; supported: the box coder's {shared['box_code_size']}"
        )
    drops = settings.scalar("use_dropout", bool, name.startswith("conv"))
    dropout = 1.0 - settings.scalar("dropout_keep_probability", float, 0.8) if drops else 0.0
    if not drops:
        settings.ignore("dropout_keep_probability")
    if name == "convolutional_box_predictor":
        return _per_level_predictor(settings, hyperparams, dropout, shared)
    if dropout:
        raise settings.error("use_dropout", "found true; supported: false with this predictor")
    converter = settings.scalar("score_converter", ("IDENTITY", "SIGMOID", "SOFTMAX"), "IDENTITY")
    if converter != "IDENTITY":
        raise settings.error("score_converter", f"found {converter}; supported: IDENTITY")
    build_parts.refuse_values(settings, apply_batch_norm=True)
    return WeightSharedConvolutionalBoxPredictor(
        num_layers_before_predictor=settings.scalar("num_layers_before_predictor", int, 0),
        depth=settings.scalar("depth", int, 0),
        share_tower=settings.scalar("share_prediction_tower", bool, False),
        separable=settings.scalar("use_depthwise", bool, False),
        tower_bias=force_bias,
        hyperparams=hyperparams,
        **shared,
    )


def _per_level_predictor(settings, hyperparams, dropout, shared):
    build_parts.refuse_values(settings, apply_sigmoid_to_scores=False, use_depthwise=False)
    depth = max(settings.scalar("max_depth", int, 0), settings.scalar("min_depth", int, 0))
    if depth and settings.scalar("num_layers_before_predictor", int, 0):
        raise settings.error("num_layers_before_predictor", "is not supported with a depth; supported: 0")
    settings.ignore("num_layers_before_predictor")
    return ConvolutionalBoxPredictor(dropout=dropout, hyperparams=hyperparams, **shared)


#: meta-architecture's message -> function of it and of the number of classes that builds the model
BUILDERS = {"ssd": _ssd, "faster_rcnn": faster_rcnn, "center_net": center_net}
