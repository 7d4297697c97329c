"""Class names of the data sets that upstream's zoo was trained on, as its label maps count them."""

import functools
import pathlib

from keras_detect.presets.coco_names import COCO_NAMES
from keras_detect.registry import unknown_name

#: one file per data set: lines "id<tab>name", sorted
FOLDER = pathlib.Path(__file__).with_name("label_maps")

COCO = "coco"


def class_list_names() -> list[str]:
    """The data sets whose class names are in the package, sorted."""
    return sorted([COCO, *(path.stem for path in FOLDER.glob("*.tsv"))])


@functools.cache
def class_list(name: str) -> tuple[str, ...]:
    """The class names of a data set: label i is id i + 1 of upstream's label map.

    Args:
        name: one of `class_list_names()`: "open_images_v4", "inaturalist_2854", ...

    Returns:
        The names; an id that the map leaves out reads "unused id 12".

    Raises:
        ValueError: an unknown name; similar ones are listed.
    """
    if name == COCO:
        return COCO_NAMES
    if name not in class_list_names():
        raise ValueError(unknown_name("class list", name, class_list_names()))
    lines = (FOLDER / f"{name}.tsv").read_text("utf-8").splitlines()
    by_id = {int(number): text for number, text in (line.split("\t") for line in lines)}
    return tuple(by_id.get(number, f"unused id {number}") for number in range(1, max(by_id) + 1))
