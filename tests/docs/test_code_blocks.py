"""Every Python and shell block of the pages, in the order of its page, in a folder with small data.

A page runs in another process, outside of the repository, with the package as installed from its wheel (`session.py`,
`tests/wheel.py`); READER_PYTHON is another interpreter that has it. What differs from a reader's session: a training
ends after one epoch, images are drawn and small, and the trained model that most pages start from is a small one. A
block that is not run says why, and the reason is tested.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import pytest

import keras_detect
from keras_detect.data import shapes_dataset, write_coco, write_dataset
from keras_detect.tf_od_api import name_maps
from keras_detect.training.demo import PHOTO
from tests import tiny, wheel
from tests.docs import blocks
from tests.weights.golden_checkpoints import write_checkpoint

pytestmark = pytest.mark.backend_free
PAGES = blocks.pages()
CLASSES = ["circle", "square"]
CONFIG = blocks.ROOT / "tests" / "golden" / "data" / "ssd_mobilenet_v2_320x320_coco17_tpu-8.config"

SMALL = "small.keras"
_TRAIN = ("keras-detect train --data", f"keras-detect train --model {SMALL} --data")
#: page -> (its text, what is run in its place): fewer epochs, the small model in the place of a packaged one, which
#: `docs/quick_start.md` trains, and one runtime in the place of two, which `tests/cli/test_cli_export.py` runs
SHORTER = {
    "README.md": [("epochs=40", "epochs=1"), ('preset("frcnn_inception_v100"', f'preset("{SMALL}"'), _TRAIN],
    "docs/export.md": [("cells.keras", SMALL)],
    "docs/evaluate.md": [("epochs=30", "epochs=1"), ("frcnn_inception_v100", SMALL)],
    "docs/faq.md": [("frcnn_inception_v100", SMALL), ("--runtimes tensorflow onnxruntime", "--runtimes tensorflow")],
    "docs/training.md": [("ssd_mobilenet_v2_oidv4", SMALL)],
}
#: these pages train the model that the others start from
TRAIN = ("README.md", "docs/quick_start.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages find: data in two formats, photos, a trained model, a folder of upstream's trainer."""
    place = tmp_path_factory.mktemp("reader")
    for split, count, seed in (("train", 4, 0), ("val", 2, 1), ("test", 2, 2)):
        dataset = shapes_dataset(count, seed=seed, image_size=64, class_names=CLASSES)
        write_coco(dataset, place / "cells", split=split)
    for name in ("photo.jpg", "street.jpg", "folder/a.jpg"):
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(PHOTO, place / name)
    (place / "runs" / "cells").mkdir(parents=True)
    tiny.portable_ssd(class_names=CLASSES).save(place / SMALL)
    shutil.copy(place / SMALL, place / "runs" / "cells" / "model.keras")
    return place


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder of upstream's trainer: a narrow SSD for images of 96 pixels, random weights, TFRecords."""
    place = tmp_path_factory.mktemp("upstream") / "old"
    place.mkdir()
    text = CONFIG.read_text()
    for before, after in (
        ("num_classes: 90", "num_classes: 2"),
        ("depth_multiplier: 1.0", "depth_multiplier: 0.2"),
        ("height: 300\n        width: 300", "height: 96\n        width: 96"),
        ("batch_size: 512", "batch_size: 2"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (place / "pipeline.config").write_text(text)
    model = keras_detect.from_pipeline_config(place / "pipeline.config")
    weights = {name: keras.ops.convert_to_numpy(value) for name, value in model.named_weights().items()}
    keys = name_maps.checkpoint_keys(model)
    write_checkpoint({key: weights[name] for name, key in keys.items()}, place / "checkpoint")
    for split in ("train", "val"):
        data = shapes_dataset(2, image_size=64, class_names=CLASSES)
        write_dataset(data, place / "data", split=split, format="tfrecord")
    return place


@pytest.fixture(scope="module")
def reader():
    """The process that runs pages; it ends with the tests of this file."""
    python = os.environ.get("READER_PYTHON")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**environment, "PYTHONSAFEPATH": "1"} if python else wheel.environment()
    command = [python or sys.executable, str(pathlib.Path(__file__).parent / "session.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**environment, "KERAS_BACKEND": blocks.BACKEND}, **pipes) as process:
        yield process
        process.stdin.close()


def run(reader, page, entries, folder):
    """Runs blocks of a page in `folder`; fails with the traceback and the end of what was printed."""
    log = folder.parent / "log.txt"
    sent = {"name": page, "folder": str(folder), "log": str(log), "without": [str(blocks.ROOT)], "blocks": entries}
    reader.stdin.write(json.dumps(sent) + "\n")
    reader.stdin.flush()
    line = reader.stdout.readline()
    answer = json.loads(line or '{"error": "the process has ended"}')
    assert not answer["error"], f"{answer['error']}\n{log.read_text(errors='replace')[-4000:]}"
    print({entry["line"]: seconds for entry, seconds in zip(entries, answer["seconds"], strict=True)})


def entry(block, shorter):
    """What the session runs of a block."""
    code = block.code
    for before, after in shorter:
        code = code.replace(before, after)
    commands = list(blocks.commands(code)) if block.language == "bash" else []
    return {"line": block.line, "language": block.language, "code": code, "commands": commands}


#: half a minute to three minutes each; the rest runs every time
LONG = (
    "docs/evaluate.md",
    "docs/export.md",
    "docs/faq.md",
    "docs/from_tf_od_api.md",
    "docs/predict.md",
    "docs/training.md",
)


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in LONG else ()) for page in PAGES])
def test_the_page_runs(page, folder, old, reader, tmp_path):
    place = tmp_path / "reader"
    shutil.copytree(folder, place)
    if page in TRAIN:
        shutil.rmtree(place / "runs")
    for name in ("old", "ssd_mobilenet_v2"):
        shutil.copytree(old, place / name)
    shorter = SHORTER.get(page, [])
    found = blocks.blocks(page)
    for block in found:
        if not block.is_run:
            assert not blocks.why_not(block), f"{page}:{block.line}: {blocks.why_not(block)}"
            blocks.check_syntax(block)
    run(reader, page, [entry(block, shorter) for block in found if block.is_run], place)
    text = "".join(block.code for block in found)
    assert all(before in text for before, _ in shorter)
    AFTER.get(page, lambda place: None)(place)


def _readme(place):
    assert (place / "cells.keras").is_file() and (place / "found.png").is_file() and (place / "cells.tflite").is_file()


AFTER = {"README.md": _readme}


def test_a_block_that_fails_is_told_with_its_line(reader, tmp_path):
    (tmp_path / "reader").mkdir()
    block = {"line": 7, "language": "python", "code": "1 / 0", "commands": []}
    with pytest.raises(AssertionError, match=r'File "page\.md", line 7'):
        run(reader, "page.md", [block], tmp_path / "reader")


def test_a_bad_reason_is_found():
    def block(code, reason):
        return blocks.Block("page.md", 1, "python", code, reason)

    assert blocks.why_not(block("model.fit()", "hours")) == "'hours' does not apply"
    assert blocks.why_not(block("x", "too long")) == "unknown reason 'too long'"
    assert blocks.why_not(block("x", "tests/no_such_test.py")) == "there is no tests/no_such_test.py"
    assert not blocks.why_not(block("x", "tests/docs/test_code_blocks.py::test_the_page_runs"))
    assert not blocks.why_not(block("pip install keras-detect", "install"))
    with pytest.raises(SystemExit):
        blocks.check_syntax(blocks.Block("page.md", 1, "bash", "keras-detect train --dta cells --output runs", "hours"))
