"""The preset folder: written whole, read bit for bit, re-headed, and refused when damaged."""

import errno
import json
import os

import h5py
import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.presets import directory
from keras_detect.presets.directory import PresetError, read_preset, save_preset
from tests import tiny
from tests.presets.toy import Toy

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")


def outputs(model):
    return keras.ops.convert_to_numpy(model(X))


@pytest.fixture
def model():
    """A trained toy: its batch norm has statistics of its own."""
    model = Toy(class_names=["a", "b", "c"])
    model.compile("sgd", "mse")
    model.fit(X, np.ones((6, 3), "float32"), verbose=0)
    return model


@pytest.fixture
def saved(model, tmp_path):
    return save_preset(model, tmp_path / "preset", {"license": "Apache-2.0", "coco_map": 20.2})


def test_the_four_files(saved, tmp_path):
    assert sorted(os.listdir(saved)) == sorted(directory.PRESET_FILES) and os.listdir(tmp_path) == ["preset"]
    metadata = json.loads((saved / "metadata.json").read_text())
    assert metadata["license"] == "Apache-2.0" and metadata["coco_map"] == 20.2
    assert metadata["parameters"] == 5 * 4 + 4 + 4 * 4 + 4 * 3 + 3 and metadata["keras_version"] == keras.__version__
    assert json.loads((saved / "label_map.json").read_text()) == {"class_names": ["a", "b", "c"]}
    assert "compile_config" not in json.loads((saved / "config.json").read_text())


def test_the_model_comes_back_bit_for_bit(model, saved):
    again, report = read_preset(saved)
    np.testing.assert_array_equal(outputs(again), outputs(model))
    assert again.class_names == ["a", "b", "c"] and again.get_config() == model.get_config()
    assert len(report.restored) == 8 and not report.kept
    np.testing.assert_array_equal(outputs(read_preset(str(saved), num_classes=3)[0]), outputs(model))


def test_half_as_large(model, saved, tmp_path):
    """float16 has 11 binary digits: a normal number is off by at most 2^-11 of itself. The model stays float32."""
    half = save_preset(model, tmp_path / "half", weights_dtype="float16")
    again, report = read_preset(half)
    assert len(report.restored) == 8
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        assert keras.backend.standardize_dtype(ours.dtype) == "float32"
        wanted = keras.ops.convert_to_numpy(theirs)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), wanted, rtol=2**-11, atol=2**-25)
    dtypes = [json.loads((folder / "metadata.json").read_text())["weights_dtype"] for folder in (half, saved)]
    assert dtypes == ["float16", "float32"]
    twice = save_preset(again, tmp_path / "twice", weights_dtype="float16")
    np.testing.assert_array_equal(outputs(read_preset(twice)[0]), outputs(again))
    with pytest.raises(ValueError, match="weights_dtype='int8'"):
        save_preset(model, tmp_path / "new", weights_dtype="int8")


