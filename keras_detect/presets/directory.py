"""The format of a preset on disk: `config.json`, `weights.h5`, `label_map.json`, `metadata.json` in a folder."""

import contextlib
import copy
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping

import keras

from keras_detect import compat, files
from keras_detect.config_bounds import MAX_WEIGHTS, check_config
from keras_detect.messages import shown
from keras_detect.meta_architectures.class_prior import set_class_prior
from keras_detect.presets import config_json
from keras_detect.presets.download import PRESET_FILES
from keras_detect.registry import provide
from keras_detect.weights.keras_file import MAX_CONFIG, ModelFileError, check_class, reason, weights_limit
from keras_detect.weights.named_weights import WeightsFile, copy_weights, write_weights
from keras_detect.weights.restore import RestoreReport

CONFIG, WEIGHTS, LABEL_MAP, METADATA = PRESET_FILES
FORMAT = 2  # 1 held the weights as Keras' `save_weights` writes them, the optimizer's with them


class PresetError(ModelFileError):
    """A preset folder that is incomplete, damaged or not a preset. One line that names the file."""


def is_preset(directory):
    """Whether `directory` holds a preset (its `config.json`; it may still be damaged)."""
    files.settle(directory)
    return (pathlib.Path(directory) / CONFIG).is_file()


def _is_upstream(directory):
    """Whether `directory` looks like upstream's: its config, or a checkpoint."""
    return any((pathlib.Path(directory) / name).exists() for name in ("pipeline.config", "checkpoint"))


@provide("save_preset")
def save_preset(model, directory, metadata=None, weights_dtype="float32"):
    """Writes `model` as a preset; the folder appears, or replaces an older preset, only when it is whole.

    Args:
        model: a `DetectionModel`, or a built Keras model with `get_config` and `named_weights`; its `class_names`
            attribute, if any, becomes the label map. Its optimizer is not written.
        directory: the folder, which is new, empty or holds an older preset and nothing else.
        metadata: a dict that JSON can hold (source, sha256, license, metrics); the versions of the package and of
            Keras, the format and the digest of the weights are added.
        weights_dtype: "float32", or "float16" for a file half as large: kernels read from it have three digits.

    Returns the folder as a path. Raises `FileExistsError` if the folder holds something else, `ValueError` for a
    `weights_dtype` that is neither, or that cannot hold a weight of the model, `TypeError` for a model whose weights
    have no names.
    """
    directory = pathlib.Path(os.path.expanduser(directory)).absolute()
    _check_target(directory)
    with files.replacing_folder(directory) as folder:
        write_preset(model, folder, metadata, weights_dtype)
    return directory


def write_preset(model, folder, metadata=None, weights_dtype="float32"):
    """Writes the four files into the existing `folder`; `save_preset` and the cache make that atomic."""
    if not callable(getattr(model, "named_weights", None)):
        raise TypeError(
            f"A preset holds a detector, whose weights have names. Received: {type(model).__name__}. Keras' own "
            "`model.save` writes any Keras model."
        )
    folder = pathlib.Path(folder)
    config = config_json.serialized(model)
    names = getattr(model, "class_names", None)
    write_weights(model, folder / WEIGHTS, weights_dtype)
    started_from = getattr(model, "started_from", None)
    added = {
        **({} if started_from is None else {"started_from": started_from}),
        "format": FORMAT,
        "package_version": _version(),
        "keras_version": keras.__version__,
        "weights_dtype": weights_dtype,
        "weights_sha256": _sha256(folder / WEIGHTS),
        "parameters": model.count_params(),
    }
    config_json.write(folder / CONFIG, config)
    files.write_json(folder / LABEL_MAP, {"class_names": None if names is None else list(names)}, indent=2)
    files.write_json(folder / METADATA, {**(metadata or {}), **added}, indent=2)


def read_preset(directory, num_classes=None, load_weights=True):
    """Builds the model of a preset folder.

    Args:
        directory: the folder.
        num_classes: another number of classes than the preset's: the model is built with
            `with_num_classes(config, num_classes)` of its class, and every weight whose shape is the same is loaded.
        load_weights: False builds the architecture with fresh weights; only `config.json` is read then.

    The model computes under the session's dtype policy (`keras.config.set_dtype_policy`), as a new one would.

    Returns `(model, report)`, a `RestoreReport` that lists what was loaded and what kept its fresh value and why.
    Raises `PresetError` if the folder is not a preset or is damaged.
    """
    directory = pathlib.Path(os.path.expanduser(directory))
    if not is_preset(directory):
        zoo = "; from_pipeline_config and restore read upstream's folder" if _is_upstream(directory) else ""
        raise PresetError(
            f"{directory} is not a preset: {CONFIG} is missing. A preset folder holds {', '.join(PRESET_FILES)}{zoo}"
        )
    path = directory / CONFIG
    config = _config(path)
    if not load_weights:
        model, _ = _built(config, path, num_classes)
        kept = dict.fromkeys(model.named_weights(), "fresh: the weights were not asked for")
        return model, RestoreReport(str(directory), {}, kept)
    with open_weights(directory) as weights:
        _check_label_map(directory / LABEL_MAP, config["config"].get("class_names"))
        limit = weights_limit(pathlib.Path(weights.source).stat().st_size)
        model, other = _built(config, path, num_classes, limit)
        try:
            report = copy_weights(weights, model, other_classes=other)
        except ValueError as error:
            raise PresetError(f"{weights.source}: does not fit the model ({reason(error)})") from error
    if other:
        named = model.named_weights()
        set_class_prior(model, [named[name] for name in report.kept])
    return model, report


