"""torchvision's detectors as settings of our parts, into which its state dicts restore."""

import dataclasses
import math
from collections.abc import Callable

from keras_detect.backbones.backbone import get_backbone
from keras_detect.backbones.torch_arithmetic import BATCH_NORM, MEAN
from keras_detect.boxes.anchor_generators import TorchGridAnchorGenerator
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.samplers import BalancedPositiveNegativeSampler
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.heads.region_proposal import SharedRegionProposalPredictor
from keras_detect.heads.weight_shared import GroupNormBoxPredictor, WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.losses.localization import SmoothL1Loss
from keras_detect.meta_architectures.two_stage import BoxStage, ProposalStage
from keras_detect.necks.faster_rcnn_feature_extractor import FPNFeatureExtractor
from keras_detect.necks.torch_fpn import PLAIN, TorchFeaturePyramid
from keras_detect.presets.coco_names import COCO_NAMES
from keras_detect.registry import provide, unknown_name
from keras_detect.transforms.resizers import TorchResizer

BACKBONE = "resnet_v1_50_torch"
LARGEST_LOG_RATIO = math.log(1000.0 / 16)  # of a decoded side to its anchor's
#: RetinaNet's first class is the background's, which is never trained; then COCO's ids
RETINANET_NAMES = ("unused id 0", *COCO_NAMES)

_NORMAL = ConvHyperparams(
    activation="relu", batch_norm=False, kernel_initializer=initializer("random_normal", stddev=0.01)
)
_WITH_BATCH_NORM = ConvHyperparams(
    activation=None,
    batch_norm_momentum=BATCH_NORM["batch_norm_momentum"],
    batch_norm_epsilon=BATCH_NORM["batch_norm_epsilon"],
)


@dataclasses.dataclass(frozen=True)
class TorchvisionModel:
    """A detector of torchvision: the class that builds it, its parts, and the names of the classes it was trained on.

    `parts` is a function of the number of classes.
    """

    architecture: str
    parts: Callable
    class_names: tuple


def _retinanet(num_classes, second):
    anchors = TorchGridAnchorGenerator()
    head = GroupNormBoxPredictor if second else WeightSharedConvolutionalBoxPredictor
    return {
        "backbone": get_backbone(BACKBONE)(name="backbone"),
        "neck": TorchFeaturePyramid(coarse_from="C5" if second else "P5"),
        "resizer": TorchResizer(),
        "anchor_generator": anchors,
        "box_predictor": head(
            num_classes=num_classes,
            num_anchors_per_location=anchors.num_anchors_per_location(),
            background=False,
            hyperparams=_NORMAL,
            name="box_predictor",
        ),
        "target_assigner": _assigner(
            ArgMaxMatcher(matched_threshold=0.5, unmatched_threshold=0.4, force_match_for_each_row=True), None
        ),
        "localization_loss": "giou" if second else "l1",
        "postprocessor": Postprocessor(
            nms=_suppression(score_threshold=0.05, iou_threshold=0.5, detections=300, keep_empty=True),
            score_converter="sigmoid",
            has_background=False,
            candidates_per_level=1000,
        ),
        "freeze_batchnorm": not second,
    }


