"""LiteRT files of upstream's detectors and of this package's, as a source of weights."""

import os
import pathlib
import re

from keras_detect.tf_od_api import name_maps_litert
from keras_detect.weights.folded_batch_norm import FoldedWeights, batch_norms
from keras_detect.weights.litert import LiteRTReader
from keras_detect.weights.sources import BACKBONE_ALONE, OTHER_PARTS, Plan, is_path, register_reader


@register_reader(
    "litert",
    what="a LiteRT file (.tflite) of an SSD on MobileNet V1 or V2 of the TensorFlow Object Detection API, or of an SSD "
    "of this package that was converted under its own names",
    opens=lambda source: is_path(source, ".tflite", ".lite"),
)
def litert_file(model, source, kind):
    """The plan for a LiteRT file, whose batch norm is folded into kernels and biases."""
    if not pathlib.Path(source).expanduser().is_file():
        raise FileNotFoundError(f"No such LiteRT file: {os.fspath(source)}")
    if model.checkpoint_family != "ssd":
        raise ValueError(f"LiteRT files restore into SSDs on MobileNet V1 or V2. Received: a {type(model).__name__}.")
    alone = kind == "classification"
    file = LiteRTReader(source, name_maps_litert.canonical)
    rows = _rows(model, file, alone)
    epsilons = {layer.name: layer.epsilon for layer in batch_norms(model)}
    behind = {scope: layers[1] for scope, layers in rows.items() if len(layers) > 1}
    reader = FoldedWeights(
        file,
        {scope: epsilons[_last(layer)] for scope, layer in behind.items() if _last(layer) in epsilons},
    )
    return Plan(
        reader=reader,
        name_map=_weight_keys(model, rows),
        skip=BACKBONE_ALONE if alone else (),
        ignore=_others(rows) if alone else (),
        may_differ=() if alone else ((model.class_head, "class head for another number of classes"),),
    )


def _rows(model, file, alone):
    """`{scope: our layers}` for the names that `file` has; those of our own models are made the tables'."""
    if name_maps_litert.is_upstreams(file.scopes()):
        return name_maps_litert.backbone_scopes(model) if alone else name_maps_litert.scopes(model)
    rows = name_maps_litert.own_scopes(model)
    file.rename(lambda scope: name_maps_litert.own_scope(scope, rows))
    return {scope: layers for scope, layers in rows.items() if not alone or layers[0].startswith("backbone/")}


def _weight_keys(model, rows):
    """`{our weight name: key}` by the rows `{scope: our layers}`."""
    layers = {ours[0]: scope for scope, ours in rows.items()}
    layers |= {ours[1]: f"{scope}/BatchNorm" for scope, ours in rows.items() if len(ours) > 1}
    keys = {}
    for name in model.named_weights():
        layer, _, variable = name.rpartition("/")
        if layer in layers:
            keys[name] = f"{layers[layer]}/{variable}"
    return keys


def _others(rows):
    """Rules for what a file holds beside the scopes of `rows`."""
    ours = "|".join(re.escape(scope) for scope in rows)
    return ((rf"(?!({ours})/(BatchNorm/)?[a-z_]+$).*", OTHER_PARTS),)


def _last(layer):
    return layer.rsplit("/", 1)[-1]
