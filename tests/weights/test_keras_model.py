"""Weights of a classifier around one of our backbones: every kind of source, and what is refused."""

import keras
import numpy as np
import pytest

from keras_detect.backbones.inception_v100 import InceptionV100
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.weights.keras_model import CLASSIFIER
from tests import networks

WIDTH = 0.125  # 8, 8, 16, 32 and 64 channels


def backbone(width=WIDTH, **settings):
    with networks.undrawn():
        return InceptionV100(width_multiplier=width, **settings)


def classifier(nested=False, width=WIDTH):
    """Three classes on the average of C5, with numbers of its own in every weight."""
    body = backbone(width)
    inputs = keras.Input((None, None, 3)) if nested else body.inputs
    features = body(inputs)["C5"] if nested else body.output["C5"]
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(3, name="classes")(pooled))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape).astype("float32"))
    return model, body


def ssd():
    with networks.undrawn():
        return SSD.from_backbone(backbone(name="backbone"), num_classes=2, image_size=64)


def faster_rcnn():
    with networks.undrawn():
        return FasterRCNN.from_backbone(backbone(name="backbone"), num_classes=2, image_size=64)


def assert_same(body, model):
    for mine, theirs in zip(model.feature_extractor.backbone.weights, body.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(theirs))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("build", [ssd, faster_rcnn])
def test_a_classifier_as_a_model(build, nested):
    source, body = classifier(nested)
    model = build()
    report = model.restore(source, kind="classification")
    assert len(report.restored) == len(body.weights)
    assert report.restored["backbone/stem_c1_conv/kernel"] == "stem_c1_conv/kernel"
    around = {} if nested else {"classes/kernel": CLASSIFIER, "classes/bias": CLASSIFIER}
    assert report.ignored == around
    assert set(report.kept.values()) == {"not part of the backbone"}
    assert_same(body, model)


def test_files(tmp_path):
    source, body = classifier()
    source.save(tmp_path / "classifier.keras")
    body.save_weights(tmp_path / "body.weights.h5")
    source.save_weights(tmp_path / "classifier.weights.h5")
    for name in ("classifier.keras", "body.weights.h5", "classifier.weights.h5"):
        model = ssd()
        model.restore(tmp_path / name, kind="classification")
        assert_same(body, model)
    with pytest.raises(FileNotFoundError, match=r"absent\.keras"):
        ssd().restore(tmp_path / "absent.keras", kind="classification")
    for name, message in (
        ("classifier.keras", "not a .keras file, or trunc"),
        ("body.weights.h5", "does not hold the"),
    ):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"half_{name}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=rf"half_{name}:? {message}"):
            ssd().restore(tmp_path / f"half_{name}", kind="classification")


def test_a_path_below_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    source, body = classifier()
    source.save(tmp_path / "classifier.keras")
    model = ssd()
    model.restore("~/classifier.keras", kind="classification")
    assert_same(body, model)


def test_a_deeper_file_is_refused_whole(tmp_path):
    """Keras pairs layers by their order: a file with one more convolution would fill the backbone and be cut."""
    body = backbone()
    deeper = keras.Model(body.inputs, keras.layers.Conv2D(4, 1, name="more")(body.output["C5"]))
    deeper.save_weights(tmp_path / "deeper.weights.h5")
    (tmp_path / "no.weights.h5").write_text("no")
    count = len(body.weights)
    with pytest.raises(ValueError, match=rf"weights of the backbone 'backbone' \({count + 2} .*, {count} in the back"):
        ssd().restore(tmp_path / "deeper.weights.h5", kind="classification")
    with pytest.raises(ValueError, match=r"no\.weights\.h5 does not hold"):
        ssd().restore(tmp_path / "no.weights.h5", kind="classification")


def test_another_network_or_width_is_refused():
    inputs = keras.Input((8,))
    other = keras.Model(inputs, keras.layers.Dense(3)(inputs), name="other")
    with pytest.raises(ValueError, match=r"other .* has no layer 'stem_c1_conv', nor \d+ others of"):
        ssd().restore(other, kind="classification")
    model = ssd()
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    with pytest.raises(ValueError, match="shapes differ"):
        model.restore(classifier(width=0.25)[0], kind="classification")
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
