"""TFRecord files of `tf.Example`, whole or in shards `name-00000-of-00010`.

Opening reads every record once for its boxes; images stay on disk and are read one by one when they are needed, so a
data set may be larger than memory.
"""

import errno
import os
import pathlib
import re

import numpy as np

from keras_detect import schema
from keras_detect.data import masks
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import ImageError, image_in_record
from keras_detect.data.label_map import LabelMap, find_label_map, read_label_map, write_label_map
from keras_detect.data.record import DROPPED, KEPT, Defects, make_record
from keras_detect.data.splits import (
    UnnamedSplitError,
    is_named_after,
    listed_splits,
    named_splits,
    no_split,
    one_each,
    read_split,
)
from keras_detect.data.tf_example import build_example, parse_example
from keras_detect.data.writing import as_dataset
from keras_detect.files import PART, replacing_file
from keras_detect.messages import one_line, shown
from keras_detect.registry import unknown_name

# `name.record`, `name.tfrecord`, `name.record-00003-of-00010`, `name-00003-of-00010.tfrecord`
_SUFFIX = re.compile(r"\.(tf)?records?(-\d{5}-of-\d{5})?$|-\d{5}-of-\d{5}(\.(tf)?records?)?$", re.IGNORECASE)
# Around the bytes of a record stand its length with a checksum, and a checksum.
_HEAD, _FOOT = 12, 4
IMAGES_PER_SHARD = 1000


def holds(field):
    """Whether the format holds a per-object field: those of at most one axis without a fixed size, and masks."""
    return field.moves == schema.AS_RASTER or sum(isinstance(side, str) for side in field.shape) <= 1


def recognizes(path):
    """Whether `path` is a TFRecord file or a folder with some."""
    return bool(_SUFFIX.search(path.name)) if path.is_file() else bool(_files(path))


def read(path, split=None, class_names=None, defects=None):
    """Reads TFRecord files; `keras_detect.load_dataset` documents the arguments and errors."""
    defects = Defects() if defects is None else defects
    files, of_split = _choose(path, split)
    _check_shards(files)
    folders = [files[0].parent, files[0].parent.parent]
    label_map = find_label_map(folders)
    label_map = None if label_map is None else read_label_map(label_map)
    parsed = [entry for file in files for entry in _entries(file, defects)]
    if of_split is not None:
        parsed = _listed(parsed, of_split)
    if not parsed:
        raise ValueError(f"No images found in {files[0]}. Write the records again.")
    return dataset_of(parsed, label_map, class_names, split, defects)


def dataset_of(parsed, label_map, class_names, split, defects):
    """The `DetectionDataset` of a list of `parsed_record`."""
    names, label_of = _classes(parsed, label_map, class_names)
    seen, records = {}, []
    for place, image, entry in parsed:
        records.append(_record(place, image, entry, label_of, seen, defects))
    points = () if label_map is None else label_map.keypoint_names
    return DetectionDataset(records, names, split=split, defects=defects, keypoint_names=points)


def write(dataset, folder, split=None, shards=None):
    """Writes a data set as `<split>.record-00000-of-0000N` (without a split `data.record-...`) and `label_map.pbtxt`.

    The keys are upstream's; masks become PNG, keypoints are kept.

    Args:
        dataset: `DetectionDataset`, or any iterable of its examples with `class_names`.
        folder: where to; created if absent.
        split: first part of the file names.
        shards: number of files; default: one for every 1000 images.

    Returns:
        List of the paths of the shards.

    Raises:
        ValueError: `shards` below 1, or an image that cannot be read.
    """
    dataset, folder = as_dataset(dataset), pathlib.Path(folder)
    shards = -(-len(dataset) // IMAGES_PER_SHARD) if shards is None else shards
    if not 1 <= shards <= 99999:
        raise ValueError(f"shards must be from 1 to 99999. Received: shards={shards}")
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.linspace(0, len(dataset), shards + 1).round().astype(int)
    paths = [folder / f"{split or 'data'}.record-{number:05d}-of-{shards:05d}" for number in range(shards)]
    for number, path in enumerate(paths):
        records = dataset.records[ends[number] : ends[number + 1]]
        with replacing_file(path) as part:
            _write_records(part, (build_example(record, dataset.class_names) for record in records))
    write_label_map(folder / "label_map.pbtxt", dataset.class_names)
    return paths


def _write_records(path, examples):
    """Writes serialized examples. Raises `OSError` where TensorFlow says, or hides, that the disk refuses them."""
    import tensorflow as tf

    size = 0
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                writer.write(example)
                size += _HEAD + len(example) + _FOOT
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, one_line(error.message, 400)) from None
    if path.stat().st_size != size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _files(folder):
    """The TFRecord files of a folder, else of `annotations/` in it."""
    for place in (folder, folder / "annotations"):
        if place.is_dir():
            files = [file for file in sorted(place.iterdir()) if _SUFFIX.search(file.name) and file.is_file()]
            if any(not file.name.startswith(PART) for file in files):
                return [file for file in files if not file.name.startswith(PART)]
    return []


