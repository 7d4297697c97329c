"""From one format to another, with a count of what the new one cannot hold."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.load import FORMATS, load_dataset
from keras_detect.data.record import box_areas
from keras_detect.data.splits import UnnamedSplitError
from keras_detect.data.writing import new_data_set
from keras_detect.messages import shown

# What is lost, in words; of other fields the key.
_WORDS = {
    schema.IS_CROWD: "crowds, now ordinary boxes",
    schema.IS_DIFFICULT: "marks of difficult objects",
    schema.IS_GROUP_OF: "marks of groups",
    schema.AREAS: "annotated areas other than the box's",
    schema.KEYPOINTS: "objects' keypoints",
}


def write_dataset(
    dataset: Any, folder: str | os.PathLike[str], format: str | None, split: str | None = None, overwrite: bool = False
) -> pathlib.Path:
    """Writes a data set in a format and says what the format cannot hold.

    The whole data set appears at once, or nothing changes. A further split is added to what `write_dataset` wrote into
    the folder before; the same split, or a set without splits, is replaced only where `overwrite` says so, and then
    what was written here goes, and no other file.

    Args:
        dataset: `DetectionDataset`.
        folder: where to; a new or empty folder, or one that `write_dataset` has written.
        format: "coco", "voc", "yolo", "csv" or "tfrecord", or one that was registered.
        split: name of the part, or None.
        overwrite: whether to replace what the folder holds of the split (split None: of all splits).

    Returns:
        `{what: how many}` of what is lost, empty where nothing is.

    Raises:
        ValueError: an unknown format, an image that cannot be read, a folder with other files, with a data set of
            other classes, or with one that `overwrite` would have to replace.
        OSError: the disk is full, or cannot be written to.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: format={shown(format)}")
    with new_data_set(folder, format, FORMATS[format].write, [split], overwrite) as write:
        write(dataset, split)
    return lost(dataset, format)


def write_coco(
    dataset: Any, folder: str | os.PathLike[str], split: str | None = None, overwrite: bool = False
) -> pathlib.Path:
    """Writes a data set as a COCO folder: `images/` and `instances.json` (or `instances_<split>.json`).

    Everything an example holds is kept. What COCO has no key for stands under the `singular` of
    `schema.object_fields`, such as `"difficult"`, `"group_of"` and `"weight"`, and per-image entries under their keys;
    other readers pass over them. An image that comes from a file keeps its bytes, one in memory becomes a PNG.

    Args:
        dataset: `DetectionDataset`, or any iterable of its examples with `class_names`.
        folder, overwrite: see `write_dataset`.
        split: name put into the file name and into every image's `"split"`; images of different splits share
            `images/`.

    Returns:
        Path of the JSON file.

    Raises:
        ValueError, OSError: see `write_dataset`.
    """
    with new_data_set(folder, "coco", FORMATS["coco"].write, [split], overwrite) as write:
        name = write(dataset, split).name
    return pathlib.Path(folder) / name


def lost(dataset, format):
    """`{what: how many}` of the entries of a data set that a format cannot hold."""
    counts = {}
    companions = {field.visibility for field in schema.object_fields()}
    words = _WORDS | ({schema.IS_CROWD: "crowds, now marked as difficult"} if format == "voc" else {})
    for field in schema.object_fields(schema.GROUND_TRUTH):
        if field.key not in companions and not FORMATS[format].holds(field):
            count = sum(_number(record, field) for record in dataset.records)
            counts |= {words.get(field.key, field.key.replace("_", " ")): count} if count else {}
    return counts


def _number(record, field):
    """How many objects of a record say something in a field."""
    values = record.get(field.key)
    if values is None or not len(values):
        return 0
    if field.moves == schema.AS_RASTER:
        return sum(mask is not None for mask in values)
    if field.key == schema.AREAS:
        boxes = box_areas(record.boxes.astype(np.float64)) * record.image.height * record.image.width
        return int((np.abs(values - boxes) > 1e-3 * boxes + 0.01).sum())
    silent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if field.default is not None:
        silent |= values == field.default
    return int((~silent).reshape(len(values), -1).any(axis=1).sum())


def convert_dataset(
    data: Any,
    output: str | os.PathLike[str],
    to: str,
    from_format: str | None = None,
    splits: Sequence[str] = (),
    overwrite: bool = False,
    max_pixels: int | None = None,
) -> tuple[list[DetectionDataset], dict[str, int]]:
    """Writes a data set on disk, or some of its splits, in another format; `keras-detect convert_data`.

    Args:
        data: folder or file for `load_dataset`.
        output: folder to write; not the one that is read.
        to: format to write, as in `write_dataset`.
        from_format: format of `data`; None: auto-detected.
        splits: names of the splits to write one by one; empty: those of a folder with an annotation file per split,
            else everything as one set.
        overwrite: whether to replace what `output` holds, see `write_dataset`.
        max_pixels: see `load_dataset`.

    Returns:
        `(data sets, {what: how many})`: the `DetectionDataset` of each split, and what the new format cannot hold.

    Raises:
        FileNotFoundError, OSError, ValueError: see `load_dataset` and `write_dataset`; or `output` is the folder that
            is read.
    """
    output, source = pathlib.Path(output).expanduser(), pathlib.Path(data).expanduser()
    if output.exists() and source.exists() and output.samefile(source if source.is_dir() else source.parent):
        raise ValueError(f"output must differ from the folder that is read. Received twice: {output}")
    if to not in FORMATS:
        raise ValueError(f"The format to write must be one of {', '.join(FORMATS)}. Received: {shown(to)}")
    try:
        return _convert(source, output, to, from_format, tuple(splits) or (None,), overwrite, max_pixels)
    except UnnamedSplitError as error:
        if not error.splits:
            raise
        return _convert(source, output, to, from_format, error.splits, overwrite, max_pixels)


def _convert(source, output, to, from_format, chosen, overwrite, max_pixels):
    """Writes the splits `chosen`, None for everything as one set; see `convert_dataset`."""
    names, datasets = None, []
    counts: dict[str, int] = {}
    with new_data_set(output, to, FORMATS[to].write, chosen, overwrite) as write:
        for split in chosen:
            # The label order of the first split holds for all: one list of classes per folder.
            dataset = load_dataset(source, split, class_names=names, format=from_format, max_pixels=max_pixels)
            names = dataset.class_names
            datasets.append(dataset)
            write(dataset, split)
            for what, count in lost(dataset, to).items():
                counts[what] = counts.get(what, 0) + count
    return datasets, counts