def open_weights(directory):
    """The weights of a preset folder as a `WeightsFile`. Raises `PresetError` if they are missing or damaged."""
    directory = pathlib.Path(directory)
    _check_weights(directory)
    try:
        return WeightsFile(directory / WEIGHTS)
    except ValueError as error:
        raise PresetError(str(error)) from error


def read_json(path):
    """The dict in a JSON file of a preset. Raises `PresetError` if it is missing or damaged."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise PresetError(f"{path}: missing; a preset folder holds {', '.join(PRESET_FILES)}")
    if path.stat().st_size > MAX_CONFIG:
        raise PresetError(f"{path}: {path.stat().st_size} bytes; supported: {MAX_CONFIG}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{path}: damaged, not JSON ({reason(error)})") from error
    if not isinstance(content, Mapping):
        raise PresetError(f"{path}: damaged, a JSON object was expected")
    return content


def build_model(path, num_classes=None, class_names=None):
    """The model of a `config.json`, with fresh weights.

    Args:
        path: of the file; its name may be another one.
        num_classes: as in `read_preset`.
        class_names: of the config's own classes, where it has none.

    Returns `(model, whether it has another number of classes than the config)`. Raises `PresetError`.
    """
    config = _config(path)
    if class_names is not None:
        config["config"]["class_names"] = list(class_names)
    return _built(config, path, num_classes)


def _built(config, path, num_classes, max_bytes=MAX_WEIGHTS):
    """`build_model` of a checked config; `max_bytes` bounds the weights that its own number of classes takes."""
    other = None if num_classes is None else _with_num_classes(config, num_classes, path)
    return (_build(config, path, max_bytes), False) if other is None else (_build(other, path), True)


def _with_num_classes(config, num_classes, path):
    """The serialized config for another number of classes; None if it is the number that the preset has."""
    cls = keras.saving.get_registered_object(config["registered_name"])
    if not hasattr(cls, "with_num_classes"):
        raise PresetError(f"{path}: a {cls.__name__} cannot be built with another number of classes")
    try:
        changed = cls.with_num_classes(copy.deepcopy(config["config"]), num_classes)
    except (TypeError, KeyError, AttributeError) as error:
        raise PresetError(f"{path}: cannot build the model ({reason(error)})") from error
    same = {**changed, "class_names": None} == {**config["config"], "class_names": None}
    return None if same else {**config, "config": changed}


def _config(path):
    """The checked config in the form that Keras builds from."""
    compact = read_json(path)
    try:
        check_config(compact)  # its depth, before it is walked by recursion
        config = config_json.expanded(compact)
        check_config(config)
        check_class(config, keras.Model)
        if not isinstance(config.get("config"), dict):
            raise ValueError("its class has no config")
    except ValueError as error:
        raise PresetError(f"{path}: cannot build the model ({reason(error)})") from error
    return config


def _build(config, path, max_bytes=MAX_WEIGHTS):
    try:
        with compat.limited_variables(max_bytes):
            model = keras.saving.deserialize_keras_object(config)
        if not callable(getattr(model, "named_weights", None)):
            raise ValueError(f"a {type(model).__name__} is not a detector")
    except Exception as error:  # any exception of Keras or a part: the config is to blame
        raise PresetError(f"{path}: cannot build the model ({reason(error)})") from error
    return model


def _check_label_map(path, class_names):
    """Refuses names of classes that are not those of the config. A folder without them is whole, too."""
    if not path.exists():
        return
    if read_json(path).get("class_names", ()) != class_names:
        raise PresetError(
            f"{path}: its class_names are not those of {CONFIG}; supported: the same list in both, or null in both. "
            "Write the preset again with save_to_preset"
        )


def _check_weights(directory):
    path = directory / WEIGHTS
    if not path.is_file():
        raise PresetError(f"{path}: missing; pass load_weights=False to build the architecture alone")
    metadata = read_json(directory / METADATA)
    if metadata.get("format") != FORMAT:
        raise PresetError(
            f"{directory / METADATA}: format {shown(repr(metadata.get('format')))}, and this version reads format "
            f"{FORMAT}; write the preset again with save_to_preset"
        )
    wanted = metadata.get("weights_sha256")
    if wanted is not None and _sha256(path) != wanted:
        raise PresetError(f"{path}: damaged or replaced, its sha256 is not the one in {METADATA}")


def _check_target(directory):
    if directory.is_dir():
        others = sorted({child.name for child in directory.iterdir()} - set(PRESET_FILES))
        if not others:
            return
        raise FileExistsError(
            f"A preset is written to a new folder, or over an older preset. {str(directory)!r} holds {others[0]!r}."
        )
    if directory.exists():
        raise FileExistsError(f"A preset is a folder. {str(directory)!r} is a file.")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version():
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("keras-detect")
    return "unknown"