def _faster_rcnn(num_classes, second):
    anchors = TorchGridAnchorGenerator(sizes=tuple((side,) for side in (32, 64, 128, 256, 512)))
    neck = TorchFeaturePyramid(
        levels=("C2", "C3", "C4", "C5"),
        coarse_levels=1,
        coarse_from="pool",
        hyperparams=_WITH_BATCH_NORM if second else PLAIN,
    )
    return {
        "resizer": TorchResizer(per_channel_pad_value=tuple(255.0 * mean for mean in MEAN)),
        "feature_extractor": FPNFeatureExtractor(
            backbone=get_backbone(BACKBONE)(name="backbone"),
            neck=neck,
            convolutions=4 if second else 0,
            hyperparams=_WITH_BATCH_NORM if second else PLAIN,
            name="feature_extractor",
        ),
        "region_predictor": SharedRegionProposalPredictor(
            num_anchors_per_location=anchors.num_anchors_per_location(),
            num_convolutions=2 if second else 1,
            hyperparams=_NORMAL,
            name="region_predictor",
        ),
        "proposal_stage": ProposalStage(
            anchor_generator=anchors,
            keep_anchors=True,
            target_assigner=_assigner(
                ArgMaxMatcher(matched_threshold=0.7, unmatched_threshold=0.3, force_match_for_each_row=True), None
            ),
            postprocessor=Postprocessor(
                nms=_suppression(iou_threshold=0.7, detections=1000, change_coordinate_frame=False),
                score_converter="softmax",
                candidates_per_level=1000,
                suppress_by_level=True,
            ),
            localization=SmoothL1Loss(delta=1.0 / 9),
        ),
        "cropper": RegionCropper(
            crop_size=7,
            pool_size=1,
            pool_stride=1,
            method="roi_align",
            alignment="unshifted",
            canonical_level=2,
            num_maps=4,
        ),
        "box_predictor": MaskRCNNBoxPredictor(num_classes=num_classes, name="box_predictor"),
        "box_stage": BoxStage(
            target_assigner=_assigner(ArgMaxMatcher(matched_threshold=0.5), (10.0, 10.0, 5.0, 5.0)),
            postprocessor=Postprocessor(
                nms=_suppression(score_threshold=0.05, iou_threshold=0.5, detections=100), score_converter="softmax"
            ),
            sampler=BalancedPositiveNegativeSampler(positive_fraction=0.25),
            batch_size=512,
            localization=SmoothL1Loss(delta=1.0 / 9),
        ),
        "freeze_batchnorm": not second,
    }


def _assigner(matcher, scale_factors):
    coder = FasterRcnnBoxCoder(scale_factors=scale_factors, largest_log_ratio=LARGEST_LOG_RATIO)
    return TargetAssigner(similarity=IouSimilarity(), matcher=matcher, box_coder=coder)


def _suppression(detections, **settings):
    return MulticlassNonMaxSuppression(
        max_detections_per_class=detections, max_total_detections=detections, clip_first=True, **settings
    )


MODELS = {
    "retinanet_resnet50_fpn": TorchvisionModel("RetinaNet", lambda k: _retinanet(k, False), RETINANET_NAMES),
    "retinanet_resnet50_fpn_v2": TorchvisionModel("RetinaNet", lambda k: _retinanet(k, True), RETINANET_NAMES),
    "fasterrcnn_resnet50_fpn": TorchvisionModel("FasterRCNN", lambda k: _faster_rcnn(k, False), COCO_NAMES),
    "fasterrcnn_resnet50_fpn_v2": TorchvisionModel("FasterRCNN", lambda k: _faster_rcnn(k, True), COCO_NAMES),
}


@provide("torchvision_parts")
def torchvision_parts(name: str, architecture: str, num_classes: int | None) -> tuple[dict, tuple | None]:
    """Arguments of `from_backbone` for a detector of torchvision, and its class names.

    Args:
        name: of torchvision's function: a row of `MODELS`.
        architecture: name of the class that is asked for it.
        num_classes: K, background not counted; `None` for the published weights' classes.

    Returns:
        `(arguments, class names)`; no names for another number of classes.

    Raises:
        ValueError: an unknown name, or one of another architecture.
    """
    if name not in MODELS:
        raise ValueError(unknown_name("detector of torchvision", name, MODELS))
    row = MODELS[name]
    if row.architecture != architecture:
        raise ValueError(
            f"'{name}' is a {row.architecture}. Received a call of {architecture}.from_torchvision; use "
            f"{row.architecture}.from_torchvision."
        )
    number = len(row.class_names) if num_classes is None else num_classes
    return row.parts(number), row.class_names if number == len(row.class_names) else None
