"""Commands are quiet and answer at once: what TensorFlow writes is dropped, what is an error is shown."""

import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from keras_detect import startup
from keras_detect.cli import _data, train
from keras_detect.data.image import MAX_PIXELS
from keras_detect.data.load import FORMATS
from keras_detect.data.shapes import shapes_dataset
from keras_detect.training import ARCHITECTURES, AUGMENTATIONS, DEFAULT_START
from keras_detect.training.start import PRECISIONS
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]

HELP = """
import sys
from keras_detect import cli
status = 0
try:
    cli.main()
except SystemExit as ended:
    status = ended.code
heavy = [name for name in ("keras", "tensorflow", "jax", "matplotlib") if name in sys.modules]
print(f"status {status}, loaded {heavy}")
"""

COMMANDS = """
import pathlib, sys
from keras_detect import cli
from keras_detect.startup import load_package
assert "keras" not in sys.modules
load_package()
from keras_detect.data import write_coco
from keras_detect.data.shapes import shapes_dataset
from tests import tiny
folder = pathlib.Path(sys.argv.pop())
data, model, drawn = (str(folder / name) for name in ("data", "model.keras", "drawn"))
write_coco(shapes_dataset(4, image_size=64, class_names=["circle", "square"]), data)
tiny.tiny_ssd(num_classes=2, class_names=["circle", "square"], weights=None).save(model)
for arguments in (
    ("check", "--data", data),
    ("train", "--data", data, "--model", model, "--epochs", "2", "--batch_size", "2", "--output", str(folder / "run")),
    ("evaluate", "--data", data, "--model", model, "--output", str(folder / "report")),
    ("predict", "--images", *map(str, folder.rglob("data/**/*.png")), "--model", model, "--output", drawn),
):
    assert not cli.run(cli.parse(["keras-detect", *arguments])), arguments
"""


def run_python(code, program, *arguments):
    """A finished Python process that takes itself for `program`, without a log level of the caller."""
    environment = {name: value for name, value in os.environ.items() if name != startup.LOG_LEVEL}
    code = f"import sys; sys.argv = {[program, *map(str, arguments)]!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )


@pytest.mark.backend_free
@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("predict", "--modle", "x")], ids=" ".join)
def test_help_and_mistakes_answer_without_loading_keras(arguments):
    done = run_python(HELP, "/usr/bin/keras-detect", *arguments)
    wrong = "--modle" in arguments
    assert done.stdout.splitlines()[-1] == f"status {2 if wrong else 0}, loaded []"
    assert done.stderr.count("\n") == (1 if wrong else 0), done.stderr


def test_commands_write_nothing_to_stderr(tmp_path):
    done = run_python(COMMANDS, "keras-detect", tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert sum(" - loss: " in line for line in lines) == 2  # one per epoch, no bar
    assert sum("first step" in line for line in lines) == 1
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


STOPPED = """
import os, signal
from keras_detect import cli, startup
with startup.without_notes() if {importing} else open(os.devnull):
    os.kill(os.getpid(), signal.{name})
print("went on")
"""


@pytest.mark.parametrize("importing", [False, True], ids=["before", "in TensorFlow's import"])
@pytest.mark.parametrize(("name", "status", "said"), [("SIGINT", 130, "Ctrl-C"), ("SIGTERM", 143, "SIGTERM")])
def test_a_signal_before_the_command_begins_ends_in_one_line(name, status, said, importing):
    done = run_python(STOPPED.format(name=name, importing=importing), "/usr/bin/keras-detect", "train")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"keras-detect: stopped by {said}.\n")


@pytest.mark.backend_free
def test_what_the_command_line_offers_is_what_the_library_has():
    assert tuple(_data.FORMATS) == tuple(FORMATS)[: len(_data.FORMATS)]
    assert _data.MAX_PIXELS == MAX_PIXELS
    assert tuple(train.AUGMENTATIONS) == tuple(AUGMENTATIONS)
    assert train.DEFAULT_START == DEFAULT_START
    assert tuple(train.ARCHITECTURES) == tuple(ARCHITECTURES)
    assert tuple(train.PRECISIONS) == tuple(PRECISIONS)


@pytest.mark.backend_free
def test_notes_are_dropped_and_everything_else_is_shown(capfd):
    notes = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1795693419.575492    5678 cudart_stub.cc:31] Could not find cuda drivers on your machine.\n"
        "2026-11-26 11:43:35.120000: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.\n"
        "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.\n"
    )
    errors = "E0000 00:00:1795693419.575492    5678 cuda_dnn.cc:31] Loaded runtime library is too old\nTraceback\n"
    with startup.without_notes():
        os.write(2, (notes + errors).encode())
    os.write(2, b"after\n")
    assert capfd.readouterr().err == errors + "after\n"


@pytest.mark.backend_free
def test_what_was_written_before_an_exception_is_shown(capfd):
    with pytest.raises(ImportError), startup.without_notes():
        print("half a line", end="", file=sys.stderr)
        raise ImportError
    assert capfd.readouterr().err == "half a line"


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["/usr/bin/keras-detect", "train"], ["python", "/usr/bin/keras-detect", "train"], True),
        (["C:\\keras-detect.exe"], ["python"], os.sep == "\\"),
        (["-m"], ["python", "-m", "keras_detect.cli", "--help"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["-c"], ["python", "-c", "import keras_detect"], False),
        (["train_keras-detect.py"], ["python"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_which_process_is_a_command(monkeypatch, argv, orig_argv, expected):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert startup.is_command() is expected


def test_fit_over_batches_does_not_warn():
    model = tiny.tiny_ssd(num_classes=2)
    model.compile()
    data = shapes_dataset(4, image_size=64, class_names=["circle", "square"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(data.batches(model, 2, shuffle=True, seed=0), epochs=1, verbose=0)
    assert not [str(warning.message) for warning in caught if "shuffle" in str(warning.message)]
