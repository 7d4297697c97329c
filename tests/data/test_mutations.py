"""Bad input: every corrupted data set ends in a repair that is counted or in a line that names file and cause.

A sample runs always; all of it is marked slow.
"""

import contextlib
import faulthandler
import io
import json
import pathlib
import resource
import shutil
import signal
import sys
import traceback

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect import cli
from keras_detect.data import load_dataset
from keras_detect.data.record import ACTIONS
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.data.mutations import NAMES, mutations, spoiled, write_bases
from tests.tiny import tiny_ssd

SAMPLE = 40
SECONDS = 20  # on a busy machine; a good set takes a tenth of a second
MEMORY = 512 * 2**20  # beyond what the process had before
MEMORY_HARD = 3 * 2**30  # of addresses: what goes beyond gets MemoryError instead of the machine's memory
FORMATS = ("coco", "voc", "yolo", "csv", "tfrecord")

ALL = mutations()

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


class TooSlow(BaseException):
    """Not an `Exception`, so that nothing takes it for bad input."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    write_bases(folder)
    good = {}
    for base in sorted(path.name for path in folder.iterdir()):
        good[base] = judge(folder / base, None, folder.parent / f"{base}_out")
        assert all(row["loader"] in ("kept", "repaired") for row in good[base])
    return folder, good


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    found = tiny_ssd(num_classes=2, class_names=NAMES)
    found.detect(np.zeros((64, 64, 3), np.uint8))
    return found


def test_there_are_enough_and_the_seed_makes_them():
    assert len(ALL) >= 300
    assert [mutation.name for mutation in ALL] == [mutation.name for mutation in mutations()]
    assert {mutation.base for mutation in ALL} == {*FORMATS, "json_map", "images"}


def test_a_sample(bases, model, tmp_path, monkeypatch):
    numbers = np.random.default_rng(5).choice(len(ALL), SAMPLE, replace=False)
    assert not wrongs([ALL[number] for number in sorted(numbers)], bases, model, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("base", sorted({mutation.base for mutation in ALL}))
def test_all(base, bases, model, tmp_path, monkeypatch):
    assert not wrongs([mutation for mutation in ALL if mutation.base == base], bases, model, tmp_path, monkeypatch)


def wrongs(chosen, bases, model, tmp_path, monkeypatch):
    """A line for each mutation that ends in anything but a counted repair or a line that names file and cause."""
    bases, good = bases
    monkeypatch.setattr(keras_detect.DetectionModel, "from_preset", lambda name: model)
    wrong, results, memory = [], {}, {}
    for number, mutation in enumerate(chosen):
        folder = tmp_path / f"case_{number}"
        path = spoiled(mutation, bases, folder)
        try:
            with limits() as used:
                found = judge(folder, path.name, tmp_path / f"out_{number}", FORMATS[number % len(FORMATS)])
                if mutation.base == "images":
                    predict(path, tmp_path / f"drawn_{number}")
            assert used[0] < MEMORY, f"{used[0] / 2**20:.0f} MiB of memory"
            actions = {row["loader"] for row in found if row not in good[mutation.base]}
            result = next((action for action in ACTIONS if action in actions), "nothing found")
            assert actions or not mutation.seen, "nothing was said"
        except (Exception, TooSlow) as error:
            where = [
                f"{pathlib.Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]
            ]
            wrong.append(f"{mutation.name}: {type(error).__name__}: {str(error)[:400]} {where}")
            result = "wrong"
        results[result] = results.get(result, 0) + 1
        memory[mutation.name] = used[0]
        for leftover in (folder, tmp_path / f"out_{number}", tmp_path / f"drawn_{number}"):
            shutil.rmtree(leftover, ignore_errors=True)
    most = max(memory, key=memory.get)
    print(f"{len(chosen)} mutations: {results}; most memory: {memory[most] / 2**20:.0f} MiB, {most}")
    return wrong


@contextlib.contextmanager
def limits():
    """Limits the time and the memory of what it contains; gives a list with the bytes that were used at the peak."""
    used, (soft, hard) = [0], resource.getrlimit(resource.RLIMIT_AS)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = status("VmRSS")

    def stop(*_):
        raise TooSlow(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True)  # where no Python runs, the signal does not help
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + MEMORY_HARD, hard))
    try:
        yield used
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        used[0] = status("VmHWM") - before


def status(key):
    """Bytes under a key of this process' `/proc/self/status`."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def judge(folder, name, output, to="coco"):
    """Checks, loads and converts a data set as users do, asserts that all agree, and returns what the check found."""
    before = sorted(path.name for path in folder.rglob("*"))
    status_, out, err = shell("check", "--data", folder, "--output", output / "check.json")
    if status_ == 2:
        assert_line(err, folder, name)
        return [{"loader": "refused"}]
    report = json.loads((output / "check.json").read_text())
    refused = [row for row in report["found"] if row["loader"] == "refused"]
    loads = all("without any object" in row["what"] for row in refused)  # it would train, for nothing
    assert report["training_would_start"] == (status_ == 0)
    if loads and report["images"]:
        assert_usable(load_dataset(folder))
    else:
        assert refused or not report["images"]
        assert all(row["where"] for row in refused)
        shown = " ".join([str(row["what"]) + " " + " ".join(row["where"]) for row in refused])
        assert len(max(out.splitlines(), key=len)) < 2000
        assert_fails_in_a_line(folder, name, shown)
    status_, _, err = shell("convert_data", "--data", folder, "--to", to, "--output", output / "converted")
    assert status_ == 0 or (status_ == 2 and len(err.splitlines()) == 1)
    assert not list(output.rglob("part_of_*"))
    if status_ == 0:
        load_dataset(output / "converted")
    elif (output / "converted").exists():
        failure(lambda: load_dataset(output / "converted"))
    assert sorted(path.name for path in folder.rglob("*")) == before
    return report["found"]


