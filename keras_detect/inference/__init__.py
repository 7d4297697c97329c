"""Detection in images, files and folders, with the model as it is or frozen for a runtime."""

from keras_detect.inference.benchmark import BenchmarkRow, benchmark, benchmark_table
from keras_detect.inference.compiled import CompiledDetector, compile, load_detector, open_detector
from keras_detect.inference.detections import Detections
from keras_detect.inference.files import FilesDetected, check_sources, detect_files
from keras_detect.inference.images import detect, detect_each
from keras_detect.inference.sources import Sources, find_sources, image_files
from keras_detect.inference.video import Video, VideoError, open_video

__all__ = [
    "BenchmarkRow",
    "CompiledDetector",
    "Detections",
    "FilesDetected",
    "Sources",
    "Video",
    "VideoError",
    "benchmark",
    "benchmark_table",
    "check_sources",
    "compile",
    "detect",
    "detect_each",
    "detect_files",
    "find_sources",
    "image_files",
    "load_detector",
    "open_detector",
    "open_video",
]


def __dir__():
    return __all__
