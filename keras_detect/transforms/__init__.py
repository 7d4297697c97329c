"""Augmentations for `DetectionDataset.batches(augment=...)`, and the resizers of models."""

from keras_detect.transforms.affine import (
    RandomPerspective,
    RandomRotation,
    RandomScale,
    RandomShear,
    RandomTranslation,
)
from keras_detect.transforms.choice import (
    RandomChoice,
)
from keras_detect.transforms.crops import (
    LargeScaleJitter,
    RandomAspectRatioCrop,
    RandomBoxJitter,
    RandomCropAndPad,
    RandomObjectCrop,
    RandomPad,
    RandomResize,
    RandomShortestSide,
    RandomSquareCrop,
    RandomZoomOut,
)
from keras_detect.transforms.geometric import (
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomRotation90,
    RandomVerticalFlip,
)
from keras_detect.transforms.photometric import (
    RandomColor,
)
from keras_detect.transforms.pixels import (
    GridMask,
    RandomBlur,
    RandomCutout,
    RandomEqualize,
    RandomGamma,
    RandomGray,
    RandomJpegQuality,
    RandomNoise,
    RandomPatchNoise,
    RandomPixelScale,
    RandomPosterize,
    RandomSolarize,
)
from keras_detect.transforms.rand_augment import (
    RandAugment,
)
from keras_detect.transforms.resizers import (
    ConditionalShapeResizer,
    FixedShapeResizer,
    IdentityResizer,
    ImageResizer,
    KeepAspectRatioResizer,
    PadToMultipleResizer,
    TorchResizer,
)
from keras_detect.transforms.several import (
    CopyPaste,
    CutMix,
    MixUp,
    Mosaic,
)

__all__ = [
    "ConditionalShapeResizer",
    "CopyPaste",
    "CutMix",
    "FixedShapeResizer",
    "GridMask",
    "IdentityResizer",
    "ImageResizer",
    "KeepAspectRatioResizer",
    "LargeScaleJitter",
    "MixUp",
    "Mosaic",
    "PadToMultipleResizer",
    "RandAugment",
    "RandomAspectRatioCrop",
    "RandomBlur",
    "RandomBoxJitter",
    "RandomChoice",
    "RandomColor",
    "RandomCropAndPad",
    "RandomCutout",
    "RandomEqualize",
    "RandomGamma",
    "RandomGray",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomJpegQuality",
    "RandomNoise",
    "RandomObjectCrop",
    "RandomPad",
    "RandomPatchNoise",
    "RandomPerspective",
    "RandomPixelScale",
    "RandomPosterize",
    "RandomResize",
    "RandomRotation",
    "RandomRotation90",
    "RandomScale",
    "RandomShear",
    "RandomShortestSide",
    "RandomSolarize",
    "RandomSquareCrop",
    "RandomTranslation",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "TorchResizer",
]


def __dir__():
    return __all__
