"""Our weight names -> checkpoint keys of upstream, for every meta-architecture that has a table."""

from keras_detect.tf_od_api import name_maps_center_net, name_maps_faster_rcnn, name_maps_ssd
from keras_detect.tf_od_api.name_maps_layers import declared, efficientnet_layers, numbered

#: `checkpoint_family` of a model -> the module of its tables
MODELS = {"ssd": name_maps_ssd, "faster_rcnn": name_maps_faster_rcnn, "center_net": name_maps_center_net}

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


def ignored_keys(model):
    """`((regex of a checkpoint key, reason), ...)`: what upstream's checkpoint of `model` holds and `model` not."""
    return declared(MODELS, model).unused_keys(model)


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    return declared(MODELS, model).backbone_keys(model)


def checkpoint_keys(model):
    """`{our weight name: checkpoint key}` for every weight of a model, `named_weights()` order.

    Raises:
        ValueError: for a part the tables do not know, or a weight without a row.
    """
    tables = declared(MODELS, model).tables(model)
    rows = {f"{group}/{layer}": key for group, table in tables.items() for layer, key in table.items()}
    return _variable_keys(model.named_weights(), rows)


def backbone_checkpoint_keys(model):
    """`{our weight name: checkpoint key}` of the backbone alone, in a detector's checkpoint with any heads.

    Raises:
        ValueError: for a backbone the tables do not know.
    """
    return _backbone_weight_keys(model, declared(MODELS, model).backbone_table(model))


def classifier_keys(model):
    """`{our weight name: checkpoint key}` of the backbone, as a checkpoint of the ImageNet classifier alone has it.

    Upstream's configs name such checkpoints as `fine_tune_checkpoint` of the type "classification"; there, the layers
    of the whole network are numbered below `CLASSIFIER`.
    """
    # a detector's table has the layers in the network's order, regardless of the parts that upstream renumbers
    return _backbone_weight_keys(model, numbered(declared(MODELS, model).backbone_table(model), CLASSIFIER))


def ignored_classifier_keys(model):
    """`((regex of a checkpoint key, reason), ...)`: what a classifier's checkpoint holds behind the backbone."""
    backbone = model.feature_extractor.backbone
    used = len({key.rsplit("/", 1)[0] for key in classifier_keys(model).values()})
    count = CLASSIFIER_LAYERS.get(backbone.checkpoint_family, lambda backbone: used + 1)(backbone)
    numbers = "|".join(map(str, range(used, count)))
    return (
        (rf"{CLASSIFIER}/layer_with_weights-({numbers})/.*", "the end of the ImageNet classifier"),
        (rf"(?!{CLASSIFIER}/).*", "not part of the backbone"),
    )


def _backbone_weight_keys(model, table):
    names = [name for name in model.named_weights() if name.startswith("backbone/")]
    return _variable_keys(names, {f"backbone/{layer}": key for layer, key in table.items()})


def _variable_keys(names, rows):
    """`{weight name: checkpoint key}` of the weights `names`, by the rows `{layer: key}`."""
    keys = {}
    for name in names:
        layer, variable = name.rsplit("/", 1)
        if layer not in rows:
            raise ValueError(
                f"No row of the name tables maps the layer '{layer}' to a key of upstream's checkpoint. A class that "
                "changes a built-in part's layers declares `checkpoint_family = None`."
            )
        suffix = next(
            (new for (end, old), new in VARIABLE_NAMES.items() if layer.endswith(end) and old == variable), variable
        )
        keys[name] = f"{rows[layer]}/{suffix}"
    return keys
