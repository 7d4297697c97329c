"""The `faster_rcnn` message of a `pipeline.config` -> `FasterRCNN`, `MaskRCNN` or `RFCN`, with upstream's defaults."""

import dataclasses

from keras_detect.backbones.backbone import get_backbone
from keras_detect.boxes.anchor_generators import GridAnchorGenerator
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.samplers import BalancedPositiveNegativeSampler
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.heads.mask_predictor import MaskPredictor
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.heads.position_sensitive import PositionSensitiveBoxPredictor
from keras_detect.heads.region_proposal import RegionProposalPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.losses.classification import SoftmaxCrossEntropyLoss
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.mask_rcnn import MaskRCNN, MaskStage
from keras_detect.meta_architectures.rfcn import RFCN
from keras_detect.meta_architectures.two_stage import BoxStage, ProposalStage
from keras_detect.necks.faster_rcnn_feature_extractor import FPNFeatureExtractor, SplitFeatureExtractor
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.registry import unknown_name
from keras_detect.text_proto.node import located
from keras_detect.tf_od_api import build_parts
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer

RESNET = ConvHyperparams(
    activation="relu",
    batch_norm_momentum=0.997,
    batch_norm_epsilon=1e-5,
    kernel_initializer=initializer("variance_scaling", scale=1.0, mode="fan_in", distribution="truncated_normal"),
)
INCEPTION = ConvHyperparams(activation="relu", batch_norm_momentum=0.9997, batch_norm_epsilon=0.001)
INCEPTION_RESNET = dataclasses.replace(INCEPTION, batch_norm_scale=False)

