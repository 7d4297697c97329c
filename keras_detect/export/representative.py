"""The images that set the ranges of an int8 file, and their annotations where there are any."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_detect.data.image import as_pixels, as_uint8, is_image_name
from keras_detect.data.load import load_dataset

CALIBRATION_IMAGES = 128  # at most so many set the ranges of a file


class RepresentativeImages:
    """Images like those the detector will see.

    Args:
        data: a `DetectionDataset`, a folder or file of annotated images (`load_dataset`), a folder of bare images, or a
            list of images as `model.detect` takes them.
        class_names: of the model, in whose order labels are read.

    Attributes:
        dataset: the `DetectionDataset`; `None` where the images are not annotated.

    Raises:
        ValueError: no images.
        FileNotFoundError: no such folder.
    """

    def __init__(self, data: Any, class_names=None):
        self.dataset: Any = None
        self._images: list[Any] = []
        if isinstance(data, str | os.PathLike):
            folder = pathlib.Path(data).expanduser()
            bare = _bare_images(folder)
            if bare:
                self._images = bare
            else:
                self.dataset = load_dataset(folder, class_names=class_names)
        elif hasattr(data, "batches"):
            self.dataset = data
        else:
            self._images = list(data)
        if not len(self):
            raise ValueError("representative_data holds no image.")

    def __len__(self):
        return len(self._images if self.dataset is None else self.dataset)

    def pixels(self, count: int) -> Iterator[np.ndarray]:
        """At most `count` images `[H, W, 3]` uint8, spread evenly over the data."""
        for index in np.unique(np.linspace(0, len(self) - 1, count).astype(int)):
            image = self._images[index] if self.dataset is None else self.dataset[int(index)]["image"]
            yield as_uint8(as_pixels(image))


def _bare_images(folder):
    """The images of a folder that holds nothing else but hidden files."""
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return entries if all(is_image_name(entry.name) for entry in entries) else []
