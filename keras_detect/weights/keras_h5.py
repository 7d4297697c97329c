"""HDF5 files in Keras' older layout, read by the names in them.

Whole models that `model.save("model.h5")` of Keras 2 or 3 wrote, and weights of Keras 2's `save_weights`. No model is
built, and no link is followed.
"""

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from typing import Any

import h5py
import numpy as np

from keras_detect.messages import shown
from keras_detect.weights.keras_file import MAX_CONFIG, reason, weights_limit

WHOLE_MODEL = "model_weights"  # the group in which a whole model's file holds the layers
_LAYERS, _WEIGHTS, _CONFIG = "layer_names", "weight_names", "model_config"
_RENAMED = {"depthwise_kernel": "kernel"}  # what Keras 2 calls a variable that Keras 3 calls otherwise
_HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)


class KerasH5Error(ValueError):
    """An HDF5 file of Keras that is damaged. One line that names the file."""


class KerasH5File:
    """Layers and variables of a file in the older layout.

    Args:
        path: of the file.

    Attributes:
        networks: one `{layer: {variable: (path in the file, shape)}}` for the layers of the model itself, and one for
            each model nested in it.
        whole: whether it holds a whole model rather than weights alone.

    Raises:
        KerasH5Error: no such file, or a damaged one.
    """

    def __init__(self, path: str | os.PathLike):
        self.source = os.fspath(path)
        try:
            self._file = h5py.File(path, "r")
            self.whole = WHOLE_MODEL in self._file
            self._limit = weights_limit(os.path.getsize(path))
            self.networks = self._networks(_group(self._file, WHOLE_MODEL) if self.whole else self._file)
        except _HDF5_ERRORS as error:
            raise self._damaged(error) from error

    def network(self, wanted: Collection[str]) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]] | None:
        """The network that has the layers `wanted`; `None` where none has them all."""
        return next((layers for layers in self.networks if layers.keys() >= set(wanted)), None)

    def read(self, path: str) -> np.ndarray:
        """The values at a path of `networks`. Raises `KerasH5Error` where the file is damaged."""
        try:
            return self._file[path][()]
        except _HDF5_ERRORS as error:
            raise self._damaged(error) from error

    def setting(self, layer: str, name: str) -> Any:
        """A setting of a layer as the file's configuration of the model has it; `None` where nothing tells."""
        text = self._file.attrs.get(_CONFIG)
        try:
            config = json.loads(text) if text is not None and len(text) <= MAX_CONFIG else None
        except (ValueError, RecursionError):
            return None
        return next((found[name] for found in _configs(config) if found.get("name") == layer and name in found), None)

    def _networks(self, parent):
        own: dict[str, dict] = {}
        networks = [own]
        for group_name in _names(parent, _LAYERS):
            group = _group(parent, group_name)
            layers: dict[str, dict] = {}
            for name in _names(group, _WEIGHTS):
                layer, variable = [group_name, *re.sub(r":\d+$", "", name).split("/")][-2:]
                found = layers.setdefault(layer, {})
                variable = _RENAMED.get(variable, variable)
                if variable in found:
                    raise ValueError(f"the layer {shown(layer)!r} has two variables {shown(variable)!r}")
                found[variable] = self._variable(group, name)
            if len(layers) > 1:
                networks.append(layers)
            elif layers:
                own[group_name] = next(iter(layers.values()))
        return networks

    def _variable(self, group, name):
        *parents, last = name.split("/")
        for parent in parents:
            group = _group(group, parent)
        item = _member(group, last)
        plain = isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub" and item.shape is not None
        if not plain or item.external or item.is_virtual:
            raise ValueError(f"{shown(name)!r} is not a plain array of numbers in this file")
        if math.prod(item.shape) * item.dtype.itemsize > self._limit:
            raise ValueError(f"{shown(name)!r} of shape {item.shape} unpacks to more than a file of this size holds")
        return item.name, tuple(item.shape)

    def _damaged(self, error):
        return KerasH5Error(f"{self.source}: damaged, or not a Keras model file ({reason(error)})")


def is_keras_h5(path: str | os.PathLike) -> bool:
    """Whether `path` is an HDF5 file that names layers as the older layout does; it may still be damaged."""
    try:
        with h5py.File(path, "r") as file:
            return WHOLE_MODEL in file or any(name.startswith(_LAYERS) for name in file.attrs)
    except _HDF5_ERRORS:
        return False


def _names(group, attribute) -> Iterator[str]:
    """The texts of an attribute, which Keras splits into numbered ones where it is long."""
    if attribute in group.attrs:
        parts = [attribute]
    else:
        numbered = [name for name in group.attrs if re.fullmatch(rf"{attribute}\d+", name)]
        parts = sorted(numbered, key=lambda name: int(name.removeprefix(attribute)))
        if not parts:
            raise ValueError(f"{shown(group.name)!r} has no attribute {attribute!r}")
    for part in parts:
        for value in group.attrs[part]:
            yield value.decode() if isinstance(value, bytes) else str(value)


def _member(group, name):
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{shown(name)!r} is missing, or a link to somewhere else")
    return group[name]


def _group(parent, name):
    group = parent
    for part in name.split("/"):
        group = _member(group, part)
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{shown(name)!r} is not a group")
    return group


def _configs(config) -> Iterator[dict]:
    """Every dict inside a configuration."""
    waiting = [config]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield current
        waiting += current.values() if isinstance(current, dict) else current if isinstance(current, list) else ()
