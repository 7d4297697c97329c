"""Export of a model that lives under JAX or torch: a process of its own loads its `.keras` file under TensorFlow."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
from typing import Any

import keras

from keras_detect import files
from keras_detect.export.errors import ExportError, MissingPackageError
from keras_detect.export.report import ExportReport
from keras_detect.messages import one_line
from keras_detect.registry import PACKAGE

_REQUEST, _RESULT, _MODEL = "request.pickle", "result.json", "model.keras"


def export_in_tensorflow(model, path, name, options, representative_data, reference) -> ExportReport:
    """The report of a second process, which has written the file. Arguments as of `export_model`, checked.

    Raises:
        ExportError: what the process raised, or that it ended without an answer.
        MissingPackageError: TensorFlow is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingPackageError(
            f"A model under {keras.backend.backend()} is exported by a second process under TensorFlow. Expected: "
            "tensorflow in this environment. Received: it is not installed. Run pip install tensorflow, or save the "
            "model (model.save) and run keras-detect export on the file where TensorFlow is installed."
        )
    with tempfile.TemporaryDirectory(prefix="keras_detect_export_") as folder:
        work = pathlib.Path(folder)
        model.save(work / _MODEL, include_optimizer=False)
        request = {
            "modules": _modules_of_own_classes(),
            "path": path.absolute(),
            "name": name,
            "options": dataclasses.replace(options, representative=None),
            "representative_data": representative_data,
            "reference": reference,
        }
        (work / _REQUEST).write_bytes(pickle.dumps(request))
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, "-m", "keras_detect.export.second_process", str(work)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        if not (work / _RESULT).exists():
            raise ExportError(
                f"The process that exports under TensorFlow ended with status {run.returncode} and no answer: "
                f"{one_line(run.stderr[-2000:])}"
            )
        result = json.loads((work / _RESULT).read_text(encoding="utf-8"))
    if "error" in result:
        raise ExportError(result["error"])
    return _report(result)


def read_request(work: pathlib.Path) -> dict[str, Any]:
    """What the first process asks for; `work` is its own temporary folder."""
    return pickle.loads((work / _REQUEST).read_bytes())


def load_requested(work: pathlib.Path):
    """The model, under this process' backend."""
    return keras.saving.load_model(work / _MODEL, compile=False)


def write_result(work: pathlib.Path, result: dict[str, Any]) -> None:
    """The answer: `{"report": dict}` or `{"error": text}`."""
    files.write_file(work / _RESULT, json.dumps(result))


def _report(result):
    values = result["report"]
    size = values["image_size"]
    return ExportReport(**{**values, "image_size": None if size is None else tuple(size)})


def _modules_of_own_classes():
    """Modules that define registered classes which neither Keras nor this package brings."""
    modules = {getattr(value, "__module__", None) for value in keras.saving.get_custom_objects().values()}
    return sorted(
        name for name in modules if name and name != "__main__" and name.partition(".")[0] not in (PACKAGE, "keras")
    )
