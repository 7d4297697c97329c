"""From one format to another, with a count of what the new one cannot hold."""

import pathlib

import numpy as np

from keras_detect import schema
from keras_detect.data.load import FORMATS, load_dataset
from keras_detect.data.record import box_areas

# What is lost, in words; of other fields the key.
_WORDS = {
    schema.IS_CROWD: "crowds, now ordinary boxes",
    schema.IS_DIFFICULT: "marks of difficult objects",
    schema.IS_GROUP_OF: "marks of groups",
    schema.AREAS: "annotated areas other than the box's",
    schema.KEYPOINTS: "objects' keypoints",
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
        boxes = box_areas(record.boxes.astype(np.float64)) * record.picture.height * record.picture.width
        return int((np.abs(values - boxes) > 1e-3 * boxes + 0.01).sum())
    silent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if field.default is not None:
        silent |= values == field.default
    return int((~silent).reshape(len(values), -1).any(axis=1).sum())


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
