"""The notebook that trains, exports, and detects in ONNX Runtime and MediaPipe, run whole on a few drawn images."""

import json

import nbclient
import nbformat
import numpy as np
import pytest

from tests.examples.test_fine_tune import EXAMPLES, environment


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch):
    for package in ("onnxruntime", "tf2onnx", "ai_edge_litert"):
        pytest.importorskip(package, reason="pip install 'keras-detect[export]' brings it", exc_type=ImportError)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    for name, value in environment(KERAS_DETECT_SMALL="1", KERAS_DETECT_WORK=str(tmp_path / "work")).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "export_and_run.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without anybody's outputs
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=tmp_path)
    text = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert text.count("0 missing") == 2  # both files answer as `predict` does
    difference = text.split("scores differ by at most")[-1].split("\\n")[0]
    assert float(np.float32(difference.strip())) < 1e-3
    assert "MediaPipe " in text
    assert text.count("image/png") == 1
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"detector.onnx", "detector.tflite"}
