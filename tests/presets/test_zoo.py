"""The zoo's models offline and from their archives: architectures of every row, and the whole way of one."""

import re
import shutil

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.presets import download, get, names, preset
from keras_detect.presets.coco_names import COCO_NAMES
from keras_detect.presets.directory import PresetError
from tests import goldens
from tests.networks import undrawn
from tests.weights.golden_checkpoints import write_checkpoint, write_golden_archive

NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
ROWS = [name for name in names() if get(name).architecture is not None]
BIG = [name for name in ROWS if re.search("resnet1|resnet50.*(1024|800)|_d[3-57]_", name)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def settings(config):
    """A `get_config()` without the names that Keras counts up (`ssd_1`), and without class names."""
    return {key: value for key, value in config.items() if key not in ("name", "class_names")}


@pytest.mark.parametrize("name", [pytest.param(row, marks=pytest.mark.slow) if row in BIG else row for row in ROWS])
def test_offline_architecture_is_that_of_the_published_config(name, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *args, **kwargs: pytest.fail("no network is needed"))
    published = goldens.require_shared("zoo/training_configs") / f"{get(name).pipeline_config}.config"
    with undrawn():
        offline = keras_detect.DetectionModel.from_preset(name, load_weights=False)
        built = keras_detect.from_pipeline_config(published)
    assert settings(offline.get_config()) == settings(built.get_config())
    ours, theirs = offline.named_weights(), built.named_weights()
    assert {key: tuple(value.shape) for key, value in ours.items()} == {
        key: tuple(value.shape) for key, value in theirs.items()
    }
    assert offline.class_names == COCO_NAMES


def test_rows_are_built_offline_for_other_classes():
    assert len(ROWS) == 27
    with undrawn():
        model = keras_detect.DetectionModel.from_preset(NAME, load_weights=False, class_names=["cell", "platelet"])
        assert model.num_classes == 2 and model.class_names == ("cell", "platelet")
        assert keras_detect.SSD.from_preset(NAME, num_classes=7, load_weights=False).class_names is None
    row = preset.Preset(archive="a/b.tar.gz", pipeline_config="b", speed_ms=None, coco_map=None)
    with pytest.raises(ValueError, match="'b' cannot be built without its archive"):
        row.build()


def test_coco_names_stand_at_their_ids():
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == 90
    ids = {1: "person", 11: "fire hydrant", 12: "unused id 12", 13: "stop sign", 27: "backpack", 44: "bottle"}
    ids |= {62: "chair", 67: "dining table", 70: "toilet", 84: "book", 90: "toothbrush"}
    assert {number: COCO_NAMES[number - 1] for number in ids} == ids
    assert sum(name.startswith("unused") for name in COCO_NAMES) == 10


def test_the_whole_way_from_an_archive(tmp_path, home, monkeypatch):
    row = get(NAME)
    folder = tmp_path / "published" / "20200711"
    folder.mkdir(parents=True)
    archive = write_golden_archive(NAME, folder)
    monkeypatch.setattr(preset, "PUBLISHED_ADDRESS", f"{(tmp_path / 'published').as_uri()}/")
    assert row.url == archive.as_uri()
    with undrawn():
        first = keras_detect.DetectionModel.from_preset(NAME)
        direct = keras_detect.from_pipeline_config(goldens.golden(f"{NAME}.config"))
        direct.restore(archive)
        shutil.rmtree(tmp_path / "published")
        again = keras_detect.DetectionModel.from_preset(NAME)
    assert [entry.name for entry in home.iterdir()] == [NAME]
    wanted = {key: keras.ops.convert_to_numpy(value) for key, value in direct.named_weights().items()}
    for model in (first, again):
        found = model.named_weights()
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(found[key]), value, err_msg=key)
        assert model.class_names == COCO_NAMES
    picture = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3)).astype("float32")
    expected, detections = direct.predict_on_batch(picture), again.predict_on_batch(picture)
    for key, value in expected.items():
        np.testing.assert_allclose(np.asarray(detections[key]), np.asarray(value), atol=1e-6, err_msg=key)
    assert np.asarray(expected["num_detections"])[0] == 100


def test_a_checkpoint_of_another_model_leaves_nothing(tmp_path, home):
    write_checkpoint({"model/_other/kernel": np.zeros((2, 2), np.float32)}, tmp_path / "zoo" / "checkpoint")
    shutil.copyfile(goldens.golden(f"{NAME}.config"), tmp_path / "zoo" / "pipeline.config")
    url = f"{(tmp_path / 'zoo').as_uri()}.tar.gz"
    shutil.make_archive(str(tmp_path / "zoo"), "gztar", tmp_path, "zoo")
    with undrawn(), pytest.raises(ValueError, match="model/_other") as error:
        keras_detect.DetectionModel.from_preset(url)
    assert str(error.value).startswith(f"The checkpoint {url} (1 variables) does not fit")  # and no temporary folder
    assert not list(home.iterdir())
    with pytest.raises(PresetError, match=r"zoo: no preset .*; from_pipeline_config and restore read the original's"):
        keras_detect.DetectionModel.from_preset(tmp_path / "zoo")
