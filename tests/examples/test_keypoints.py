"""The drawn figures' keypoints are learned: OKS AP of at least 0.8 on figures of another seed."""

import importlib.util
import pathlib

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "keypoints" / "train.py"


def script():
    spec = importlib.util.spec_from_file_location("train_keypoints", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_keypoints_of_figures_are_learned(tmp_path):
    result = script().run(tmp_path / "out", verbose=0)
    assert result.metrics["keypoint_map"] >= 0.8
    assert (tmp_path / "out" / "detections.jpg").is_file()


def test_other_seeds_draw_other_figures(monkeypatch):
    module = script()
    monkeypatch.setattr(module, "TRAINING_IMAGES", 3)
    monkeypatch.setattr(module, "HELD_OUT_IMAGES", 2)
    training, held_out = module.figures()
    assert (len(training), len(held_out)) == (3, 2)
    assert training[0]["image"].shape != held_out[0]["image"].shape
