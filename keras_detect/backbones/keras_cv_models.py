"""Backbones of KerasCV: by name, and saved as KerasCV's own class and configuration.

KerasCV (frozen upstream) is an optional package that takes seconds to import and imports TensorFlow, so nothing here
imports it before a name that starts with "keras_cv/" or a saved model asks for it. Its networks may hold Lambda layers,
which Keras refuses to load in safe mode; rebuilding a network by its constructor needs no Lambda from the file.
"""

import importlib

import keras

from keras_detect import compat
from keras_detect.registry import unknown_name

PREFIX = "keras_cv/"


def is_keras_cv(model):
    """Whether `model` is a backbone of KerasCV, which its class and its `get_config` describe in full."""
    return type(model).__module__.split(".")[0] == "keras_cv" and hasattr(model, "pyramid_level_inputs")


def keras_cv_names():
    """`(classes, presets)`: name -> class, and preset name -> class that offers it. Imports KerasCV.

    Raises:
        ImportError: KerasCV is not installed.
    """
    models = _models()
    classes = {name: getattr(models, name) for name in dir(models) if name.endswith("Backbone") and name != "Backbone"}
    presets = {}
    for cls in classes.values():
        for preset in cls.presets:
            # an alias (ResNet50Backbone) offers presets of its family; the family's class is the more general one
            if preset not in presets or issubclass(presets[preset], cls):
                presets[preset] = cls
    return classes, presets


def keras_cv_model(name):
    """The KerasCV backbone called `name`, with "keras_cv/" or without, for images of any size.

    Args:
        name: a class ("ResNet50Backbone", which has the architecture's preset in it) or a preset ("resnet50",
            "csp_darknet_tiny_imagenet"; the latter has trained weights). KerasCV fetches both from Kaggle.

    Returns:
        A functional Keras model.

    Raises:
        ImportError: KerasCV is not installed.
        ValueError: an unknown name (similar names are listed), a class without a preset of its own, or a preset that
            could not be fetched.
    """
    name = name.removeprefix(PREFIX)
    classes, presets = keras_cv_names()
    if name not in classes and name not in presets:
        raise ValueError(unknown_name("KerasCV backbone", name, [*classes, *presets]))
    try:
        if name in presets:
            return presets[name].from_preset(name, input_shape=(None, None, 3))
        return classes[name](input_shape=(None, None, 3))
    except Exception as error:  # kagglehub, requests and the file system each have errors of their own
        if name in presets or not isinstance(error, TypeError):
            raise ValueError(
                f"KerasCV could not build '{name}', which it fetches from Kaggle: {type(error).__name__}: {error}. Go "
                "online, or build it by its constructor and pass the model: keras_cv.models.<Class>(..., "
                "input_shape=(None, None, 3))."
            ) from error
        # a family: its constructor takes the sizes of the network
        raise ValueError(
            f"keras_cv.models.{name} is a family of networks. Received: no sizes ({error}). Name one of its presets "
            f"({', '.join(sorted(classes[name].presets)) or 'it has none'}), or pass keras_cv.models.{name}(...)."
        ) from error


def describe(model):
    """What `rebuild` needs, as JSON-like data: KerasCV's class and settings, and the names of all layers."""
    config = {**model.get_config(), "input_tensor": None}
    return {
        "keras_cv_class": type(model).__name__,
        "settings": keras.saving.serialize_keras_object(config),
        # Keras counts the unnamed layers of a process, so that they are called otherwise in the next one
        "layer_names": [layer.name for layer in compat.inner_layers(model)],
    }


def rebuild(description):
    """The KerasCV backbone that `describe` described, with fresh weights and the names that its layers had.

    Args:
        description: dict; names of layers that do not train may come along under "frozen_layers".

    Raises:
        ImportError: KerasCV is not installed.
        ValueError: KerasCV has no such class, or builds another network from the configuration.
    """
    classes, _ = keras_cv_names()
    name = description["keras_cv_class"]
    if name not in classes:
        raise ValueError(unknown_name("KerasCV backbone", name, classes))
    model = classes[name](**keras.saving.deserialize_keras_object(description["settings"]))
    layers, names = compat.inner_layers(model), description["layer_names"]
    if len(layers) != len(names):
        raise ValueError(
            f"keras_cv.models.{name} was saved with {len(names)} layers. Received: {len(layers)} layers from this "
            "version of KerasCV. Install the version that saved it."
        )
    for layer, layer_name in zip(layers, names, strict=True):
        layer.name = layer_name
    for layer in layers:
        if layer.name in description.get("frozen_layers", ()):
            layer.trainable = False
    return model


def _models():
    try:
        return importlib.import_module("keras_cv").models
    except ImportError as error:
        raise ImportError(
            f"Backbones of KerasCV need the package keras-cv: pip install keras-cv. Received: {error}"
        ) from error
