"""The process that exports a model of another backend: `python -m keras_detect.export.second_process FOLDER`."""

import dataclasses
import importlib
import pathlib
import sys

from keras_detect.export import other_backends
from keras_detect.export.representative import RepresentativeImages
from keras_detect.export.run import write_and_compare
from keras_detect.messages import one_line
from keras_detect.registry import EXPORTERS


def main(work: pathlib.Path) -> None:
    """Writes the file that `work` asks for, and the answer into `work`."""
    try:
        result: dict = {"report": dataclasses.asdict(_export(other_backends.read_request(work), work))}
    except (ValueError, TypeError, OSError, ImportError) as error:
        result = {"error": one_line(error, 4000)}
    other_backends.write_result(work, result)


def _export(request, work):
    for module in request["modules"]:
        importlib.import_module(module)
    model = other_backends.load_requested(work)
    data, options = request["representative_data"], request["options"]
    if data is not None:
        options = dataclasses.replace(options, representative=RepresentativeImages(data, model.class_names))
    exporter = EXPORTERS.get(request["name"])()
    return write_and_compare(exporter, request["name"], model, request["path"], options, request["reference"])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
