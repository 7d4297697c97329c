"""Everything that is wrong with a data set, in one table, before any training starts."""

import pathlib
from collections.abc import Sequence
from typing import Any

from keras_detect.data.image import pixel_limit
from keras_detect.data.inspection import CheckReport, inspect, inspection
from keras_detect.data.load import read_splits, reader
from keras_detect.data.record import REFUSED, Defects
from keras_detect.messages import counted, one_line


def check_dataset(
    data: Any,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    format: str | None = None,
    model: Any = None,
    decode: bool = True,
    max_pixels: int | None = None,
) -> CheckReport:
    """Looks for everything that is wrong with annotated images, without stopping at the first.

    Per kind of defect: how often, where, and what loading does. Refused: `load_dataset` or the first epoch would raise.
    Dropped: the box is skipped. Repaired: clipped or converted. Kept: used as it is, and worth a look.

    Args:
        data: a path as for `load_dataset`, or a `DetectionDataset`.
        split: as for `load_dataset`, where `data` is a path; None also reads a folder with an annotation file per
            split: all of them, whose numbers of images the report states.
        class_names: as for `load_dataset`, where `data` is a path; default: the model's, else the annotation's.
        format: as for `load_dataset`, where `data` is a path.
        model: a model whose class names and anchors shall fit the objects, or None.
        decode: decode every image, as training will; False looks at the headers only.
        max_pixels: as for `load_dataset`, where `data` is a path.

    Returns:
        `CheckReport`; `print` shows its table, `ok` says whether a training would start.
    """
    if hasattr(data, "records"):
        return inspection(data, model=model, decode=decode)
    path, defects = pathlib.Path(data).expanduser(), Defects(collect=True)
    with pixel_limit(max_pixels):
        names = class_names or getattr(model, "class_names", None)
        dataset, counts = _read(path, split, names, format, defects)
    usable = 0 if dataset is None else inspect(dataset, defects, model, decode)
    return CheckReport(f"{data}{splits_in_words(counts)}", usable, defects)


def splits_in_words(counts: dict[str, int]) -> str:
    """The splits that were read, in words: " (splits: train with 4 images, val with 1 image)", or "" for none."""
    parts = [f"{name} with {counted(count, 'image')}" for name, count in counts.items()]
    return f" (splits: {', '.join(parts)})" if parts else ""


def _read(path, split, class_names, format, defects):
    """`(data set, {split: number of images})`; `(None, {})` where it cannot be read."""
    try:
        module = reader(path, format)
        if split is None:
            return read_splits(module, path, defects, class_names)
        return module.read(path, split=split, class_names=class_names, defects=defects), {}
    except (ValueError, OSError) as error:
        if not any(action == REFUSED for (action, _), _ in defects):
            defects.add(REFUSED, f"data set: {one_line(error, 500)}", path.name)
        return None, {}
