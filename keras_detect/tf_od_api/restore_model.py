"""Weights of the original's checkpoints into our models."""

from absl import logging

from keras_detect.tf_od_api import name_maps
from keras_detect.tf_od_api.checkpoint_reader import open_checkpoint
from keras_detect.tf_od_api.restore import restore

KINDS = ("detection", "classification")


def restore_model(model, checkpoint, kind="detection"):
    """Restores a TF2 object checkpoint of the original API.

    Args:
        model: an `SSD` or a `FasterRCNN`.
        checkpoint: prefix, directory, or the zoo's `.tar.gz`.
        kind: "detection" restores everything, or everything but the class head where the number of classes differs;
            "classification" restores the backbone alone.

    Returns:
        `RestoreReport`; its summary is logged, as a warning where a class head was not restored.

    Raises:
        ValueError: an unknown kind; a model and a checkpoint that do not fit (nothing is restored then).
        FileNotFoundError: no such checkpoint.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    keys = name_maps.checkpoint_keys(model)
    skip, ignore = (), name_maps.ignored_keys(model)
    if kind == "classification":
        skip = ((r"(?!backbone/).*", "not part of the backbone"),)
        ignore = (*ignore, (rf"(?!{name_maps.backbone_keys(model)}).*", "not part of the backbone"))
    report = restore(
        model.named_weights(),
        keys,
        open_checkpoint(checkpoint),
        skip=skip,
        ignore=ignore,
        may_differ=((name_maps.CLASS_HEAD, "class head for another number of classes"),),
    )
    partly = kind == "detection" and report.kept
    logging.log(logging.WARNING if partly else logging.INFO, "%s", report.summary())
    return report