#: `first_stage_features_stride` -> settings of the backbone in TensorFlow 1, whose second stage keeps the size of the
#: RoI features (ResNet) or leaves their border out (Inception-ResNet)
RESNET_V1_STRIDES = {
    16: {"stage_strides": (1, 2, 2, 1)},
    8: {"stage_strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 1)},
}
INCEPTION_RESNET_STRIDES = {
    16: {"reduction_padding": "valid"},
    8: {"reduction_padding": "valid", "atrous": True},
}
INCEPTION_STRIDES: dict[int, dict] = {16: {}, 8: {}}  # upstream accepts 8, and computes the same


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What an extractor type of upstream is made of.

    Attributes:
        backbone: registered name.
        hyperparams: what the type has without a pyramid.
        pyramid: whether it has one.
        strides: `first_stage_features_stride` -> settings of the backbone.
    """

    backbone: str
    hyperparams: ConvHyperparams
    pyramid: bool = False
    strides: dict = dataclasses.field(default_factory=lambda: {16: {}})


EXTRACTORS = {
    **{f"faster_rcnn_resnet{n}_keras": Extractor(f"resnet_v1_{n}", RESNET) for n in (50, 101, 152)},
    **{f"faster_rcnn_resnet{n}_fpn_keras": Extractor(f"resnet_v1_{n}", RESNET, True) for n in (50, 101, 152)},
    "faster_rcnn_inception_resnet_v2_keras": Extractor("inception_resnet_v2", INCEPTION_RESNET),
    **{
        f"faster_rcnn_resnet{n}": Extractor(f"resnet_v1_{n}", RESNET, strides=RESNET_V1_STRIDES) for n in (50, 101, 152)
    },
    "faster_rcnn_inception_v2": Extractor("inception_v2", INCEPTION, strides=INCEPTION_STRIDES),
    "faster_rcnn_inception_resnet_v2": Extractor(
        "inception_resnet_v2", INCEPTION_RESNET, strides=INCEPTION_RESNET_STRIDES
    ),
}

#: how upstream computes, not what
MEANS = (
    "inplace_batchnorm_update",
    "use_matmul_crop_and_resize",
    "use_matmul_gather_in_matcher",
    "use_static_balanced_label_sampler",
    "use_static_shapes",
    "use_static_shapes_for_eval",
    "use_partitioned_nms_in_first_stage",
    "resize_masks",  # the size in which masks are reported
)

CROP_FIELDS = ("initial_crop_size", "maxpool_kernel_size", "maxpool_stride")
BIN_FIELDS = ("num_spatial_bins_height", "num_spatial_bins_width")

SECOND_STAGE = (
    *CROP_FIELDS,
    "second_stage_box_predictor",
    "second_stage_batch_size",
    "second_stage_balance_fraction",
    "second_stage_post_processing",
    "second_stage_localization_loss_weight",
    "second_stage_classification_loss_weight",
    "second_stage_classification_loss",
    "hard_example_miner",
)

#: of the box predictor's message, read where it predicts masks
MASK_FIELDS = (
    "conv_hyperparams",
    "mask_height",
    "mask_width",
    "mask_prediction_num_conv_layers",
    "mask_prediction_conv_depth",
    "masks_are_class_agnostic",
    "convolve_then_upsample_masks",
)


@located
def faster_rcnn(node, num_classes):
    """Builds the model of a `faster_rcnn` message; `num_classes` goes before the config's where it is not `None`."""
    node.ignore(*MEANS)
    build_parts.refuse_values(
        node,
        use_combined_nms_in_first_stage=False,
        output_final_box_features=False,
        output_final_box_rpn_features=False,
        return_raw_detections_during_predict=False,
    )
    stages = node.scalar("number_of_stages", int, 2)
    if stages not in (1, 2, 3):
        raise node.error("number_of_stages", f"found {stages}; supported: 1, 2, and 3 (masks)")
    resizer = build_parts.resizer(node.message("image_resizer", required=True))
    second, further = {}, {"number_of_stages": stages}
    if stages == 1:
        node.ignore(*SECOND_STAGE, "num_classes")
    else:
        second = _second_stage(node, build_parts.class_count(node, num_classes))
    if stages == 3:
        further = _third_stage(node, second["box_predictor"].num_classes)
    else:
        node.ignore("second_stage_mask_prediction_loss_weight")
    architecture = MaskRCNN if stages == 3 else FasterRCNN
    if stages == 2 and "cropper" not in second:
        architecture, further = RFCN, {}
    first = _proposal_stage(node)
    return architecture(
        resizer=resizer,
        feature_extractor=_feature_extractor(
            node.message("feature_extractor", required=True), resizer, second.get("cropper")
        ),
        region_predictor=_region_predictor(node, first.anchor_generator),
        proposal_stage=first,
        **second,
        **further,
    )


# --- features ----------------------------------------------------------------------------------------------------


@located
def _feature_extractor(node, resizer, cropper):
    kind = node.scalar("type", str, "")
    build_parts.refuse_not_built(node, kind)
    if kind not in EXTRACTORS:
        raise node.error("type", unknown_name("feature extractor", kind, EXTRACTORS))
    row = EXTRACTORS[kind]
    stride = node.scalar("first_stage_features_stride", int, 16)
    if stride not in row.strides:
        raise node.error(
            "first_stage_features_stride", f"found {stride}; supported: {', '.join(map(str, row.strides))} with {kind}"
        )
    trainable = node.scalar("batch_norm_trainable", bool, False)
    if row.pyramid:
        return _pyramid(node, row, trainable, resizer, cropper)
    node.ignore("pad_to_multiple")  # of the pyramid alone
    # in TensorFlow 1, scale and offset train all the same
    frozen = {"batch_norm_trainable": False} if kind.endswith("_keras") else {"batch_norm_frozen_statistics": True}
    hyperparams = row.hyperparams if trainable else dataclasses.replace(row.hyperparams, **frozen)
    backbone = get_backbone(row.backbone)(hyperparams=hyperparams, name="backbone", **row.strides[stride])
    return SplitFeatureExtractor(
        backbone=backbone, split=backbone.split_level, tail=list(backbone.strides)[-1], name="feature_extractor"
    )


def _pyramid(node, row, trainable, resizer, cropper):
    if cropper is None:
        raise node.error("type", "a feature pyramid with one stage is not supported; supported: number_of_stages 2")
    if not node.scalar("override_base_feature_extractor_hyperparams", bool, False):
        raise node.error("override_base_feature_extractor_hyperparams", "found false; supported: true")
    multiple = node.scalar("pad_to_multiple", int, 32)
    sides = _padded_sides(resizer)
    if multiple > 1 and any(side is None or side % multiple for side in sides):
        raise node.error(
            "pad_to_multiple",
            f"found {multiple} (32 if omitted) with images of {sides}; supported: multiples of it, or 1",
        )
    hyperparams, _ = build_parts.conv_hyperparams(node.message("conv_hyperparams", required=True))
    hyperparams = dataclasses.replace(hyperparams, batch_norm_trainable=trainable and hyperparams.batch_norm_trainable)
    fpn = node.message("fpn")
    first, last = fpn.scalar("min_level", int, 3), fpn.scalar("max_level", int, 7)
    if not 2 <= first <= 5 <= last:
        raise fpn.error("min_level", f"found levels {first} to {last}; supported: from 2...5 to at least 5")
    neck = FeaturePyramid(
        levels=tuple(f"C{level}" for level in range(first, 6)),
        coarse_levels=last - 5,
        depth=fpn.scalar("additional_layer_depth", int, 256),
        hyperparams=hyperparams,
    )
    return FPNFeatureExtractor(
        backbone=get_backbone(row.backbone)(hyperparams=hyperparams, name="backbone"),
        neck=neck,
        roi_size=cropper.output_size[0],
        hyperparams=hyperparams,
        name="feature_extractor",
    )


def _padded_sides(resizer):
    """`(height, width)` of preprocessed images; `None` where they depend on the image."""
    if isinstance(resizer, FixedShapeResizer):
        return resizer.height, resizer.width
    if isinstance(resizer, KeepAspectRatioResizer) and resizer.pad_to_max_dimension:
        return resizer.max_dimension, resizer.max_dimension
    return None, None


# --- first stage -------------------------------------------------------------------------------------------------


def _assigner(**thresholds):
    return TargetAssigner(
        similarity=IouSimilarity(),
        matcher=ArgMaxMatcher(**thresholds),
        box_coder=FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0)),
    )


