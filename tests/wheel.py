"""The wheel of this checkout, and a folder that it is installed in: what a reader's session runs with."""

import functools
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
#: what a build reads
SOURCES = ("pyproject.toml", "MANIFEST.in", "PACKAGE.md", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE")


def has_backend():
    """Whether the build backend that pyproject.toml names is installed; the test extra brings it."""
    return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77


def copy_sources(folder):
    """Copies what a build reads: built in place, a wheel would also hold what an earlier build left in `build/`."""
    folder = pathlib.Path(folder)
    shutil.copytree(ROOT / "keras_detect", folder / "keras_detect", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def build(folder, sources=None):
    """Builds the wheel into `folder` and returns its path; without network where the test extra is installed.

    `sources`: a folder with what a build reads, in which it leaves files of its own; default: a copy of the checkout's.
    """
    with tempfile.TemporaryDirectory() as copied:
        isolation = ["--no-build-isolation"] if has_backend() else []
        _pip("wheel", "--no-deps", *isolation, "--wheel-dir", folder, sources or copy_sources(copied))
    return next(pathlib.Path(folder).glob("*.whl"))


@functools.cache
def installed():
    """A folder that holds the package as installed from its wheel, without its dependencies; kept until pytest ends."""
    place = pathlib.Path(_temporary().name)
    _pip("install", "--no-deps", "--no-index", "--no-compile", "--target", place / "site", build(place))
    return place / "site"


def environment(**settings):
    """The environment of a process that finds the installed package and nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHONPATH": str(installed()), "PYTHONSAFEPATH": "1", **settings}


@functools.cache
def _temporary():
    return tempfile.TemporaryDirectory(prefix="keras_detect_wheel")


def _pip(*words):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip {words[0]} failed:\n{done.stderr[-2000:]}")
