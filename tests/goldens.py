"""Reads `../shared/golden`: unit cases and whole models of the original implementation (see GOLDEN.md there)."""

import fnmatch
import functools
import json
import os
import pathlib

import keras
import numpy as np
import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
GOLDEN = SHARED / "golden"
BACKEND = keras.backend.backend()


def require_shared(path=GOLDEN):
    """Skips where `../shared` is absent. In CI it is there, so its absence fails instead of skipping."""
    if not path.exists():
        reason = f"needs {path.relative_to(SHARED.parent)}, which lies beside the project, not in it"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; CI has it, so this must not be skipped")
        pytest.skip(reason)
    return path


@functools.cache
def index():
    """`{case: description}` of both unit files, in file order; empty where `../shared` is absent."""
    cases = {}
    for stem in ("units", "units2"):
        path = GOLDEN / f"{stem}.json"
        if path.exists():
            cases.update({name: {**entry, "file": stem} for name, entry in json.loads(path.read_text()).items()})
    return cases


@functools.cache
def _archive(stem):
    with np.load(GOLDEN / f"{stem}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


class Case:
    """One unit case: `inputs` and `outputs` are dicts of numpy arrays, `info` the JSON entry with the settings."""

    def __init__(self, name):
        require_shared()
        self.name, self.info = name, index()[name]
        arrays = _archive(self.info["file"])
        self.inputs = {key: arrays[f"{name}/in/{key}"] for key in self.info["inputs"]}
        self.outputs = {key: arrays[f"{name}/out/{key}"] for key in self.info["outputs"]}


def golden_cases(*patterns):
    """Parametrises a test over the unit cases that match the patterns and records the claim for `test_claims.py`.

    The test receives a `case` argument (a `Case`). Without `../shared` it is collected once and skips with the reason.
    """

    def decorate(test):
        names = [name for name in index() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]

        @pytest.mark.parametrize("case_name", names or ["absent"])
        @functools.wraps(test)
        def run(case_name, **kwargs):
            require_shared()
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


def both_modes(function):
    """`[function, compiled(function)]`, one entry on torch: what "eagerly and compiled" means in the tests."""
    return [function] if BACKEND == "torch" else [function, compiled(function)]
