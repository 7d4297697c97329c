"""The parts that `FasterRCNN.from_backbone` takes where the caller gives none."""

import functools
import re

from keras_detect import schema
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.heads.region_proposal import RegionProposalPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.meta_architectures import arguments
from keras_detect.meta_architectures.ssd_defaults import as_backbone, square_resizer
from keras_detect.meta_architectures.two_stage import BoxStage, ProposalStage
from keras_detect.necks.faster_rcnn_feature_extractor import FPNFeatureExtractor, SplitFeatureExtractor
from keras_detect.registry import ANCHOR_GENERATORS, CLASSIFICATION_LOSSES, LOCALIZATION_LOSSES, NECKS, ROI_HEADS

HEADS = ConvHyperparams(kernel_initializer=initializer("truncated_normal", stddev=0.01))
CODER = FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0))
LAST_LEVEL = 6  # of a feature pyramid: P6 has stride 64
IMAGE_SIZE = 640
#: what `from_backbone` takes beside the constructor's arguments
OWN_ARGUMENTS = (
    "backbone",
    "num_classes",
    "image_size",
    "neck",
    "split",
    "preprocess",
    "anchor_generator",
    "classification_loss",
    "localization_loss",
)
#: (argument, the one that takes its place)
IGNORED = (
    ("backbone", "feature_extractor"),
    ("neck", "feature_extractor"),
    ("split", "feature_extractor"),
    ("preprocess", "feature_extractor"),
    ("split", "neck"),
    ("image_size", "resizer"),
    ("anchor_generator", "proposal_stage"),
    ("classification_loss", "box_stage"),
    ("localization_loss", "box_stage"),
)
SECOND_STAGE = ("cropper", "box_predictor", "box_stage", "classification_loss", "localization_loss")


def complete(cls, given):
    """The constructor's arguments of a Faster R-CNN.

    Args:
        cls: `FasterRCNN` or a subclass.
        given: arguments of `from_backbone` by name; `None` is not given.

    Returns:
        dict for the constructor of `cls`.

    Raises:
        TypeError: an unknown argument.
        ValueError: an argument that would be ignored, or as `FasterRCNN.from_backbone`.
    """
    arguments.check_known(cls, OWN_ARGUMENTS, given)
    arguments.refuse_ignored(given, IGNORED)
    arguments.check_parts(cls, given)
    given = {name: value for name, value in given.items() if value is not None}
    stages = given.get("number_of_stages", 2)
    if stages == 1:
        _check_one_stage(given)
    own = {name: given.pop(name) for name in OWN_ARGUMENTS if name in given}
    if "class_names" in given:
        given["class_names"] = schema.check_class_names(given["class_names"])
    num_classes = arguments.count_classes(own.get("num_classes"), given.get("class_names"), given.get("box_predictor"))
    if stages == 1 and num_classes != 1:
        raise ValueError(
            f"A region proposal network has exactly one class. Received: num_classes={num_classes}. Pass 1."
        )
    resizer = given.get("resizer") or square_resizer(own.get("image_size", IMAGE_SIZE))
    regions = given.get("cropper") or cropper()
    extractor = given.get("feature_extractor") or feature_extractor(
        own.get("backbone"), own.get("neck"), own.get("split"), own.get("preprocess"), regions.output_size
    )
    first = given.get("proposal_stage") or proposal_stage(
        anchor_generator(extractor, resizer, own.get("anchor_generator"))
    )
    parts = {"resizer": resizer, "region_predictor": region_predictor(first.anchor_generator)}
    if stages == 2:
        parts["box_stage"] = box_stage(
            own.get("classification_loss", "softmax_cross_entropy"), own.get("localization_loss", "smooth_l1")
        )
        parts["cropper"] = regions
    given = {**parts, **given, "feature_extractor": extractor, "proposal_stage": first}
    if stages == 2:
        given["box_predictor"] = box_predictor(num_classes, given.get("box_predictor"))
    return given


def _check_one_stage(given):
    received = [name for name in SECOND_STAGE if name in given]
    if received:
        raise ValueError(
            f"A one-stage model has no second stage. Received: number_of_stages=1 and {received}. Remove them."
        )


