"""The preset that ships with the package: offline, on every backend, the same cells on a photo of BCCD's test split.

`blood_cells/` holds that photo and BCCD's license (MIT).
"""

import functools
import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect import schema
from keras_detect.boxes import box_ops
from keras_detect.data.image import as_pixels
from keras_detect.presets import packaged, store
from tests import networks

NAME = "frcnn_inception_v100"
PHOTO = pathlib.Path(__file__).with_name("blood_cells") / "BloodImage_00390.jpg"

# label, score, box of every detection above 0.5, on TensorFlow
FOUND = (
    (2, 0.996, (0.621, 0.242, 0.996, 0.565)),
    (1, 0.975, (0.440, 0.059, 0.635, 0.247)),
    (1, 0.968, (0.513, 0.537, 0.734, 0.695)),
    (1, 0.968, (0.129, 0.535, 0.410, 0.721)),
    (1, 0.934, (0.665, 0.124, 0.876, 0.271)),
    (1, 0.924, (0.242, 0.321, 0.508, 0.530)),
    (1, 0.899, (0.467, 0.243, 0.662, 0.392)),
    (1, 0.847, (0.280, 0.852, 0.511, 0.995)),
    (1, 0.806, (0.092, 0.785, 0.335, 0.951)),
    (1, 0.754, (0.807, 0.552, 0.995, 0.702)),
    (1, 0.754, (0.800, 0.013, 1.000, 0.150)),
    (1, 0.738, (0.753, 0.838, 0.996, 0.995)),
)

# the annotation of the photo: ten red cells (1) and a white one (2)
TRUTH = (
    (1, (0.444, 0.047, 0.638, 0.250)),
    (1, (0.804, 0.002, 0.994, 0.133)),
    (1, (0.667, 0.114, 0.883, 0.277)),
    (1, (0.096, 0.775, 0.352, 0.953)),
    (1, (0.098, 0.538, 0.408, 0.727)),
    (1, (0.281, 0.867, 0.515, 1.000)),
    (1, (0.744, 0.834, 1.000, 1.000)),
    (1, (0.475, 0.528, 0.731, 0.706)),
    (1, (0.744, 0.538, 1.000, 0.716)),
    (1, (0.233, 0.316, 0.540, 0.533)),
    (2, (0.633, 0.230, 1.000, 0.575)),
)


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def model():
    with networks.undrawn():  # every weight is read
        return keras_detect.Model.from_preset(NAME)


def found_in_a_batch(model):
    """Detections above 0.5 as in a batch of padded images, where the canvas is 448 x 448."""
    resized, shape = model.resizer.resize_image(as_pixels(PHOTO))
    x = {schema.IMAGES: resized[None], schema.TRUE_IMAGE_SHAPES: np.asarray(shape, "int32")[None]}
    batch = keras.tree.map_structure(np.asarray, model.predict_on_batch(x))
    return {key: batch[key][0][batch["scores"][0] >= 0.5] for key in ("boxes", "scores", "labels")}


def test_known_cells_on_a_photo(model):
    found = found_in_a_batch(model)
    assert [int(label) for label in found["labels"]] == [label for label, _, _ in FOUND]
    np.testing.assert_allclose(found["scores"], [score for _, score, _ in FOUND], atol=2e-3)
    np.testing.assert_allclose(found["boxes"], [box for _, _, box in FOUND], atol=2e-3)


@pytest.mark.backend_free  # inference/test_images.py holds `detect` to `predict` on every backend
def test_detect_finds_them_too_with_the_numbers_of_predict(model):
    """Without padding: the canvas is 336 x 448, whether the photo comes alone or among images of other sizes."""
    pixels = as_pixels(PHOTO)
    predicted = keras.tree.map_structure(np.asarray, model.predict_on_batch(pixels[None]))
    found = model.detect(PHOTO, score_threshold=0.5)
    compare = np.testing.assert_array_equal
    if model.jit_compile:  # where XLA compiles, images are resized before they reach the network, by another program
        compare = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-4)
    for key in ("boxes", "scores", "labels"):
        compare(found[key], predicted[key][0][predicted["scores"][0] >= 0.5])
    assert found["class_names"] == ["WBC"] + ["RBC"] * 11
    among_others = model.detect([pixels, pixels[:300], pixels[:, :300]], score_threshold=0.5)[0]
    np.testing.assert_allclose(among_others["scores"], found["scores"], atol=1e-4)
    np.testing.assert_allclose(among_others["boxes"], found["boxes"], atol=1e-4)


def test_the_cells_are_those_of_the_annotation(model):
    """Every annotated cell is found with IoU above 0.5 and its class; of the twelve detections one is in addition."""
    boxes = np.asarray([box for _, _, box in FOUND], "float32")
    ground_truth = np.asarray([box for _, box in TRUTH], "float32")
    overlap = keras.ops.convert_to_numpy(box_ops.iou(keras.ops.convert_to_tensor(ground_truth), boxes))
    assert (overlap.max(axis=1) > 0.5).all()
    assert [FOUND[i][0] for i in overlap.argmax(axis=1)] == [label for label, _ in TRUTH]
    assert len(set(overlap.argmax(axis=1))) == 11


def test_files():
    folder = store.find_preset(NAME)
    assert folder.parent == packaged.FOLDER and NAME in store.names()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["weights_sha256"] == hashlib.sha256((folder / "weights.h5").read_bytes()).hexdigest()
    assert (metadata["weights_dtype"], metadata["data_license"]) == ("float16", "MIT")
    assert metadata["parameters"] == 3_399_598
    assert metadata["measured"]["map"] > 0.5 and metadata["measured"]["map_50"] > 0.85


def test_the_weights_are_float32_in_memory(model):
    assert model.class_names == ("Platelets", "RBC", "WBC")
    assert isinstance(model, keras_detect.FasterRCNN) and model.count_params() == 3_399_598
    floats = {keras.backend.standardize_dtype(weight.dtype) for weight in model.trainable_weights}
    assert floats == {"float32"}


def test_other_classes_keep_all_but_the_heads(model):
    with networks.undrawn():
        other = keras_detect.Model.from_preset(NAME, class_names=["leaf", "twig"])
    assert other.class_names == ("leaf", "twig") and other.num_classes == 2
    kept = other.named_weights()
    for name, weight in model.named_weights().items():
        if "box_predictor" not in name:
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(kept[name]), err_msg=name
            )


def test_it_computes_under_the_sessions_dtype_policy(model):
    """Half precision moves scores and boxes by some hundredths at most, and no cell of the photo changes its class."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with networks.undrawn():
            rounded = keras_detect.Model.from_preset(NAME)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.dtype_policy.name for layer in rounded._flatten_layers()} == {"mixed_bfloat16"}
    found = found_in_a_batch(rounded)
    ours, theirs = (np.asarray(boxes, "float32") for boxes in (found["boxes"], [box for _, _, box in FOUND]))
    overlap = keras.ops.convert_to_numpy(box_ops.iou(theirs, ours))
    twin = overlap.argmax(axis=1)
    assert len(ours) == len(FOUND) == len(set(twin)) and (overlap.max(axis=1) > 0.9).all()
    assert [int(found["labels"][i]) for i in twin] == [label for label, _, _ in FOUND]
    np.testing.assert_allclose(np.asarray(found["scores"])[twin], [score for _, score, _ in FOUND], atol=0.05)
