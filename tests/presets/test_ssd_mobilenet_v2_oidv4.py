"""The packaged detector of everyday objects: offline, on every backend, known objects on known photos."""

import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect.data.image import as_pixels
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.presets import packaged, store
from keras_detect.training.demo import PHOTO, PHOTO_THRESHOLD
from keras_detect.weights.folded_batch_norm import batch_norms, folded_layers
from tests import goldens, networks
from tools import make_ssd_mobilenet_v2_oidv4 as recipe

NAME = "ssd_mobilenet_v2_oidv4"
ROOT = pathlib.Path(__file__).parents[2]

# class, score, box of every detection above the demo's threshold, on TensorFlow; what it calls a laptop is a monitor
FOUND = (
    ("Desk", 0.619, (0.531, 0.205, 0.991, 0.983)),
    ("Table", 0.543, (0.531, 0.205, 0.991, 0.983)),
    ("Laptop", 0.508, (0.455, 0.626, 0.808, 0.910)),
    ("Person", 0.502, (0.118, 0.060, 1.000, 0.278)),
)


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def model():
    with networks.undrawn():  # every weight is read
        return keras_detect.Model.from_preset(NAME)


def test_files():
    folder = store.find_preset(NAME)
    assert folder.parent == packaged.FOLDER and NAME in store.names()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12e6
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["weights_sha256"] == hashlib.sha256((folder / "weights.h5").read_bytes()).hexdigest()
    assert (metadata["weights_dtype"], metadata["license"]) == ("float16", "Apache-2.0")
    assert metadata["source_sha256"] == recipe.SHA256 and "objectron" in metadata["source"]
    notice = (ROOT / "NOTICE").read_text()
    assert recipe.SHA256 in notice and PHOTO.name in notice and "NOTICE" in (ROOT / "pyproject.toml").read_text()


def test_what_it_is(model):
    assert isinstance(model, keras_detect.SSD) and model.num_classes == 23
    assert {"Person", "Car", "Bottle", "Cat", "Dog"} < set(model.class_names) and "???" not in model.class_names
    assert (model.resizer.height, model.resizer.width) == (300, 300)
    assert model.started_from == f"'{NAME}'"
    assert not folded_layers(model) and len(batch_norms(model)) > 50


def test_known_objects_on_the_photo_that_ships_with_the_package(model):
    found = model.detect(PHOTO, score_threshold=PHOTO_THRESHOLD)
    assert found["class_names"] == [name for name, _, _ in FOUND]
    np.testing.assert_allclose(found["scores"], [score for _, score, _ in FOUND], atol=2e-3)
    np.testing.assert_allclose(found["boxes"], [box for _, _, box in FOUND], atol=2e-3)
    assert PHOTO.stat().st_size < 300_000


@pytest.mark.backend_free
def test_persons_on_72_photos(model):
    """What the weights' README measured with the LiteRT file: AP 0.182, AP50 0.374."""
    photos = goldens.require_shared("data/coco_free")
    data = recipe.persons(photos, model.class_names)
    assert sum(len(example["labels"]) for example in data) == 204
    metrics = evaluate_coco(model, data, progress=False)
    np.testing.assert_allclose([metrics["map_per_class"]["Person"], metrics["map_50"]], [0.182, 0.374], atol=0.004)


@pytest.mark.backend_free
def test_it_is_what_its_script_makes(model):
    """Un-folding moved the raw outputs of the LiteRT file, whose kernels are float16 too, by some 1e-5."""
    weights = goldens.require_shared("weights/ssd_mobilenet_v2_oidv4")
    with networks.undrawn():
        source = recipe.restored(weights)
    x = source.preprocess(as_pixels(PHOTO)[None])
    ours, theirs = (each(x, training=False) for each in (model, source))
    for key in ("box_encodings", "class_logits"):
        values = (keras.ops.convert_to_numpy(outputs[key]) for outputs in (ours, theirs))
        np.testing.assert_allclose(*values, atol=3e-4, err_msg=key)