def feature_extractor(backbone, neck, split, preprocess, roi_size):
    """The feature extractor of what `FasterRCNN.from_backbone` accepts as backbone, neck and split."""
    backbone = as_backbone(backbone, preprocess)
    if neck is None:
        return SplitFeatureExtractor(backbone=backbone, split=split, name="feature_extractor")
    follows = isinstance(neck, str | type | functools.partial)  # a finished part has levels of its own
    neck = NECKS.resolve(neck, {"levels": pyramid_levels(backbone), "last_level": LAST_LEVEL} if follows else None)
    return FPNFeatureExtractor(backbone=backbone, neck=neck, roi_size=roi_size[0], name="feature_extractor")


def pyramid_levels(backbone):
    """Levels of the backbone for a pyramid, finest first: from C2, or from C3 where there is no C2, to the coarsest."""
    numbers = sorted(int(level[1:]) for level in backbone.strides if re.fullmatch(r"C\d+", level))
    numbers = [number for number in numbers if number >= 2]
    if not numbers or numbers[0] > 3:
        raise ValueError(
            "A feature pyramid for two stages starts at the backbone level C2 or C3. Received: "
            f"{list(backbone.strides)}. Pass a neck part with its own levels."
        )
    return tuple(f"C{number}" for number in range(numbers[0], numbers[-1] + 1))


def cropper():
    """14 x 14 samples of each proposal, of which 2 x 2 are pooled: 7 x 7."""
    return RegionCropper(crop_size=14, pool_size=2, pool_stride=2)


def anchor_generator(extractor, resizer, given=None):
    """The anchor generator for the extractor's maps: `given` part or name, or a default.

    By default four sizes and three aspect ratios at every cell of one map; on a pyramid each level has its own size.
    """
    given = given or ("multiscale_grid" if len(extractor.strides) > 1 else "grid")
    context = {"strides": extractor.strides, "image_size": arguments.image_size_of(resizer)}
    return ANCHOR_GENERATORS.resolve(given, context)


def proposal_stage(anchors):
    """IoU 0.7 is an object, below 0.3 none; 300 proposals that overlap by at most 0.7 (Ren et al. 2015, 3.1.2)."""
    return ProposalStage(
        anchor_generator=anchors,
        target_assigner=TargetAssigner(
            similarity=IouSimilarity(),
            matcher=ArgMaxMatcher(matched_threshold=0.7, unmatched_threshold=0.3, force_match_for_each_row=True),
            box_coder=CODER,
        ),
        postprocessor=Postprocessor(
            nms=MulticlassNonMaxSuppression(
                iou_threshold=0.7,
                max_detections_per_class=300,
                max_total_detections=300,
                change_coordinate_frame=False,
            ),
            score_converter="softmax",
        ),
        localization_weight=2.0,
    )


def region_predictor(anchors):
    """A 3 x 3 convolution with 512 channels, then 1 x 1 heads."""
    return RegionProposalPredictor(
        num_anchors_per_location=anchors.num_anchors_per_location(), hyperparams=HEADS, name="region_predictor"
    )


def box_predictor(num_classes, given=None):
    """The heads of the second stage: `given` layer, class or name; else a box for each class."""
    builder = ROI_HEADS.get(given or "mask_rcnn") if given is None or isinstance(given, str) else given
    if not isinstance(builder, type | functools.partial):
        return builder
    return builder(num_classes=num_classes, name="box_predictor")


def box_stage(classification_loss="softmax_cross_entropy", localization_loss="smooth_l1"):
    """IoU 0.5 is an object; at most 100 detections, which overlap within a class by at most 0.6."""
    return BoxStage(
        target_assigner=TargetAssigner(
            similarity=IouSimilarity(), matcher=ArgMaxMatcher(matched_threshold=0.5), box_coder=CODER
        ),
        postprocessor=Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=0.01, iou_threshold=0.6, max_detections_per_class=100, max_total_detections=100
            ),
            score_converter="softmax",
        ),
        classification=CLASSIFICATION_LOSSES.resolve(classification_loss),
        localization=LOCALIZATION_LOSSES.resolve(localization_loss),
        localization_weight=2.0,
    )
