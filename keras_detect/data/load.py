"""`load_dataset`: detects the format of annotated images on disk and reads them."""

import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_detect.data import coco_json, csv_table, tf_record, voc_xml, yolo_txt
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import ImageError, is_image_name, pixel_limit
from keras_detect.data.paths import FILE, DataPathError, kind_of
from keras_detect.data.record import Defects
from keras_detect.data.splits import UnnamedSplitError
from keras_detect.files import settle
from keras_detect.messages import counted, one_line, shown

# A folder that several recognize is read by the first.
FORMATS: dict[str, Any] = {}


def register_format(name: str, module: Any) -> None:
    """Adds a format of data sets: `load_dataset`, `write_dataset` and the commands know it by `name` from then on.

    Args:
        name: of the format, as in `load_dataset(path, format=name)`.
        module: a module or an object with the functions `recognizes(path) -> bool`, `read(path, split, class_names,
            defects) -> DetectionDataset`, `write(dataset, folder, split)` and `holds(field) -> bool`, which says
            whether files of the format keep an `ObjectField` of `schema`; and where it has parts, `splits(path) ->
            list[str]`, their names. `write` fills a folder that takes the place
            of the target once it returns, and that holds what was there before: `write_dataset` sees to that.

    Raises:
        TypeError: one of the functions is missing.
        ValueError: another format has the name.
    """
    missing = [function for function in ("recognizes", "read", "write", "holds") if not hasattr(module, function)]
    if missing:
        raise TypeError(f"A format has the functions recognizes, read, write and holds. Missing: {', '.join(missing)}")
    if FORMATS.get(name, module) is not module:
        raise ValueError(f"The format {name!r} is already used by {FORMATS[name]}. Choose another name.")
    FORMATS[name] = module


for _name, _module in (
    ("coco", coco_json),
    ("voc", voc_xml),
    ("yolo", yolo_txt),
    ("csv", csv_table),
    ("tfrecord", tf_record),
):
    register_format(_name, _module)


def load_dataset(
    path: str | os.PathLike[str],
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    format: str | None = None,
    max_pixels: int | None = None,
) -> DetectionDataset:
    """Reads annotated images from disk; the format is auto-detected.

    COCO: a `.json` file, or a folder with `instances*.json` (also under `annotations/`). Pascal VOC: a folder with
    `Annotations/*.xml` (or `annotations/`) and `JPEGImages/` (or `images/`). YOLO: a `data.yaml`, or a folder with one
    or with `classes.txt`. CSV: a `.csv` file with a row of column names and a box a row, or a folder with one.
    TFRecord: a file or the shards `name.record-00000-of-00010` of `tf.Example`, with a label map (`.pbtxt`,
    `label_map.json`) in the folder or above it. A folder with several of them is read as the first of this list.
    VOC's corners are taken as they stand, `xmin / width`, without the shift by one of VOC's 1-based pixels: today's
    labeling tools write 0-based corners.

    Boxes are clipped to their image; boxes that are outside, reversed or without area are dropped; one warning counts
    them, and so does the data set's `defects`. An image without objects is kept. `keras_detect.check_dataset` lists
    everything that is wrong at once.

    Args:
        path: the file or folder.
        split: name of a part ("train", "val"...), as in `splits/<split>.txt`, `ImageSets/Main/<split>.txt`,
            `instances_<split>*.json`, `<split>.csv`, `<split>.record*`, a key of `data.yaml`, a folder
            `images/<split>`, or the `"split"` of a COCO image; None reads everything, and raises for a folder with an
            annotation file per split.
        class_names: the names in label order, None to take the annotation's (COCO: by category id; YOLO and TFRecord:
            as listed; VOC and CSV: `label_map.json`, else sorted, over all splits).
        format: "coco", "voc", "yolo", "csv" or "tfrecord", None to detect it.
        max_pixels: height times width of the largest image that is accepted; None for that of `pixel_limit`, 2**26
            (8192 x 8192) unless it says otherwise.

    Returns:
        `DetectionDataset`.

    Raises:
        FileNotFoundError: no such path, or an image is missing.
        ValueError: nothing annotated is found, an unreadable annotation, an unknown split or class; `ImageError` for
            an image that cannot be read or is too large, `DataPathError` for a path that names no regular file or
            folder, or leads out of the data set.
    """
    path = pathlib.Path(path).expanduser()
    with _errors_name(path), pixel_limit(max_pixels):
        dataset = reader(path, format).read(path, split=split, class_names=class_names)
    dataset.defects.report(str(path))
    return dataset


