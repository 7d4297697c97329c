"""The zoo's architectures, built offline: one function per family, its numbers come from the rows of the tables.

Each function takes `num_classes` and `class_names` and returns a new model with fresh weights, equal to what
`from_pipeline_config` builds from the published config.
"""

from keras_detect.backbones.backbone import get_backbone
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.boxes.anchor_generators import (
    GridAnchorGenerator,
    MultiscaleGridAnchorGenerator,
    SsdAnchorGenerator,
)
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.samplers import BalancedPositiveNegativeSampler
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.heads.region_proposal import RegionProposalPredictor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.losses.classification import SigmoidFocalLoss
from keras_detect.losses.localization import SmoothL1Loss
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.meta_architectures.two_stage import BoxStage, ProposalStage
from keras_detect.necks.bifpn import BiFPN
from keras_detect.necks.faster_rcnn_feature_extractor import SplitFeatureExtractor
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer

_CLASS_BIAS = -4.6  # a score of 0.01 at the start
_NORMAL = initializer("random_normal", mean=0.0, stddev=0.01)
_TRUNCATED = initializer("truncated_normal", mean=0.0, stddev=0.03)


def mobilenet_v2_ssd(num_classes, class_names=None):
    """MobileNetV2 with six feature maps and one predictor per map. Its name says 320; its config says 300."""
    numbers = {"batch_norm_momentum": 0.97, "l2_weight": 4e-5}
    hyperparams = ConvHyperparams(kernel_initializer=_TRUNCATED, **numbers)
    anchors = SsdAnchorGenerator(
        num_layers=6,
        min_scale=0.2,
        max_scale=0.95,
        aspect_ratios=(1.0, 2.0, 0.5, 3.0, 0.3333),
        reduce_boxes_in_lowest_layer=True,
    )
    extractor = SSDFeatureExtractor(
        backbone=get_backbone("mobilenet_v2")(min_depth=16, hyperparams=hyperparams, name="backbone"),
        neck=SsdFeatureMaps(levels=("C4_expansion", "C5"), min_depth=16, hyperparams=hyperparams),
        name="feature_extractor",
    )
    predictor = ConvolutionalBoxPredictor(
        num_classes=num_classes,
        num_anchors_per_location=anchors.num_anchors_per_location(),
        kernel_size=1,
        class_bias=_CLASS_BIAS,
        hyperparams=ConvHyperparams(kernel_initializer=_NORMAL, **numbers),
        name="box_predictor",
    )
    resizer = FixedShapeResizer(height=300, width=300, kernel="legacy")
    return _ssd(resizer, extractor, predictor, anchors, class_names, alpha=0.75)


def retinanet(backbone, size, num_classes, class_names=None, lite=False):
    """A backbone with a feature pyramid and shared heads, 256 wide; `lite` is separable and 128 wide.

    Args:
        backbone: registered name.
        size: side of the square that pictures are resized to.
        num_classes, class_names: see the module.
        lite: as above.
    """
    resnet = backbone.startswith("resnet")
    numbers = {"batch_norm_momentum": 0.997, "l2_weight": 4e-4 if resnet else 4e-5}
    hyperparams = ConvHyperparams(kernel_initializer=_TRUNCATED if resnet else _NORMAL, **numbers)
    depth = 128 if lite else 256
    settings = {} if resnet else {"min_depth": 16}
    anchors = MultiscaleGridAnchorGenerator(
        min_level=3, max_level=7, anchor_scale=4.0, aspect_ratios=(1.0, 2.0, 0.5), scales_per_octave=2
    )
    extractor = SSDFeatureExtractor(
        backbone=get_backbone(backbone)(hyperparams=hyperparams, name="backbone", **settings),
        neck=FeaturePyramid(
            levels=("C3", "C4", "C5"), coarse_levels=2, depth=depth, separable=lite, hyperparams=hyperparams
        ),
        name="feature_extractor",
    )
    predictor = WeightSharedConvolutionalBoxPredictor(
        num_classes=num_classes,
        num_anchors_per_location=anchors.num_anchors_per_location(),
        num_layers_before_predictor=4,
        depth=depth,
        kernel_size=3,
        class_bias=_CLASS_BIAS,
        share_tower=lite,
        separable=lite,
        hyperparams=ConvHyperparams(kernel_initializer=_NORMAL, **numbers),
        name="box_predictor",
    )
    resizer = FixedShapeResizer(height=size, width=size, kernel="legacy")
    return _ssd(resizer, extractor, predictor, anchors, class_names)


