"""Augmentations for `DetectionDataset.batches(augment=...)`, and the resizers of models."""

from keras_detect.transforms.geometric import RandomHorizontalFlip, RandomIoUCrop, RandomRotation90, RandomVerticalFlip
from keras_detect.transforms.photometric import RandomColor
from keras_detect.transforms.resizers import (
    ConditionalShapeResizer,
    FixedShapeResizer,
    IdentityResizer,
    ImageResizer,
    KeepAspectRatioResizer,
    PadToMultipleResizer,
    TorchResizer,
)

__all__ = [
    "ConditionalShapeResizer",
    "FixedShapeResizer",
    "IdentityResizer",
    "ImageResizer",
    "KeepAspectRatioResizer",
    "PadToMultipleResizer",
    "RandomColor",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomRotation90",
    "RandomVerticalFlip",
    "TorchResizer",
]


def __dir__():
    return __all__
