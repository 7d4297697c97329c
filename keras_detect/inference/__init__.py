"""Detection in files, images and arrays."""

from keras_detect.inference.detect import detect
from keras_detect.inference.files import detect_files, image_files

__all__ = ["detect", "detect_files", "image_files"]