def efficientdet(variant, size, depth, fpn_cells, head_layers, num_classes, class_names=None, weighted=True):
    """EfficientNet with a BiFPN and separable heads, without a background column (Tan et al. 2020, table 1).

    Args:
        variant: "b0" to "b7".
        size: side of the square that pictures are resized and padded to.
        depth: filters of BiFPN and heads.
        fpn_cells: repetitions of the BiFPN.
        head_layers: convolutions of each head before its last.
        num_classes, class_names: see the module.
        weighted: whether the BiFPN weighs what it adds.
    """
    shared = {"activation": "swish", "batch_norm_momentum": 0.99, "l2_weight": 4e-5}
    anchors = MultiscaleGridAnchorGenerator(
        min_level=3, max_level=7, anchor_scale=4.0, aspect_ratios=(1.0, 2.0, 0.5), scales_per_octave=3
    )
    extractor = SSDFeatureExtractor(
        backbone=EfficientNet(variant=variant, taps="b0", name="backbone"),
        neck=BiFPN(
            levels=("C3", "C4", "C5"),
            max_level=7,
            num_iterations=fpn_cells,
            num_filters=depth,
            combine_method="fast_attention" if weighted else "sum",
            use_bias=True,
            hyperparams=ConvHyperparams(kernel_initializer=_TRUNCATED, **shared),
        ),
        name="feature_extractor",
    )
    predictor = WeightSharedConvolutionalBoxPredictor(
        num_classes=num_classes,
        num_anchors_per_location=anchors.num_anchors_per_location(),
        num_layers_before_predictor=head_layers,
        depth=depth,
        kernel_size=3,
        background=False,
        class_bias=_CLASS_BIAS,
        separable=True,
        tower_bias=True,
        hyperparams=ConvHyperparams(kernel_initializer=_NORMAL, **shared),
        name="box_predictor",
    )
    resizer = KeepAspectRatioResizer(min_dimension=size, max_dimension=size, pad_to_max_dimension=True, kernel="legacy")
    return _ssd(resizer, extractor, predictor, anchors, class_names, gamma=1.5, iou_threshold=0.5)


