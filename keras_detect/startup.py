"""How the package starts: TensorFlow without its notes, a command line that answers, and stops, before it is loaded."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import pathlib
import re
import signal
import sys
from collections.abc import Iterator

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"

# What TensorFlow writes while it is imported, before it reads its log level: no setting stops it (checked on 2.21).
_NOTES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\)|I0000 |\d{4}-\d\d-\d\d [\d:.]+: I |"
    rb"To enable the following instructions: |"
    # two libraries of one process that bring the same CUDA plug-in
    rb"[EW]0000 .*(Unable to register cu\w+ factory|computation placer already registered|failed call to cuInit)|"
    rb"\d{4}-\d\d-\d\d [\d:.]+: [EW] .*(Unable to register cu\w+ factory|failed call to cuInit)"
)


def quiet_tensorflow() -> None:
    """Keeps TensorFlow from writing its notes when any code of this process imports it.

    Its log level becomes 3: an error of TensorFlow is a Python exception, which its log would only say once more.
    A level that the environment sets is kept; with 0 the notes of the import are written, too.
    """
    if os.environ.setdefault(LOG_LEVEL, "3") == "0" or "tensorflow" in sys.modules:
        return
    if not any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as Python does, and runs its import inside `without_notes`."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_quietly(module):
            with without_notes():
                execute(module)

        spec.loader.exec_module = execute_quietly
        return spec


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Context in which file descriptor 2 drops TensorFlow's notes; all else is written there when it ends.

    C++ writes to the descriptor and not to `sys.stderr`.
    """
    import tempfile

    try:
        before = os.dup(2)
    except OSError:  # a process without a terminal has none
        yield
        return
    with tempfile.TemporaryFile() as held:
        _flush()
        _errors.append(before)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(before, 2)
            _errors.remove(before)
            os.close(before)
            held.seek(0)
            kept = b"".join(line for line in held if not _NOTES.match(line))
            while kept:
                kept = kept[os.write(2, kept) :]


def _flush():
    if sys.stderr is not None:
        sys.stderr.flush()


def is_command() -> bool:
    """Whether this process is `keras-detect` or `python -m keras_detect.cli`, and its command has not begun.

    Then `import keras_detect` loads nothing, so that `--help` and a mistyped option answer at once;
    `load_package` makes up for it.
    """
    if _loaded:
        return False
    if sys.argv[:1] == ["-m"]:  # while `python -m` looks for the module
        return "keras_detect.cli" in sys.orig_argv[:8]
    return bool(sys.argv) and pathlib.PurePath(sys.argv[0]).stem in ("keras-detect", "keras-detect-script")


def end_when_stopped() -> None:
    """Makes Ctrl-C and SIGTERM end this process at once, in one line and with status 130 or 143.

    For a command that is still importing: it has written nothing, and an exception in the middle of an import would end
    in a traceback, or be taken for a missing library.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number, _frame):
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(_errors[-1], f"keras-detect: stopped by {name}.\n".encode())
    os._exit(128 + number)


def load_package() -> None:
    """Loads what `import keras_detect` loads in any other process than that of a command."""
    if "keras_detect.presets" not in sys.modules:
        _loaded.append(True)
        importlib.reload(sys.modules["keras_detect"])


_loaded: list[bool] = []
_errors = [2]  # the descriptors of what is written to stderr; the last one leads there
