"""Object checkpoints: the zoo's indices name for name, the real one's values, and what is broken or something else."""

import json
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from keras_detect.weights.archives import ArchiveError
from keras_detect.weights.tf2_object_checkpoint import CheckpointError, find_checkpoint, open_checkpoint
from tests import goldens
from tests.weights import golden_checkpoints

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
REAL = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
ZOO = sorted(path.parent for path in goldens.SHARED.glob("zoo/*/variables.json")) or [None]
# zoo folder -> the golden whose variables are the same (GOLDEN.md section 1)
GOLDEN_OF = {
    "centernet_mobilenetv2_fpn_od": "zoo_centernet_mobilenetv2_fpn_od",
    "efficientdet_d0_coco17_tpu-32": "ssd_efficientdet_d0_512x512_coco17_tpu-8",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of three variables, its folder and its values."""
    folder = tmp_path_factory.mktemp("small") / "checkpoint"
    values = {
        "model/a/kernel": np.arange(60_000, dtype="float32").reshape(200, 300),
        "model/a/bias": np.float32([1, 2, 3]),
        "model/b/box.Sscale/count": np.int64(7),
    }
    golden_checkpoints.write_checkpoint(values, folder)
    return folder, values


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the small checkpoint's folder to damage."""
    return shutil.copytree(small[0], tmp_path / "checkpoint")


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder and folder.name)
def test_every_zoo_index(folder):
    goldens.require_shared("zoo")
    reader = open_checkpoint(folder)
    listed = json.loads((folder / "variables.json").read_text())
    assert {key.removesuffix(SUFFIX) for key in listed} == set(reader.shapes) | set(reader.ignored)
    assert {key: tuple(listed[key + SUFFIX]["shape"]) for key in reader.shapes} == reader.shapes
    assert all(key.startswith("model/") for key in reader.shapes)
    golden = goldens.golden(f"{GOLDEN_OF.get(folder.name, folder.name)}.vars.json")
    variables = json.loads(golden.read_text())["variables"]
    assert {entry["key"]: tuple(entry["shape"]) for entry in variables} == reader.shapes
    with pytest.raises(CheckpointError, match=f"{folder.name}: cannot read 'model/"):
        reader.read(next(iter(reader.shapes)))  # the index alone was published here


def test_what_the_zoos_extra_keys_are_ignored_for():
    ignored = open_checkpoint(goldens.require_shared("zoo/centernet_mobilenetv2_fpn_od")).ignored
    assert len(ignored) == 395  # 388 slots (2 for each of 194 variables), 4 of the optimizer, step, counter, graph
    reasons = [reason for key, reason in ignored.items() if "/.OPTIMIZER_SLOT/" in key]
    assert len(reasons) == 388 and set(reasons) == {"optimizer slot of a variable (momentum, Adam's moments)"}
    assert {key for key in ignored if "SLOT" not in key} == {
        "_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter", "step",
        "optimizer/beta_1", "optimizer/beta_2", "optimizer/decay", "optimizer/iter",
    }  # fmt: skip


def test_shadows_and_wrapped_optimizers_are_ignored(tmp_path):
    values = {
        "model/a/bias": np.zeros(2, "float32"),
        "model/a/bias/.OPTIMIZER_SLOT/optimizer/average": np.zeros(2, "float32"),
        "model/a/bias/.OPTIMIZER_SLOT/optimizer/_optimizer/momentum": np.zeros(2, "float32"),
        "optimizer/_variables/1": np.zeros(2, "float32"),
        "optimizer/_learning_rate": np.float32(0.1),
        "global_step": np.int64(5),
    }
    reader = open_checkpoint(golden_checkpoints.write_checkpoint(values, tmp_path))
    assert reader.shapes == {"model/a/bias": (2,)}
    assert "EMA" in reader.ignored["model/a/bias/.OPTIMIZER_SLOT/optimizer/average"]
    assert "momentum" in reader.ignored["model/a/bias/.OPTIMIZER_SLOT/optimizer/_optimizer/momentum"]
    assert len(reader.ignored) == 6  # the five above and save_counter


def test_the_real_checkpoint_holds_the_golden_weights():
    reader = open_checkpoint(goldens.require_shared(f"golden/checkpoints/{REAL}"))
    weights = golden_checkpoints.golden_weights(REAL)
    assert {key: value.shape for key, value in weights.items()} == reader.shapes and len(weights) == 324
    for key, value in weights.items():
        np.testing.assert_array_equal(reader.read(key), value, strict=True)


