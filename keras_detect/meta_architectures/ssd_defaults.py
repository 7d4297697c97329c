"""The parts that `SSD.from_backbone` takes where the caller gives none."""

import functools
import numbers
import re

import keras

from keras_detect import heads, necks, schema  # noqa: F401 (importing heads and necks registers their classes)
from keras_detect.backbones.backbone import Backbone, backbone_names
from keras_detect.backbones.keras_models import from_keras_model
from keras_detect.boxes import anchor_generators, matchers  # noqa: F401 (as above)
from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.meta_architectures import arguments
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.registry import (
    ANCHOR_GENERATORS,
    CLASSIFICATION_LOSSES,
    HEADS,
    LOCALIZATION_LOSSES,
    MATCHERS,
    NECKS,
    resolve,
)
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer, two_sides

LAST_LEVEL = 7  # of a feature pyramid: P7 has stride 128
IMAGE_SIZE = 320
#: what `from_backbone` takes beside the constructor's arguments
OWN_ARGUMENTS = (
    "backbone",
    "num_classes",
    "image_size",
    "neck",
    "preprocess",
    "matcher",
    "classification_loss",
    "localization_loss",
)
#: (argument, the one that takes its place)
IGNORED = (
    ("backbone", "feature_extractor"),
    ("neck", "feature_extractor"),
    ("preprocess", "feature_extractor"),
    ("image_size", "resizer"),
    ("matcher", "target_assigner"),
    ("classification_loss", "detection_loss"),
    ("localization_loss", "detection_loss"),
)


def complete(cls, given):
    """The constructor's arguments of an SSD.

    Args:
        cls: `SSD` or a subclass.
        given: arguments of `from_backbone` by name; `None` is not given.

    Returns:
        dict for the constructor of `cls`.

    Raises:
        TypeError: an unknown argument.
        ValueError: an argument that would be ignored, or as `SSD.from_backbone`.
    """
    arguments.check_known(cls, OWN_ARGUMENTS, given)
    arguments.refuse_ignored(given, IGNORED)
    arguments.check_parts(cls, given)
    given = {name: value for name, value in given.items() if value is not None}
    own = {name: given.pop(name) for name in OWN_ARGUMENTS if name in given}
    if "class_names" in given:
        given["class_names"] = schema.check_class_names(given["class_names"])
    num_classes = arguments.count_classes(own.get("num_classes"), given.get("class_names"), given.get("box_predictor"))
    resizer = given.get("resizer") or default_resizer(own.get("image_size", IMAGE_SIZE))
    extractor = given.get("feature_extractor") or feature_extractor(
        own.get("backbone"), own.get("neck", "ssd"), own.get("preprocess")
    )
    anchors = anchor_generator(extractor, resizer, given.get("anchor_generator"))
    predictor = box_predictor(extractor, anchors, num_classes, given.get("box_predictor"))
    loss = {
        "classification": CLASSIFICATION_LOSSES.resolve(own.get("classification_loss", "sigmoid_focal")),
        "localization": LOCALIZATION_LOSSES.resolve(own.get("localization_loss", "smooth_l1")),
    }
    return {
        "target_assigner": target_assigner(own.get("matcher", "argmax")),
        "detection_loss": OneStageLoss(normalize_localization_by_code_size=True, **loss),
        "postprocessor": postprocessor(predictor.background),
        **given,
        "resizer": resizer,
        "feature_extractor": extractor,
        "anchor_generator": anchors,
        "box_predictor": predictor,
    }


def feature_extractor(backbone, neck, preprocess=None):
    """`SSDFeatureExtractor` of what `SSD.from_backbone` accepts as backbone and as neck."""
    backbone = as_backbone(backbone, preprocess)
    follows = isinstance(neck, str | type | functools.partial)  # a finished part has levels of its own
    context = {"levels": levels_of(backbone), "last_level": LAST_LEVEL} if follows else None
    return SSDFeatureExtractor(backbone=backbone, neck=NECKS.resolve(neck, context), name="feature_extractor")


def as_backbone(backbone, preprocess=None):
    """A `Backbone` from one, from a registered name, or from a Keras model or its name.

    Names of Keras models are those of `keras.applications`, and "keras_cv/..." for KerasCV's classes and presets.
    """
    if isinstance(backbone, str):
        if backbone not in backbone_names():
            return resolve("backbone", backbone, preprocess=preprocess)
        backbone = resolve("backbone", backbone)  # brings its own pixel scaling
    if isinstance(backbone, keras.Model) and not isinstance(backbone, Backbone):
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


def pyramid_levels(extractor):
    """Numbers of the maps if they are a pyramid's, P3, P4, ...; else an empty list."""
    names = extractor.level_names
    numbers = [int(name[1:]) for name in names if re.fullmatch(r"P\d+", name)]
    return numbers if numbers and numbers == list(range(numbers[0], numbers[0] + len(names))) else []


def anchor_generator(extractor, resizer, given=None):
    """The anchor generator for the extractor's maps: `given` part or name; else RetinaNet's for a pyramid, or SSD's.

    SSD's scales go from 0.1 (finest map) to 0.95 with ratios 1, 2, 1/2, 3, 1/3 (Liu et al. 2016, section 2.2).
    """
    given = given or ("multiscale_grid" if pyramid_levels(extractor) else "ssd")
    context = {"strides": extractor.strides, "image_size": arguments.image_size_of(resizer)}
    return ANCHOR_GENERATORS.resolve(given, context)


def box_predictor(extractor, anchors, num_classes, given=None):
    """The box predictor: `given` layer, class or name; else shared heads for a pyramid, or one convolution per map."""
    per_location = anchors.num_anchors_per_location()
    shared = pyramid_levels(extractor) and len(set(per_location)) == 1
    given = given or ("weight_shared" if shared else "convolutional")
    builder = HEADS.get(given) if isinstance(given, str) else given
    if not isinstance(builder, type | functools.partial):
        return builder
    return builder(num_classes=num_classes, num_anchors_per_location=per_location, name="box_predictor")


def default_resizer(image_size):
    """Resizes to `image_size`, an int or `(height, width)`."""
    height, width = two_sides(image_size)
    return FixedShapeResizer(height=height, width=width)


def square_resizer(image_size):
    """Fits images into a square, padded, for an int; or stretches them to `(height, width)`."""
    if not isinstance(image_size, numbers.Integral):
        return default_resizer(image_size)
    side = int(image_size)
    return KeepAspectRatioResizer(min_dimension=side, max_dimension=side, pad_to_max_dimension=True)


def target_assigner(matcher="argmax"):
    """IoU of at least 0.5 is a match, and every object gets its best anchor; or another matcher, a part or a name."""
    return TargetAssigner(
        similarity=IouSimilarity(),
        matcher=MATCHERS.resolve(matcher),
        box_coder=FasterRcnnBoxCoder(scale_factors=(10.0, 10.0, 5.0, 5.0)),
    )


def postprocessor(has_background):
    """Sigmoid scores above 0.01, at most 100 per image; boxes of one class suppress each other at IoU 0.6."""
    return Postprocessor(
        nms=MulticlassNonMaxSuppression(
            score_threshold=0.01, iou_threshold=0.6, max_detections_per_class=100, max_total_detections=100
        ),
        score_converter="sigmoid",
        has_background=has_background,
    )
