"""Shared by all tests. KERAS_BACKEND chooses the backend; `python tests/run_all.py` runs the suite once per backend."""

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import keras

from tests.goldens import NEEDS_SHARED


@pytest.fixture(autouse=True)
def _clean_global_state():
    """Each test starts with the float32 policy and a fixed seed, whatever the one before it set."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


def pytest_report_header(config):
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


def pytest_terminal_summary(terminalreporter):
    """Counts the tests that need what lies beside the repository, so that a fork sees what it did not run."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    count = sum(NEEDS_SHARED in reason for reason in reasons)
    if count:
        terminalreporter.write_line(f"{count} tests skipped: they need ../shared, which lies beside the repository")