def assert_usable(data):
    """Every example and every batch of a set that the check lets pass is in order."""
    for example in data:
        boxes, labels = example["boxes"], example["labels"]
        assert np.isfinite(boxes).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert ((labels >= 0) & (labels < len(data.class_names))).all()
        assert example["image"].dtype == np.uint8
        assert all(np.isfinite(example[key]).all() for key in ("areas", "weights") if key in example)
    masks = any(record.get("masks") is not None for record in data.records)
    for _, y in data.batches(FixedShapeResizer(height=32, width=32), 2, masks=masks):
        assert all(np.isfinite(value).all() for value in keras.tree.map_structure(np.asarray, y).values())


def assert_fails_in_a_line(folder, name, shown):
    """Loading, or decoding the images one by one, raises an error that names the file; so does the check."""
    message = failure(lambda: [example["image"].size for example in load_dataset(folder)])
    assert_line(f"keras-detect: {message}\n", folder, name)
    assert len(shown) < 100_000


def failure(function):
    """The message of the `ValueError` or `OSError` that the function has to raise."""
    try:
        function()
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    raise AssertionError("no error was raised")


def assert_line(err, folder, name):
    """One line, not endless, that names the corrupted file or the folder."""
    assert len(err.splitlines()) == 1, err
    assert len(err) < 2500, f"{len(err)} characters: {err[:300]}"
    stem = (name or "").rsplit(".", 1)[0]
    assert stem in err or str(folder) in err, err
    assert "Traceback" not in err


def predict(path, output):
    """`keras-detect predict` draws the image, or says in a line what is wrong with it and leaves nothing behind."""
    status_, _, err = shell("predict", "--model", "tiny", "--images", path, "--output", output)
    if status_ == 0:
        assert {file.name for file in output.iterdir()} == {"detections.json", f"{path.stem}.jpg"}
    else:
        assert status_ == 2
        assert_line("\n".join(line for line in err.splitlines() if line.startswith("keras-detect")), path, path.name)
        assert not output.exists() or not list(output.iterdir())


def shell(*arguments):
    """`(exit status, stdout, stderr)` of `keras-detect`, as a terminal in UTF-8 gets it."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status_ = cli.run(cli.parse(["keras-detect", *map(str, arguments)]))
    for stream in streams:
        stream.flush()
    return status_, *(stream.buffer.getvalue().decode() for stream in streams)