def _stem(file):
    """The name without shard and ending."""
    return _SUFFIX.sub("", file.name).removesuffix(".tfrecord").removesuffix(".record")


def splits(path):
    """The names that `read` takes as `split`; of those that only the names of files tell, the usual ones."""
    files = [path] if path.is_file() else _files(path)
    named = [] if path.is_file() else named_splits({_stem(file) for file in files})
    return list(dict.fromkeys([*named, *listed_splits([files[0].parent, files[0].parent.parent])]))


def _choose(path, split):
    """`(files, names)`: the files to read, and the names of the split's images where a list makes the split."""
    if path.is_file():
        found = re.search(r"-\d{5}-of-(\d{5})", path.name)
        files = [path]
        if found:
            files = [file for file in _files(path.parent) if _stem(file) == _stem(path) and found[0][6:] in file.name]
    else:
        files = _files(path)
        stems = sorted({_stem(file) for file in files})
        if split is not None:
            named = [file for file in files if is_named_after(_stem(file), split)]
            if named:
                return named, None
        elif len(stems) > 1 and not any(re.search(r"-\d{5}-of-", file.name) for file in files):
            # `a.record`, `b.record`: parts of one set, if they are not splits.
            splits = [stem for stem in stems if any(is_named_after(stem, name) for name in ("train", "val", "test"))]
            if not splits:
                return files, None
        if len(stems) > 1 and split is None:
            message = f"{path} holds several data sets: {', '.join(stems)}. Name one as split, or one file."
            raise UnnamedSplitError(message, one_each(stems, is_named_after))
    if split is None:
        return files, None
    names, listed = read_split([files[0].parent, files[0].parent.parent], split)
    if names is None:
        raise ValueError(no_split(path, split, listed or sorted({_stem(file) for file in files})))
    return files, names


def _check_shards(files):
    """Raises `FileNotFoundError` if shards are missing, `ValueError` if those of two writings lie side by side."""
    found = {}
    for file in files:
        match = re.search(r"-(\d{5})-of-(\d{5})", file.name)
        if match:
            found.setdefault((_stem(file), int(match[2])), set()).add(int(match[1]))
    if len({stem for stem, _ in found}) < len(found):
        stem = next(stem for stem, _ in found if sum(other == stem for other, _ in found) > 1)
        counts = sorted(count for other, count in found if other == stem)
        raise ValueError(
            f"{files[0].parent} holds {stem} twice: in {' and in '.join(map(str, counts))} shards. Remove the older."
        )
    for (stem, count), numbers in found.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise FileNotFoundError(
                f"{files[0].parent} lacks {len(missing)} of the {count} shards of {stem}: {missing[0]:05d}"
                f"{', ...' if len(missing) > 1 else ''}. Copy them too."
            )


def _entries(file, defects):
    """Yields `(place, image, parsed example without its image)` for the records of a file."""
    import tensorflow as tf

    with open(file, "rb") as opened:
        if opened.read(2) == b"\x1f\x8b":
            raise ValueError(f"{file} is compressed, and images are read out of it one by one. Unpack it: gunzip.")
    offset, number = 0, 0
    whole, damaged = _whole_records(file)
    records = tf.data.TFRecordDataset(str(file)).take(whole).as_numpy_iterator()
    while True:
        place = f"{file.name}, record {number}"
        try:
            serialized = next(records, None)
        except tf.errors.DataLossError:
            serialized, damaged = None, True
        if serialized is None:
            if damaged:
                message = f"{file} is damaged or truncated after {number} records (at byte {offset}). Copy it again."
                defects.refuse("damaged record files", file.name, message)
            return
        try:
            yield parsed_record(file, offset + _HEAD, serialized, place)
        except (ValueError, TypeError, OverflowError) as error:
            text = str(error)
            unreadable = isinstance(error, ImageError) or "were drawn on" in text
            message = (
                text
                if unreadable
                else f"{file}, record {number} cannot be used: {one_line(text, 300)}. Write it again."
            )
            kind = "annotated sizes that differ from the image" if "were drawn on" in text else "unreadable images"
            kind = kind if unreadable else "records that cannot be used"
            defects.refuse(kind, place, message, ImageError if isinstance(error, ImageError) else ValueError)
        offset += _HEAD + len(serialized) + _FOOT
        number += 1


def parsed_record(file, offset, serialized, place):
    """`(place, image, parsed example without its image)` of the record that is at `offset` of a file.

    Raises:
        ValueError: not an example, or no image in it.
    """
    entry = parse_example(serialized)
    encoded = entry.pop("encoded")
    name = f"{place} ({shown(entry['file_name'])})"
    return place, image_in_record(file, offset + serialized.index(encoded), encoded, name, entry["size"]), entry


