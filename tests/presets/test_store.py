"""Presets by name and address: fetched, converted, cached, and nothing left behind by a failure."""

import hashlib
import json
import os
import pathlib
import shutil
import tarfile
import urllib.parse

import keras
import numpy as np
import pytest
from absl import logging

from keras_detect import SSD
from keras_detect.presets import Preset, clear, directory, get, names, preset, store, zoo
from keras_detect.presets.cache import CacheError
from keras_detect.presets.directory import PresetError
from keras_detect.presets.download import ArchiveError, DownloadError
from tests import goldens, tiny
from tests.presets.toy import Toy

X = np.ones((2, 5), "float32")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def archive(tmp_path, folder, stem="toy"):
    path = tmp_path / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, arcname=stem)
    return path.as_uri()


def same(a, b):
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(a(X)), keras.ops.convert_to_numpy(b(X)))


@pytest.fixture
def model():
    return Toy()


@pytest.fixture
def url(model, tmp_path):
    store.save_preset(model, tmp_path / "preset")
    return archive(tmp_path, tmp_path / "preset")


@pytest.fixture
def zoo_url(tmp_path):
    (tmp_path / "zoo" / "checkpoint").mkdir(parents=True)
    (tmp_path / "zoo" / "pipeline.config").write_text("model { }")
    return archive(tmp_path, tmp_path / "zoo", "zoo")


def test_a_folder_by_text_or_path(model, url, tmp_path, home):
    same(store.load_preset(str(tmp_path / "preset")), model)
    same(store.load_preset(tmp_path / "preset"), model)
    assert not home.exists()


