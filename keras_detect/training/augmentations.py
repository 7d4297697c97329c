"""Augmentations by name, as `train` and recipes take them."""

import dataclasses
from collections.abc import Callable, Sequence

from keras_detect.registry import unknown_name
from keras_detect.transforms import (
    RandomColor,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomRotation90,
    RandomVerticalFlip,
)

_CROP = (RandomIoUCrop(), RandomColor())
#: name -> augmentations for `DetectionDataset.batches`
AUGMENTATIONS = {
    "none": (),
    "flip": (RandomHorizontalFlip(),),
    "crop": (RandomHorizontalFlip(), *_CROP),
    "microscopy": (RandomHorizontalFlip(), RandomVerticalFlip(), RandomRotation90(), *_CROP),
}


def augmentations(augment: str | Callable | Sequence[Callable]) -> tuple[Callable, ...]:
    """What `DetectionDataset.batches` takes as `augment`.

    Args:
        augment: a name out of `AUGMENTATIONS`, an augmentation, or a sequence of them.

    Raises:
        ValueError: an unknown name.
    """
    if not isinstance(augment, str):
        return (augment,) if callable(augment) else tuple(augment)
    if augment not in AUGMENTATIONS:
        raise ValueError(unknown_name("augmentation", augment, AUGMENTATIONS))
    return AUGMENTATIONS[augment]


def described(augment: str | Callable | Sequence[Callable]) -> list[str]:
    """Each augmentation as text that is the same in the next process."""
    return [
        repr(operation)
        if dataclasses.is_dataclass(operation)
        else getattr(operation, "__qualname__", type(operation).__qualname__)
        for operation in augmentations(augment)
    ]
