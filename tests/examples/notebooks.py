"""Runs a notebook as its reader does: whole, in a folder of its own, with the package as installed from its wheel."""

import json
import pathlib

import keras
import nbclient
import nbformat

from tests import wheel

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def outputs_of(name, folder, monkeypatch):
    """What the cells of `examples/NAME.ipynb` print and draw, as JSON; on few images, with `folder`/work to write."""
    settings = {"KERAS_DETECT_SMALL": "1", "KERAS_DETECT_WORK": str(folder / "work")}
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own draws into the notebook
    for key, value in wheel.environment(KERAS_BACKEND=keras.backend.backend(), **settings).items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without anybody's outputs
    first = notebook.cells[0].source
    assert first.startswith("# ") and "**Needs**: " in first and "**Takes**: " in first
    assert "%pip install -q" in notebook.cells[2].source
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=folder)
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells])