def test_a_written_golden_checkpoint_is_the_real_one(tmp_path):
    real = open_checkpoint(goldens.require_shared(f"golden/checkpoints/{REAL}") / "ckpt-0.index")
    reader = open_checkpoint(golden_checkpoints.write_golden_checkpoint(REAL, tmp_path))
    assert reader.shapes == real.shapes
    for key in reader.shapes:
        np.testing.assert_array_equal(reader.read(key), real.read(key), strict=True)


def test_every_way_to_name_a_checkpoint(small, tmp_path):
    folder, values = small
    with tarfile.open(tmp_path / "zoo.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname="some_model/checkpoint")
        tar.add(folder / "ckpt-0.index", arcname="some_model/saved_model/variables/variables.index")
    nested = tmp_path / "unpacked" / "some_model"
    shutil.copytree(folder, nested / "checkpoint")
    ways = [folder, folder / "ckpt-0", str(folder / "ckpt-0.index"), folder.parent]
    ways += [str(folder / "ckpt-0.data-00000-of-00001"), nested, nested.parent, tmp_path / "zoo.tar.gz"]
    for way in ways:
        reader = open_checkpoint(way)
        assert reader.source == str(way)
        for key, value in values.items():
            np.testing.assert_array_equal(reader.read(key), value, strict=True)
    assert "model/a/bias" in reader and "save_counter" not in reader
    with pytest.raises(KeyError, match="has no variable 'model/c'"):
        reader.read("model/c")


def test_the_state_file_chooses_and_else_the_highest_number(copy):
    for number in (3, 20):
        for suffix in ("index", "data-00000-of-00001"):
            shutil.copy(copy / f"ckpt-0.{suffix}", copy / f"ckpt-{number}.{suffix}")
    assert find_checkpoint(copy).name == "ckpt-0"
    (copy / "checkpoint").write_text('model_checkpoint_path: "/where/it/was/trained/ckpt-3"')
    assert find_checkpoint(copy) == copy / "ckpt-3"
    (copy / "checkpoint").write_text('model_checkpoint_path: "ckpt-5"')
    with pytest.raises(CheckpointError, match=r"names 'ckpt-5', which is not in its folder; pass the prefix"):
        open_checkpoint(copy)
    for broken in ('model_checkpoint_path: "ckpt', "", "\0\1"):
        (copy / "checkpoint").write_text(broken)
        with pytest.raises(CheckpointError, match="pass a prefix"):
            open_checkpoint(copy)
    (copy / "checkpoint").unlink()
    assert find_checkpoint(copy).name == "ckpt-20"
    (copy / "ckpt-20.index").replace(copy / "a.index")
    shutil.copy(copy / "a.index", copy / "b.index")
    (copy / "ckpt-0.index").unlink()
    (copy / "ckpt-3.index").unlink()
    with pytest.raises(CheckpointError, match=r"holds several checkpoints \(a, b\); pass the prefix of one"):
        open_checkpoint(copy)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint; pass its prefix"):
        open_checkpoint(tmp_path / "ckpt-0")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        open_checkpoint(tmp_path / "ckpt-0.index")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.h5", "no checkpoint"),
        ("frozen_inference_graph.pb", "a graph, which frozen_graph.open_graph reads"),
        ("pipeline.config", "a pipeline.config, which from_pipeline_config reads"),
        ("model.zip", "a .zip archive"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, name, what):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=rf"{name}: {what}.*; supported: .*; pass its prefix|{what}.*pass its"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent"])
def test_a_damaged_data_file(copy, damage):
    data = copy / "ckpt-0.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    if damage == "absent":
        data.unlink()
    else:
        content[100_000] ^= 1
        data.write_bytes(content[:100_000] if damage == "truncated" else content)
    reader = open_checkpoint(copy / "ckpt-0")
    with pytest.raises(CheckpointError) as error:
        reader.read("model/a/kernel")
    assert str(error.value).startswith(f"{copy / 'ckpt-0'}: cannot read 'model/a/kernel' from the data file (")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"hello" * 1000, None])
