"""Detection in images, files and folders."""

from keras_detect.inference.files import detect_files, image_files
from keras_detect.inference.images import detect, detect_each

__all__ = ["detect", "detect_each", "detect_files", "image_files"]


def __dir__():
    return __all__
