"""Curves and drawn images for TensorBoard, read back from the events."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from keras_detect.callbacks import TensorBoardImages
from keras_detect.data.shapes import shapes_dataset
from keras_detect.training import train
from tests import tiny

NAMES = ["circle", "square"]


def test_a_curve_and_a_drawn_image_per_epoch(tmp_path):
    pytest.importorskip("tensorboard")
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = shapes_dataset(3, image_size=64, class_names=NAMES)
    model = tiny.tiny_ssd(num_classes=2, class_names=NAMES, weights=None)
    model.compile()
    history = model.fit(
        data.batches(model, 3),
        epochs=2,
        verbose=0,
        callbacks=[TensorBoardImages(tmp_path, data, count=2, score_threshold=0.9)],
    )
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    assert {"loss", "image_0", "image_1"} <= set(events.Tags()["tensors"])
    assert "image_2" not in events.Tags()["tensors"]
    losses = events.Tensors("loss")
    assert [event.step for event in losses] == [1, 2]  # as the console counts
    values = [float(tf.make_ndarray(event.tensor_proto)) for event in losses]
    np.testing.assert_allclose(values, history.history["loss"], rtol=1e-6)
    drawn = events.Tensors("image_0")[-1].tensor_proto.string_val
    pixels = np.asarray(Image.open(io.BytesIO(drawn[2])))
    assert (int(drawn[0]), int(drawn[1])) == pixels.shape[1::-1]
    assert pixels.shape[1] > 2 * 64  # ground truth beside detections


def test_without_tensorboard_the_way_out_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name, *a))
    with pytest.raises(ValueError, match=r"pip install \"keras-detect\[tensorboard\]\""):
        TensorBoardImages(tmp_path)
    with pytest.raises(ValueError, match="tensorboard"):
        train("tests_tiny", "nowhere", output=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