@located
def _proposal_stage(node):
    proposals = node.scalar("first_stage_max_proposals", int, 300)
    return ProposalStage(
        anchor_generator=_anchor_generator(node.message("first_stage_anchor_generator", required=True)),
        target_assigner=_assigner(matched_threshold=0.7, unmatched_threshold=0.3, force_match_for_each_row=True),
        postprocessor=Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=node.scalar("first_stage_nms_score_threshold", float, 0.0),
                iou_threshold=node.scalar("first_stage_nms_iou_threshold", float, 0.7),
                max_detections_per_class=proposals,
                max_total_detections=proposals,
                change_coordinate_frame=False,
            ),
            score_converter="softmax",
        ),
        sampler=BalancedPositiveNegativeSampler(
            positive_fraction=node.scalar("first_stage_positive_balance_fraction", float, 0.5)
        ),
        batch_size=node.scalar("first_stage_minibatch_size", int, 256),
        clip_anchors=node.scalar("clip_anchors_to_image", bool, False),
        localization_weight=node.scalar("first_stage_localization_loss_weight", float, 1.0),
        objectness_weight=node.scalar("first_stage_objectness_loss_weight", float, 1.0),
    )


@located
def _anchor_generator(node):
    name, settings = node.oneof("grid_anchor_generator", "multiscale_anchor_generator")
    if name == "multiscale_anchor_generator":
        return build_parts.multiscale_anchor_generator(settings, normalized=False)
    scales, ratios = settings.repeated("scales", float), settings.repeated("aspect_ratios", float)
    if not scales or not ratios:
        raise settings.error("scales", "scales and aspect_ratios cannot be omitted; supported: at least one of each")
    return GridAnchorGenerator(
        scales=scales,
        aspect_ratios=ratios,
        base_anchor_size=_pair(settings, "height", "width", 256),
        anchor_stride=_pair(settings, "height_stride", "width_stride", 16),
        anchor_offset=_pair(settings, "height_offset", "width_offset", 0),
    )


def _pair(node, height, width, default):
    return float(node.scalar(height, int, default)), float(node.scalar(width, int, default))


@located
def _region_predictor(node, anchors):
    settings = node.message("first_stage_box_predictor_conv_hyperparams", required=True)
    hyperparams, _ = build_parts.conv_hyperparams(settings)
    if hyperparams.batch_norm:
        raise settings.error("batch_norm", "is not supported; supported: leaving it out")
    return RegionProposalPredictor(
        num_anchors_per_location=anchors.num_anchors_per_location(),
        depth=node.scalar("first_stage_box_predictor_depth", int, 512),
        kernel_size=node.scalar("first_stage_box_predictor_kernel_size", int, 3),
        dilation_rate=node.scalar("first_stage_atrous_rate", int, 1),
        hyperparams=hyperparams,
        name="region_predictor",
    )


# --- second stage ------------------------------------------------------------------------------------------------


@located
def _second_stage(node, num_classes):
    """`{"cropper", "box_predictor", "box_stage"}`; R-FCN has no cropper."""
    stages = node.scalar("number_of_stages", int, 2)
    predictor = node.message("second_stage_box_predictor", required=True)
    if predictor.has("rfcn_box_predictor"):
        if stages != 2:
            raise node.error("number_of_stages", f"found {stages}; supported: 2 with rfcn_box_predictor")
        node.ignore(*CROP_FIELDS)
        heads = {"box_predictor": _position_sensitive(predictor, num_classes)}
    else:
        heads = {"cropper": _cropper(node), "box_predictor": _box_predictor(predictor, num_classes, masks=stages == 3)}
    class_weight = node.scalar("second_stage_classification_loss_weight", float, 1.0)
    box_weight = node.scalar("second_stage_localization_loss_weight", float, 1.0)
    loss = node.message("second_stage_classification_loss")
    return {
        **heads,
        "box_stage": BoxStage(
            target_assigner=_assigner(matched_threshold=0.5),
            postprocessor=build_parts.postprocessor(
                node.message("second_stage_post_processing", required=True), has_background=True
            ),
            sampler=BalancedPositiveNegativeSampler(
                positive_fraction=node.scalar("second_stage_balance_fraction", float, 0.25)
            ),
            batch_size=node.scalar("second_stage_batch_size", int, 64),
            classification=build_parts.classification_loss(loss) if loss.present else SoftmaxCrossEntropyLoss(),
            classification_weight=class_weight,
            localization_weight=box_weight,
            hard_example_miner=build_parts.hard_example_miner(
                node.message("hard_example_miner"), class_weight, box_weight
            ),
        ),
    }


