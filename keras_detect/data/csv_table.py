"""CSV with one box per row and the names of the columns in the first row.

Columns: `filename, width, height, class, xmin, ymin, xmax, ymax` in pixels, as the scripts around upstream
API write them, and where the data has them `is_crowd, difficult, group_of, area, weight` and every other field of one
number per object, and `split`. An image without
objects is a row with an empty class. Other names that are common are understood, Open Images' normalized columns too.
"""

import csv
import io
import pathlib

import numpy as np

from keras_detect import schema
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import is_image_name
from keras_detect.data.label_map import find_label_map, read_label_map, write_label_map
from keras_detect.data.paths import DataPathError, image_path, is_file
from keras_detect.data.reading import flag, image_or_refuse, index_images, label_finder
from keras_detect.data.record import DROPPED, KEPT, Defects, join_values, make_record
from keras_detect.data.splits import (
    UnnamedSplitError,
    is_named_after,
    listed_splits,
    named_splits,
    no_split,
    one_each,
    read_split,
)
from keras_detect.data.writing import ImageFolder, as_dataset
from keras_detect.files import write_file
from keras_detect.messages import one_line, shown
from keras_detect.registry import unknown_name

# our name -> names that mean it, in lower case and without spaces and underscores
_COLUMNS = {
    "file": ("filename", "file", "image", "imagepath", "path", "imageid", "imagename", "filepath"),
    "class": ("class", "label", "name", "classname", "labelname", "category"),
    "xmin": ("xmin", "x1", "left"),
    "ymin": ("ymin", "y1", "top"),
    "xmax": ("xmax", "x2", "right"),
    "ymax": ("ymax", "y2", "bottom"),
    "width": ("width", "imagewidth"),
    "height": ("height", "imageheight"),
    "is_crowd": ("crowd",),
    "is_difficult": ("isdifficult",),
    "is_group_of": ("isgroupof",),
    "split": ("split", "set", "subset"),
}
_CORNERS = ("ymin", "xmin", "ymax", "xmax")


def holds(field):
    """Whether the format holds a per-object field: one number per object, besides box and class."""
    return not field.shape or field.key == schema.BOXES


def _optional():
    """The rows of the table that have a column of their own."""
    return [
        field for field in schema.object_fields(schema.GROUND_TRUTH) if not field.shape and field.key != schema.LABELS
    ]


def _heading(field):
    """The title of a field's column, which must not be that of the image's own sides, name or split."""
    fixed = ("file", "class", "width", "height", "split", *_CORNERS)
    taken = field.singular in {title for name in fixed for title in (name, *_COLUMNS[name])}
    return f"object_{field.singular}" if taken else field.singular


def recognizes(path):
    """Whether `path` is a CSV file with boxes, or a folder with one."""
    if path.is_file():
        return path.suffix.lower() == ".csv"
    return bool(_files(path))


def read(path, split=None, class_names=None, defects=None):
    """Reads a CSV file or folder; `keras_detect.load_dataset` documents the arguments and errors."""
    defects = Defects() if defects is None else defects
    file, wanted = _choose(path, split)
    rows, normalized = _rows(file, defects)
    # Sorted over all splits, so that each of them has the same labels.
    others = [other for other in _files(path) if other != file] if wanted is True and path.is_dir() else []
    names = _names(rows, others, class_names, [file.parent, file.parent.parent], file)
    listed = {row["file"] for row in rows}
    if split is not None and wanted is None and any("split" in row for row in rows):
        known = sorted({row["split"] for row in rows if row.get("split")})
        if split not in known:
            raise ValueError(no_split(file, split, known))
        rows = [row for row in rows if row.get("split") == split]
    grouped = {}
    for row in rows:
        grouped.setdefault(row["file"], []).append(row)
    if wanted is not None and not isinstance(wanted, bool):
        stems = {pathlib.PurePosixPath(name).stem for name in wanted}
        grouped = {name: entry for name, entry in grouped.items() if pathlib.PurePosixPath(name).stem in stems}
    if not grouped:
        raise ValueError(f"No images are listed in {file}.")
    images = index_images([place for place in _places(file) if place.is_dir()])
    label_of = label_finder(names)
    records = [
        _record(name, group, file, images, names, label_of, normalized, defects) for name, group in grouped.items()
    ]
    records = [record for record in records if record is not None]
    if defects.collect:
        listed |= {row["file"] for other in others for row in _rows(other, Defects(collect=True))[0]}
        _note_unlisted({_base(name) for name in listed}, records, images, defects)
    return DetectionDataset(records, names, split=split, defects=defects)


