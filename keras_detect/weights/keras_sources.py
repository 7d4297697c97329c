"""Keras models and what Keras saves of them as sources of weights, and detectors and weights files of this package."""

import os
import pathlib

from keras_detect.backbones.keras_models import KerasBackbone
from keras_detect.weights.keras_applications import FAMILIES, KerasWeights
from keras_detect.weights.keras_file import existing_file, load_keras_file
from keras_detect.weights.keras_model import OwnWeights
from keras_detect.weights.named_weights import ModelWeights, WeightsFile, is_weights_file
from keras_detect.weights.sources import BACKBONE_ALONE, Plan, is_model, is_path, register_reader


def named_plan(model, reader, kind: str) -> Plan:
    """Plan for a `reader` whose names are those of `DetectionModel.named_weights`."""
    if kind == "classification":
        return Plan(reader=reader, name_map=_same, skip=BACKBONE_ALONE, ignore=BACKBONE_ALONE)
    may_differ = ((model.class_head, "class head for another number of classes"),)
    return Plan(reader=reader, name_map=_same, may_differ=may_differ)


def _same(name):
    return name


def _is_detector(source):
    return is_model(source) and callable(getattr(source, "named_weights", None))


@register_reader("detector", what="a detector of this package", opens=_is_detector)
def detector(model, source, kind):
    """Another detector in memory."""
    return named_plan(model, ModelWeights(source), kind)


def _is_named_file(source):
    return is_path(source, ".h5") and is_weights_file(pathlib.Path(source).expanduser())


@register_reader("named weights", what="the weights file of a preset (weights.h5)", opens=_is_named_file)
def named_file(model, source, kind):
    """A file of weights by name, as in a preset."""
    return named_plan(model, WeightsFile(existing_file(source)), kind)


@register_reader(
    "keras",
    what="a Keras model around the same backbone, or a classifier of keras.applications, or its .keras or .h5 file "
    "(with kind='classification'); the .keras file of a detector",
    opens=lambda source: is_model(source) or is_path(source, ".keras", ".h5"),
)
def keras_network(model, source, kind):
    """A Keras model, or a `.keras` or `.h5` file of one."""
    name = None if is_model(source) else os.fspath(source)
    if is_path(source, ".keras"):
        source = load_keras_file(existing_file(source), compile=False)
    if _is_detector(source):
        return named_plan(model, ModelWeights(source, name), kind)
    if kind != "classification":
        raise ValueError(
            "A Keras model or weights file restores into the backbone alone: pass kind='classification'. Received: "
            f"kind={kind!r}. Weights that a detector's `save_weights` wrote are read by `load_weights`."
        )
    (backbone,) = model._weight_groups()["backbone"]
    reader = weights_source(backbone, source, name)
    return Plan(reader=reader, name_map=reader.key, skip=BACKBONE_ALONE, ignore=reader.ignore, notes=reader.notes)


def weights_source(backbone, source, name=None):
    """The source to restore `backbone` from: keras.applications for its families, else a model around its own class.

    Args:
        backbone: the `Backbone` that the weights are for.
        source: a Keras model or the path of an `.h5` file.
        name: what messages call a model.
    """
    applications = backbone.checkpoint_family in FAMILIES or isinstance(backbone, KerasBackbone)
    return (KerasWeights if applications else OwnWeights)(backbone, source, name)