def test_an_archive_by_its_path(model, url, tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("toy.tar.gz", tmp_path / "toy.tar.gz", url):
        same(store.load_preset(name, progress=False), model)
    assert len(os.listdir(home)) == 1
    assert store.load_preset("toy.tar.gz", load_weights=False, progress=False).num_classes == 3
    (tmp_path / "efficientdet_d0_coco17_tpu-32").touch()  # a file that has a preset's name
    monkeypatch.setattr(store.download, "unpacked", lambda url, **_: pytest.fail(url))
    with pytest.raises(pytest.fail.Exception, match=r"https://.*/efficientdet_d0_coco17_tpu-32\.tar\.gz"):
        store.load_preset("efficientdet_d0_coco17_tpu-32", progress=False)


def test_an_archive_of_a_preset_is_fetched_once(model, url, tmp_path, home):
    same(store.load_preset(url, progress=False), model)
    (tmp_path / "home.bak").mkdir()
    [folder] = os.listdir(home)
    assert sorted(os.listdir(home / folder)) == sorted(directory.PRESET_FILES)
    same(store.load_preset(url, progress=False), model)
    assert os.listdir(home) == [folder]


def test_another_head_is_reported_in_the_log(url, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "log", lambda level, text, *values: lines.append((level, text % values)))
    assert store.load_preset(url, progress=False).num_classes == 3 and not lines
    assert store.load_preset(url, num_classes=8, progress=False).num_classes == 8
    (level, line), (_, details) = lines
    assert level == logging.WARNING and len(line.splitlines()) == 1
    assert "restored 6 variables, 2 kept as they were (fresh, for another number of classes)" in line
    assert "head/kernel" in details
    assert store.load_preset(url, num_classes=8, load_weights=False, progress=False).num_classes == 8
    assert len(lines) == 2


@pytest.mark.parametrize("number", [0, -1, "2", 2.5])
def test_what_is_no_number_of_classes(url, number):
    with pytest.raises(
        ValueError, match=r"num_classes must be a positive integer, or None for the preset's\. Received: "
    ):
        store.load_preset(url, num_classes=number, progress=False)


def test_a_zoo_archive_is_converted_once_with_its_source(model, zoo_url, home, monkeypatch):
    calls = []

    def convert(folder, target, metadata, class_names, config):
        calls.append((sorted(os.listdir(folder)), metadata))
        directory.write_preset(model, target, metadata)

    monkeypatch.setattr(zoo, "convert", convert)
    same(store.load_preset(zoo_url, progress=False), model)
    same(store.load_preset(zoo_url, progress=False), model)
    [(files, metadata)] = calls
    assert files == ["checkpoint", "pipeline.config"] and metadata["source"] == zoo_url
    written = json.loads((store.find_preset(zoo_url) / "metadata.json").read_text())
    assert written["sha256"] == metadata["sha256"] and len(written["sha256"]) == 64


def test_a_built_in_name_fetches_its_row(model, zoo_url, home, monkeypatch):
    row = Preset(archive=zoo_url.rsplit("/", 1)[1], pipeline_config="toy", speed_ms=1.0, coco_map=2.0)
    monkeypatch.setattr(preset, "PUBLISHED_ADDRESS", zoo_url.rsplit("/", 1)[0] + "/")
    monkeypatch.setitem(preset._PRESETS, row.name, row)
    monkeypatch.setattr(zoo, "convert", lambda folder, target, said, **_: directory.write_preset(model, target, said))
    same(store.load_preset("zoo", progress=False), model)
    assert os.listdir(home) == ["zoo"]
    written = json.loads((home / "zoo" / "metadata.json").read_text())
    assert (written["coco_map"], written["measured_map"], written["license"]) == (2.0, None, "Apache-2.0")


def test_addresses_are_tried_in_order(model, zoo_url, home, monkeypatch):
    """A hub that cannot be reached, a mirror that is gone, one with another file, then the publisher."""
    folder, name = zoo_url.rsplit("/", 1)
    archive = pathlib.Path(urllib.parse.urlsplit(zoo_url).path)
    other = archive.with_name("other.tar.gz")
    other.write_bytes(archive.read_bytes() + b"x")
    mirrors = ("hf://nobody/zoo", f"{folder}/absent.tar.gz", other.as_uri())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    settings = {"pipeline_config": "toy", "speed_ms": 1.0, "coco_map": 2.0, "sha256": digest, "mirrors": mirrors}
    row = Preset(archive=name, **settings)
    asked = []

    def hub(uri):
        asked.append(uri)
        raise ConnectionError("no route")

    monkeypatch.setattr(store.download, "remote_folder", hub)
    monkeypatch.setattr(preset, "PUBLISHED_ADDRESS", folder + "/")
    monkeypatch.setitem(preset._PRESETS, row.name, row)
    monkeypatch.setattr(zoo, "convert", lambda folder, target, said, **_: directory.write_preset(model, target, said))
    same(store.load_preset("zoo", progress=False), model)
    assert asked == ["hf://nobody/zoo"] and os.listdir(home) == ["zoo"]
    assert json.loads((home / "zoo" / "metadata.json").read_text())["source"] == zoo_url
    same(store.load_preset("zoo", progress=False), model)
    assert len(asked) == 1
    shutil.rmtree(home / "zoo")
    archive.unlink()
    with pytest.raises(
        DownloadError, match=r"No address provided the preset 'zoo'\. hf://nobody/zoo: no route; .*absent"
    ) as error:
        store.load_preset("zoo", progress=False)
    assert "\n" not in str(error.value) and not os.listdir(home)


def test_a_wrong_digest_in_a_row(zoo_url, home, monkeypatch):
    row = Preset(archive="zoo.tar.gz", pipeline_config="toy", speed_ms=1.0, coco_map=2.0, sha256="0" * 64)
    monkeypatch.setattr(preset, "PUBLISHED_ADDRESS", zoo_url.rsplit("/", 1)[0] + "/")
    monkeypatch.setitem(preset._PRESETS, row.name, row)
    with pytest.raises(DownloadError, match="the sha256 of the file"):
        store.load_preset("zoo", progress=False)
    assert not os.listdir(home)


def test_failures_leave_an_empty_cache(zoo_url, tmp_path, home, monkeypatch):
    def broken(folder, target, metadata, class_names, config):
        (target / "config.json").write_text("{")
        raise ValueError("a wrong checkpoint")

    monkeypatch.setattr(zoo, "convert", broken)
    with pytest.raises(ValueError, match="a wrong checkpoint"):
        store.load_preset(zoo_url, progress=False)
    assert not os.listdir(home)
    path = tmp_path / "zoo.tar.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match=r"zoo\.tar\.gz: the archive is truncated"):
        store.load_preset(zoo_url, progress=False)
    shutil.rmtree(tmp_path / "zoo" / "checkpoint")
    (tmp_path / "zoo" / "pipeline.config").rename(tmp_path / "zoo" / "other.config")
    with pytest.raises(ValueError, match=r"neither a preset .* nor a zoo archive"):
        store.load_preset(archive(tmp_path, tmp_path / "zoo", "zoo"), progress=False)
    with pytest.raises(DownloadError):
        store.load_preset((tmp_path / "absent.tar.gz").as_uri(), progress=False)
    assert not os.listdir(home)


def broken(tmp_path, model, change):
    """The address of an archive of a preset after `change(folder)`."""
    folder = tmp_path / "broken"
    store.save_preset(model, folder)
    change(folder)
    return archive(tmp_path, folder, "broken")


def flip_a_bit(folder):
    content = bytearray((folder / "weights.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "weights.h5").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip_a_bit, "weights.h5: damaged or replaced"),
        (lambda folder: (folder / "weights.h5").unlink(), "weights.h5: missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: damaged"),
        (
            lambda folder: (folder / "config.json").write_text('{"part": "Nowhere", "config": {}}'),
            "cannot build the model",
        ),
        (lambda folder: (folder / "metadata.json").write_text("[]"), "metadata.json: damaged"),
    ],
)
def test_a_broken_archive_of_a_preset_is_not_kept(model, tmp_path, home, change, message):
    url = broken(tmp_path, model, change)
    for _ in range(2):
        with pytest.raises(PresetError) as error:
            store.load_preset(url, progress=False)
        assert str(error.value).startswith(url) and message in str(error.value) and ".work-" not in str(error.value)
        assert not os.listdir(home)


def test_a_cached_preset_that_was_damaged_later_says_the_way_out(url, home):
    folder = store.find_preset(url, progress=False)
    flip_a_bit(folder)
    with pytest.raises(PresetError, match=f"To fetch it again: keras-detect presets clear {folder.name}"):
        store.load_preset(url, progress=False)
    assert clear(folder.name) and not os.listdir(home)
    assert store.load_preset(url, progress=False).num_classes == 3


def test_an_unwritable_cache_is_named(url, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="KERAS_DETECT_HOME"):
        store.load_preset(url, progress=False)


def test_an_unknown_name_lists_the_near_ones(home):
    with pytest.raises(ValueError, match=r"Unknown preset 'efficientdet_d0'\. Did you mean efficientdet_d"):
        store.load_preset("efficientdet_d0")
    assert not home.exists()


@pytest.mark.parametrize("name", ["pipe", "pipe.keras"])
def test_a_pipe_is_no_preset(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=rf"{name} is a pipe, a socket or a device. Expected a regular file"):
            store.load_preset(path)


def test_hubs(model, monkeypatch, tmp_path):
    folder = store.save_preset(model, tmp_path / "hub")
    monkeypatch.setattr("keras_detect.presets.download.remote_folder", lambda uri: folder)
    same(store.load_preset("hf://me/toy"), model)
    same(store.load_preset("kaggle://me/toy/keras/small"), model)
    with pytest.raises(ValueError, match="Archives are downloaded from"):
        store.load_preset("gs://me/toy")


def test_the_rows_are_those_of_the_published_table():
    table = goldens.require_shared("zoo.md").read_text()
    rows = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 7 and cells[2].startswith(("SSD", "EfficientDet", "Faster R-CNN")) and cells[1].isdigit():
            rows[cells[6].strip("`").rsplit("/", 1)[1].removesuffix(".tar.gz")] = cells
    assert len(rows) == 29 and set(rows) <= set(names())
    for name, (_, _, _, speed, coco_map, outputs, path, *_) in rows.items():
        row = get(name)
        assert (row.speed_ms, row.coco_map) == (float(speed), float(coco_map)) and row.measured_map is None
        assert row.archive == path.strip("`") and row.outputs == tuple(outputs.lower().split("/"))
        assert row.url == "https://download.tensorflow.org/models/object_detection/tf2/" + row.archive
        config = goldens.require_shared("zoo/training_configs") / f"{row.pipeline_config}.config"
        assert config.exists() if row.pipeline_config else "inception_resnet_v2" in name


def test_a_name_is_given_once():
    row = get("efficientdet_d0_coco17_tpu-32")
    preset.add(row)
    with pytest.raises(ValueError, match="is already used"):
        preset.add(Preset(archive="other/" + row.archive, pipeline_config="x", speed_ms=None, coco_map=None))


def test_a_keras_file_is_a_preset_too(tmp_path):
    model = tiny.tiny_ssd()
    model.save(tmp_path / "model.keras")
    for name in (tmp_path / "model.keras", str(tmp_path / "model.keras")):
        again = SSD.from_preset(name)
        for key, value in tiny.weights_of(model).items():
            np.testing.assert_array_equal(tiny.weights_of(again)[key], value, err_msg=key)
    assert SSD.from_preset(tmp_path / "model.keras", class_names=["a", "b"]).class_names == ("a", "b")
    with pytest.raises(FileNotFoundError, match=r"No such model: .*absent\.keras"):
        SSD.from_preset(tmp_path / "absent.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other\.keras: cannot load .*it holds a Sequential, not a detector"):
        SSD.from_preset(tmp_path / "other.keras")
    with pytest.raises(TypeError, match="a name, an address or a path"):
        SSD.from_preset(3)


def test_a_name_of_another_kind_says_what_it_is():
    with pytest.raises(ValueError, match=r"'mobilenet_v2': it is a registered backbone\. Use SSD\.from_backbone\('mob"):
        SSD.from_preset("mobilenet_v2")
    with pytest.raises(ValueError, match=r"'ResNet50': it is a network of keras\.applications\. Use SSD\.from_backb"):
        SSD.from_preset("ResNet50")
    with pytest.raises(ValueError, match=r"it is a preset\. Use DetectionModel\.from_preset\('frcnn_inception_v100'\)"):
        SSD.from_backbone("frcnn_inception_v100", num_classes=2)
    with pytest.raises(ValueError, match=r"Did you mean .*mobilenet_v2[^;]* \(registered backbone: SSD\.from_backbone"):
        SSD.from_preset("mobilenet_v3")
    with pytest.raises(ValueError, match=r"Did you mean .*MobileNetV2[^;]* \(network of keras\.applications\)"):
        SSD.from_backbone("MobileNetV22", num_classes=2)


@pytest.mark.parametrize(("size", "expected"), [(96, (96, 96)), ((48, 80), (48, 80))])
def test_another_image_size(tmp_path, size, expected):
    model = tiny.tiny_ssd()
    folder = store.save_preset(model, tmp_path / "preset")
    model.save(tmp_path / "model.keras")
    for name in (folder, tmp_path / "model.keras"):
        again = SSD.from_preset(name, image_size=size)
        assert (again.resizer.height, again.resizer.width) == expected
        for key, value in tiny.weights_of(model).items():
            np.testing.assert_array_equal(tiny.weights_of(again)[key], value, err_msg=key)
    assert SSD.from_preset(folder, image_size=size, num_classes=5, load_weights=False).num_classes == 5
