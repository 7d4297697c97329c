"""Our weight names of a CenterNet -> checkpoint keys of upstream: one row per layer."""

from keras_detect.tf_od_api import name_maps_center_net_features as features
from keras_detect.tf_od_api.name_maps_layers import declared

HEADS = "model/_prediction_head_dict"

#: `checkpoint_family` of a task -> function of it -> `{our head: upstream's}`
TASKS = {
    "center_net_objects": lambda task: {"center": "object_center", "size": "box/scale", "offset": "box/offset"},
    "center_net_keypoints": lambda task: {
        head: f"{task.name}/keypoint/{head}" for head in ("heatmap", "regression", "offset")
    },
    "center_net_masks": lambda task: {"mask": "segmentation/heatmap"},
}


def upstream_heads(task):
    """`{our head: upstream's name}` of the heads that a task has. Raises `ValueError` for one that upstream has not."""
    names = declared(TASKS, task)(task)
    return {head: names[head] for head in task.channels()}


def _heads(task):
    """The layers of a head are numbered in their order; there is a head for each feature map."""
    names, rows = upstream_heads(task), {}
    for (head, index), layers in task.towers().items():
        for number, layer in enumerate(layers):
            rows[layer.name] = f"{HEADS}/{_escaped(names[head])}/{index}/layer_with_weights-{number}"
    return rows


def _escaped(name):
    """A name as a component of TensorFlow's object graph."""
    return name.replace(".", "..").replace("/", ".S")


def tables(model):
    """`{group: {layer: key}}`, groups as in `named_weights`. Raises `ValueError` for a part that has no row."""
    return {**features.tables(model.feature_extractor), **{task.name: _heads(task) for task in model.tasks}}


def backbone_table(model):
    """`{layer: key}` of the backbone, in the network's order."""
    return features.backbone_table(model.feature_extractor)


def backbone_keys(model):
    """Regex of the checkpoint keys that belong to the backbone of `model`."""
    return features.backbone_keys(model.feature_extractor)


def unused_keys(model):
    """Nothing of upstream's checkpoint is without use."""
    return ()