def write(dataset, folder, split=None):
    """Writes a data set as `images/`, `annotations.csv` (or `<split>.csv`) and `label_map.json` with the class names.

    A row holds a box, its class, and every field of one number per object (crowd, difficult, group, area, weight, ...).
    Masks and keypoints are not kept.

    Args:
        dataset: `DetectionDataset`, or any iterable of its examples with `class_names`.
        folder: where to; created if absent.
        split: name of the file.

    Returns:
        Path of the CSV file.

    Raises:
        ValueError: a class name that is blank, which would stand for an image without objects.
    """
    dataset, folder = as_dataset(dataset), pathlib.Path(folder)
    if not all(name.strip() for name in dataset.class_names):
        raise ValueError("In a CSV table a row without a class is an image without objects. Received a blank class.")
    images = ImageFolder(folder / "images")
    columns = [field for field in _optional() if any(_has(record, field) for record in dataset.records)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    table.writerow(head + [_heading(field) for field in columns])
    for record in dataset.records:
        height, width = record.image.height, record.image.width
        start = [images.add(record), width, height]
        if not len(record.boxes):
            table.writerow(start + [""] * (5 + len(columns)))
        for row, box in enumerate(record.boxes * np.array([height, width] * 2, np.float64)):
            ymin, xmin, ymax, xmax = (f"{side:.10g}" for side in box.tolist())
            rest = [_cell(record.get(field.key), row) for field in columns]
            table.writerow([*start, dataset.class_names[record.labels[row]], xmin, ymin, xmax, ymax, *rest])
    write_label_map(folder / "label_map.json", dataset.class_names)
    return write_file(folder / (f"{split}.csv" if split else "annotations.csv"), text.getvalue())


def _has(record, field):
    values = record.get(field.key)
    return values is not None and (field.dtype != "bool" or values.any())


def _cell(values, row):
    if values is None:
        return ""
    return int(values[row]) if values.dtype.kind in "bi" else f"{float(values[row]):.9g}"


def _files(folder):
    """The CSV files of a folder, else of `annotations/` in it, whose first row names the columns of boxes."""
    for place in (folder, folder / "annotations"):
        tables = sorted(place.glob("*.csv")) if place.is_dir() else ()
        files = [file for file in tables if is_file(file) and _heads(file)]
        if files:
            return files
    return []


def _heads(file):
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as opened:
        return {"file", "class", *_CORNERS} <= set(_columns(opened.readline(100_000).rstrip("\r\n")))


def _columns(line):
    """Our names of the columns of a heading row; "" for others."""
    meanings = {_heading(field).replace("_", ""): field.key for field in _optional()}
    meanings |= {name: ours for ours, names in _COLUMNS.items() for name in names}
    try:
        titles = next(csv.reader([line]), [])
    except csv.Error:
        return []
    return [meanings.get(title.strip().lower().replace(" ", "").replace("_", ""), "") for title in titles]


def splits(path):
    """The names that `read` takes as `split`; of those that only the names of files tell, the usual ones."""
    files = [path] if path.is_file() else _files(path)
    found = named_splits([file.stem for file in files])
    if len(files) == 1:
        rows, _ = _rows(files[0], Defects())
        found += sorted({row["split"] for row in rows if row.get("split")})
        found += listed_splits([files[0].parent, files[0].parent.parent])
    return list(dict.fromkeys(found))


def _choose(path, split):
    """`(file, names)`: names of the split's images by a list, True if the file's own name is the split, or None."""
    files = [path] if path.is_file() else _files(path)
    if split is not None:
        named = [file for file in files if is_named_after(file.stem, split)]
        if len(named) == 1:
            return named[0], True
    if len(files) > 1:
        listed = ", ".join(file.name for file in files)
        message = f"{path} holds several tables: {listed}. Received split={split!r}. Name one split or file."
        names = one_each([file.stem for file in files], is_named_after) if split is None else ()
        raise UnnamedSplitError(message, names)
    if split is None:
        return files[0], None
    names, listed = read_split([files[0].parent, files[0].parent.parent], split)
    if names is None and "split" not in _columns(files[0].read_text(encoding="utf-8-sig").split("\n", 1)[0]):
        raise ValueError(no_split(path, split, listed))
    return files[0], names


def _rows(file, defects):
    """`(rows, normalized)`: a dict per row with texts, corners as `box` (None: an image without objects)."""
    try:
        lines = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a readable CSV table ({one_line(error, 200)}). Export it again.") from None
    columns = _columns(",".join(f'"{title}"' for title in lines[0])) if lines else []
    missing = [name for name in ("file", "class", *_CORNERS) if name not in columns]
    if missing:
        raise ValueError(
            f"{file} needs a first row with the names of its columns, such as filename,class,xmin,ymin,xmax,ymax. "
            f"Missing: {', '.join(missing)}. Received: {shown(','.join(lines[0])) if lines else 'an empty file'}"
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        row = {name: cell.strip() for name, cell in zip(columns, line, strict=False) if name}
        if row.get("class"):
            row["class"] = line[columns.index("class")]  # spaces may tell two classes apart
        try:
            corners = [row.get(name, "") for name in _CORNERS]
            row["box"] = tuple(float(corner) for corner in corners) if row.get("class") or any(corners) else None
            if not row.get("file") or len(line) > len(columns) or (row["box"] and not row.get("class")):
                raise ValueError
            for field in _optional():
                if row["box"] is not None and field.key in row:
                    row[field.key] = _value(row, field, f"{file.name}, line {number}", defects)
        except ValueError:
            message = f"{file}, line {number} is not a box. Received: {shown(','.join(line))}"
            defects.refuse("lines that are not a box", f"{file.name}, line {number}", message)
            continue
        rows.append(row)
    boxes = np.array([row["box"] for row in rows if row["box"] is not None], np.float64).reshape(-1, 4)
    # No image is one pixel large: corners that never pass 1 are parts of its sides.
    return rows, bool(len(boxes)) and bool(np.nanmax(boxes, initial=0.0) <= 1.0)


def _value(row, field, place, defects):
    """The value of an optional column. Raises `ValueError` for an invalid number; an invalid flag is dropped."""
    try:
        return _number(row[field.key], field)
    except ValueError:
        if field.dtype != "bool":
            raise
        defects.add(DROPPED, f'values of "{field.singular}" that are neither true nor false', place)
        return False


def _number(text, field):
    """A cell of an optional column: a flag, or a number; None where it is empty. Raises `ValueError` for neither."""
    if field.dtype == "bool":
        return flag(text)
    return float(text) if text else None


def _names(rows, others, class_names, folders, file):
    """The class names: as given, of a label map, or those in the rows and in the other tables."""
    if class_names is not None:
        return list(class_names)
    label_map = find_label_map(folders)
    if label_map is not None:
        return read_label_map(label_map).class_names
    rows = rows + [row for other in others for row in _rows(other, Defects(collect=True))[0]]
    names = sorted({row["class"].strip() for row in rows if row["box"] is not None})
    if not names:
        raise ValueError(f"No object is annotated in {file}. Pass class_names to read a set of empty images.")
    return names


def _places(file):
    folders = (file.parent, file.parent.parent)
    return [place for folder in folders for place in (folder / "images", folder / file.stem, folder)][:5]


def _note_unlisted(bases, records, images, defects):
    """Counts images that no row is about, be it one of another split."""
    used = {pathlib.Path(record.image.path) for record in records}
    used |= {images.get(base.name, images.get(base.stem)) for base in bases} - {None}
    for image in sorted(set(images.values()) - used):
        defects.add(KEPT, "images without annotation, skipped", image.name)


def _base(name):
    return pathlib.PurePosixPath(name.replace("\\", "/"))


def _found(base, file, images, defects):
    """The path of a row's image: as the row says, else one of its name in the data set; None where it is refused."""
    known = images.get(base.name) or images.get(base.stem)
    try:
        found = image_path(file.parent, str(base), file.parent.parent, file)
    except DataPathError as error:
        if known is None:
            defects.refuse("images outside the data set's folder", str(base), str(error), DataPathError)
        return known
    return found if known is None or (is_image_name(found.name) and is_file(found)) else known


def _record(name, rows, file, images, names, label_of, normalized, defects):
    """The `Record` of an image's rows, or None where it is refused."""
    base = _base(name)
    found = _found(base, file, images, defects)
    if found is None:
        return None
    try:
        size = tuple(int(float(rows[0].get(side) or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        size = (0, 0)
    image = image_or_refuse(found, size if min(size) > 0 else None, defects, f"listed in {file}")
    if image is None:
        return None
    rows = [row for row in rows if row["box"] is not None]
    for row in rows:
        if label_of(row["class"]) is None:
            unknown = unknown_name("class", row["class"].strip(), names)
            message = f"{file}, {shown(name)}: {unknown} Add it to class_names, or rename it."
            defects.refuse("unknown class names", name, message)
    rows = [row for row in rows if label_of(row["class"]) is not None]
    boxes = np.array([row["box"] for row in rows], np.float64).reshape(-1, 4)
    columns = {field.key: join_values(field, [row.get(field.key) for row in rows]) for field in _optional()}
    return make_record(
        image=image,
        file_name=found.name,
        image_id=base.stem,
        boxes_abs=boxes * np.array([image.height, image.width] * 2) if normalized else boxes,
        labels=[label_of(row["class"]) for row in rows],
        defects=defects,
        **columns,
    )
