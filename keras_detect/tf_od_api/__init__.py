"""The bridge from the TensorFlow Object Detection API, and the only package that knows its names."""

import importlib

# name -> module; read on first use, so that this package costs nothing until then
_LAZY = {"convert_checkpoint": "convert", "training_config": "train_config", "TrainingConfig": "train_config"}

__all__ = ["TrainingConfig", "convert_checkpoint", "training_config"]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__():
    return __all__
