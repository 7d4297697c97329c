"""Checkpoints of upstream as a source of weights: TF2 object checkpoints, by the name tables."""

import os
import pathlib

from keras_detect.tf_od_api import name_maps
from keras_detect.weights import tf2_object_checkpoint
from keras_detect.weights.sources import BACKBONE_ALONE, OTHER_PARTS, Plan, register_reader


def _opens(source):
    return isinstance(source, str | os.PathLike) and tf2_object_checkpoint.looks_like_one(
        pathlib.Path(source).expanduser()
    )


@register_reader(
    "tf2 object checkpoint",
    what="an object checkpoint of TensorFlow 2, as the TensorFlow Object Detection API writes it: its prefix "
    "(beside which PREFIX.index is stored), its folder, or a .tar.gz",
    opens=_opens,
)
def object_checkpoint(model, source, kind):
    """The plan for a checkpoint of a detector or, with `kind="classification"`, also of an ImageNet classifier.

    Upstream's configs name the latter in `fine_tune_checkpoint`.
    """
    reader = tf2_object_checkpoint.open_checkpoint(source)
    if kind == "detection":
        return Plan(
            reader=reader,
            name_map=name_maps.checkpoint_keys(model),
            ignore=name_maps.ignored_keys(model),
            may_differ=((model.class_head, "class head for another number of classes"),),
        )
    if any(key.startswith(f"{name_maps.CLASSIFIER}/") for key in reader.shapes):
        keys, ignore = name_maps.classifier_keys(model), name_maps.ignored_classifier_keys(model)
    else:
        keys = name_maps.backbone_checkpoint_keys(model)
        others = rf"(?!{name_maps.backbone_keys(model)}).*"
        ignore = (*name_maps.ignored_keys(model), (others, OTHER_PARTS))
    return Plan(reader=reader, name_map=keys, skip=BACKBONE_ALONE, ignore=ignore)
