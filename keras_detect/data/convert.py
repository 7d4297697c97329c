"""From one format to another, with a count of what the new one cannot hold."""

import pathlib

import numpy as np

from keras_detect.data.load import FORMATS, load_dataset
from keras_detect.data.record import box_areas

# What a format holds besides pictures, boxes and class names.
_EVERYTHING = {"is_crowd", "is_difficult", "is_group_of", "areas", "weights", "masks", "keypoints"}
HOLDS = {
    "coco": _EVERYTHING,
    "voc": {"is_difficult"},
    "yolo": set(),
    "csv": _EVERYTHING - {"masks", "keypoints"},
    "tfrecord": _EVERYTHING,
}
_WORDS = {
    "is_crowd": "crowds, now ordinary boxes",
    "is_difficult": "marks of difficult objects",
    "is_group_of": "marks of groups",
    "areas": "annotated areas other than the box's",
    "weights": "weights",
    "masks": "masks",
    "keypoints": "objects' keypoints",
}


def write_dataset(dataset, folder, format, split=None):
    """Writes a data set in a format and says what the format cannot hold.

    Args:
        dataset: `DetectionDataset`.
        folder: where to; created if absent.
        format: "coco", "voc", "yolo", "csv" or "tfrecord".
        split: name of the part, or None.

    Returns:
        `{what: how many}` of what is lost, empty where nothing is.

    Raises:
        ValueError: an unknown format, or a picture that cannot be read.
    """
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}. Received: format={format!r}")
    FORMATS[format].write(dataset, pathlib.Path(folder), split=split)
    return lost(dataset, format)


def lost(dataset, format):
    """`{what: how many}` of the entries of a data set that a format cannot hold."""
    counts = {}
    for record in dataset.records:
        for key in _EVERYTHING - HOLDS[format]:
            counts[key] = counts.get(key, 0) + _number(record, key)
    words = _WORDS | ({"is_crowd": "crowds, now marked as difficult"} if format == "voc" else {})
    return {words[key]: counts[key] for key in _WORDS if counts.get(key)}


def _number(record, key):
    """How many boxes of a record say something under a key."""
    values = getattr(record, key)
    if values is None:
        return 0
    if key == "masks":
        return sum(mask is not None for mask in values)
    if key == "keypoints":
        return int(np.isfinite(values).any(axis=(1, 2)).sum())
    if key == "areas":
        boxes = box_areas(record.boxes.astype(np.float64)) * record.picture.height * record.picture.width
        return int((np.abs(values - boxes) > 1e-3 * boxes + 0.01).sum())
    return int((values != (1.0 if key == "weights" else False)).sum())


def convert_dataset(data, output, to, from_format=None, splits=()):
    """Writes a data set on disk, or some of its splits, in another format; `keras-detect convert_data`.

    Args:
        data: folder or file for `load_dataset`.
        output: folder to write; not the one that is read.
        to: format to write, as in `write_dataset`.
        from_format: format of `data`; None: auto-detected.
        splits: names of the splits to write one by one; empty: everything.

    Returns:
        `(data sets, {what: how many})`: the `DetectionDataset` of each split, and what the new format cannot hold.

    Raises:
        FileNotFoundError, ValueError: see `load_dataset` and `write_dataset`; or `output` is the folder that is read.
    """
    output, source = pathlib.Path(output).expanduser(), pathlib.Path(data).expanduser()
    if output.exists() and source.exists() and output.samefile(source if source.is_dir() else source.parent):
        raise ValueError(f"output must differ from the folder that is read. Received twice: {output}")
    names, datasets, counts = None, [], {}
    for split in splits or (None,):
        # The label order of the first split holds for all: one list of classes per folder.
        dataset = load_dataset(source, split, class_names=names, format=from_format)
        names = dataset.class_names
        datasets.append(dataset)
        for what, count in write_dataset(dataset, output, to, split=split).items():
            counts[what] = counts.get(what, 0) + count
    return datasets, counts
