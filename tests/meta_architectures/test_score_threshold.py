"""The score from which on `detect` reports, kept with the model."""

import numpy as np
import pytest

import keras_detect
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_ssd(num_classes=2, class_names=["a", "b"], weights=None)


def detected(model, scores, **options):
    """How many of these scores `detect` reports, regardless of what the network would have found."""
    count = len(scores)
    model.predict_on_batch = lambda x: {
        "boxes": np.tile(np.float32([0, 0, 1, 1]), (len(x), count, 1)),
        "scores": np.tile(np.float32(scores), (len(x), 1)),
        "labels": np.zeros((len(x), count), np.int32),
        "num_detections": np.full(len(x), count),
    }
    try:
        return len(model.detect(np.zeros((64, 64, 3), np.uint8), **options)["scores"])
    finally:
        del model.predict_on_batch


def test_detect_goes_by_the_models_threshold_unless_it_is_told_otherwise(model):
    scores = [0.9, 0.6, 0.5, 0.3, 0.2, 0.0]
    try:
        assert detected(model, scores) == 4  # 0.3 where a model has none of its own
        model.score_threshold = 0.5
        assert detected(model, scores) == 3
        assert detected(model, scores, score_threshold=0.0) == 6
        model.score_threshold = 0.0
        assert detected(model, scores) == 6
    finally:
        model.score_threshold = None


def test_it_travels_in_files_and_not_to_other_classes(model, tmp_path):
    try:
        model.score_threshold = 0.4375
        model.save(tmp_path / "model.keras")
        model.save_to_preset(tmp_path / "preset")
        for name in ("model.keras", "preset"):
            assert keras_detect.Model.from_preset(str(tmp_path / name)).score_threshold == 0.4375
        assert model.re_head(class_names=["x", "y", "z"]).score_threshold is None
    finally:
        model.score_threshold = None
    assert "score_threshold" not in model.get_config()


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "0.5", [0.5], True])
def test_what_is_no_score_is_refused(model, value):
    with pytest.raises(ValueError, match="score_threshold"):
        model.score_threshold = value
    with pytest.raises(ValueError, match="score_threshold"):
        type(model).from_config({**model.get_config(), "score_threshold": value})
