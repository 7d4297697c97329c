"""Detection in files, images and arrays."""

from keras_detect.inference.files import detect_files, image_files

__all__ = ["detect_files", "image_files"]
