"""Our weight names -> checkpoint keys of upstream, for every meta-architecture that has a table."""

import re

from keras_detect.tf_od_api import (
    name_maps_center_net,
    name_maps_faster_rcnn,
    name_maps_ssd,
    name_maps_tf1_faster_rcnn,
    name_maps_tf1_layers,
    name_maps_tf1_ssd,
)
from keras_detect.tf_od_api.name_maps_layers import declared, efficientnet_layers, numbered

#: `checkpoint_family` of a model -> the module of its tables
MODELS = {"ssd": name_maps_ssd, "faster_rcnn": name_maps_faster_rcnn, "center_net": name_maps_center_net}

#: the same for the names of variables in the graphs of TensorFlow 1
TF1_MODELS = {"ssd": name_maps_tf1_ssd, "faster_rcnn": name_maps_tf1_faster_rcnn}

# the last component of a key where ours differs: layer-name suffix, our variable, upstream's
VARIABLE_NAMES = {
    ("_depthwise", "kernel"): "depthwise_kernel",
    ("_combine", "combine_weights"): "bifpn_combine_weights",
}

#: where upstream looks for the backbone in a checkpoint of an ImageNet classifier
CLASSIFIER = "feature_extractor"

#: `checkpoint_family` of a backbone -> function of it -> number of layers with weights of the whole classifier; all
#: others have one layer behind the backbone: the dense layer, or the convolution in its place
CLASSIFIER_LAYERS = {"efficientnet": lambda backbone: len(efficientnet_layers(backbone, "stages")) + 3}


def is_classifier(keys, tf1=False):
    """Whether a checkpoint with these keys is an ImageNet classifier's, and not a detector's."""
    if tf1:
        return not any(re.match(rf"({'|'.join(name_maps_tf1_layers.DETECTOR_SCOPES)})/", key) for key in keys)
    return any(key.startswith(f"{CLASSIFIER}/") for key in keys)


def _tables(model, tf1):
    """The module of tables of `model`; `tf1` says which names the checkpoint has."""
    return declared(TF1_MODELS if tf1 else MODELS, model)


def ignored_keys(model, tf1=False):
    """`((regex of a checkpoint key, reason), ...)`: what upstream's checkpoint of `model` holds and `model` not."""
    return _tables(model, tf1).unused_keys(model)


def backbone_keys(model, tf1=False):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    return _tables(model, tf1).backbone_keys(model)


def checkpoint_keys(model, tf1=False):
    """`{our weight name: checkpoint key}` for every weight of a model, `named_weights()` order.

    Args:
        model: the detector.
        tf1: whether the keys are names of variables in a graph of TensorFlow 1, not of objects of TensorFlow 2.

    Raises:
        ValueError: for a part the tables do not know, or a weight without a row.
    """
    tables = _tables(model, tf1).tables(model)
    rows = {f"{group}/{layer}": key for group, table in tables.items() for layer, key in table.items()}
    return _variable_keys(model.named_weights(), rows, tf1)


def backbone_checkpoint_keys(model, tf1=False):
    """`{our weight name: checkpoint key}` of the backbone alone, in a detector's checkpoint with any heads.

    Raises:
        ValueError: for a backbone the tables do not know.
    """
    return _backbone_weight_keys(model, _tables(model, tf1).backbone_table(model), tf1)


def classifier_keys(model, tf1=False):
    """`{our weight name: checkpoint key}` of the backbone, as a checkpoint of the ImageNet classifier alone has it.

    Upstream's configs name such checkpoints as `fine_tune_checkpoint` of the type "classification"; there, the layers
    of the whole network are numbered below `CLASSIFIER`. Those of TensorFlow 1 come from tf_slim.
    """
    if tf1:
        return _backbone_weight_keys(model, _tables(model, tf1).classifier_table(model), tf1)
    # a detector's table has the layers in the network's order, regardless of the parts that upstream renumbers
    return _backbone_weight_keys(model, numbered(_tables(model, tf1).backbone_table(model), CLASSIFIER))


def ignored_classifier_keys(model, tf1=False):
    """`((regex of a checkpoint key, reason), ...)`: what a classifier's checkpoint holds behind the backbone."""
    if tf1:
        return ((r".*", "not part of the backbone: the end of the ImageNet classifier"),)
    backbone = model.feature_extractor.backbone
    used = len({key.rsplit("/", 1)[0] for key in classifier_keys(model).values()})
    count = CLASSIFIER_LAYERS.get(backbone.checkpoint_family, lambda backbone: used + 1)(backbone)
    numbers = "|".join(map(str, range(used, count)))
    return (
        (rf"{CLASSIFIER}/layer_with_weights-({numbers})/.*", "the end of the ImageNet classifier"),
        (rf"(?!{CLASSIFIER}/).*", "not part of the backbone"),
    )


def _backbone_weight_keys(model, table, tf1=False):
    names = [name for name in model.named_weights() if name.startswith("backbone/")]
    return _variable_keys(names, {f"backbone/{layer}": key for layer, key in table.items()}, tf1)


def _variable_keys(names, rows, tf1=False):
    """`{weight name: checkpoint key}` of the weights `names`, by the rows `{layer: key}`."""
    variable_names = name_maps_tf1_layers.VARIABLE_NAMES if tf1 else VARIABLE_NAMES
    keys = {}
    for name in names:
        layer, variable = name.rsplit("/", 1)
        if layer not in rows:
            raise ValueError(
                f"No row of the name tables maps the layer '{layer}' to a key of upstream's checkpoint. A class that "
                "changes a built-in part's layers declares `checkpoint_family = None`."
            )
        suffix = next(
            (new for (end, old), new in variable_names.items() if layer.endswith(end) and old == variable), variable
        )
        keys[name] = f"{rows[layer]}/{suffix}"
    return keys
