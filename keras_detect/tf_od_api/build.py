"""`from_pipeline_config`: a keras_detect model from a `pipeline.config` of upstream."""

import dataclasses
import os
from typing import Any

from keras_detect import compat, text_proto
from keras_detect.config_bounds import MAX_WEIGHTS
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.registry import check_num_classes
from keras_detect.text_proto.node import located
from keras_detect.tf_od_api import build_parts
from keras_detect.tf_od_api.build_center_net import center_net
from keras_detect.tf_od_api.build_faster_rcnn import faster_rcnn
from keras_detect.tf_od_api.build_ssd_features import feature_extractor, is_tf1
from keras_detect.tf_od_api.check_numbers import check_numbers

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
    features = node.message("feature_extractor", required=True)
    resizer = build_parts.resizer(node.message("image_resizer", required=True))
    extractor = feature_extractor(features, len(anchors.num_anchors_per_location()), resizer)
    return SSD(
        resizer=resizer,
        feature_extractor=extractor,
        box_predictor=_box_predictor(
            node.message("box_predictor", required=True),
            num_classes=build_parts.class_count(node, num_classes),
            num_anchors_per_location=anchors.num_anchors_per_location(),
            box_code_size=assigner.box_coder.code_size,
            background=background,
            tf1=is_tf1(features.scalar("type", str, "")),
        ),
        anchor_generator=anchors,
        target_assigner=assigner,
        detection_loss=build_parts.one_stage_loss(node),
        postprocessor=build_parts.postprocessor(node.message("post_processing", required=True), background),
        freeze_batchnorm=node.scalar("freeze_batchnorm", bool, False),
    )


@located
def _box_predictor(node, tf1, **shared):
    name, settings = node.oneof("convolutional_box_predictor", "weight_shared_convolutional_box_predictor")
    hyperparams, force_bias = build_parts.conv_hyperparams(settings.message("conv_hyperparams", required=True))
    if tf1:
        hyperparams = dataclasses.replace(hyperparams, whole_separable=True)
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
        return _per_level_predictor(settings, hyperparams, dropout, tf1, shared)
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


def _per_level_predictor(settings, hyperparams, dropout, tf1, shared):
    build_parts.refuse_values(settings, apply_sigmoid_to_scores=False)
    if not tf1:
        build_parts.refuse_values(settings, use_depthwise=False)
    depthwise = settings.scalar("use_depthwise", bool, False)
    if depthwise:
        shared["class_bias"] = 0.0  # upstream's depthwise heads leave it out
    depth = max(settings.scalar("max_depth", int, 0), settings.scalar("min_depth", int, 0))
    if depth and settings.scalar("num_layers_before_predictor", int, 0):
        raise settings.error("num_layers_before_predictor", "is not supported with a depth; supported: 0")
    settings.ignore("num_layers_before_predictor")
    return ConvolutionalBoxPredictor(dropout=dropout, depthwise=depthwise, hyperparams=hyperparams, **shared)


#: meta-architecture's message -> function of it and of the number of classes that builds the model
BUILDERS = {"ssd": _ssd, "faster_rcnn": faster_rcnn, "center_net": center_net}
