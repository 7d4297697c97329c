"""Weights by their place in a model: their names, a file of them, and both as sources that the strict restore reads."""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping

import h5py
import keras
import numpy as np

from keras_detect import compat
from keras_detect.messages import shown
from keras_detect.weights.finite import NonFiniteWeightsError, defect
from keras_detect.weights.keras_file import reason
from keras_detect.weights.restore import RestoreReport, restore

FORMAT = "keras_detect.named_weights"
DTYPES = ("float32", "float16")
_HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)  # of h5py, for a damaged file
CLASSES_DIFFER = ((r".*", "fresh, for another number of classes"),)


def named_weights(groups: Mapping[str, Iterable[keras.layers.Layer]]) -> dict[str, keras.Variable]:
    """`{name: variable}` of every weight below `groups` (group name -> layers): `"backbone/stem_conv/kernel"`.

    A name is the group, the layers on the way and the variable. Names that Keras made up and counts through a session
    ("conv2d_7") are renumbered within their parent, so that the names depend on the model alone.
    """
    names: dict = {}
    for group, layers in groups.items():
        for layer in layers:
            _collect(layer, layer.name, group, names)
    return names


def stable_names(layers: Iterable[keras.layers.Layer]) -> list[str]:
    """Names of sibling `layers`, those that Keras made up counted from the first: "conv2d", "conv2d_1", ..."""
    counts: dict[str, int] = {}
    names = []
    for layer in layers:
        base = _snake_case(type(layer).__name__)
        names.append(_counted(base, counts) if re.fullmatch(rf"{base}(_\d+)?", layer.name) else layer.name)
    return names


def _collect(layer, name, prefix, names):
    """Adds the weights of `layer`, called `name`, and of its sub-layers to `names`."""
    children = layer.layers if isinstance(layer, keras.Model) else compat.direct_layers(layer)
    inherited = {id(weight) for child in children for weight in child.weights}
    counts = {}
    for weight in layer.weights:
        if id(weight) not in inherited:
            base = "variable" if re.fullmatch(r"variable(_\d+)?", weight.name) else weight.name
            names[f"{prefix}/{name}/{_counted(base, counts)}"] = weight
    for child, child_name in zip(children, stable_names(children), strict=True):
        _collect(child, child_name, prefix if not compat.direct_layers(child) else f"{prefix}/{child_name}", names)


def _counted(base, counts):
    counts[base] = counts.get(base, -1) + 1
    return f"{base}_{counts[base]}" if counts[base] else base


def _snake_case(name):
    """As Keras makes a layer's name of its class: "Conv2D" -> "conv2d"."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class ModelWeights:
    """The weights of a living detector as a source.

    Args:
        model: has `named_weights()`.
        source: what messages call it.
    """

    advice = "Pass a detector of the same architecture, or kind='classification' for the backbone alone."

    def __init__(self, model, source=None):
        self.source = source or f"{model.name} ({type(model).__name__})"
        self.variables = model.named_weights()
        self.shapes = {name: tuple(variable.shape) for name, variable in self.variables.items()}
        self.ignored = {}

    def read(self, key):
        """The value under `key` as a numpy array."""
        return keras.ops.convert_to_numpy(self.variables[key])


class WeightsFile:
    """A file that `write_weights` wrote, as a source.

    Args:
        path: of the file.

    Raises:
        ValueError: no such file of weights, or a damaged one.
    """

    advice = "The weights belong to another architecture than the config, or one of the two was replaced."

    def __init__(self, path):
        self.source, self.ignored, self.shapes = str(path), {}, {}
        self._file = _opened(path)
        try:
            self._file.visititems(self._add)
        except _HDF5_ERRORS as error:
            self._file.close()
            raise ValueError(f"{path}: damaged, or not a weights file ({reason(error)})") from error

    def _add(self, name, item):
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual or item.dtype.kind not in "fiub" or item.shape is None:
                raise ValueError(f"{shown(name)!r} is not a plain array of numbers in this file")
            self.shapes[name] = tuple(item.shape)

    def read(self, key):
        """The value under `key` as a numpy array. Raises `ValueError` for a damaged file."""
        try:
            return self._file[key][()]
        except _HDF5_ERRORS as error:
            raise ValueError(f"{self.source}: cannot read {key!r} ({reason(error)})") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def is_weights_file(path: str | os.PathLike) -> bool:
    """Whether `path` is a file that `write_weights` wrote."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") == FORMAT
    except _HDF5_ERRORS:
        return False


def _opened(path):
    try:
        file = h5py.File(path, "r")
        known = file.attrs.get("format") == FORMAT
    except FileNotFoundError:
        raise
    except _HDF5_ERRORS as error:
        raise ValueError(f"{path}: not an HDF5 file, or truncated ({reason(error)})") from error
    if not known:
        file.close()
        raise ValueError(f"{path}: holds no weights by name. `load_weights` reads what Keras' `save_weights` wrote.")
    return file


def write_weights(model, path: str | os.PathLike, dtype: str = "float32") -> pathlib.Path:
    """Writes the weights of `model`, and nothing else (no optimizer), into the HDF5 file `path`, each under its name.

    Args:
        model: has `named_weights()`.
        path: of the new file.
        dtype: "float32", or "float16" for a file half as large: kernels read from it have three digits. Vectors
            (biases, batch norm), whose errors add up from layer to layer, stay float32, and integers keep their own.

    Returns the path. Raises `ValueError` for a `dtype` that is neither, or that cannot hold a weight of the model, and
    `NonFiniteWeightsError` for a weight that is NaN or infinite.
    """
    if dtype not in DTYPES:
        raise ValueError(f"Weights are stored as float32 or float16. Received: weights_dtype={dtype!r}")
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT
        for name, variable in model.named_weights().items():
            file.create_dataset(name, data=_stored(name, variable, dtype))
    return pathlib.Path(path)


def _stored(name, variable, dtype):
    value = keras.ops.convert_to_numpy(variable)
    if np.issubdtype(value.dtype, np.integer) or value.dtype == bool:
        return value
    value = value.astype("float32")
    if defect(value) is not None:
        raise NonFiniteWeightsError(f"Weights must be finite. Received: {name} is {defect(value)}.")
    if dtype == "float32":
        return value
    stored = np.finfo(np.float16 if value.ndim > 1 else np.float32)
    if not np.all(np.abs(value) <= stored.max):
        raise ValueError(f"{name} holds a value beyond {stored.max:g}: store it as float32.")
    return value.astype(stored.dtype)


def copy_weights(source, target, other_classes: bool = False) -> RestoreReport:
    """Gives `target` the values of `source`, weight by weight and name by name.

    Args:
        source: a `ModelWeights` or `WeightsFile`.
        target: a model with `named_weights()`.
        other_classes: the two differ in the number of classes: weights of another shape keep their fresh value.

    Returns a `RestoreReport`. Raises `RestoreError` that lists all that does not fit; nothing was assigned then.
    """
    return restore(
        target.named_weights(), lambda name: name, source, may_differ=CLASSES_DIFFER if other_classes else ()
    )
