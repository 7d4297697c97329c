"""Messages of a `pipeline.config` -> our parts. Defaults are those of upstream's protos."""

from keras_detect.backbones.mobilenet_v2 import HEAD_FILTERS, divisible
from keras_detect.boxes import anchor_generators, box_coders, matchers, similarity
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.losses import classification, localization
from keras_detect.losses.hard_example_miner import HardExampleMiner
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.text_proto.node import located
from keras_detect.transforms import resizers

ACTIVATIONS = {"NONE": None, "RELU": "relu", "RELU_6": "relu6", "SWISH": "swish"}
RESIZE_METHODS = {"BILINEAR": "bilinear", "NEAREST_NEIGHBOR": "nearest", "BICUBIC": "bicubic", "AREA": "area"}
#: extractor types of upstream's TensorFlow 1 without a counterpart, and beginnings of such types
TF1_NOT_BUILT = ("ssd_mobilenet_edgetpu", "ssd_mobilenet_v2_mnasfpn", "ssd_pnasnet", "faster_rcnn_mobilenet_v1")
TF1_NOT_BUILT_FAMILIES = (
    "ssd_mobilenet_v3",
    "ssd_mobiledet",
    "ssd_spaghettinet",
    "faster_rcnn_nas",
    "faster_rcnn_pnas",
    "lstm_",
)
SCORE_CONVERTERS = {"IDENTITY": "identity", "SIGMOID": "sigmoid", "SOFTMAX": "softmax"}


def refuse_values(node, **supported):
    """Raises for each boolean or number whose value changes the result and is not the one we support."""
    for name, value in supported.items():
        found = node.scalar(name, type(value), value)
        if found != value:
            raise node.error(name, f"found {found}; supported: {value}")


def is_tf1_model(model):
    """Whether a `model` message is one of upstream's TensorFlow 1: its extractor has none of the names of the other."""
    name, node = model.oneof("ssd", "faster_rcnn", required=False)
    kind = "" if name is None else node.message("feature_extractor").scalar("type", str, "")
    return bool(kind) and not kind.endswith("_keras")


def refuse_not_built(node, kind):
    """Raises for an extractor type of upstream's TensorFlow 1 that has no counterpart yet."""
    if kind in TF1_NOT_BUILT or kind.startswith(TF1_NOT_BUILT_FAMILIES):
        raise node.error("type", f"'{kind}' is of upstream's TF1, not built yet; supported: another extractor")


def mobilenet_v2_width(multiplier):
    """Settings of `MobileNetV2` for upstream's `depth_multiplier`: there the last layer is narrower below 1, too, and
    not wider above it, unlike in keras.applications.
    """
    if multiplier == 1.0:
        return {"width_multiplier": multiplier}
    return {"width_multiplier": multiplier, "head_filters": divisible(HEAD_FILTERS * min(multiplier, 1.0))}


def class_count(node, chosen=None):
    """The number of classes of a detector's message; `chosen`, unless it is None, goes before the file's."""
    count = node.scalar("num_classes", int, 0)
    if chosen is None and count < 1:
        raise node.error("num_classes", f"found {count}; supported: 1 or more")
    return count if chosen is None else int(chosen)


@located
def conv_hyperparams(node, op="CONV"):
    """`conv_hyperparams`, or with `op="FC"` `fc_hyperparams` -> `(ConvHyperparams, force_use_bias)`."""
    refuse_values(node, regularize_depthwise=False)
    kind = node.scalar("op", ("CONV", "FC"), "CONV")
    if kind != op:
        raise node.error("op", f"found {kind}; supported: {op}")
    norm = node.message("batch_norm")
    settings = {
        "activation": ACTIVATIONS[node.scalar("activation", tuple(ACTIVATIONS), "RELU")],
        "kernel_initializer": _initializer(node.message("initializer", required=True)),
        "l2_weight": _l2_weight(node.message("regularizer", required=True)),
        "batch_norm": norm.present,
        "batch_norm_momentum": norm.scalar("decay", float, 0.999),
        "batch_norm_epsilon": norm.scalar("epsilon", float, 0.001),
        "batch_norm_scale": norm.scalar("scale", bool, False),
        "batch_norm_center": norm.scalar("center", bool, True),
        "batch_norm_trainable": norm.scalar("train", bool, True),
    }
    return ConvHyperparams(**settings), node.scalar("force_use_bias", bool, False)


