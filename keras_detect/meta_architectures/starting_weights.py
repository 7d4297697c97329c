"""What `from_backbone` starts from: weights that the package holds, ImageNet's, a file's, or random ones."""

import os
from typing import Any

import keras
from absl import logging

from keras_detect import registry
from keras_detect.backbones.backbone import Backbone, backbone_names, get_backbone
from keras_detect.backbones.imagenet_weights import check_available, imagenet_network
from keras_detect.backbones.keras_cv_models import PREFIX
from keras_detect.backbones.keras_models import application, application_names
from keras_detect.weights.keras_applications import family_of
from keras_detect.weights.keras_network import holds_model, load_network

#: default of `weights`: "packaged" where the package holds weights for the backbone's name, else `None` with a line
AUTO = "auto"
PACKAGED, IMAGENET = "packaged", "imagenet"
RANDOM = "random weights"
#: ends or begins what `started_from` says of a model whose backbone alone was trained before
ALONE, GIVEN, OF_PACKAGED = "backbone alone", "the backbone '", "backbone of the "
_TRAINED = ("_imagenet", "_coco")  # how presets of KerasCV end that have trained weights


def prepared(backbone: Any, weights: Any) -> Any:
    """The backbone to build with: a network of keras.applications is given its weights before it is wrapped.

    Args:
        backbone: what `from_backbone` was given.
        weights: as in `SSD.from_backbone`.

    Raises:
        ValueError: weights that such a backbone cannot have.
        OSError: ImageNet's weights cannot be fetched.
    """
    if weights in (None, AUTO, PACKAGED) or not isinstance(backbone, str) or backbone in backbone_names():
        return backbone
    if backbone in application_names():
        if weights == IMAGENET:
            return imagenet_network(backbone)
        if holds_model(weights):
            network = application(backbone)
            load_network(network, weights)
            return network
        try:
            return application(backbone, os.fspath(weights))
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{weights}: no weights of keras.applications.{backbone} ({reason})") from error
    if backbone.startswith(PREFIX):
        raise ValueError(
            f"KerasCV's backbones bring their weights by their name. Received: {backbone!r} and weights={weights!r}. "
            f"Name a trained one, such as '{PREFIX}resnet50_imagenet', and leave weights out."
        )
    return backbone


def start_of(model: Any) -> str:
    """What of a detector is trained: "detector" (all of it), "backbone" (under new parts) or "random" (nothing).

    A model whose optimizer has taken steps is a trained detector, regardless of what it started from; a model that no
    weights were loaded into counts as random.
    """
    optimizer = getattr(model, "optimizer", None)
    steps = getattr(optimizer, "iterations", None)
    if steps is not None and int(keras.ops.convert_to_numpy(steps)) > 0:
        return "detector"
    started = getattr(model, "started_from", None) or RANDOM
    if started == RANDOM:
        return "random"
    return "backbone" if started.endswith(ALONE) or started.startswith((GIVEN, OF_PACKAGED)) else "detector"


def load(model, backbone: Any, weights: Any):
    """Gives the backbone of a new model its weights, notes them in `model.started_from`, and returns the model.

    Args:
        model: a detector that `from_backbone` built.
        backbone: what `from_backbone` was given: a name or an object; `None` for a finished feature extractor.
        weights: as in `SSD.from_backbone`.

    Raises:
        ValueError: weights that the package does not hold or that do not fit the backbone.
        OSError: ImageNet's weights cannot be fetched.
        FileNotFoundError: no such file.
    """
    by_name = isinstance(backbone, str)
    if weights == AUTO and not by_name:
        model.started_from = None if backbone is None else f"{GIVEN}{backbone.name}' as it was given"
        return model
    packaged = _packaged(model, backbone)
    if weights == PACKAGED and packaged is None:
        held = ", ".join(registry.provided("packaged_backbones")())
        raise ValueError(
            f"The package holds weights for the backbones {held}. Received: weights='packaged' for {_called(backbone)}."
            " Pass weights='imagenet', the path of a file, or None for a random start."
        )
    if weights in (AUTO, PACKAGED) and packaged is not None:
        name, folder = packaged
        model.restore(folder, kind="classification")
        model.started_from = f"{OF_PACKAGED}packaged preset '{name}'"
    elif weights is None or weights == AUTO:
        _start_at_random(model, backbone, quiet=weights is None)
    elif by_name and backbone in application_names():
        model.started_from = f"{_of(weights)} of keras.applications.{backbone}, {ALONE}"  # `prepared` has loaded them
    else:
        model.restore(_network(model) if weights == IMAGENET else weights, kind="classification")
        model.started_from = f"{_of(weights)}, {ALONE}"
    return model


def _start_at_random(model, backbone, quiet):
    name = _called(backbone)
    if isinstance(backbone, str) and backbone.startswith(PREFIX) and backbone.endswith(_TRAINED):
        model.started_from = f"KerasCV's preset '{backbone.removeprefix(PREFIX)}', {ALONE}"
        return
    model.started_from = RANDOM
    if not quiet:
        logging.warning("%s starts from random weights. %s", name, _advice(model, backbone))


def _advice(model, backbone):
    """How to get weights for the backbone."""
    start = "or start from a trained detector: Model.from_preset('ssd_mobilenet_v2_oidv4', class_names=[...])"
    if _has_imagenet(model, backbone):
        return f"Trained ones: weights='imagenet' (fetched once) or the path of a weights file; {start}."
    if isinstance(backbone, str) and f"{backbone}_keras" in backbone_names():
        return f"Trained ones: '{backbone}_keras' with weights='imagenet', or the path of a checkpoint; {start}."
    return f"Trained ones: weights=<path of a weights file or checkpoint>; {start}."


def _has_imagenet(model, backbone):
    if isinstance(backbone, str) and backbone in application_names():
        return True
    try:
        family_of(_backbone_of(model))
    except ValueError:
        return False
    return True


def _network(model):
    """The network of keras.applications, with ImageNet weights, that computes what the backbone of `model` does."""
    backbone = _backbone_of(model)
    name, settings = family_of(backbone).application(backbone)
    return imagenet_network(name, **settings)


def check_imagenet(weights: Any) -> None:
    """Raises `OSError` before anything is built where ImageNet's weights are asked for and cannot be fetched."""
    if weights == IMAGENET:
        check_available("")


def _packaged(model, backbone):
    """`(preset, its folder)` whose backbone the package holds for `backbone`; `None` where it holds none."""
    held = registry.provided("packaged_backbones")()
    if isinstance(backbone, str):
        return held.get(backbone)
    own = _backbone_of(model)
    return next((entry for name, entry in held.items() if get_backbone(name) is type(own)), None)


def _backbone_of(model):
    return model.feature_extractor.backbone


def _called(backbone):
    if isinstance(backbone, str):
        return f"'{backbone}'"
    return f"a {type(backbone).__name__}" if isinstance(backbone, Backbone | keras.Model) else "the feature extractor"


def _of(weights):
    return "ImageNet weights" if weights == IMAGENET else f"weights of {os.fspath(weights)}"
