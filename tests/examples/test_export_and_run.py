"""The notebook that trains, exports, and detects in ONNX Runtime and MediaPipe, run whole on a few drawn images."""

import re

import pytest

from tests.examples.notebooks import outputs_of


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch):
    for package in ("onnxruntime", "tf2onnx", "ai_edge_litert"):
        pytest.importorskip(package, reason="pip install 'keras-detect[export]' brings it", exc_type=ImportError)
    text = outputs_of("export_and_run", tmp_path, monkeypatch)
    assert text.count("0 missing") == 2  # both files answer as `predict` does
    assert float(re.findall(r"scores differ by at most\D*?([\d.]+(?:e-\d+)?)", text)[-1]) < 1e-3
    assert "MediaPipe " in text
    assert text.count("image/png") == 1
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"detector.onnx", "detector.tflite"}
