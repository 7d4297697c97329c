"""Checkpoints and frozen graphs of upstream as a source of weights, of TensorFlow 2 and 1, by the name tables."""

import os
import pathlib

from keras_detect.tf_od_api import name_maps
from keras_detect.weights import frozen_graph, tf2_object_checkpoint
from keras_detect.weights.sources import BACKBONE_ALONE, OTHER_PARTS, Plan, register_reader


def _opens(source):
    if not isinstance(source, str | os.PathLike):
        return False
    path = pathlib.Path(source).expanduser()
    return tf2_object_checkpoint.looks_like_one(path) or frozen_graph.graph_file(path) is not None


def open_weights(source):
    """A reader of the variables at the path `source`: a checkpoint, a frozen graph or a SavedModel.

    Raises what `open_checkpoint` and `open_graph` raise.
    """
    graph = frozen_graph.graph_file(pathlib.Path(source).expanduser())
    return tf2_object_checkpoint.open_checkpoint(source) if graph is None else frozen_graph.open_graph(graph, source)


@register_reader(
    "tensorflow",
    what="a checkpoint of TensorFlow 2 or 1, as the TensorFlow Object Detection API writes it: its prefix "
    "(beside which PREFIX.index is stored), its folder, or a .tar.gz; or a frozen graph (.pb)",
    opens=_opens,
)
def tensorflow(model, source, kind):
    """The plan for a checkpoint of a detector or, with `kind="classification"`, also of an ImageNet classifier.

    Upstream's configs name the latter in `fine_tune_checkpoint`.
    """
    reader = open_weights(source)
    tf1 = reader.tf1
    if kind == "detection":
        return Plan(
            reader=reader,
            name_map=name_maps.checkpoint_keys(model, tf1),
            ignore=name_maps.ignored_keys(model, tf1),
            may_differ=((model.class_head, "class head for another number of classes"),),
        )
    if name_maps.is_classifier(reader.shapes, tf1):
        keys, ignore = name_maps.classifier_keys(model, tf1), name_maps.ignored_classifier_keys(model, tf1)
    else:
        keys = name_maps.backbone_checkpoint_keys(model, tf1)
        others = rf"(?!{name_maps.backbone_keys(model, tf1)}).*"
        ignore = (*name_maps.ignored_keys(model, tf1), (others, OTHER_PARTS))
    return Plan(reader=reader, name_map=keys, skip=BACKBONE_ALONE, ignore=ignore)
