"""Names of torchvision's detectors: our layers, their modules, and how the values of some of them are arranged."""

import re
from collections.abc import Callable
from typing import NamedTuple

from keras_detect.weights import torch_layout

BODY = "backbone.body"
#: what modules were called before torchvision 0.13 (the published files of the first versions): pattern, replacement
OLDER_NAMES: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    (
        r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)",
        lambda found: f"{found[1]}.0.{found[2]}",
    ),
    (
        # convolutions and activations were counted together
        r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)",
        lambda found: f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}",
    ),
    (r"(rpn\.head\.conv)\.(weight|bias)", lambda found: f"{found[1]}.0.0.{found[2]}"),
)


class Rows(NamedTuple):
    """`layers`: `{our layer: their module}`; `changes`: `{our layer: function of its values, in torch's layout}`."""

    layers: dict[str, str]
    changes: dict[str, Callable]


def newer_name(name: str) -> str:
    """A name as torchvision has it since 0.13."""
    for pattern, replacement in OLDER_NAMES:
        found = re.fullmatch(pattern, name)
        if found:
            return replacement(found)
    return name


def is_detector(names) -> bool:
    """Whether the state dict with these names is a detector's of torchvision."""
    return any(name.startswith(f"{BODY}.") for name in names)


def _pyramid(neck):
    rows = {}
    for index, name in enumerate(neck.map_names[: len(neck.levels)]):
        for ours, theirs in (("project", "inner_blocks"), ("smooth", "layer_blocks")):
            module = f"backbone.fpn.{theirs}.{index}"
            rows |= {f"neck/{name}_{ours}_conv": f"{module}.0", f"neck/{name}_{ours}_bn": f"{module}.1"}
    for name in neck.map_names[len(neck.levels) :]:
        rows[f"neck/{name}_conv"] = f"backbone.fpn.extra_blocks.{name.lower()}"
    return Rows(rows, {})


def _shared_heads(predictor):
    rows = {
        "box_predictor/shared_box": "head.regression_head.bbox_reg",
        "box_predictor/shared_class": "head.classification_head.cls_logits",
    }
    for tower, head in zip(predictor.tower_names, ("regression", "classification"), strict=False):
        for index in range(predictor.num_layers_before_predictor):
            module = f"head.{head}_head.conv.{index}"
            rows |= {f"box_predictor/{tower}_{index}": f"{module}.0"}
            rows |= {f"box_predictor/{tower}_{index}_gn": f"{module}.1"}
    return Rows(rows, {"box_predictor/shared_box": torch_layout.boxes_yx})


def _regions(predictor):
    rows = {
        "region_predictor/shared_box": "rpn.head.bbox_pred",
        "region_predictor/shared_object": "rpn.head.cls_logits",
    }
    for index in range(predictor.num_convolutions):
        rows[f"region_predictor/shared_conv_{index}"] = f"rpn.head.conv.{index}.0"
    return Rows(rows, {"region_predictor/shared_box": torch_layout.boxes_yx})


def _box_classifier(extractor):
    group, number = "box_classifier_features", extractor.convolutions
    rows = {}
    for index in range(number):
        module = f"roi_heads.box_head.{index}"
        rows |= {f"{group}/roi_{index}_conv": f"{module}.0", f"{group}/roi_{index}_bn": f"{module}.1"}
    if number:
        rows[f"{group}/dense_0"] = f"roi_heads.box_head.{number + 1}"
    else:
        rows |= {f"{group}/dense_{index}": f"roi_heads.box_head.fc{index + 6}" for index in range(2)}
    return Rows(rows, {f"{group}/dense_0": torch_layout.channels_last(extractor.roi_size)})


def _box_heads(predictor):
    rows = {
        "box_predictor/box_head": "roi_heads.box_predictor.bbox_pred",
        "box_predictor/class_head": "roi_heads.box_predictor.cls_score",
    }
    return Rows(rows, {"box_predictor/box_head": torch_layout.boxes_of_objects})


#: `checkpoint_family` of a part -> its rows
PARTS: dict[str, Callable] = {
    "fpn_torch": _pyramid,
    "weight_shared": _shared_heads,
    "region_proposal_shared": _regions,
    "faster_rcnn_fpn": _box_classifier,
    "mask_rcnn": _box_heads,
}


def detector_parts(model) -> list:
    """The parts of `model` that have weights, without the backbone."""
    extractor = model.feature_extractor
    parts = [getattr(extractor, "neck", None), model.box_predictor]
    if hasattr(model, "region_predictor"):
        parts += [model.region_predictor, extractor]
    return parts


def rows(model) -> Rows:
    """Rows of the whole detector but its backbone.

    Raises:
        ValueError: a part that torchvision's detectors do not have.
    """
    layers: dict[str, str] = {}
    changes: dict[str, Callable] = {}
    for part in detector_parts(model):
        family = getattr(part, "checkpoint_family", None)
        if family not in PARTS:
            raise ValueError(
                "State dicts of torchvision's detectors restore into models of RetinaNet.from_torchvision and "
                f"FasterRCNN.from_torchvision. Received: a {type(model).__name__} with a {type(part).__name__}, which "
                "they do not have. Pass kind='classification' for the backbone alone."
            )
        found = PARTS[family](part)
        layers |= found.layers
        changes |= found.changes
    return Rows(layers, changes)