@located
def _initializer(node):
    kinds = ("truncated_normal_initializer", "random_normal_initializer", "variance_scaling_initializer")
    name, settings = node.oneof(*kinds)
    if name != "variance_scaling_initializer":
        numbers = {"mean": settings.scalar("mean", float, 0.0), "stddev": settings.scalar("stddev", float, 1.0)}
        return initializer(name.removesuffix("_initializer"), **numbers)
    return initializer(
        "variance_scaling",
        scale=settings.scalar("factor", float, 2.0),
        mode=settings.scalar("mode", ("FAN_IN", "FAN_OUT", "FAN_AVG"), "FAN_IN").lower(),
        distribution="uniform" if settings.scalar("uniform", bool, False) else "truncated_normal",
    )


def _l2_weight(node):
    _, settings = node.oneof("l2_regularizer")
    return settings.scalar("weight", float, 1.0)


@located
def resizer(node):
    """`image_resizer` -> an image resizer with upstream's legacy kernel."""
    name, settings = node.oneof("fixed_shape_resizer", "keep_aspect_ratio_resizer", "identity_resizer")
    if name == "identity_resizer":
        return resizers.IdentityResizer()
    refuse_values(settings, convert_to_grayscale=False)
    method = RESIZE_METHODS[settings.scalar("resize_method", tuple(RESIZE_METHODS), "BILINEAR")]
    shared = {"method": method, "kernel": "legacy"}
    if name == "fixed_shape_resizer":
        height, width = settings.scalar("height", int, 300), settings.scalar("width", int, 300)
        return resizers.FixedShapeResizer(height=height, width=width, **shared)
    return resizers.KeepAspectRatioResizer(
        min_dimension=settings.scalar("min_dimension", int, 600),
        max_dimension=settings.scalar("max_dimension", int, 1024),
        pad_to_max_dimension=settings.scalar("pad_to_max_dimension", bool, False),
        per_channel_pad_value=settings.repeated("per_channel_pad_value", float) or (0.0, 0.0, 0.0),
        **shared,
    )


@located
def anchor_generator(node):
    """`anchor_generator` -> `SsdAnchorGenerator` or `MultiscaleGridAnchorGenerator`."""
    name, settings = node.oneof("ssd_anchor_generator", "multiscale_anchor_generator")
    if name == "multiscale_anchor_generator":
        return multiscale_anchor_generator(settings)
    base = tuple(settings.scalar(f"base_anchor_{side}", float, 1.0) for side in ("height", "width"))
    return anchor_generators.SsdAnchorGenerator(
        num_layers=settings.scalar("num_layers", int, 6),
        min_scale=settings.scalar("min_scale", float, 0.2),
        max_scale=settings.scalar("max_scale", float, 0.95),
        scales=settings.repeated("scales", float) or None,
        aspect_ratios=_aspect_ratios(settings),
        interpolated_scale_aspect_ratio=settings.scalar("interpolated_scale_aspect_ratio", float, 1.0),
        base_anchor_size=base,
        reduce_boxes_in_lowest_layer=settings.scalar("reduce_boxes_in_lowest_layer", bool, True),
        anchor_strides=_pairs(settings, "stride"),
        anchor_offsets=_pairs(settings, "offset"),
    )


@located
def multiscale_anchor_generator(node, normalized=True):
    """`multiscale_anchor_generator`; ours are always normalized, in the config they must be as `normalized` says."""
    found = node.scalar("normalize_coordinates", bool, True)
    if found != normalized:
        raise node.error("normalize_coordinates", f"found {found}; supported: {normalized} in this architecture")
    return anchor_generators.MultiscaleGridAnchorGenerator(
        min_level=node.scalar("min_level", int, 3),
        max_level=node.scalar("max_level", int, 7),
        anchor_scale=node.scalar("anchor_scale", float, 4.0),
        aspect_ratios=_aspect_ratios(node),
        scales_per_octave=node.scalar("scales_per_octave", int, 2),
    )


def _aspect_ratios(node):
    ratios = node.repeated("aspect_ratios", float)
    if not ratios:
        raise node.error("aspect_ratios", "is missing; supported: at least one ratio")
    return ratios


