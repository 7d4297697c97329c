"""Reads the goldens: unit cases and whole models as TensorFlow's Object Detection API computed them.

Those of `tests/golden/data` lie in the repository (its README.md says how they were made); the rest is looked for in
`../shared`, beside the checkout, and a test that needs what is in neither place skips and says so.
"""

import fnmatch
import functools
import json
import pathlib

import keras
import numpy as np
import pytest

from tests import NEEDS_SHARED

DATA = pathlib.Path(__file__).resolve().parent / "golden" / "data"
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
FOLDERS = (DATA, SHARED / "golden", SHARED / "golden_tf1")
BACKEND = keras.backend.backend()


def find(name):
    """Path of the golden file `name`, in the repository or beside it; `None` where it is in neither."""
    return next((folder / name for folder in FOLDERS if (folder / name).exists()), None)


def golden(name):
    """Path of the golden file `name`; skips the test where it is neither in the repository nor beside it."""
    return find(name) or require_shared(f"golden/{name}")


def configs():
    """Paths of all pipeline configs of the goldens, each name once, sorted; of TensorFlow 1 those of the repository."""
    names = {path.name for folder in FOLDERS[:2] for path in folder.glob("*.config")}
    return [find(name) for name in sorted(names)]


def require_shared(name):
    """Path of `../shared/name`, a folder or file that is too large for the repository; skips where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{NEEDS_SHARED}{name}, which is beside the repository")
    return path


@functools.cache
def index():
    """`{case: description}` of both unit files, in file order."""
    cases = {}
    for stem in ("units", "units2"):
        entries = json.loads((DATA / f"{stem}.json").read_text())
        cases.update({name: {**entry, "file": stem} for name, entry in entries.items()})
    return cases


@functools.cache
def _archive(stem):
    with np.load(DATA / f"{stem}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


class Case:
    """One unit case: `inputs` and `outputs` are dicts of numpy arrays, `info` the JSON entry with the settings."""

    def __init__(self, name):
        self.name, self.info = name, index()[name]
        arrays = _archive(self.info["file"])
        self.inputs = {key: arrays[f"{name}/in/{key}"] for key in self.info["inputs"]}
        self.outputs = {key: arrays[f"{name}/out/{key}"] for key in self.info["outputs"]}


def golden_cases(*patterns):
    """Parametrizes a test over the unit cases that match the patterns and records the claim for `test_claims.py`.

    The test receives a `case` argument (a `Case`).
    """

    def decorate(test):
        names = [name for name in index() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]

        @pytest.mark.parametrize("case_name", names)
        @functools.wraps(test)
        def run(case_name, **kwargs):
            return test(case=Case(case_name), **kwargs)

        run.__signature__ = _signature_with_case_name(test)
        run.golden_claims = frozenset(names)
        return run

    return decorate


def _signature_with_case_name(test):
    import inspect

    signature = inspect.signature(test)
    parameters = [p.replace(name="case_name") if p.name == "case" else p for p in signature.parameters.values()]
    return signature.replace(parameters=parameters)


def assert_close(actual, expected, tolerance=1e-5, err_msg=""):
    """Shapes equal, and max |actual - expected| <= tolerance x the largest |expected| (at least 1e-6 of 1)."""
    actual = np.asarray(keras.ops.convert_to_numpy(actual))
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{err_msg} shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return
    scale = max(float(np.max(np.abs(expected))), 0.1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale, err_msg=err_msg)


def relative_error(actual, expected):
    """||actual - expected|| / ||expected|| over all elements, in float64."""
    actual = np.asarray(keras.ops.convert_to_numpy(actual), np.float64).ravel()
    expected = np.asarray(expected, np.float64).ravel()
    assert actual.shape == expected.shape, f"{actual.shape} against {expected.shape}"
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30))


def compiled(function):
    """`function` of tensors, compiled by the running backend (tf.function, jax.jit).

    Torch runs it eagerly and keeps nothing for gradients: EfficientDet D7's would not fit into 23 GiB.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.no_grad()(function)


def jitted(function):
    """`function`, compiled on JAX alone, where each operation outside `jit` is a program of its own to compile."""
    return compiled(function) if BACKEND == "jax" else function


def both_modes(function):
    """`[function, compiled(function)]`: what "eagerly and compiled" means in the tests.

    One entry on torch, and one on JAX, where shapes are as static outside `jit` (see `jitted`) and models run compiled;
    `tests/contracts` calls whole models eagerly there.
    """
    modes = {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}[BACKEND]
    return [compiled(function) if compile_it else function for compile_it in modes]
