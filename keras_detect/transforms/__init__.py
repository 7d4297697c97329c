"""Augmentations for `DetectionDataset.batches(augment=...)`."""

from keras_detect.transforms.geometric import (
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomRotation90,
    RandomVerticalFlip,
)
from keras_detect.transforms.photometric import RandomColor

__all__ = ["RandomColor", "RandomHorizontalFlip", "RandomIoUCrop", "RandomRotation90", "RandomVerticalFlip"]
