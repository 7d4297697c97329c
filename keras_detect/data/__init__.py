"""What an image is before the model: readers and writers, the data set, its check and statistics, the pipeline."""

from keras_detect.data.check import check_dataset
from keras_detect.data.convert import convert_dataset, write_coco, write_dataset
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import pixel_limit
from keras_detect.data.inspection import CheckReport
from keras_detect.data.label_map import LabelMap, read_label_map, write_label_map
from keras_detect.data.load import dataset_splits, load_dataset, register_format
from keras_detect.data.shapes import figures_dataset, shapes_dataset
from keras_detect.data.splits import random_split
from keras_detect.data.statistics import dataset_statistics, write_statistics

__all__ = [
    "CheckReport",
    "DetectionDataset",
    "LabelMap",
    "check_dataset",
    "convert_dataset",
    "dataset_splits",
    "dataset_statistics",
    "figures_dataset",
    "load_dataset",
    "pixel_limit",
    "random_split",
    "read_label_map",
    "register_format",
    "shapes_dataset",
    "write_coco",
    "write_dataset",
    "write_label_map",
    "write_statistics",
]


def __dir__():
    return __all__
