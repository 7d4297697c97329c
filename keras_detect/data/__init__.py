"""What a picture is before the model: readers, the data set, the pipeline, the synthetic shapes."""

from keras_detect.data.coco_json import write_coco
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.load import load_dataset
from keras_detect.data.shapes import shapes_dataset

__all__ = ["DetectionDataset", "load_dataset", "shapes_dataset", "write_coco"]