def test_the_policy_is_the_sessions_not_the_presets(saved, tmp_path):
    """Saved under float32, read under mixed_bfloat16, saved there and read under float32 again."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed, _ = read_preset(saved)
        again = save_preset(mixed, tmp_path / "again")
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.dtype_policy.name for layer in mixed._flatten_layers()} == {"mixed_bfloat16"}
    back, _ = read_preset(again)
    assert {layer.dtype_policy.name for layer in back._flatten_layers()} == {"float32"}
    np.testing.assert_array_equal(outputs(back), outputs(read_preset(saved)[0]))


@pytest.mark.parametrize("value", [65505.0, float("nan")])
def test_what_float16_cannot_hold_is_named(model, tmp_path, value):
    """65504 is its largest number; vectors stay float32."""
    model.head.bias.assign([0.0, 65505.0, 65504.0])
    model.head.kernel.assign(np.full((4, 3), value))
    with pytest.raises(ValueError, match=r"head/kernel (holds a value beyond 65504|is NaN)"):
        save_preset(model, tmp_path / "preset", weights_dtype="float16")
    assert not os.listdir(tmp_path)


def test_another_number_of_classes_keeps_all_but_the_head(model, saved):
    other, report = read_preset(saved, num_classes=7)
    assert outputs(other).shape == (6, 7)
    assert set(report.kept) == {"head/kernel", "head/bias"} and len(report.restored) == 6
    assert (
        report.kept["head/kernel"]
        == "fresh, for another number of classes (shape (4, 7) here, (4, 3) in the checkpoint)"
    )
    for name, weight in model.named_weights().items():
        if not name.startswith("head"):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(other.named_weights()[name])
            )


def test_the_architecture_alone_needs_config_json_alone(saved):
    for name in directory.PRESET_FILES[1:]:
        (saved / name).unlink()
    for num_classes in (3, 5):
        model, report = read_preset(saved, num_classes=num_classes, load_weights=False)
        assert outputs(model).shape == (6, num_classes) and len(report.kept) == 8 and not report.restored


def test_an_older_preset_is_replaced_and_other_folders_are_not(model, saved, tmp_path):
    save_preset(Toy(num_classes=2), saved)
    assert read_preset(saved)[0].num_classes == 2 and os.listdir(tmp_path) == ["preset"]
    (saved / "README.md").touch()
    with pytest.raises(FileExistsError, match=r"holds 'README\.md'"):
        save_preset(model, saved)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        save_preset(model, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert read_preset(save_preset(model, tmp_path / "empty"))[0].num_classes == 3
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "preset"]


@pytest.mark.parametrize("moment", ["weights", "metadata", "exchange", "rename"])
def test_an_interrupted_write_leaves_the_older_preset(model, saved, tmp_path, monkeypatch, moment):
    before = outputs(model)

    def fail(*reason, **_):
        raise OSError(*(reason if moment == "rename" else ("interrupted",)))

    newer = Toy(num_classes=9)
    metadata = {}
    if moment == "weights":
        monkeypatch.setattr(newer, "named_weights", fail)
    elif moment == "metadata":
        metadata = {"not json": object()}
    elif moment == "exchange":
        monkeypatch.setattr("keras_detect.files.exchange", fail)
    else:
        rename = os.rename
        monkeypatch.setattr("keras_detect.files.exchange", lambda *_: fail(errno.ENOSYS, "not here"))
        monkeypatch.setattr(
            "keras_detect.files.os.rename",
            lambda a, b: fail(errno.EIO, "interrupted") if b == saved and "older" not in str(a) else rename(a, b),
        )
    for folder in (saved,) if moment in ("exchange", "rename") else (saved, tmp_path / "new"):
        with pytest.raises((OSError, TypeError)):
            save_preset(newer, folder, metadata)
    assert os.listdir(tmp_path) == ["preset"]
    np.testing.assert_array_equal(outputs(read_preset(saved)[0]), before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "is not a preset: config.json is missing"),
        ("config.json", b"{", "config.json: damaged, not JSON"),
        ("config.json", b"[" * 100_000, "config.json: damaged, not JSON"),
        ("config.json", b"[]", "config.json: damaged, a JSON object was expected"),
        ("config.json", b"\xff", "config.json: damaged, not JSON"),
        ("config.json", b'{"class_name": "Nowhere", "config": {}, "module": "x"}', "config.json: cannot build"),
        ("weights.h5", None, "missing; pass load_weights=False"),
        ("weights.h5", b"half", "weights.h5: damaged or replaced"),
        ("metadata.json", None, "metadata.json: missing"),
        ("metadata.json", b"no", "metadata.json: damaged"),
        ("metadata.json", b'{"format": "2"}', "format '2', and this version reads format 2"),
        ("metadata.json", b'{"format": [' + b"1, " * 9999 + b"1]}", "1, 1 ... 1, 1, 1"),
    ],
)
def test_damage_is_named(saved, name, content, message):
    (saved / name).unlink()
    if content is not None:
        (saved / name).write_bytes(content)
    with pytest.raises(PresetError) as error:
        read_preset(saved)
    assert message in str(error.value) and str(saved) in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_model(saved, tmp_path):
    other = save_preset(Toy(num_classes=5), tmp_path / "other")
    for name in ("weights.h5", "metadata.json"):
        (other / name).replace(saved / name)
    with pytest.raises(PresetError, match=r"weights\.h5: does not fit the model"):
        read_preset(saved)


def test_what_cannot_be_a_preset(tmp_path, saved, monkeypatch):
    inputs = keras.Input((2,))
    plain = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    with pytest.raises(TypeError, match=r"whose weights have names\. Received: Functional"):
        save_preset(plain, tmp_path / "plain")
    assert os.listdir(tmp_path) == ["preset"]
    monkeypatch.delattr(Toy, "with_num_classes")
    with pytest.raises(PresetError, match="a Toy cannot be built with another number of classes"):
        read_preset(saved, num_classes=4)


def test_an_older_format_is_named(saved):
    metadata = json.loads((saved / "metadata.json").read_text())
    (saved / "metadata.json").write_text(json.dumps({**metadata, "format": 1}))
    with pytest.raises(PresetError, match=r"metadata\.json: format 1, and this version reads format 2; write"):
        read_preset(saved)
    assert read_preset(saved, load_weights=False)[0].num_classes == 3


def test_a_trained_models_optimizer_is_not_written(tmp_path):
    """AdamW keeps two numbers per weight: with them, the file would be three times as large."""
    model = tiny.tiny_ssd()
    model.compile("adamw")
    model.train_on_batch(*tiny.tiny_batch())
    folder = save_preset(model, tmp_path / "trained")
    values = sum(weight.nbytes for weight in tiny.weights_of(model).values())
    assert model.count_params() * 4 == values
    with h5py.File(folder / "weights.h5") as file:
        stored = {}
        file.visititems(lambda name, item: stored.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        assert set(stored) == set(model.named_weights())
        assert sum(item.nbytes for item in stored.values()) == values
    assert (folder / "weights.h5").stat().st_size < values + 1000 * len(stored)
    again = keras_detect.Model.from_preset(folder)
    assert not again.compiled
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(tiny.weights_of(again)[name], value, err_msg=name)


def test_parts_are_written_without_module_paths(tmp_path):
    model = tiny.tiny_faster_rcnn()
    folder = save_preset(model, tmp_path / "tiny")
    text = (folder / "config.json").read_text()
    assert json.loads(text)["part"] == "FasterRCNN" and text.count("module") == 1  # of the users' backbone
    assert '"registered_name":"tests.tiny>TinyBackbone"' in text
    assert keras_detect.Model.from_preset(folder).get_config() == model.get_config()
