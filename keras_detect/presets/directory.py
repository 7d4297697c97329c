"""The format of a preset on disk: `config.json`, `model.weights.h5`, `label_map.json`, `metadata.json` in a folder."""

import contextlib
import copy
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping

import keras
import numpy as np

from keras_detect.presets.download import PRESET_FILES
from keras_detect.registry import provide
from keras_detect.weights.restore import RestoreReport

CONFIG, WEIGHTS, LABEL_MAP, METADATA = PRESET_FILES
FORMAT = 1


class PresetError(ValueError):
    """A preset folder that is incomplete, damaged or not a preset. One line that names the file."""


def is_preset(directory):
    """Whether `directory` holds a preset (its `config.json`; it may still be damaged)."""
    return (pathlib.Path(directory) / CONFIG).is_file()


def _is_original(directory):
    """Whether `directory` looks like the original's: its config, or a checkpoint."""
    return any((pathlib.Path(directory) / name).exists() for name in ("pipeline.config", "checkpoint"))


@provide("save_preset")
def save_preset(model, directory, metadata=None, weights_dtype="float32"):
    """Writes `model` as a preset; the folder appears, or replaces an older preset, only when it is whole.

    Args:
        model: a built `keras.Model` with `get_config`; its `class_names` attribute, if any, becomes the label map.
        directory: the folder, which is new, empty or holds an older preset and nothing else.
        metadata: a dict that JSON can hold (source, sha256, licence, metrics); the versions of the package and of
            Keras, the format and the digest of the weights are added.
        weights_dtype: "float32", or "float16" for a file half as large; a weight read from it has three digits.

    Returns the folder as a path. Raises `FileExistsError` if the folder holds something else, `ValueError` for a
    `weights_dtype` that is neither, or that cannot hold a weight of the model.
    """
    directory = pathlib.Path(os.path.expanduser(directory)).absolute()
    _check_target(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        write_preset(model, work, metadata, weights_dtype)
        work.chmod(0o755)
        _swap(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def write_preset(model, folder, metadata=None, weights_dtype="float32"):
    """Writes the four files into the existing `folder`; `save_preset` and the cache make that atomic."""
    if weights_dtype not in ("float32", "float16"):
        raise ValueError(f"Weights are stored as float32 or float16. Received: weights_dtype={weights_dtype!r}")
    folder = pathlib.Path(folder)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    names = getattr(model, "class_names", None)
    model.save_weights(folder / WEIGHTS)
    if weights_dtype == "float16":
        _halve(folder / WEIGHTS)
    added = {
        "format": FORMAT,
        "package_version": _version(),
        "keras_version": keras.__version__,
        "weights_dtype": weights_dtype,
        "weights_sha256": _sha256(folder / WEIGHTS),
        "parameters": model.count_params(),
    }
    _write_json(folder / CONFIG, config)
    _write_json(folder / LABEL_MAP, {"class_names": None if names is None else list(names)})
    _write_json(folder / METADATA, {**(metadata or {}), **added})


def read_preset(directory, num_classes=None, load_weights=True):
    """Builds the model of a preset folder.

    Args:
        directory: the folder.
        num_classes: another number of classes than the preset's: the model is built with
            `with_num_classes(config, num_classes)` of its class, and every weight whose shape is the same is loaded.
        load_weights: False builds the architecture with fresh weights; only `config.json` is read then.

    The model computes under the session's dtype policy (`keras.config.set_dtype_policy`), as a new one would.

    Returns `(model, report)`, a `RestoreReport` that lists what was loaded and what kept its fresh value and why.
    Raises `PresetError` if the folder is no preset or damaged.
    """
    directory = pathlib.Path(os.path.expanduser(directory))
    if not is_preset(directory):
        zoo = "; from_pipeline_config and restore read the original's folder" if _is_original(directory) else ""
        raise PresetError(f"{directory}: no preset (no {CONFIG}); a preset folder holds {', '.join(PRESET_FILES)}{zoo}")
    config = read_json(directory / CONFIG)
    other = None if num_classes is None else _with_num_classes(config, num_classes, directory)
    if not load_weights:
        model = _build(config if other is None else other, directory)
        kept = dict.fromkeys(_names(model), "fresh: the weights were not asked for")
        return model, RestoreReport(str(directory), {}, kept)
    _check_weights(directory)
    original = _build(config, directory)
    _load_weights(original, directory)
    if other is None:
        return original, RestoreReport(str(directory), {name: name for name in _names(original)})
    model = _build(other, directory)
    return model, copy_weights(original, model, str(directory))


@provide("copy_weights")
def copy_weights(source, target, name):
    """Copies the weights of `source` into its twin `target` where the shapes agree; returns a `RestoreReport`.

    Twins are built by the same class from configs that differ in the number of classes: the same weights in the same
    order. Raises `PresetError` before anything is copied if they are not. `name` stands in the report and the error.
    """
    theirs, ours = source.weights, target.weights
    same = len(theirs) == len(ours) and all(
        a.name == b.name and len(a.shape) == len(b.shape) for a, b in zip(theirs, ours, strict=True)
    )
    if not same:
        raise PresetError(
            f"{name}: its {len(theirs)} weights are not those of the model with another number of classes "
            f"({len(ours)} weights); `with_num_classes` must change the shapes alone"
        )
    restored, kept = {}, {}
    for a, b, ours_name, their_name in zip(theirs, ours, _names(target), _names(source), strict=True):
        if tuple(a.shape) == tuple(b.shape):
            b.assign(a)
            restored[ours_name] = their_name
        else:
            kept[ours_name] = f"fresh: shape {tuple(b.shape)} here, {tuple(a.shape)} in the preset"
    return RestoreReport(name, restored, kept)


def _names(model):
    """Names of `model.weights`, in their order: by place in the model where it can tell, else Keras' paths."""
    places = {}
    if hasattr(model, "named_weights"):
        places = {id(weight): name for name, weight in model.named_weights().items()}
    return [places.get(id(weight), weight.path) for weight in model.weights]


def read_json(path):
    """The dict in a JSON file of a preset. Raises `PresetError` if it is missing or damaged."""
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PresetError(f"{path}: missing; a preset folder holds {', '.join(PRESET_FILES)}") from None
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{path}: damaged, no JSON ({error})") from error
    if not isinstance(content, Mapping):
        raise PresetError(f"{path}: damaged, a JSON object was expected")
    return content


def _with_num_classes(config, num_classes, directory):
    """The serialised config for another number of classes; None if it is the number that the preset has."""
    cls = keras.saving.get_registered_object(config.get("registered_name") or "")
    cls = cls or type(_build(config, directory))
    if not hasattr(cls, "with_num_classes"):
        raise PresetError(f"{directory}: a {cls.__name__} cannot be built with another number of classes")
    inner = cls.with_num_classes(copy.deepcopy(config["config"]), num_classes)
    return None if inner == config["config"] else {**config, "config": inner}


def _build(config, directory):
    try:
        return keras.saving.deserialize_keras_object(_without_policy(config, _policy_name(config.get("config", {}))))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PresetError(f"{directory / CONFIG}: cannot build the model ({_first_line(error)})") from error


def _policy_name(config):
    """Name of the dtype policy in a layer's config, `None` where there is none."""
    policy = config.get("dtype") if isinstance(config, dict) else None
    return policy["config"]["name"] if isinstance(policy, dict) and policy.get("class_name") == "DTypePolicy" else None


def _without_policy(config, name):
    """`config` without the entries of the dtype policy `name`, the model's own; a layer that differs keeps its own."""
    if isinstance(config, list):
        return [_without_policy(value, name) for value in config]
    if not isinstance(config, dict):
        return config
    followed = name is not None and _policy_name(config) == name
    return {key: _without_policy(value, name) for key, value in config.items() if key != "dtype" or not followed}


def _load_weights(model, directory):
    try:
        model.load_weights(directory / WEIGHTS)
    except (ValueError, OSError, KeyError) as error:
        raise PresetError(f"{directory / WEIGHTS}: does not fit the model ({_first_line(error)})") from error


def _halve(path):
    """Rewrites Keras' weights file with float16 in the place of float32. Keras casts up what it reads."""
    import h5py

    part = path.with_name(f"part_of_{path.name}")
    with h5py.File(path, "r") as source, h5py.File(part, "w") as target:

        def copy_item(name, item):
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                copied = target.create_dataset(name, data=_half(name, item[()]))
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy_item)
    os.replace(part, path)


def _half(name, values):
    if values.dtype != np.float32:
        return values
    if not np.all(np.abs(values) <= np.finfo(np.float16).max):
        raise ValueError(f"{name} holds NaN or a value beyond {np.finfo(np.float16).max:g}: store it as float32.")
    return values.astype(np.float16)


def _check_weights(directory):
    path = directory / WEIGHTS
    if not path.is_file():
        raise PresetError(f"{path}: missing; pass load_weights=False to build the architecture alone")
    wanted = read_json(directory / METADATA).get("weights_sha256")
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


def _swap(work, directory):
    """Puts `work` in the place of `directory`; on failure the older one is put back."""
    if not directory.exists():
        os.rename(work, directory)
        return
    older = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)) / "older"
    try:
        os.rename(directory, older)
        try:
            os.rename(work, directory)
        except OSError:
            os.rename(older, directory)
            raise
    finally:
        shutil.rmtree(older.parent, ignore_errors=True)


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version():
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("keras-detect")
    return "unknown"


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