def load_every_split(
    path: str | os.PathLike[str], format: str | None = None, max_pixels: int | None = None
) -> tuple[DetectionDataset, dict[str, int]]:
    """Reads everything: as `load_dataset` without a split, or, of an annotation file per split, one after the other.

    Args:
        path, format, max_pixels: as in `load_dataset`.

    Returns:
        `(DetectionDataset, {split: number of images})`; {} where the data are one whole. The classes of the first split
        hold for all.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset`.
    """
    path = pathlib.Path(path).expanduser()
    with _errors_name(path), pixel_limit(max_pixels):
        dataset, counts = read_splits(reader(path, format), path, defects=Defects())
    dataset.defects.report(str(path))
    return dataset, counts


def read_splits(module, path, defects, class_names=None):
    """`(DetectionDataset, {split: number of images})` of everything that a module of `FORMATS` reads in `path`.

    Raises what `module.read` does, or counts it in `defects` where all are collected.
    """
    try:
        return module.read(path, split=None, class_names=class_names, defects=defects), {}
    except UnnamedSplitError as error:
        if not error.splits:
            raise
        names = error.splits
    parts: list[DetectionDataset] = []
    for name in names:
        found = Defects(collect=defects.collect)
        known = parts[0].class_names if parts and class_names is None else class_names
        parts.append(module.read(path, split=name, class_names=known, defects=found))
        defects.merge_split(found)
    first = parts[0]
    whole = DetectionDataset(
        [record for part in parts for record in part.records],
        first.class_names,
        defects=defects,
        **first.keypoint_facts(),
    )
    return whole, {name: len(part) for name, part in zip(names, parts, strict=True)}


def dataset_splits(path: str | os.PathLike[str], format: str | None = None) -> list[str]:
    """The names of the parts that `load_dataset(path, split)` knows; empty where the data are one whole.

    Args:
        path, format: as in `load_dataset`. A format that was registered without a function `splits(path)` has none.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset`.
    """
    path = pathlib.Path(path).expanduser()
    with _errors_name(path):
        module = reader(path, format)
        return list(module.splits(path)) if hasattr(module, "splits") else []


@contextlib.contextmanager
def _errors_name(path):
    """Makes one line that names `path`, from any exception of a reader."""
    try:
        yield
    except (ValueError, OSError) as error:
        text = str(error) if str(path) in str(error) else f"{shown(path, 400)}: {error}"
        if isinstance(error, UnnamedSplitError):
            raise UnnamedSplitError(one_line(text), error.splits) from None
        known = (FileNotFoundError, OSError, ImageError, DataPathError, ValueError)
        raise next(kind for kind in known if isinstance(error, kind))(one_line(text)) from None


def reader(path, format=None):
    """The module of `FORMATS` that reads `path`. Raises as `load_dataset` does if there is none."""
    settle(path)  # a writer may have been killed while it put a whole new folder there
    if kind_of(path) is None:
        raise FileNotFoundError(
            f"No such file or folder: {shown(path, 400)}. Give the folder with the images and annotations."
        )
    if format is not None and format not in FORMATS:
        raise ValueError(
            f"format must be one of {', '.join(FORMATS)}, or None to detect it. Received: format={shown(format)}"
        )
    for name in [format] if format else list(FORMATS):
        if FORMATS[name].recognizes(path):
            return FORMATS[name]
    raise ValueError(_nothing_found(path))


def _why_not_coco(file):
    """A sentence about a JSON file that cannot be read as annotations; else ""."""
    if file.suffix.lower() == ".json" and kind_of(file) == FILE:
        with contextlib.suppress(OSError):
            try:
                coco_json.read(file)
            except ValueError as error:
                return f"{one_line(error, 400)} "
    return ""


def _nothing_found(path):
    wanted = (
        "Expected: COCO (a .json file, or a folder with instances*.json), Pascal VOC (a folder with Annotations/*.xml "
        "and JPEGImages/), YOLO (data.yaml or classes.txt), CSV (a .csv file with column names) or TFRecord (*.record)."
    )
    if kind_of(path) == FILE:
        return f"{path} is not a file of annotations. {wanted}"
    entries = sorted(entry.name for entry in path.iterdir())
    wanted = "".join(_why_not_coco(path / name) for name in entries) + wanted
    if not entries:
        return f"The folder {path} is empty. {wanted}"
    images = sum(is_image_name(name) for name in entries)
    if images:
        return f"{path} holds {counted(images, 'image')} and no annotations. {wanted}"
    some = ", ".join(shown(name, 40) for name in entries[:5]) + (", ..." if len(entries) > 5 else "")
    return f"No annotations found in {path} (it holds: {some}). {wanted}"
