"""Every Python and shell block of the pages, in the order of its page, in a folder with small data.

What differs from a reader's session: a training ends after one epoch (`short_trainings`), images are drawn and small,
and the trained model that some pages start from is a small one. A block that is not run says why, and the reason is
tested.
"""

import dataclasses
import pathlib
import shutil

import keras
import matplotlib.pyplot as plt
import pytest

import keras_detect
from keras_detect import registry
from keras_detect.data import load, shapes_dataset, write_coco, write_dataset
from keras_detect.tf_od_api import name_maps
from keras_detect.training import recipe
from keras_detect.training.demo import PHOTO
from tests import tiny
from tests.docs import blocks
from tests.weights.golden_checkpoints import write_checkpoint

pytestmark = pytest.mark.backend_free
PAGES = blocks.pages()
CLASSES = ["circle", "square"]
CONFIG = blocks.ROOT / "tests" / "golden" / "data" / "ssd_mobilenet_v2_320x320_coco17_tpu-8.config"

#: page -> (its text, what is run in its place): the small model in the place of a packaged one, and fewer epochs
SHORTER = {
    "docs/evaluate.md": [("epochs=30", "epochs=1"), ("frcnn_inception_v100", "runs/cells/model.keras")],
    "docs/faq.md": [("frcnn_inception_v100", "runs/cells/model.keras")],
    "docs/training.md": [("ssd_mobilenet_v2_oidv4", "runs/cells/model.keras")],
}
#: this page trains the model that the others start from
TRAINS = "docs/quick_start.md"


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
    tiny.tiny_ssd(class_names=CLASSES, num_classes=None).save(place / "runs" / "cells" / "model.keras")
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


@pytest.fixture
def short_trainings(monkeypatch):
    """The recipe still chooses everything, and then trains for one epoch."""
    monkeypatch.setattr(recipe, "_epochs", lambda *args: 1)


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    """What a page registers is gone after it."""
    tables = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    for table in tables:
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    monkeypatch.setattr(load, "FORMATS", dict(load.FORMATS))
    monkeypatch.setattr(name_maps, "MODELS", dict(name_maps.MODELS))
    yield
    plt.close("all")


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, folder, old, short_trainings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    if page == TRAINS:
        shutil.rmtree(tmp_path / "runs")
    shutil.copytree(old, tmp_path / "old")
    variables = {"__name__": pathlib.Path(page).stem}
    shorter = SHORTER.get(page, [])
    for block in blocks.blocks(page):
        if not block.is_run:
            assert not blocks.why_not(block), f"{page}:{block.line}: {blocks.why_not(block)}"
            blocks.check_syntax(block)
            continue
        code = block.code
        for before, after in shorter:
            code = code.replace(before, after)
        blocks.run(dataclasses.replace(block, code=code), variables)
    text = "".join(block.code for block in blocks.blocks(page))
    assert all(before in text for before, _ in shorter)


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
