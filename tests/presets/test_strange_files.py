"""Model files from strangers: damaged, crafted or of something else, each ends in one line of one error type."""

import hashlib
import io
import json
import math
import pathlib
import random
import shutil
import zipfile
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

import keras_detect
from keras_detect import cli
from keras_detect.data import write_coco
from keras_detect.data.shapes import shapes_dataset
from keras_detect.presets.directory import read_preset, save_preset
from keras_detect.weights.keras_file import ModelFileError, load_keras_file
from tests import tiny
from tests.presets.strange_files import damaged_bytes, damaged_json, with_member
from tests.presets.toy import Toy


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A detector and a toy, each as a `.keras` file and as a preset."""
    folder = tmp_path_factory.mktemp("whole")
    model, toy = tiny.tiny_ssd(class_names=["a", "b", "c"]), Toy(class_names=["a", "b", "c"])
    model.save(folder / "model.keras")
    model.save_to_preset(folder / "preset")
    toy.save(folder / "toy.keras")
    save_preset(toy, folder / "toy")
    return SimpleNamespace(folder=folder, model=model, toy=toy)


def refused(load, path):
    """The message of what `load(path)` raises: one line that names the file; None if it loads."""
    try:
        load(path)
    except ModelFileError as error:
        message = str(error)
        assert "\n" not in message and str(path) in message and len(message) < 700, message
        return message
    return None


def test_damaged_bytes(whole, tmp_path):
    """200 seeds: a damaged archive is refused before anything is built, or holds what it held."""
    content, generator = (whole.folder / "toy.keras").read_bytes(), random.Random(0)
    before, loaded, path = tiny.weights_of(whole.toy), 0, tmp_path / "damaged.keras"
    for seed in range(200):
        path.write_bytes(damaged_bytes(generator, content))

        def load(path, seed=seed):
            for name, value in tiny.weights_of(load_keras_file(path)).items():
                np.testing.assert_array_equal(value, before[name], err_msg=f"seed {seed}: {name}")

        loaded += refused(load, path) is None
    assert loaded < 80  # dates and the like


@pytest.mark.parametrize("part", ["config.json", "label_map.json", "metadata.json", "weights.h5"])
def test_damaged_presets(whole, tmp_path, part):
    generator = random.Random(part)
    folder = shutil.copytree(whole.folder / "toy", tmp_path / "preset")
    content = (folder / part).read_bytes()
    before = tiny.weights_of(whole.toy)
    for seed in range(60):
        (folder / part).write_bytes(damaged_bytes(generator, content))

        def load(path, seed=seed):
            for name, value in tiny.weights_of(read_preset(path)[0]).items():
                np.testing.assert_array_equal(value, before[name], err_msg=f"seed {seed}: {name}")

        refused(load, folder)


def with_damaged_configurations(archive, preset, kind, count, tmp_path):
    """Paths of copies of an archive or a preset, `count` in turn: another value, a dropped, renamed or wrapped one."""
    generator, content = random.Random(kind), archive.read_bytes()
    folder = shutil.copytree(preset, tmp_path / "preset")
    config = json.loads((folder / "config.json").read_text())
    if kind == "archive":
        config = json.loads(zipfile.ZipFile(io.BytesIO(content)).read("config.json"))
    for _ in range(count):
        changed = damaged_json(generator, config)
        if kind == "archive":
            (tmp_path / "changed.keras").write_bytes(with_member(content, "config.json", changed))
            yield tmp_path / "changed.keras"
        else:
            (folder / "config.json").write_text(json.dumps(changed))
            yield folder


@pytest.mark.parametrize(("kind", "load"), [("archive", load_keras_file), ("preset", read_preset)])
def test_damaged_configurations(whole, tmp_path, kind, load):
    """The model is built, or refused in one line."""
    paths = with_damaged_configurations(whole.folder / "toy.keras", whole.folder / "toy", kind, 120, tmp_path)
    assert sum(refused(load, path) is not None for path in paths) > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["archive", "preset"])
def test_damaged_configurations_of_a_detector(whole, tmp_path, kind):
    paths = with_damaged_configurations(whole.folder / "model.keras", whole.folder / "preset", kind, 200, tmp_path)
    assert sum(refused(keras_detect.Model.from_preset, path) is not None for path in paths) > 40


# --- crafted archives ---------------------------------------------------------------------------------------------


def _config(content):
    return json.loads(zipfile.ZipFile(io.BytesIO(content)).read("config.json"))


def _replaced(content, place, value):
    config = _config(content)
    *owners, name = place
    inner = config
    for owner in owners:
        inner = inner[owner]
    inner[name] = value
    return with_member(content, "config.json", config)


def a_foreign_class(content):
    return _replaced(content, ["registered_name"], "evil>SSD")


def no_config(content):
    return with_member(content, "config.json", None)


def no_weights(content):
    return with_member(content, "model.weights.h5", None)


def no_detector(content):
    config = keras.saving.serialize_keras_object(keras.layers.Dense(10**9))
    return with_member(content, "config.json", config)


def a_config_of_nothing(content):
    return with_member(content, "config.json", [1, 2])


def a_broken_config(content):
    return with_member(content, "config.json", b'{"config": ' + b"[" * 100_000)


def a_billion_classes(content):
    return _replaced(content, ["config", "box_predictor", "config", "num_classes"], 10**9)


def nested_layers(content):
    layer = {}
    for _ in range(300):
        layer = {
            "module": "keras.layers",
            "class_name": "TimeDistributed",
            "config": {"layer": layer},
            "registered_name": None,
        }
    return _replaced(content, ["config", "feature_extractor"], layer)


def a_billion_filters(content):
    """In a layer of Keras' own, whose arguments no table here knows."""
    extractor = {
        "module": "keras",
        "class_name": "Sequential",
        "registered_name": None,
        "config": {
            "name": "wide",
            "layers": [
                {
                    "module": "keras.layers",
                    "class_name": "Conv2D",
                    "registered_name": None,
                    "config": {"filters": 10**9, "kernel_size": 3, "name": "wide_conv"},
                }
            ],
            "build_input_shape": [None, 64, 64, 3],
        },
    }
    return _replaced(content, ["config", "feature_extractor"], extractor)


