"""Runs the suite once per installed backend: `python tests/run_all.py [pytest arguments]`.

TensorFlow and JAX always; torch where it can be imported. Exits non-zero if any run fails.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile

BACKENDS = ("tensorflow", "jax", "torch")


def main(arguments):
    """Runs pytest once per backend; JAX' compiled programs are shared between its workers for the length of the run."""
    with tempfile.TemporaryDirectory() as cache:
        failed = [backend for backend in BACKENDS if not _passes(backend, arguments, cache)]
    if failed:
        raise SystemExit(f"failed under: {', '.join(failed)}")


def _passes(backend, arguments, cache):
    if importlib.util.find_spec(backend) is None:
        if backend != "torch":
            raise SystemExit(f'{backend} is not installed. Install the test extra: pip install -e ".[test]"')
        print("torch is not installed: its run is left out", flush=True)
        return True
    print(f"=== {backend} ===", flush=True)
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, "-m", "pytest", "-n", "2", "-m", "not slow", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1:])
