"""A format of one's own: one class, which `model.export` and `open_exported` then know."""

import keras
import numpy as np
import pytest

from keras_detect import export, schema
from keras_detect.registry import EXPORTERS
from tests import goldens, tiny

pytestmark = pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="a format is the same on every backend")
IMAGES = [np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)]


class NumbersRunner(export.Runner):
    """Answers from a file of numbers."""

    def __init__(self, path):
        with np.load(path) as archive:
            self.answers = {key: archive[key] for key in archive.files}
        self.batch_size, self.image_size, self.metadata = 1, (64, 64), {}

    def __call__(self, images):
        return self.answers


@pytest.fixture
def numbers(monkeypatch):
    """The format "numbers": what the frozen detector answers for one image, plus an error."""
    monkeypatch.setattr(EXPORTERS, "_entries", dict(EXPORTERS._entries))

    @export.register_exporter("numbers")
    class NumbersExporter(export.Exporter):
        suffix = ".npz"
        error = 0.0

        def write(self, frozen, path, options):
            import tensorflow as tf

            assert (frozen.batch_size, frozen.image_size) == (1, (64, 64))
            found = {key: value.numpy() for key, value in frozen.function(tf.constant(IMAGES[0][None])).items()}
            np.savez(path, **{**found, schema.BOXES: found[schema.BOXES] + self.error})
            path.with_suffix(".txt").write_text("beside it")
            return {"opset": 1}

        def open(self, path):
            return NumbersRunner(path)

    return NumbersExporter


def test_it_is_written_compared_and_put_in_place(numbers, tmp_path):
    model = tiny.tiny_ssd()
    assert "numbers" in export.export_formats()
    report = model.export(tmp_path / "model.npz", images=IMAGES, verbose=0)
    assert (report.format, report.details, report.image_size) == ("numbers", {"opset": 1}, (64, 64))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.npz", "model.txt"]
    found = export.open_exported(tmp_path / "model.npz")(IMAGES[0][None])
    expected = keras.tree.map_structure(np.asarray, model.predict_on_batch(IMAGES[0][None]))
    np.testing.assert_allclose(found[schema.SCORES], expected[schema.SCORES], atol=1e-5)
    numbers.error = 0.01
    before = (tmp_path / "model.npz").read_bytes()
    with pytest.raises(export.ExportError, match="does not detect what predict detects"):
        model.export(tmp_path / "model.npz", images=IMAGES, verbose=0)
    assert (tmp_path / "model.npz").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.npz", "model.txt"]
