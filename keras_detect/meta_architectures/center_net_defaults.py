"""The parts that `CenterNet.from_backbone` takes where the caller gives none."""

import functools
import math

from keras_detect import schema
from keras_detect.heads.point_heads import PointHead
from keras_detect.meta_architectures import arguments
from keras_detect.meta_architectures.center_net_keypoints import KeypointCandidates, KeypointTask
from keras_detect.meta_architectures.center_net_masks import MaskTask
from keras_detect.meta_architectures.center_net_tasks import ObjectTask, Task
from keras_detect.meta_architectures.ssd_defaults import as_backbone, square_resizer
from keras_detect.necks.center_net_feature_extractor import (
    STRIDE,
    CenterNetFeatureExtractor,
    default_neck,
    pyramid_levels,
)
from keras_detect.registry import NECKS, unknown_name

IMAGE_SIZE = 512
BOXES, KEYPOINTS, MASKS = TASKS = ("boxes", "keypoints", "masks")
#: arguments of the task "keypoints"
_OF_KEYPOINTS = ("num_keypoints", "keypoint_classes", "skeleton")
#: what `from_backbone` takes beside the constructor's arguments
OWN_ARGUMENTS = ("backbone", "num_classes", "image_size", "neck", "preprocess", *_OF_KEYPOINTS, "heads")
#: (argument, the one that takes its place)
IGNORED = (
    ("backbone", "feature_extractor"),
    ("neck", "feature_extractor"),
    ("preprocess", "feature_extractor"),
    ("image_size", "resizer"),
)
#: COCO's keypoints of a person in its order, with the deviations of upstream's configs
COCO_DEVIATIONS = {
    "nose": 0.26,
    "left_eye": 0.25,
    "right_eye": 0.25,
    "left_ear": 0.35,
    "right_ear": 0.35,
    "left_shoulder": 0.79,
    "right_shoulder": 0.79,
    "left_elbow": 0.72,
    "right_elbow": 0.72,
    "left_wrist": 0.62,
    "right_wrist": 0.62,
    "left_hip": 1.07,
    "right_hip": 1.07,
    "left_knee": 0.89,
    "right_knee": 0.89,
    "left_ankle": 0.89,
    "right_ankle": 0.89,
}


def complete(cls, given):
    """The constructor's arguments of a CenterNet.

    Args:
        cls: `CenterNet` or a subclass.
        given: arguments of `from_backbone` by name; `None` is not given.

    Returns:
        dict for the constructor of `cls`.

    Raises:
        TypeError: an unknown argument.
        ValueError: an argument that would be ignored, or as `CenterNet.from_backbone`.
    """
    arguments.check_known(cls, OWN_ARGUMENTS, given)
    arguments.refuse_ignored(given, IGNORED)
    arguments.check_parts(cls, {name: value for name, value in given.items() if name != "tasks"})
    given = {name: value for name, value in given.items() if value is not None}
    own = {name: given.pop(name) for name in OWN_ARGUMENTS if name in given}
    if "class_names" in given:
        given["class_names"] = schema.check_class_names(given["class_names"])
    extractor = given.get("feature_extractor") or feature_extractor(
        own.get("backbone"), own.get("neck"), own.get("preprocess")
    )
    heads = own.get("heads") or PointHead(separable=_is_mobile(extractor))
    resizer = given.get("resizer") or square_resizer(own.get("image_size", IMAGE_SIZE))
    own["size_bias"] = _usual_side(resizer)
    return {
        **given,
        "resizer": resizer,
        "feature_extractor": extractor,
        "tasks": _tasks(given.get("tasks", (BOXES,)), own, given.get("class_names"), heads),
    }


def feature_extractor(backbone, neck=None, preprocess=None):
    """`CenterNetFeatureExtractor` of what `CenterNet.from_backbone` accepts as backbone and as neck."""
    backbone = as_backbone(backbone, preprocess)
    if neck is None:
        neck = default_neck(backbone)
    else:
        follows = isinstance(neck, str | type | functools.partial)  # a finished part has levels of its own
        context = {"levels": pyramid_levels(backbone), "last_level": 2} if follows else None
        neck = NECKS.resolve(neck, context)
    return CenterNetFeatureExtractor(backbone=backbone, neck=neck, name="feature_extractor")


def _usual_side(resizer):
    """An eighth of the image's side, in cells: half of COCO's boxes are smaller."""
    height, width = resizer.output_shape(IMAGE_SIZE, IMAGE_SIZE)
    return math.sqrt(height * width) / STRIDE / 8.0


def _is_mobile(extractor):
    """Whether the backbone is made of separable convolutions: its heads then are, too, as in upstream's zoo."""
    return str(getattr(getattr(extractor, "backbone", None), "checkpoint_family", "")).startswith("mobilenet")


def _tasks(wanted, own, class_names, heads):
    """Task parts from parts and names; the objects' task comes first."""
    wanted = [wanted] if isinstance(wanted, str | Task) else list(wanted)
    for name in wanted:
        if not isinstance(name, Task) and name not in TASKS:
            raise ValueError(unknown_name("task", name, TASKS))
    objects = next((task for task in wanted if isinstance(task, ObjectTask)), None)
    num_classes = arguments.count_classes(own.get("num_classes"), class_names, objects)
    if objects is None:
        objects = ObjectTask(num_classes=num_classes, size_bias=own["size_bias"], heads=heads)
    others = [task for task in wanted if task is not objects and task != BOXES]
    for name in _OF_KEYPOINTS:
        if name in own and KEYPOINTS not in others:
            raise ValueError(
                f"{name} is for the task '{KEYPOINTS}', which is not among the tasks. Received: {name}={own[name]!r}."
            )
    made = [objects]
    for task in others:
        if task == KEYPOINTS:
            made += _keypoint_tasks(own, heads)
        else:
            made.append(MaskTask(num_classes=num_classes, heads=heads) if task == MASKS else task)
    return made


def _keypoint_tasks(own, heads):
    """A task for each of the classes that have the keypoints."""
    labels = own.get("keypoint_classes", (0,))
    labels = (labels,) if isinstance(labels, int) else tuple(labels)
    if not labels or len(set(labels)) != len(labels):
        raise ValueError(f"keypoint_classes are labels, each once. Received: keypoint_classes={labels}")
    names = {label: KEYPOINTS if len(labels) == 1 else f"{KEYPOINTS}_{label}" for label in labels}
    skeleton = own.get("skeleton", ())
    return [_keypoints(own.get("num_keypoints"), heads, label, skeleton, names[label]) for label in labels]


def _keypoints(number, heads, label, skeleton, name):
    """The keypoints of one class, COCO's of a person where no number is given, with upstream's settings."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ValueError(f"num_keypoints must be a positive integer. Received: num_keypoints={number!r}")
    deviations = tuple(COCO_DEVIATIONS.values())
    if number not in (None, len(deviations)):
        deviations = (0.6,) * number
    return KeypointTask(
        class_id=label,
        indices=range(len(deviations)),
        deviations=deviations,
        loss_weights=(1.0, 1.0, 0.1),
        radius=3,
        per_keypoint_offset=True,
        candidates=KeypointCandidates(),
        skeleton=skeleton,
        heads=heads,
        name=name,
    )
