"""The parts that `FasterRCNN.from_backbone` takes where the caller gives none."""

from keras_detect.boxes.anchor_generators import GridAnchorGenerator, MultiscaleGridAnchorGenerator
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.heads.region_proposal import RegionProposalPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.meta_architectures.ssd_defaults import as_backbone
from keras_detect.meta_architectures.two_stage import BoxStage, ProposalStage
from keras_detect.necks.faster_rcnn_feature_extractor import FPNFeatureExtractor, SplitFeatureExtractor
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer

HEADS = ConvHyperparams(kernel_initializer=initializer("truncated_normal", stddev=0.01))
CODER = FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0))
PYRAMID = ("C2", "C3", "C4", "C5")
ANCHOR_SHARE = 0.4  # side of the anchor of scale 1 in shares of the shorter side: 256 pixels of 640


def feature_extractor(backbone, neck, split, preprocess, roi_size):
    """The feature extractor of what `FasterRCNN.from_backbone` accepts as backbone, neck and split."""
    backbone = as_backbone(backbone, preprocess)
    if neck == "fpn":
        neck = FeaturePyramid(levels=tuple(PYRAMID), coarse_levels=1)
    if neck is not None:
        if split is not None:
            raise ValueError(f"A backbone is split, or has a neck. Received: split={split!r} and neck={neck!r}.")
        if isinstance(neck, str):
            raise ValueError(f"The neck is None, 'fpn' or a part such as FeaturePyramid(). Received: {neck!r}.")
        return FPNFeatureExtractor(backbone=backbone, neck=neck, roi_size=roi_size[0], name="feature_extractor")
    return SplitFeatureExtractor(backbone=backbone, split=split, name="feature_extractor")


def cropper():
    """14 x 14 samples of each proposal, of which 2 x 2 are pooled: 7 x 7."""
    return RegionCropper(crop_size=14, pool_size=2, pool_stride=2)


def resizer(image_size):
    """Fits pictures into a square, padded; or stretches them to `(height, width)`."""
    if isinstance(image_size, int):
        return KeepAspectRatioResizer(min_dimension=image_size, max_dimension=image_size, pad_to_max_dimension=True)
    return FixedShapeResizer(height=image_size[0], width=image_size[1])


def anchor_generator(extractor, image_size):
    """Four sizes and three aspect ratios at every cell of one map; on a pyramid each level has its own size."""
    if len(extractor.strides) > 1:
        levels = [stride.bit_length() - 1 for stride in extractor.strides]
        return MultiscaleGridAnchorGenerator(min_level=levels[0], max_level=levels[-1])
    stride = float(extractor.strides[0])
    side = ANCHOR_SHARE * (image_size if isinstance(image_size, int) else min(image_size))
    return GridAnchorGenerator(
        scales=(0.25, 0.5, 1.0, 2.0),
        aspect_ratios=(0.5, 1.0, 2.0),
        base_anchor_size=(side, side),
        anchor_stride=(stride, stride),
    )


def proposal_stage(extractor, image_size):
    """IoU 0.7 is an object, below 0.3 none; 300 proposals that overlap by at most 0.7 (Ren et al. 2015, 3.1.2)."""
    return ProposalStage(
        anchor_generator=anchor_generator(extractor, image_size),
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


def box_predictor(num_classes):
    """A box for each class."""
    return MaskRCNNBoxPredictor(num_classes=num_classes, name="box_predictor")


def box_stage():
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
        localization_weight=2.0,
    )