def faster_rcnn(backbone, size, num_classes, class_names=None, on_gpu=False):
    """A ResNet split behind C4 (Ren et al. 2015); the rest of it runs on each of 300 proposals.

    Args:
        backbone: registered name.
        size: 640 fits pictures into a padded square and 1024 stretches them; 800 is the shorter side of at most 1333.
        num_classes, class_names: see the module.
        on_gpu: the configs trained on GPUs: batch norm stands still, every class has a box, 100 detections.
    """
    extractor = SplitFeatureExtractor(
        backbone=get_backbone(backbone)(
            hyperparams=ConvHyperparams(
                activation="relu",
                batch_norm_momentum=0.997,
                batch_norm_epsilon=1e-5,
                batch_norm_trainable=not on_gpu,
                kernel_initializer=initializer(
                    "variance_scaling", scale=1.0, mode="fan_in", distribution="truncated_normal"
                ),
            ),
            name="backbone",
        ),
        split="C4",
        tail="C5",
        name="feature_extractor",
    )
    # no batch norm in the heads; its numbers are the original's defaults
    unused = {"activation": "relu", "batch_norm": False, "batch_norm_momentum": 0.999, "batch_norm_scale": False}
    anchors = GridAnchorGenerator(
        scales=(0.25, 0.5, 1.0, 2.0),
        aspect_ratios=(0.5, 1.0, 2.0),
        base_anchor_size=(256.0, 256.0),
        anchor_stride=(16.0, 16.0),
        anchor_offset=(0.0, 0.0),
    )
    resizer = FixedShapeResizer(height=size, width=size, kernel="legacy")
    if size != 1024:
        longer = 1333 if size == 800 else size
        resizer = KeepAspectRatioResizer(
            min_dimension=size, max_dimension=longer, pad_to_max_dimension=True, kernel="legacy"
        )
    return FasterRCNN(
        resizer=resizer,
        feature_extractor=extractor,
        region_predictor=RegionProposalPredictor(
            num_anchors_per_location=anchors.num_anchors_per_location(),
            depth=512,
            kernel_size=3,
            hyperparams=ConvHyperparams(
                kernel_initializer=initializer("truncated_normal", mean=0.0, stddev=0.01), **unused
            ),
            name="region_predictor",
        ),
        proposal_stage=_proposal_stage(anchors, clip_anchors=not on_gpu),
        cropper=RegionCropper(crop_size=14, pool_size=2, pool_stride=2),
        box_predictor=MaskRCNNBoxPredictor(
            num_classes=num_classes,
            share_box_across_classes=not on_gpu,
            hyperparams=ConvHyperparams(
                kernel_initializer=initializer("variance_scaling", scale=1.0, mode="fan_avg", distribution="uniform"),
                **unused,
            ),
            name="box_predictor",
        ),
        box_stage=_box_stage(100 if on_gpu else 300),
        class_names=class_names,
    )


def _iou_targets(matched_threshold, **matcher):
    """Targets by IoU, as every family of the zoo assigns them; `matcher` is `ArgMaxMatcher`'s other arguments."""
    return TargetAssigner(
        similarity=IouSimilarity(),
        matcher=ArgMaxMatcher(matched_threshold=matched_threshold, **matcher),
        box_coder=FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0)),
    )


def _proposal_stage(anchors, clip_anchors):
    return ProposalStage(
        anchor_generator=anchors,
        target_assigner=_iou_targets(0.7, unmatched_threshold=0.3, force_match_for_each_row=True),
        postprocessor=Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=0.0,
                iou_threshold=0.7,
                max_detections_per_class=300,
                max_total_detections=300,
                change_coordinate_frame=False,
            ),
            score_converter="softmax",
        ),
        sampler=BalancedPositiveNegativeSampler(positive_fraction=0.5),
        batch_size=256,
        clip_anchors=clip_anchors,
        localization_weight=2.0,
        objectness_weight=1.0,
    )


def _box_stage(num_detections):
    return BoxStage(
        target_assigner=_iou_targets(0.5),
        postprocessor=Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=0.0,
                iou_threshold=0.6,
                max_detections_per_class=100,
                max_total_detections=num_detections,
            ),
            score_converter="softmax",
        ),
        sampler=BalancedPositiveNegativeSampler(positive_fraction=0.25),
        batch_size=64,
        localization_weight=2.0,
        classification_weight=1.0,
    )


def _ssd(resizer, extractor, predictor, anchors, class_names, alpha=0.25, gamma=2.0, iou_threshold=0.6):
    """What all families share: targets, focal loss, suppression of all scores above 1e-8."""
    return SSD(
        resizer=resizer,
        feature_extractor=extractor,
        box_predictor=predictor,
        anchor_generator=anchors,
        target_assigner=_iou_targets(0.5, unmatched_threshold=0.5, force_match_for_each_row=True),
        detection_loss=OneStageLoss(
            classification=SigmoidFocalLoss(gamma=gamma, alpha=alpha),
            localization=SmoothL1Loss(delta=1.0),
            normalize_by_num_matches=True,
            normalize_localization_by_code_size=True,
            background_as_zeros=True,
        ),
        postprocessor=Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=1e-8,
                iou_threshold=iou_threshold,
                max_detections_per_class=100,
                max_total_detections=100,
            ),
            score_converter="sigmoid",
            has_background=predictor.background,
        ),
        class_names=class_names,
    )
