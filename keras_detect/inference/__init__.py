"""Detection in images, files and folders, with the model as it is or frozen for a runtime."""

from keras_detect.inference.benchmark import BenchmarkRow, benchmark, benchmark_table
from keras_detect.inference.compiled import CompiledDetector, compile
from keras_detect.inference.detections import Detections
from keras_detect.inference.files import detect_files, image_files
from keras_detect.inference.images import detect, detect_each

__all__ = [
    "BenchmarkRow",
    "CompiledDetector",
    "Detections",
    "benchmark",
    "benchmark_table",
    "compile",
    "detect",
    "detect_each",
    "detect_files",
    "image_files",
]


def __dir__():
    return __all__
