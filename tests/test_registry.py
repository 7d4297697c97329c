"""Whose name a class is saved under: a user's class never takes the place of a built-in one."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_detect import SSD, registry
from keras_detect.layers.conv_blocks import ConvHyperparams
from tests.networks import undrawn
from tests.tiny import TinyBackbone

PACKAGE = pathlib.Path(registry.__file__).parents[1]

USERS = """
import keras
import keras_detect
from keras_detect.registry import part

@keras_detect.register_backbone("mine")
class MobileNetV2(keras_detect.Backbone):
    def __init__(self, **kwargs):
        inputs = x = keras.Input((None, None, 3))
        levels = {}
        for level in range(1, 6):
            x = levels[f"C{level}"] = keras.layers.Conv2D(4, 3, 2, padding="same", name=f"conv_{level}")(x)
        levels = {level: levels[level] for level in ("C3", "C4", "C5")}
        super().__init__(inputs=inputs, outputs=levels, strides={"C3": 8, "C4": 16, "C5": 32}, **kwargs)

@part
class FixedShapeResizer:
    height: int = 1

def detector(backbone="mine"):
    return keras_detect.SSD.from_backbone(backbone, num_classes=2, image_size=64)
"""

SHOW = """
backbone = model.feature_extractor.backbone
print(type(backbone).__module__, type(backbone).__name__, type(model.resizer).__module__, model.count_params())
"""


def run(folder, code):
    """The last line that a script in `folder` prints."""
    (folder / "script.py").write_text(code)
    run = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{PACKAGE}:{folder}"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.splitlines()[-1]


def test_a_saved_built_in_model_loads_where_a_users_class_has_its_name(tmp_path):
    with undrawn():
        model = SSD.from_backbone("mobilenet_v2", num_classes=2, image_size=64, weights=None)
    model.save(tmp_path / "built_in.keras")
    shown = run(tmp_path, USERS + 'model = keras.models.load_model("built_in.keras")' + SHOW)
    assert shown == (
        f"keras_detect.backbones.mobilenet_v2 MobileNetV2 keras_detect.transforms.resizers {model.count_params()}"
    )


def test_a_users_model_loads_where_its_class_is_registered(tmp_path):
    """Saved by a script, it loads in a script that defines the class, and in one that imports it from a module."""
    (tmp_path / "mine.py").write_text(USERS)
    saved = run(tmp_path, USERS + 'model = detector()\nmodel.save("users.keras")' + SHOW)
    assert saved.startswith("__main__ MobileNetV2 keras_detect.transforms.resizers ")
    assert run(tmp_path, USERS + 'model = keras.models.load_model("users.keras")' + SHOW) == saved
    imported = run(tmp_path, 'import keras, mine\nmodel = keras.models.load_model("users.keras")' + SHOW)
    assert imported == saved.replace("__main__", "mine")
    as_module = 'import keras, mine\nmodel = mine.detector()\nmodel.save("users.keras")'
    again = "\nmodel = keras.models.load_model('users.keras')"
    assert run(tmp_path, as_module + again + SHOW) == imported


def test_packages_of_names():
    assert keras.saving.get_registered_name(ConvHyperparams) == "keras_detect>ConvHyperparams"
    assert keras.saving.get_registered_name(TinyBackbone) == "tests.tiny>TinyBackbone"

    namesake = type("ConvHyperparams", (), {"value": 3, "__module__": __name__})
    assert keras.saving.get_registered_name(registry.part(namesake)) == f"{__name__}>ConvHyperparams"
    assert keras.saving.get_registered_object("keras_detect>ConvHyperparams") is ConvHyperparams


def test_a_class_of_a_script_goes_before_an_imported_one():
    def make(module, value):
        return registry.serializable(type("Same", (ConvHyperparams,), {"__module__": module, "value": value}))

    make("a_module", 1)
    assert keras.saving.get_registered_object("__main__>Same").value == 1
    make("a_module", 2)  # imported anew
    assert keras.saving.get_registered_object("__main__>Same").value == 2
    make("__main__", 3)
    make("a_module", 4)
    assert keras.saving.get_registered_object("__main__>Same").value == 3
    assert keras.saving.get_registered_object("a_module>Same").value == 4


@pytest.mark.parametrize("value", [3, None, "text", {"class_name": "no config"}, [1]])
def test_what_is_not_serialized_comes_back(value):
    assert registry.deserialize(value) == value
    part = registry.deserialize(keras.saving.serialize_keras_object(ConvHyperparams(l2_weight=0.5)))
    assert part == ConvHyperparams(l2_weight=0.5)