def test_a_damaged_index(copy, content):
    index = copy / "ckpt-0.index"
    index.write_bytes(index.read_bytes()[:-60] if content is None else content)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(copy)
    assert str(error.value).startswith(f"{copy}: cannot read the index of the checkpoint (")
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_tensorflow_1(tmp_path):
    weight = np.arange(24, dtype="float32").reshape(1, 2, 3, 4)
    name, layer = "FeatureExtractor/MobilenetV2/Conv/weights", "FeatureExtractor/MobilenetV2/Conv"
    others = {f"{name}/{slot}": weight for slot in ("RMSProp", "RMSProp_1", "Momentum", "ExponentialMovingAverage")}
    others |= {
        f"{layer}/{kind}/{end}": np.float32(1) for kind in ("act_quant", "weights_quant") for end in ("min", "max")
    }
    reader = open_checkpoint(golden_checkpoints.write_tf1_checkpoint({name: weight, **others}, tmp_path).parent)
    assert reader.tf1 and reader.shapes == {name: weight.shape}
    np.testing.assert_array_equal(reader.read(name), weight, strict=True)
    assert set(reader.ignored) == {*others, "global_step"}
    assert "EMA" in reader.ignored[f"{name}/ExponentialMovingAverage"]


def test_names_of_both_kinds_in_one_checkpoint(tmp_path):
    import tensorflow as tf

    names = ["FeatureExtractor/MobilenetV2/Conv/weights", f"model/a/kernel{SUFFIX}"]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt"), tensor_names=names, shape_and_slices=[""] * 2, tensors=[tf.zeros(2)] * 2
    )
    with pytest.raises(CheckpointError, match="a name of TensorFlow 1's checkpoints, beside objects of TensorFlow 2"):
        open_checkpoint(tmp_path / "model.ckpt")


def test_a_checkpoint_without_a_model(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model variable"):
        open_checkpoint(golden_checkpoints.write_checkpoint({"step": np.int64(3)}, tmp_path))


def test_broken_archives(small, tmp_path):
    archive = tmp_path / "zoo.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(small[0], arcname="m/checkpoint")
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises(ArchiveError, match=r"zoo\.tar\.gz: the archive is truncated"):
        open_checkpoint(archive)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, arcname="m/readme")
    with pytest.raises(CheckpointError, match=r"zoo\.tar\.gz: .*holds no checkpoint"):
        open_checkpoint(archive)


def test_an_archive_is_unpacked_for_as_long_as_its_reader_lives(small, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with tarfile.open(tmp_path / "zoo.tar.gz", "w:gz") as tar:
        tar.add(small[0], arcname="m/checkpoint")
    reader = open_checkpoint(tmp_path / "zoo.tar.gz")
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del reader
    assert not list((tmp_path / "temporary").iterdir())


def test_tensorflow_is_imported_only_to_read_a_file():
    if goldens.BACKEND == "tensorflow":
        pytest.skip("the backend itself imports TensorFlow")
    code = (
        "import sys\n"
        "import keras_detect.weights.tf2_object_checkpoint, keras_detect.weights.restore, keras_detect.presets.store\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(__file__).parents[2])


@pytest.mark.parametrize(
    "named", ["{outside}/ckpt-0", "../outside/ckpt-0", "sub/../../outside/ckpt-0", "C:\\ckpt-0", ".."]
)
def test_a_state_file_does_not_lead_out_of_its_folder(copy, tmp_path, named):
    outside = shutil.copytree(copy, tmp_path / "outside")
    named = named.format(outside=outside)
    escaped = named.replace("\\", "\\\\")
    (copy / "checkpoint").write_text(f'model_checkpoint_path: "{escaped}"')
    if named != "..":  # the folder was moved: its own checkpoint of that name counts
        assert find_checkpoint(copy) == copy / "ckpt-0"
        for part in ("index", "data-00000-of-00001"):
            (copy / f"ckpt-0.{part}").rename(copy / f"ckpt-1.{part}")
    with pytest.raises(CheckpointError, match=r"which is not in its folder; pass the prefix of one that is"):
        find_checkpoint(copy)
    with tarfile.open(tmp_path / "zoo.tar.gz", "w:gz") as tar:
        tar.add(copy, arcname="m/checkpoint")
    with pytest.raises(CheckpointError, match=r"zoo\.tar\.gz: .*which is not in its folder"):
        open_checkpoint(tmp_path / "zoo.tar.gz")


@pytest.mark.parametrize("name", ["x" * 5000, "a\\0b", "\\377" * 3, "\\n"])
def test_a_state_file_with_a_name_that_cannot_be(copy, name):
    (copy / "checkpoint").write_text(f'model_checkpoint_path: "{name}"')
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(copy)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