def _cropper(node):
    sizes = [node.scalar(name, int, 0) for name in CROP_FIELDS]
    for name, size in zip(CROP_FIELDS, sizes, strict=True):
        if size < 1:
            raise node.error(name, f"found {size}; supported: at least 1")
    crop_size, pool_size, pool_stride = sizes
    return RegionCropper(crop_size=crop_size, pool_size=pool_size, pool_stride=pool_stride)


@located
def _position_sensitive(node, num_classes):
    _, settings = node.oneof("rfcn_box_predictor")
    hyperparams, _ = build_parts.conv_hyperparams(settings.message("conv_hyperparams", required=True))
    if hyperparams.batch_norm or hyperparams.activation != "relu":
        raise settings.error("conv_hyperparams", "has batch norm or an activation; supported: RELU without batch norm")
    build_parts.refuse_values(settings, box_code_size=4)
    crop, bins = (
        tuple(settings.scalar(name, int, default) for name in names)
        for names, default in ((("crop_height", "crop_width"), 12), (BIN_FIELDS, 3))
    )
    if any(number < 1 or side < 1 or side % number for side, number in zip(crop, bins, strict=True)):
        raise settings.error("crop_height", f"found crops of {crop} with bins of {bins}; supported: multiples of them")
    return PositionSensitiveBoxPredictor(
        num_classes=num_classes,
        depth=settings.scalar("depth", int, 1024),
        crop_size=crop,
        bins=bins,
        hyperparams=hyperparams,
        name="box_predictor",
    )


@located
def _box_predictor(node, num_classes, masks):
    _, settings = node.oneof("mask_rcnn_box_predictor")
    if settings.scalar("predict_instance_masks", bool, False) != masks:
        wanted = "true with number_of_stages 3" if masks else "false with number_of_stages 2; masks need 3"
        raise settings.error("predict_instance_masks", f"found {str(not masks).lower()}; supported: {wanted}")
    if not masks:
        settings.ignore(*MASK_FIELDS)
    build_parts.refuse_values(settings, predict_keypoints=False, box_code_size=4)
    hyperparams, _ = build_parts.conv_hyperparams(settings.message("fc_hyperparams", required=True), op="FC")
    keep = settings.scalar("dropout_keep_probability", float, 0.5)
    return MaskRCNNBoxPredictor(
        num_classes=num_classes,
        share_box_across_classes=settings.scalar("share_box_across_classes", bool, False),
        dropout=1.0 - keep if settings.scalar("use_dropout", bool, False) else 0.0,
        hyperparams=hyperparams,
        name="box_predictor",
    )


# --- third stage -------------------------------------------------------------------------------------------------


def _third_stage(node, num_classes):
    """`{"mask_predictor", "mask_stage"}`. Upstream predicts masks from what the box classifier sees."""
    _, settings = node.message("second_stage_box_predictor").oneof("mask_rcnn_box_predictor")
    return {
        "mask_predictor": _mask_predictor(settings, num_classes),
        "mask_stage": MaskStage(loss_weight=node.scalar("second_stage_mask_prediction_loss_weight", float, 1.0)),
    }


@located
def _mask_predictor(settings, num_classes):
    layers = settings.scalar("mask_prediction_num_conv_layers", int, 2)
    if layers < 1:
        raise settings.error("mask_prediction_num_conv_layers", f"found {layers}; supported: 1 or more")
    depth = settings.scalar("mask_prediction_conv_depth", int, 256)
    if depth < 0:
        raise settings.error("mask_prediction_conv_depth", f"found {depth}; supported: 0 (chosen) or more")
    hyperparams, _ = build_parts.conv_hyperparams(settings.message("conv_hyperparams", required=True))
    return MaskPredictor(
        num_classes=num_classes,
        mask_size=tuple(settings.scalar(f"mask_{side}", int, 15) for side in ("height", "width")),
        num_convolutions=layers - 1,
        depth=depth,
        class_agnostic=settings.scalar("masks_are_class_agnostic", bool, False),
        upsampling="nearest" if settings.scalar("convolve_then_upsample_masks", bool, False) else "resize",
        hyperparams=hyperparams,
        name="mask_predictor",
    )
