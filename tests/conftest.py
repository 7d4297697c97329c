"""Shared by all tests. KERAS_BACKEND chooses the backend; `python tests/run_all.py` runs the suite once per backend."""

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import keras


@pytest.fixture(autouse=True)
def _clean_global_state():
    """Each test starts with the float32 policy and a fixed seed, whatever the one before it set."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


def pytest_report_header(config):
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"
