"""Writes checkpoints with the golden weights (GOLDEN.md section 3) as upstream would have saved them."""

import json
import math
import pathlib
import tarfile
import zlib

import numpy as np

from tests import goldens

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def golden_weights(name):
    """`{checkpoint key: float32 array}` of the golden model `name`, in the order of its variables."""
    entries = json.loads(goldens.golden(f"{name}.vars.json").read_text())["variables"]
    return {entry["key"]: _value(entry) for entry in entries}


def write_golden_checkpoint(name, folder):
    """Writes the golden weights of `name` as `folder`/ckpt-0 with its state file; returns the prefix."""
    return write_checkpoint(golden_weights(name), folder)


def write_checkpoint(values, folder):
    """Writes `{key without suffix: array}` as an object checkpoint `folder`/ckpt-0; returns the prefix (a path).

    Like upstream's, it holds a `save_counter`; the object graph is skipped (only TensorFlow's own restoring
    needs it).
    """
    import tensorflow as tf

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = {**values, "save_counter": np.int64(1)}
    with tf.device("cpu"):
        tf.raw_ops.SaveV2(
            prefix=str(folder / "ckpt-0"),
            tensor_names=[key + _VALUE for key in values],
            shape_and_slices=[""] * len(values),
            tensors=[tf.constant(value) for value in values.values()],
        )
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-0"\nall_model_checkpoint_paths: "ckpt-0"\n')
    return folder / "ckpt-0"


def write_tf1_checkpoint(values, folder):
    """Writes `{variable name: array}` as the checkpoint `folder`/model.ckpt of a graph of TensorFlow 1.

    Like upstream's, it holds a `global_step`. Returns the prefix (a path).
    """
    import tensorflow as tf

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = {**values, "global_step": np.int64(7)}
    with tf.device("cpu"):
        tf.raw_ops.SaveV2(
            prefix=str(folder / "model.ckpt"),
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=[tf.constant(value) for value in values.values()],
        )
    return folder / "model.ckpt"


def write_golden_archive(name, folder, stem=None):
    """Writes `folder`/`stem`.tar.gz laid out like the zoo's: stem/pipeline.config and stem/checkpoint/ckpt-0.*."""
    folder, stem = pathlib.Path(folder), stem or name
    write_golden_checkpoint(name, folder / stem / "checkpoint")
    (folder / stem / "pipeline.config").write_bytes(goldens.golden(f"{name}.config").read_bytes())
    archive = folder / f"{stem}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=0) as tar:
        tar.add(folder / stem, arcname=stem)
    return archive


def _value(entry):
    """One variable by the rule: a draw seeded by the key, shaped by its last word, times its power of two."""
    key, shape = entry["key"], tuple(entry["shape"])
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    noise = np.asarray(generator.standard_normal(shape, dtype=np.float32), np.float32).reshape(shape)
    value = _base(key.rsplit("/", 1)[-1], shape, noise) * np.float32(entry["scale"])
    for index, addend in entry.get("bias_add", ()):
        value[index] += np.float32(addend)
    return value


def _base(last, shape, noise):
    one, tenth = np.float32(1), np.float32(0.1)
    if last in ("beta", "moving_mean"):
        return tenth * noise
    if last == "moving_variance":
        return one + tenth * np.abs(noise)
    if last == "bifpn_combine_weights":
        return one + np.float32(0.3) * noise
    if last != "gamma" and len(shape) >= 2:
        fan_in = math.prod(shape[:2] if last in ("depthwise_kernel", "depthwise_weights") else shape[:-1])
        return noise * np.float32(math.sqrt(2.0 / fan_in))
    if last in ("bias", "biases"):
        return np.float32(0.01) * noise
    return one + tenth * noise  # gamma and everything that has no rule of its own
