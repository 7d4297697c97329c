"""Masks: of detections, which lie over their boxes, on the image; and between pixels and COCO's encodings."""

from keras_detect.data.masks import decode, encode
from keras_detect.data.pasting import paste, to_polygons, to_rle

__all__ = ["decode", "encode", "paste", "to_polygons", "to_rle"]


def __dir__():
    return __all__