def _pairs(node, name):
    heights, widths = node.repeated(f"height_{name}", int), node.repeated(f"width_{name}", int)
    if len(heights) != len(widths):
        raise node.error(f"height_{name}", f"found {len(heights)} heights and {len(widths)} widths; supported: as many")
    return tuple(zip(heights, widths, strict=True)) or None


@located
def target_assigner(node):
    """`matcher`, `similarity_calculator` and `box_coder` of an `ssd` message -> `TargetAssigner`."""
    return TargetAssigner(
        similarity=_similarity(node.message("similarity_calculator", required=True)),
        matcher=_matcher(node.message("matcher", required=True)),
        box_coder=_box_coder(node.message("box_coder", required=True)),
        negative_class_weight=node.scalar("negative_class_weight", float, 1.0),
    )


@located
def _similarity(node):
    kinds = {
        "iou_similarity": similarity.IouSimilarity,
        "ioa_similarity": similarity.IoaSimilarity,
        "neg_sq_dist_similarity": similarity.NegSquaredDistanceSimilarity,
        "thresholded_iou_similarity": similarity.ThresholdedIouSimilarity,
    }
    name, settings = node.oneof(*kinds)
    if name == "thresholded_iou_similarity":
        return kinds[name](iou_threshold=settings.scalar("iou_threshold", float, 0.5))
    return kinds[name]()


@located
def _matcher(node):
    _, settings = node.oneof("argmax_matcher")
    settings.ignore("use_matmul_gather")  # how it is computed, not what
    ignore = settings.scalar("ignore_thresholds", bool, False)
    thresholds = {
        name: None if ignore else settings.scalar(name, float, 0.5)
        for name in ("matched_threshold", "unmatched_threshold")
    }
    if ignore:
        settings.ignore(*thresholds)
    return matchers.ArgMaxMatcher(
        **thresholds,
        negatives_lower_than_unmatched=settings.scalar("negatives_lower_than_unmatched", bool, True),
        force_match_for_each_row=settings.scalar("force_match_for_each_row", bool, False),
    )


@located
def _box_coder(node):
    name, settings = node.oneof(
        "faster_rcnn_box_coder", "mean_stddev_box_coder", "square_box_coder", "keypoint_box_coder"
    )
    if name == "mean_stddev_box_coder":
        return box_coders.MeanStddevBoxCoder(stddev=settings.scalar("stddev", float, 0.01))
    y, x = settings.scalar("y_scale", float, 10.0), settings.scalar("x_scale", float, 10.0)
    if name == "square_box_coder":
        return box_coders.SquareBoxCoder(scale_factors=(y, x, settings.scalar("length_scale", float, 5.0)))
    height, width = settings.scalar("height_scale", float, 5.0), settings.scalar("width_scale", float, 5.0)
    if name == "keypoint_box_coder":
        keypoints = settings.scalar("num_keypoints", int, 0)
        return box_coders.KeypointBoxCoder(num_keypoints=keypoints, scale_factors=(y, x, height, width))
    return box_coders.FasterRcnnBoxCoder(scale_factors=(y, x, height, width))


@located
def one_stage_loss(node):
    """`loss` and its neighbors in an `ssd` message -> `OneStageLoss`."""
    loss = node.message("loss", required=True)
    class_weight = loss.scalar("classification_weight", float, 1.0)
    box_weight = loss.scalar("localization_weight", float, 1.0)
    return OneStageLoss(
        classification=classification_loss(loss.message("classification_loss", required=True)),
        localization=localization_loss(loss.message("localization_loss", required=True)),
        classification_weight=class_weight,
        localization_weight=box_weight,
        normalize_by_num_matches=node.scalar("normalize_loss_by_num_matches", bool, True),
        normalize_localization_by_code_size=node.scalar("normalize_loc_loss_by_codesize", bool, False),
        background_as_zeros=node.scalar("encode_background_as_zeros", bool, False),
        hard_example_miner=hard_example_miner(loss.message("hard_example_miner"), class_weight, box_weight),
    )


