"""Published models by name: rows per family, fetched and cached as preset folders."""

from keras_detect.presets import (  # noqa: F401 - they fill the table
    center_net,
    efficientdet,
    faster_rcnn,
    ssd,
    tf1_faster_rcnn,
    torchvision_models,
)
from keras_detect.presets.class_lists import class_list, class_list_names
from keras_detect.presets.listing import clear, describe, descriptions
from keras_detect.presets.preset import Preset, get, names

__all__ = ["Preset", "class_list", "class_list_names", "clear", "describe", "descriptions", "get", "names"]


def __dir__():
    return __all__
