"""All checks of the repository: `python tests/run_all.py [--oldest] [pytest arguments]`.

Lint (ruff), types (mypy), the documentation (`mkdocs build --strict`, where the extra `docs` is installed), then the
test suite once per installed backend: TensorFlow and JAX always, torch where it can be imported. Under JAX and torch
the tests marked `backend_free` (`tests/conftest.py`) are skipped. The closing lines say what each step found and how
long it took; the exit status is not zero if one failed.

`--oldest` instead runs the contract tests with the oldest Keras that `pyproject.toml` allows, in an environment of its
own that it makes and removes.
"""

import argparse
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")
NEEDS_SHARED = "needs ../shared/"  # as tests/__init__.py says it; a script does not find that package


class Step:
    """One check: what it found, in words, whether it passed, and how long it took."""

    def __init__(self, name):
        self.name, self.passed, self.found, self.start = name, True, "", time.monotonic()
        print(f"=== {name} ===", flush=True)

    def run(self, command, **environment):
        """Runs a command in the repository's root; the step fails if it does."""
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
        self.passed = self.passed and status == 0
        self.minutes = (time.monotonic() - self.start) / 60
        return self

    def __str__(self):
        return f"{self.name}: {'passed' if self.passed else 'FAILED'}{self.found} in {self.minutes:.1f} min"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oldest", action="store_true", help="contract tests with the oldest Keras allowed")
    options, pytest_arguments = parser.parse_known_args(arguments)
    steps = [oldest(pytest_arguments)] if options.oldest else [lint(), types(), *docs(), *suites(pytest_arguments)]
    print("", *steps, sep="\n", flush=True)
    if not all(step.passed for step in steps):
        raise SystemExit(1)


def lint():
    ruff = [sys.executable, "-m", "ruff"]
    return Step("lint").run([*ruff, "check", "."]).run([*ruff, "format", "--check", "."])


def types():
    return Step("types").run([sys.executable, "-m", "mypy"])


def docs():
    """The site, built strictly: a broken link, a page outside of the navigation or an unknown name fails."""
    if any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")):
        print('the extra "docs" is not installed: the site is not built', flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
        yield Step("docs").run(command, NO_MKDOCS_2_WARNING="1")


def suites(arguments):
    """The test suite on each backend; JAX' compiled programs are shared between its workers for the length of a run.

    Each worker takes one half of the tree, so that few files, with what their tests share, are begun by both.
    """
    with tempfile.TemporaryDirectory() as folder:
        for backend in BACKENDS:
            if importlib.util.find_spec(backend) is None:
                if backend != "torch":
                    raise SystemExit(f'{backend} is not installed. Install the test extra: pip install -e ".[test]"')
                print("torch is not installed: its run is skipped", flush=True)
                continue
            marks = "not slow" if backend == "tensorflow" else "not slow and not backend_free"
            yield pytest(backend, sys.executable, ["-n", "2", "--dist", "worksteal", "-m", marks, *arguments], folder)


def pytest(backend, python, arguments, folder, name=None):
    """Runs pytest on a backend; the step tells the numbers of tests passed and skipped."""
    report = pathlib.Path(folder) / "report.xml"
    report.unlink(missing_ok=True)
    step = Step(name or backend).run(
        [str(python), "-m", "pytest", "--junitxml", str(report), *arguments],
        KERAS_BACKEND=backend,
        JAX_COMPILATION_CACHE_DIR=folder,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.1",
        JAX_DISABLE_MOST_OPTIMIZATIONS="true",  # most programs run once or twice: compiling is what takes the time
    )
    if report.exists():
        step.found = f": {counts(report)}"
    return step


def counts(report):
    """The numbers of tests in a JUnit report, in words."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    total, bad, skipped = (
        sum(int(suite.get(key)) for key in keys) for keys in (("tests",), ("failures", "errors"), ("skipped",))
    )
    absent = sum(NEEDS_SHARED in entry.get("message", "") for entry in suite.iter("skipped"))
    return f"{total - bad - skipped} passed, {bad} failed, {skipped} skipped, {absent} of them without ../shared,"


def oldest(arguments):
    """Contract tests in a fresh environment with the lower bound of Keras in `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bound = next(re.match(r"keras>=([\d.]+)", entry) for entry in project["dependencies"] if entry.startswith("keras>"))
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = pathlib.Path(folder) / "bin" / "python"
        install = [python, "-m", "pip", "install", "-q", "-e", ".[test]", f"keras=={bound[1]}"]
        subprocess.run([str(word) for word in install], cwd=ROOT, check=True)
        return pytest("tensorflow", python, ["tests/contracts", *arguments], folder, f"keras {bound[1]}, contracts")


if __name__ == "__main__":
    main(sys.argv[1:])