def a_zip_bomb(content):
    result = io.BytesIO(content)
    with zipfile.ZipFile(result, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("assets/bomb", "w") as bomb:
        for _ in range(200):
            bomb.write(bytes(1_000_000))
    return result.getvalue()


def a_thousand_members(content):
    result = io.BytesIO(content)
    with zipfile.ZipFile(result, "a") as archive:
        for number in range(2000):
            archive.writestr(f"assets/{number}", b"")
    return result.getvalue()


def a_flipped_bit(content):
    place = content.index(b"HDF") + 5000
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def nan_weights(content):
    file = io.BytesIO(zipfile.ZipFile(io.BytesIO(content)).read("model.weights.h5"))
    with h5py.File(file, "a") as weights:
        names = []
        weights.visit(lambda name: names.append(name) if isinstance(weights[name], h5py.Dataset) else None)
        weights[next(name for name in names if weights[name].ndim == 4)][0, 0, 0, 0] = math.nan
    return with_member(content, "model.weights.h5", file.getvalue())


def _name(craft):
    return craft.__name__


CRAFTED = {
    a_foreign_class: "its class 'evil>SSD' is not known here; import the module that registers it",
    no_config: "it lacks config.json",
    no_weights: "it lacks model.weights.h5",
    no_detector: "it holds a Dense, not a detector of keras_detect",
    a_config_of_nothing: "config.json is not a JSON object",
    a_broken_config: "config.json is not JSON",
    a_billion_classes: "num_classes is 1000000000; supported: 1 to 100000",
    nested_layers: "nested deeper than 100 levels",
    a_billion_filters: "the weights take more than",
    a_zip_bomb: " bytes, as a zip bomb does; supported for its size: ",
    a_thousand_members: "members; supported: 1000",
    a_flipped_bit: "the checksum of model.weights.h5 does not match",
    nan_weights: "is NaN: its training had diverged",
}


@pytest.mark.parametrize("craft", CRAFTED, ids=_name)
def test_crafted_archives(whole, tmp_path, craft):
    path = tmp_path / "crafted.keras"
    path.write_bytes(craft((whole.folder / "model.keras").read_bytes()))
    assert CRAFTED[craft] in refused(keras_detect.Model.from_preset, path)
    if craft is not no_detector:  # that is asked for the backbone alone
        assert refused(whole.model.restore, path) is not None


@pytest.mark.parametrize("craft", [a_billion_classes, nested_layers, a_billion_filters], ids=_name)
def test_keras_own_loader_is_bounded_too(whole, tmp_path, craft):
    path = tmp_path / "crafted.keras"
    path.write_bytes(craft((whole.folder / "model.keras").read_bytes()))
    with pytest.raises(ValueError, match=CRAFTED[craft]) as error:
        keras.saving.load_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", ["predict", "evaluate", "train"])
def test_one_line_in_the_shell(whole, tmp_path, capsys, command):
    (tmp_path / "crafted.keras").write_bytes(a_flipped_bit((whole.folder / "model.keras").read_bytes()))
    folder = shutil.copytree(whole.folder / "preset", tmp_path / "preset")
    (folder / "label_map.json").write_text("{")
    write_coco(shapes_dataset(2, image_size=64), tmp_path / "data")
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    data = ("--images", tmp_path / "image.png") if command == "predict" else ("--data", tmp_path / "data")
    for model in (tmp_path / "crafted.keras", folder):
        arguments = [command, "--model", model, "--output", tmp_path / "output", *data]
        status = cli.run(cli.parse(["keras-detect", *map(str, arguments)]))
        lines = capsys.readouterr().err.strip().splitlines()
        assert status == 2 and len(lines) == 1 and lines[0].startswith(f"keras-detect {command}: {model}"), lines


# --- crafted presets ----------------------------------------------------------------------------------------------


def _json(folder, name, **changes):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def _weights(folder, change):
    """Changes the weights and writes their new digest: only what they hold is wrong then."""
    with h5py.File(folder / "weights.h5", "a") as file:
        change(file)
    _json(folder, "metadata.json", weights_sha256=hashlib.sha256((folder / "weights.h5").read_bytes()).hexdigest())


def _external(file):
    outside = pathlib.Path(file.filename).with_name("outside")
    outside.write_bytes(bytes(80))
    del file["body/kernel"]
    file.create_dataset("body/kernel", (5, 4), "f4", external=[(str(outside), 0, 80)])


def _wide(file):
    del file["head/bias"]
    file.create_dataset("head/bias", (3,), "S1000000000", chunks=(1,))


def _infinite(file):
    file["norm/gamma"][0] = math.inf


PRESETS = {
    "other names": (
        "label_map.json",
        {"class_names": ["a", "b", "x"]},
        "its class_names are not those",
    ),
    "fewer names": ("label_map.json", {"class_names": ["a"]}, "its class_names are not those"),
    "no names": ("label_map.json", {"class_names": None}, "its class_names are not those"),
    "a damaged map": ("label_map.json", b'{"class', "label_map.json: damaged, not JSON"),
    "a map of another kind": ("label_map.json", b"[]", "label_map.json: damaged, a JSON object was expected"),
    "a new format": ("metadata.json", {"format": 99}, "format 99, and this version reads format 2"),
    "a format in words": ("metadata.json", {"format": "two"}, "format 'two', and this version reads format 2"),
    "another digest": ("metadata.json", {"weights_sha256": "0" * 64}, "damaged or replaced, its sha256 is not the one"),
    "a digest of no kind": ("metadata.json", {"weights_sha256": 5}, "damaged or replaced, its sha256 is not the one"),
    "infinite weights": ("weights.h5", _infinite, "holds a weight that is infinite, for norm/gamma"),
    "weights elsewhere": ("weights.h5", _external, "'body/kernel' is not a plain array of numbers"),
    "a text of a gigabyte": ("weights.h5", _wide, "'head/bias' is not a plain array of numbers"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_crafted_presets(whole, tmp_path, name):
    file, change, message = PRESETS[name]
    folder = shutil.copytree(whole.folder / "toy", tmp_path / "preset")
    if isinstance(change, bytes):
        (folder / file).write_bytes(change)
    elif isinstance(change, dict):
        _json(folder, file, **change)
    else:
        _weights(folder, change)
    assert message in refused(read_preset, folder)


def test_what_was_not_touched_loads(whole, tmp_path):
    """Packed by another program, with assets, or for other classes than its own."""
    content = (whole.folder / "model.keras").read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as after:
        for member in before.namelist():
            after.writestr(member, before.read(member))
        after.comment = b"PK\x05\x06"[:2] + b" packed again"
    (tmp_path / "packed.keras").write_bytes(packed.getvalue())
    again = keras_detect.Model.from_preset(tmp_path / "packed.keras")
    for name, value in tiny.weights_of(whole.model).items():
        np.testing.assert_array_equal(tiny.weights_of(again)[name], value, err_msg=name)
    assert keras_detect.Model.from_preset(whole.folder / "preset", num_classes=5).num_classes == 5
    (folder := shutil.copytree(whole.folder / "toy", tmp_path / "toy")).joinpath("label_map.json").unlink()
    assert read_preset(folder)[0].class_names == ["a", "b", "c"]
