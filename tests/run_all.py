"""Runs the suite once per installed backend: `python tests/run_all.py [pytest arguments]`.

TensorFlow and JAX always; torch where it can be imported. Exits non-zero if any run fails.
"""

import importlib.util
import os
import subprocess
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def main(arguments):
    failed = []
    for backend in BACKENDS:
        if importlib.util.find_spec(backend) is None:
            if backend != "torch":
                raise SystemExit(f'{backend} is not installed. Install the test extra: pip install -e ".[test]"')
            print("torch is not installed: its run is left out", flush=True)
            continue
        print(f"=== {backend} ===", flush=True)
        environment = {**os.environ, "KERAS_BACKEND": backend}
        # TensorFlow and JAX compile the same graphs over and over: two workers share the work on two cores.
        command = [sys.executable, "-m", "pytest", "-n", "2", "-m", "not slow", *arguments]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(backend)
    if failed:
        raise SystemExit(f"failed under: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
