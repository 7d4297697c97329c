"""SIGINT and SIGTERM at chosen moments of `train`: one line, status 130 or 143, and the saved model stays whole."""

import gc
import os
import signal
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_detect import cli
from keras_detect.callbacks import BestModel
from keras_detect.cli._signals import interrupting
from keras_detect.data import shapes_dataset, write_coco
from keras_detect.evaluation import callback as evaluation
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.training import resume
from tests import tiny

SIGNALS = {signal.SIGINT: (130, "Ctrl-C"), signal.SIGTERM: (143, "SIGTERM")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 4), ("val", 1)):
        write_coco(shapes_dataset(count, image_size=64, class_names=["circle", "square"]), folder, split=split)
    return folder


@pytest.fixture(autouse=True)
def eagerly():
    """Two steps take less time than tracing them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def wait(seconds):
    """Python code that runs for so long; a signal arrives between two of its lines."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def compiling(action):
    """`action()`, called from a file that is named as JAX's compiler is."""
    code = compile("def run(action):\n    action()\n", os.path.join("jax", "_src", "compiler.py"), "exec")
    names = {}
    exec(code, names)
    names["run"](action)


@pytest.mark.backend_free
def test_a_signal_waits_for_the_compiler_unless_it_is_the_second():
    done = []

    def signaled_once():
        signal.raise_signal(signal.SIGTERM)
        wait(0.5)  # the signal is sent again meanwhile
        done.append("compiled")

    with interrupting() as received, pytest.raises(KeyboardInterrupt):
        compiling(signaled_once)
        wait(30)
    assert (done, received.status) == (["compiled"], 143)

    def signaled_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("compiled")

    with interrupting(), pytest.raises(KeyboardInterrupt):
        compiling(signaled_twice)
    assert done == ["compiled"]


@pytest.mark.backend_free
def test_a_signal_in_a_finalizer_is_not_lost(capsys):
    class Signaled:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    hook = sys.unraisablehook
    with interrupting() as received, pytest.raises(KeyboardInterrupt):
        Signaled()
        gc.collect()
        wait(30)
    assert (received.status, sys.unraisablehook is hook, capsys.readouterr().err) == (130, True, "")


def while_it_validates(after, monkeypatch):
    """Within the second epoch's evaluation, when the detections of the first batch are there."""
    after(evaluation, "collect_detections", count=2)


def while_it_saves_a_checkpoint(after, monkeypatch):
    """Within the second epoch's, when its bytes are written and it has not its name yet."""
    after(resume.np, "savez", count=2)


def while_it_writes_the_best_model(after, monkeypatch):
    """Within the second epoch's, when its bytes are written and it has not its name yet."""
    monkeypatch.setattr(BestModel, "_is_better", lambda self, value: True)
    after(DetectionModel, "save", count=2)


MOMENTS = (while_it_validates, while_it_saves_a_checkpoint, while_it_writes_the_best_model)
CASES = [(moment, number) for moment in MOMENTS for number in SIGNALS]
# each moment once, and each signal, in every run of the tests; the other halves in the slow ones
OFTEN = (MOMENTS[0], signal.SIGINT), (MOMENTS[1], signal.SIGTERM), (MOMENTS[2], signal.SIGTERM)


@pytest.mark.parametrize(
    ("moment", "number"),
    [pytest.param(*case, marks=() if case in OFTEN else pytest.mark.slow) for case in CASES],
    ids=lambda value: getattr(value, "__name__", None) or value.name,
)
def test_a_signal_ends_it_in_one_line(moment, number, data, tmp_path, capsys, monkeypatch):
    sent = []

    def after(owner, name, count):
        function, calls = getattr(owner, name), iter(range(1, 100))

        def signaled(*arguments, **named):
            result = function(*arguments, **named)
            if next(calls) == count:
                sent.append(moment.__name__)
                signal.raise_signal(number)
            return result

        monkeypatch.setattr(owner, name, signaled)

    moment(after, monkeypatch)
    output = tmp_path / "run"
    status, name = SIGNALS[number]
    line = ["--data", data, "--output", output, "--model", "tests_tiny", "--image_size", tiny.IMAGE_SIZE]
    line += ["--epochs", 3, "--batch_size", 4, "--augment", "none", "--evaluate_every", 1]
    assert cli.run(cli.parse(["keras-detect", "train", *map(str, line)])) == status
    assert sent == [moment.__name__]
    said = f"stopped by {name}. {output / 'model.keras'} holds the model of epoch 1. "
    said += "The same command with --resume (resume=True) continues from the last checkpoint."
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("keras-detect train: ")]
    assert errors == [f"keras-detect train: {said}"]
    assert sorted(os.listdir(output)) == ["checkpoint.npz", "history.csv", "model.keras", "run.json"]
    resume.read_checkpoint(output / "checkpoint.npz")
    model = keras.saving.load_model(output / "model.keras")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
