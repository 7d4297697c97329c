"""Export: the whole detector, pixels in and detections out, for other runtimes."""

from keras_detect.export import litert, onnx, openvino, saved_model  # noqa: F401 - registers their formats
from keras_detect.export.errors import ExportError, MissingPackageError
from keras_detect.export.exporter import Exporter, ExportOptions, Runner
from keras_detect.export.metadata import weights_digest
from keras_detect.export.report import ExportReport
from keras_detect.export.run import export_formats, export_model, open_exported
from keras_detect.registry import register_exporter

__all__ = [
    "ExportError",
    "ExportOptions",
    "ExportReport",
    "Exporter",
    "MissingPackageError",
    "Runner",
    "export_formats",
    "export_model",
    "open_exported",
    "register_exporter",
    "weights_digest",
]


def __dir__():
    return __all__
