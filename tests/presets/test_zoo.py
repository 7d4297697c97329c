"""The zoo's models offline and from their archives: architectures of every row, and the whole way of one."""

import json
import re
import shutil

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.presets import download, get, names, preset, zoo
from keras_detect.presets.coco_names import COCO_NAMES
from keras_detect.presets.directory import PresetError
from keras_detect.text_proto.node import PipelineConfigError
from tests import goldens, tiny
from tests.networks import undrawn
from tests.presets.write_configs import published_config, zoo_config
from tests.weights.golden_checkpoints import write_checkpoint, write_golden_archive

NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
ROWS = [name for name in names() if get(name).pipeline_config is not None]
BIG = [name for name in ROWS if re.search("resnet1|resnet50.*(1024|800)|_d[3-57]_|mask_rcnn", name)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", [pytest.param(row, marks=pytest.mark.slow) if row in BIG else row for row in ROWS])
def test_packaged_config_is_that_of_the_published_one(name):
    """Written by `python -m tests.presets.write_configs`."""
    assert json.loads(get(name).config.read_text()) == zoo_config(get(name))


@pytest.mark.parametrize(
    "name", [NAME, "efficientdet_d0_coco17_tpu-32", "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"]
)
def test_architectures_are_built_offline(name, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *args, **kwargs: pytest.fail("no network is needed"))
    with undrawn():
        offline = keras_detect.DetectionModel.from_preset(name, load_weights=False)
        built = keras_detect.from_pipeline_config(published_config(get(name)))
    ignored = {"name": None, "class_names": None}
    assert {**offline.get_config(), **ignored} == {**built.get_config(), **ignored}
    ours, theirs = offline.named_weights(), built.named_weights()
    assert {key: tuple(value.shape) for key, value in ours.items()} == {
        key: tuple(value.shape) for key, value in theirs.items()
    }
    assert offline.class_names == COCO_NAMES


def test_every_config_belongs_to_a_row_and_all_are_small():
    configs = sorted(preset.CONFIGS.iterdir())
    assert [path.stem for path in configs] == sorted(ROWS) and len(ROWS) == 28
    assert sum(path.stat().st_size for path in configs) < 200_000


def test_rows_are_built_offline_for_other_classes(monkeypatch):
    with undrawn():
        model = keras_detect.DetectionModel.from_preset(NAME, load_weights=False, class_names=["cell", "platelet"])
        assert model.num_classes == 2 and model.class_names == ("cell", "platelet")
        assert keras_detect.SSD.from_preset(NAME, num_classes=7, load_weights=False).class_names is None
        assert keras_detect.SSD.from_preset(NAME, num_classes=90, load_weights=False).class_names == COCO_NAMES
    row = preset.Preset(archive="a/b.tar.gz", pipeline_config="b", speed_ms=None, coco_map=None)
    monkeypatch.setitem(preset._PRESETS, "b", row)
    with pytest.raises(ValueError, match="'b' cannot be built without its archive"):
        keras_detect.SSD.from_preset("b", load_weights=False)


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
    image = np.random.RandomState(0).randint(0, 256, (1, 240, 320, 3)).astype("float32")
    expected, detections = direct.predict_on_batch(image), again.predict_on_batch(image)
    for key, value in expected.items():
        np.testing.assert_allclose(np.asarray(detections[key]), np.asarray(value), atol=1e-6, err_msg=key)
    assert np.asarray(expected["num_detections"])[0] == 100


def test_an_archive_whose_config_cannot_be_read_is_built_from_the_packaged_one(tmp_path, monkeypatch):
    """As the published Mask R-CNN's, whose line 153 upstream refuses too."""
    text = 'model { ssd {} } eval_input_reader { tf_record_input_reader { input_path: "a"s } }'
    (tmp_path / "pipeline.config").write_text(text)
    model, restored, written = tiny.tiny_ssd(), [], []
    monkeypatch.setattr(type(model), "restore", lambda self, folder: restored.append(folder))
    monkeypatch.setattr(zoo.directory, "build_model", lambda config: (model, False))
    monkeypatch.setattr(zoo.directory, "write_preset", lambda *arguments: written.append(arguments[0]))
    zoo.convert(tmp_path, tmp_path / "out", config=tmp_path / "packaged.json")
    assert written == [model] and restored == [tmp_path]
    with pytest.raises(PipelineConfigError, match="tf_record_input_reader"):
        zoo.convert(tmp_path, tmp_path / "out")


def test_a_checkpoint_of_another_model_leaves_nothing(tmp_path, home):
    write_checkpoint({"model/_other/kernel": np.zeros((2, 2), np.float32)}, tmp_path / "zoo" / "checkpoint")
    shutil.copyfile(goldens.golden(f"{NAME}.config"), tmp_path / "zoo" / "pipeline.config")
    url = f"{(tmp_path / 'zoo').as_uri()}.tar.gz"
    shutil.make_archive(str(tmp_path / "zoo"), "gztar", tmp_path, "zoo")
    with undrawn(), pytest.raises(ValueError, match="model/_other") as error:
        keras_detect.DetectionModel.from_preset(url)
    assert str(error.value).startswith(f"The checkpoint {url} (1 variables) does not fit")  # and no temporary folder
    assert not list(home.iterdir())
    with pytest.raises(PresetError, match=r"zoo is not a preset: .*; from_pipeline_config and restore read upstream's"):
        keras_detect.DetectionModel.from_preset(tmp_path / "zoo")
