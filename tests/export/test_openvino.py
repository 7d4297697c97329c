"""OpenVINO files detect what `predict` detects."""

import numpy as np
import pytest

from keras_detect.export import open_exported
from keras_detect.export.verification import predicted
from tests.export.answers import CLASS_NAMES, assert_equal
from tests.tiny import tiny_batch, tiny_faster_rcnn, tiny_ssd

pytest.importorskip("openvino", reason="pip install 'keras-detect[export]' brings it")


@pytest.mark.parametrize("precision", ("float32", "float16"))
def test_ssd(precision, tmp_path):
    model = tiny_ssd(num_classes=None, class_names=CLASS_NAMES)
    path = tmp_path / "ssd.xml"
    report = model.export(path, batch_size=None, image_size=64, precision=precision, verbose=0)
    assert report.missing == 0 and report.detections > 300
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ssd.bin", "ssd.xml"]
    runner = open_exported(path)
    assert runner.metadata["class_names"] == list(CLASS_NAMES)
    assert runner.batch_size is None and runner.image_size == (64, 64)
    if precision == "float32":
        images = tiny_batch(3)[0]
        assert_equal(predicted(model, images), runner(images))


def test_faster_rcnn(tmp_path):
    report = tiny_faster_rcnn().export(tmp_path / "frcnn.xml", image_size=64, verbose=0)
    assert report.missing == 0 and report.matched > 300
    assert np.isfinite(report.milliseconds)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "no.xml").write_text("nothing")
    with pytest.raises(ValueError, match=r"no\.xml"):
        open_exported(tmp_path / "no.xml")
