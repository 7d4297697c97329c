"""Weights of the original's checkpoints into our models."""

from absl import logging

from keras_detect.registry import provide
from keras_detect.tf_od_api import name_maps
from keras_detect.weights.restore import restore
from keras_detect.weights.tf2_object_checkpoint import open_checkpoint

KINDS = ("detection", "classification")
OTHER_PARTS = "not part of the backbone"


@provide("restore_checkpoint")
def restore_model(model, checkpoint, kind="detection"):
    """Restores a TF2 object checkpoint of the original API.

    Args:
        model: an `SSD` or a `FasterRCNN`.
        checkpoint: prefix, directory, or the zoo's `.tar.gz`.
        kind: "detection" restores everything, or everything but the class head where the number of classes differs;
            "classification" restores the backbone alone, from a detector's checkpoint or from one of an ImageNet
            classifier, as the original's configs name in `fine_tune_checkpoint`.

    Returns:
        `RestoreReport`; its summary is logged, as a warning where a class head was not restored.

    Raises:
        ValueError: an unknown kind; a model and a checkpoint that do not fit (nothing is restored then).
        FileNotFoundError: no such checkpoint.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    reader = open_checkpoint(checkpoint)
    skip = ((r"(?!backbone/).*", OTHER_PARTS),) if kind == "classification" else ()
    if kind == "detection":
        keys, ignore = name_maps.checkpoint_keys(model), name_maps.ignored_keys(model)
    elif any(key.startswith(f"{name_maps.CLASSIFIER}/") for key in reader.shapes):
        keys, ignore = name_maps.classifier_keys(model), name_maps.ignored_classifier_keys(model)
    else:
        keys = name_maps.backbone_checkpoint_keys(model)
        ignore = (*name_maps.ignored_keys(model), (rf"(?!{name_maps.backbone_keys(model)}).*", OTHER_PARTS))
    report = restore(
        model.named_weights(),
        keys,
        reader,
        skip=skip,
        ignore=ignore,
        may_differ=((name_maps.CLASS_HEAD, "class head for another number of classes"),),
    )
    partly = kind == "detection" and report.kept
    logging.log(logging.WARNING if partly else logging.INFO, "%s", report.summary())
    return report
