"""The parts that `SSD.from_backbone` takes where the caller gives none."""

import re

import keras

from keras_detect.backbones.backbone import Backbone, backbone_names, get_backbone
from keras_detect.backbones.keras_models import application_names, from_keras_model
from keras_detect.boxes.anchor_generators import MultiscaleGridAnchorGenerator, SsdAnchorGenerator
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.registry import unknown_name
from keras_detect.transforms.resizers import FixedShapeResizer

HEADS = ConvHyperparams(kernel_initializer=initializer("random_normal", stddev=0.01))
LAST_LEVEL = 7  # of a feature pyramid: P7 has stride 128


def feature_extractor(backbone, neck, preprocess=None):
    """`SSDFeatureExtractor` of what `SSD.from_backbone` accepts as backbone and as neck."""
    backbone = as_backbone(backbone, preprocess)
    if isinstance(neck, str):
        if neck not in NECKS:
            raise ValueError(f"{unknown_name('neck', neck, NECKS)} Or pass a neck part such as FeaturePyramid().")
        neck = NECKS[neck](backbone)
    return SSDFeatureExtractor(backbone=backbone, neck=neck, name="feature_extractor")


def as_backbone(backbone, preprocess=None):
    """A `Backbone` from one, from a registered name, or from a Keras model or its name in `keras.applications`."""
    if isinstance(backbone, str) and (backbone in backbone_names() or backbone not in application_names()):
        known = (*backbone_names(), *application_names())
        if backbone not in known:
            raise ValueError(unknown_name("backbone", backbone, known))
        backbone = get_backbone(backbone)(name="backbone")
    if isinstance(backbone, str) or (isinstance(backbone, keras.Model) and not isinstance(backbone, Backbone)):
        return from_keras_model(backbone, preprocess=preprocess)
    if not isinstance(backbone, Backbone):
        raise ValueError(
            "A backbone is a registered name, a Backbone or a functional Keras model. Received: "
            f"{type(backbone).__name__}"
        )
    if preprocess is not None:
        raise ValueError(
            f"`preprocess` is for Keras models that are wrapped. Received: preprocess={preprocess!r} for a "
            f"{type(backbone).__name__}, which scales its pixels itself."
        )
    return backbone


def levels_of(backbone):
    """The levels C3, C4, C5 that follow each other without a gap, finest first."""
    levels = []
    for level in ("C3", "C4", "C5"):
        if level in backbone.strides:
            levels.append(level)
        elif levels:
            break
    if not levels:
        raise ValueError(
            f"The default necks take the backbone levels C3, C4 and C5. Received: {sorted(backbone.strides)}. Pass "
            "a neck part with its own levels."
        )
    return tuple(levels)


def ssd_feature_maps(backbone):
    """C3, C4, C5 and three coarser maps: strides 8...256."""
    levels = levels_of(backbone)
    return SsdFeatureMaps(levels=levels, extra_depths=(512, 256, 256, 128)[: 6 - len(levels)])


def feature_pyramid(backbone):
    """P3 to P7 with 256 channels (Lin et al. 2017, arXiv:1708.02002)."""
    levels = levels_of(backbone)
    return FeaturePyramid(levels=levels, coarse_levels=LAST_LEVEL - int(levels[-1][1:]))


NECKS = {"ssd": ssd_feature_maps, "fpn": feature_pyramid}


def pyramid_levels(extractor):
    """Numbers of the maps if they are a pyramid's, P3, P4, ...; else an empty list."""
    names = extractor.level_names
    numbers = [int(name[1:]) for name in names if re.fullmatch(r"P\d+", name)]
    return numbers if numbers and numbers == list(range(numbers[0], numbers[0] + len(names))) else []


def anchor_generator(extractor):
    """Anchors for the extractor's maps: RetinaNet's for a pyramid, else SSD's.

    SSD's scales go from 0.1 (finest map) to 0.95 with ratios 1, 2, 1/2, 3, 1/3 (Liu et al. 2016, section 2.2).
    """
    levels = pyramid_levels(extractor)
    if levels:
        return MultiscaleGridAnchorGenerator(min_level=levels[0], max_level=levels[-1])
    return SsdAnchorGenerator(
        num_layers=len(extractor.outputs), min_scale=0.1, max_scale=0.95, reduce_boxes_in_lowest_layer=False
    )


def box_predictor(extractor, anchors, num_classes):
    """Shared heads for a pyramid, else a 3x3 convolution on each map."""
    per_location = anchors.num_anchors_per_location()
    if pyramid_levels(extractor) and len(set(per_location)) == 1:
        return WeightSharedConvolutionalBoxPredictor(
            num_classes=num_classes,
            num_anchors_per_location=per_location,
            background=False,
            hyperparams=HEADS,
            name="box_predictor",
        )
    return ConvolutionalBoxPredictor(
        num_classes=num_classes,
        num_anchors_per_location=per_location,
        kernel_size=3,
        hyperparams=HEADS,
        name="box_predictor",
    )


def resizer(image_size):
    """Resizes to `image_size`, an int or `(height, width)`."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return FixedShapeResizer(height=height, width=width)


def target_assigner():
    """IoU of at least 0.5 is a match, and every object gets its best anchor."""
    return TargetAssigner(
        similarity=IouSimilarity(),
        matcher=ArgMaxMatcher(matched_threshold=0.5, force_match_for_each_row=True),
        box_coder=FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0)),
    )


def postprocessor(has_background):
    """Sigmoid scores above 0.01, at most 100 a picture; boxes of one class suppress each other at IoU 0.6."""
    return Postprocessor(
        nms=MulticlassNonMaxSuppression(
            score_threshold=0.01, iou_threshold=0.6, max_detections_per_class=100, max_total_detections=100
        ),
        score_converter="sigmoid",
        has_background=has_background,
    )
