"""`config.json` of a preset: what Keras serializes, without what a rebuild does not need.

A part of this package is `{"part": "SSD", "config": {...}}`: no module path, which may change, no build shapes, no
compile state. The dtype policy that all parts share is omitted, so a model computes under the session's. What else
is in a model (a user's classes, Keras' own layers) stands as Keras writes it.
"""

import json
import os
import pathlib

import keras

from keras_detect import files
from keras_detect.registry import PACKAGE

_PART = {"part", "config"}


def serialized(model) -> dict:
    """The compact config of `model`."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return _compact(_without_policy(config, _policy_name(config.get("config", {}))))


def expanded(config):
    """A compact config in the form that `keras.saving.deserialize_keras_object` takes."""
    if isinstance(config, list):
        return [expanded(value) for value in config]
    if not isinstance(config, dict):
        return config
    inner = {key: expanded(value) for key, value in config.items()}
    if set(config) != _PART:
        return inner
    name = inner.pop("part")
    return {"module": None, "class_name": name, "registered_name": f"{PACKAGE}>{name}", **inner}


def write(path: str | os.PathLike, config: dict) -> pathlib.Path:
    """Writes a compact config, a line for each argument of the model."""
    inner = [f"{json.dumps(key)}: {_line(value)}" for key, value in config["config"].items()]
    others = [f"{json.dumps(key)}: {_line(value)}" for key, value in config.items() if key != "config"]
    text = f'{{{", ".join(others)}, "config": {{\n' + ",\n".join(inner) + "\n}}\n"
    return files.write_file(path, text)


def _line(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _compact(config):
    if isinstance(config, list | tuple):
        return [_compact(value) for value in config]
    if not isinstance(config, dict):
        return config
    package, _, name = str(config.get("registered_name")).partition(">")
    if package == PACKAGE and "config" in config:
        return {"part": name, "config": _compact(config["config"])}
    return {key: _compact(value) for key, value in config.items()}


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
