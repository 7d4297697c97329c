"""A frozen detector detects what the model detected when it was frozen."""

import numpy as np
import pytest

from keras_detect import inference, schema
from keras_detect.export import weights_digest
from keras_detect.inference.benchmark import resident_megabytes
from tests import goldens, tiny

pytestmark = pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="other backends take the route of an export")


def image(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_ssd(class_names=["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def compiled(model):
    return inference.compile(model)


def assert_same(found, expected):
    np.testing.assert_allclose(found[schema.SCORES], expected[schema.SCORES], atol=1e-5)
    np.testing.assert_array_equal(found[schema.LABELS], expected[schema.LABELS])
    np.testing.assert_allclose(found[schema.BOXES], expected[schema.BOXES], atol=1e-4)


def test_detect_is_that_of_the_model(model, compiled):
    expected = model.detect(image(), score_threshold=0.0)
    found = compiled.detect(image(), score_threshold=0.0)
    assert found.keys() == expected.keys()
    assert found["class_names"] == expected["class_names"]
    assert_same(found, expected)
    one, other = compiled.detect([image(), image(48, 40)], score_threshold=0.0)
    assert_same(one, expected)
    assert len(other[schema.SCORES]) == model.num_detections
    assert compiled.detect([]) == []
    for refused in (model, compiled):
        with pytest.raises(ValueError, match="batch_size must be at least 1"):
            refused.detect([image()], batch_size=0)


def test_predict_on_batch_takes_padded_batches(model, compiled):
    x, shapes = np.zeros((1, 80, 90, 3), np.uint8), np.asarray([[60, 80, 3]], np.int32)
    x[0, :60, :80] = image()
    padded = {schema.IMAGES: x, schema.TRUE_IMAGE_SHAPES: shapes}
    expected, found = compiled.predict_on_batch(image()[None]), compiled.predict_on_batch(padded)
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key])
    as_float = compiled.predict_on_batch(image()[None].astype(np.float32))
    np.testing.assert_array_equal(as_float[schema.SCORES], expected[schema.SCORES])


def test_it_keeps_the_weights_of_the_moment():
    model = tiny.tiny_ssd()
    compiled = inference.compile(model)
    digest, before = weights_digest(model), model.predict_on_batch(image()[None])
    assert compiled.weights_digest == digest
    for weight in model.weights:
        weight.assign(weight * 0.5)
    assert weights_digest(model) != digest == compiled.weights_digest
    found = compiled.predict_on_batch(image()[None])  # traced now, with the weights of then
    np.testing.assert_allclose(found[schema.SCORES], before[schema.SCORES], atol=1e-5)


def test_what_is_refused(model):
    with pytest.raises(ValueError, match=r"Unknown runtime 'tensorlfow'. Did you mean tensorflow"):
        inference.compile(model, "tensorlfow")
    with pytest.raises(ValueError, match="Unknown precision"):
        inference.compile(model, precision="float33")


def test_benchmark_measures_and_says_what_cannot_be(model):
    rows = inference.benchmark(
        model, ["tensorflow"], ["float32", "int8"], batch_size=2, repeats=2, images=[image(), image(seed=1)]
    )
    assert [(row.runtime, row.precision) for row in rows] == [
        ("predict", "float32"),
        ("tensorflow", "float32"),
        ("tensorflow", "int8"),
    ]
    for row in rows[:2]:
        assert row.latency > 0 and row.throughput > 0 and not row.note
    assert rows[1].equal and rows[1].box_difference <= 1e-4
    assert "Unknown precision" in rows[2].note and rows[2].latency is None
    table = inference.benchmark_table(rows)
    assert len(table.splitlines()) == 5 and "| yes |" in table
    assert (resident_megabytes() or 100) > 50