def _whole_records(file):
    """`(number of records that end inside the file, whether something else follows)`, by their lengths alone.

    TensorFlow's reader allocates any length that a damaged record names.
    """
    size, offset, count = file.stat().st_size, 0, 0
    with open(file, "rb") as opened:
        while offset < size:
            opened.seek(offset)
            end = offset + _HEAD + int.from_bytes(opened.read(8), "little") + _FOOT
            if end > size:
                return count, True
            offset, count = end, count + 1
    return count, False


def _listed(parsed, names):
    by_name = {entry["file_name"]: (place, image, entry) for place, image, entry in parsed}
    by_name |= {pathlib.PurePosixPath(name).stem: entry for name, entry in by_name.items()}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise ValueError(f"The split lists {shown(absent[0])}, which no record holds ({len(absent)} such names).")
    return [by_name[name] for name in names]


def _classes(parsed, label_map, class_names):
    """`(names, label_of)`; `label_of(text or None, id or None)` is the label or None. The text wins, as it did."""
    if label_map is None:
        texts = {text for _, _, entry in parsed for text in entry["texts"] or ()}
        ids = {int(key) for _, _, entry in parsed if entry["texts"] is None for key in entry["class_ids"]}
        listed = class_names if class_names is not None else sorted(texts) or [str(key) for key in sorted(ids)]
        if not listed:
            raise ValueError("No object is annotated in the records. Pass class_names to read empty images.")
        label_map = LabelMap({number + 1: str(name) for number, name in enumerate(listed)})
        if class_names is None and not texts:
            label_map = LabelMap({key: str(key) for key in sorted(ids)})
    shown = dict(zip(label_map.names, label_map.class_names, strict=True))
    names = list(class_names) if class_names is not None else list(shown.values())
    by_text = label_map.ids_by_text()
    positions = {name: label for label, name in enumerate(names)}

    def label_of(text, key):
        key = by_text.get(text, key if text is None or not text else None)
        return positions.get(shown.get(key), positions.get(label_map.names.get(key)))

    return names, label_of


def _record(place, image, entry, label_of, seen, defects):
    boxes = entry["boxes"].astype(np.float64) * np.array([image.height, image.width] * 2)
    texts, ids = entry["texts"] or [None] * len(boxes), entry["class_ids"]
    if len(boxes) and ids is None and entry["texts"] is None:
        defects.refuse("records without classes", place, f"{place} has boxes and no image/object/class/text or label.")
    ids = [None] * len(boxes) if ids is None else [int(key) for key in ids]
    labels = [label_of(text, key) for text, key in zip(texts, ids, strict=True)]
    known = np.array([label is not None for label in labels], bool)
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        name = texts[first] if texts[first] else ids[first]
        message = f"{image.name}: {unknown_name('class', name, ())} Add it to the label map or to class_names."
        defects.refuse("unknown class names", place, message)
    rows = {}
    for field in schema.object_fields(schema.GROUND_TRUTH):
        if field.key in entry and field.key != schema.BOXES:
            rows[field.key] = _select(entry[field.key], known)
            if field.moves == schema.AS_RASTER:
                rows[field.key] = tuple(_mask(mask, image, place, defects) for mask in rows[field.key])
    name = entry["file_name"] or f"record_{len(seen):06d}"
    if name in seen:
        defects.add(KEPT, "duplicate names of images", place)
    seen[name] = place
    return make_record(
        image=image,
        file_name=name,
        image_id=entry["source_id"] or name,
        boxes_abs=boxes[known],
        labels=[label for label in labels if label is not None],
        defects=defects,
        entries=_image_labels(entry, label_of),
        **rows,
    )


def _image_labels(entry, label_of):
    """The classes that the whole image is said to have, and those that were looked for, as per-image entries."""

    def labels(*keys):
        ids = [int(key) for name in keys for key in entry.get(name, ())]
        return np.array([label for key in ids if (label := label_of(None, key)) is not None], np.int32)

    entries = {}
    if "image_classes" in entry:
        entries["image_labels"] = labels("image_classes")
    if "verified_neg_classes" in entry:
        entries[schema.VERIFIED_LABELS] = labels("image_classes", "verified_neg_classes")
    return entries


def _mask(mask, image, place, defects):
    """The mask, or None where it is an image that cannot be used."""
    try:
        return masks.from_png(mask, (image.height, image.width)) if isinstance(mask, bytes) else mask
    except ValueError:
        defects.add(DROPPED, "masks that cannot be used", place)
        return None


def _select(values, keep):
    if isinstance(values, tuple):
        return tuple(value for value, wanted in zip(values, keep, strict=True) if wanted)
    return values[keep]