@located
def classification_loss(node):
    """`classification_loss` -> a classification loss part."""
    name, settings = node.oneof(
        "weighted_sigmoid",
        "weighted_softmax",
        "weighted_logits_softmax",
        "bootstrapped_sigmoid",
        "weighted_sigmoid_focal",
    )
    settings.ignore("anchorwise_output")  # deprecated: without an effect in upstream, too
    if name == "weighted_sigmoid":
        return classification.SigmoidCrossEntropyLoss()
    if name == "weighted_softmax":
        return classification.SoftmaxCrossEntropyLoss(logit_scale=settings.scalar("logit_scale", float, 1.0))
    if name == "weighted_logits_softmax":
        return classification.SoftmaxAgainstLogitsLoss(logit_scale=settings.scalar("logit_scale", float, 1.0))
    if name == "bootstrapped_sigmoid":
        kind = "hard" if settings.scalar("hard_bootstrap", bool, False) else "soft"
        return classification.BootstrappedSigmoidLoss(alpha=settings.scalar("alpha", float), bootstrap_type=kind)
    return classification.SigmoidFocalLoss(
        gamma=settings.scalar("gamma", float, 2.0), alpha=settings.scalar("alpha", float)
    )


@located
def localization_loss(node):
    """`localization_loss` -> a localization loss part."""
    kinds = {
        "weighted_l2": localization.L2Loss,
        "weighted_smooth_l1": localization.SmoothL1Loss,
        "weighted_iou": localization.IouLoss,
        "weighted_giou": localization.GiouLoss,
        "l1_localization_loss": localization.L1Loss,
    }
    name, settings = node.oneof(*kinds)
    settings.ignore("anchorwise_output")  # as above
    if name == "weighted_smooth_l1":
        return kinds[name](delta=settings.scalar("delta", float, 1.0))
    return kinds[name]()


@located
def hard_example_miner(node, class_weight, box_weight):
    """`hard_example_miner` -> `HardExampleMiner`, or `None` where it is not written."""
    if not node.present:
        return None
    count = node.scalar("num_hard_examples", int, 64)
    loss_type = node.scalar("loss_type", ("BOTH", "CLASSIFICATION", "LOCALIZATION"), "BOTH")
    return HardExampleMiner(
        num_hard_examples=count if count > 0 else None,
        iou_threshold=node.scalar("iou_threshold", float, 0.7),
        loss_type={"BOTH": "both", "CLASSIFICATION": "cls", "LOCALIZATION": "loc"}[loss_type],
        cls_loss_weight=class_weight,
        loc_loss_weight=box_weight,
        max_negatives_per_positive=node.scalar("max_negatives_per_positive", float, 0.0) or None,
        min_negatives_per_image=node.scalar("min_negatives_per_image", int, 0),
    )


@located
def postprocessor(node, has_background):
    """`post_processing` -> `Postprocessor`."""
    nms = node.message("batch_non_max_suppression", required=True)
    sigma = nms.scalar("soft_nms_sigma", float, 0.0)
    # ways to compute the same detections, of which ours is another one; but none of these decays scores
    for name in ("use_static_shapes", "use_partitioned_nms", "use_hard_nms"):
        if nms.scalar(name, bool, False) and sigma:
            raise nms.error(
                "soft_nms_sigma", f"found {sigma} beside {name}, which does not support soft NMS; supported: 0"
            )
    nms.ignore("use_cpu_nms")
    refuse_values(nms, max_classes_per_detection=1, use_combined_nms=False)
    converter = node.scalar("score_converter", tuple(SCORE_CONVERTERS), "IDENTITY")
    return Postprocessor(
        nms=MulticlassNonMaxSuppression(
            score_threshold=nms.scalar("score_threshold", float, 0.0),
            iou_threshold=nms.scalar("iou_threshold", float, 0.6),
            max_detections_per_class=nms.scalar("max_detections_per_class", int, 100),
            max_total_detections=nms.scalar("max_total_detections", int, 100),
            class_agnostic=nms.scalar("use_class_agnostic_nms", bool, False),
            soft_nms_sigma=sigma,
            change_coordinate_frame=nms.scalar("change_coordinate_frame", bool, True),
        ),
        score_converter=SCORE_CONVERTERS[converter],
        logit_scale=node.scalar("logit_scale", float, 1.0),
        has_background=has_background,
    )
