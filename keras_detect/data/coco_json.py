"""COCO's JSON of instances: finding the file and its images, reading it, writing it."""

import json
import os
import pathlib
import re

import numpy as np

from keras_detect import schema
from keras_detect.data import masks
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import is_image_name
from keras_detect.data.json_values import json_value
from keras_detect.data.keypoints import checked_pairs
from keras_detect.data.paths import DataPathError, image_path, is_file
from keras_detect.data.reading import flag, image_or_refuse
from keras_detect.data.record import DROPPED, KEPT, Defects, join_values, make_record
from keras_detect.data.splits import (
    USUAL_NAMES,
    UnnamedSplitError,
    is_named_after,
    listed_splits,
    no_split,
    one_each,
    read_split,
)
from keras_detect.data.writing import ImageFolder, as_dataset
from keras_detect.files import write_file
from keras_detect.messages import one_line, shown
from keras_detect.registry import unknown_name

# COCO's other annotation files, which hold no boxes of their own, or those of one class beside the instances.
_OTHER_KINDS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")

# What is not below it is not a number of pixels, and float32 may not hold it.
_LARGEST = 1e9


def recognizes(path):
    """Whether `path` is a COCO JSON file or a folder with one."""
    return path.suffix.lower() == ".json" if path.is_file() else bool(_candidates(path))


def read(path, split=None, class_names=None, defects=None):
    """Reads a COCO file or folder; `keras_detect.load_dataset` documents the arguments and errors."""
    defects = Defects() if defects is None else defects
    file, split_by_file = _choose(path, split)
    content = _parse(file)
    names, label_of = _classes(content, file, class_names, defects)
    listed = _entries(content, file, defects)
    entries = listed if split is None or split_by_file else _of_split(listed, split, file)
    if not entries:
        raise ValueError(f'No images are listed in {file}. Expected: at least one entry in "images".')
    annotations = _by_image(content, listed, file, defects)
    folder = _image_folder(file, split, entries)
    records = [_record(entry, annotations[entry["id"]], folder, label_of, file, defects) for entry in entries]
    if defects.collect and folder.is_dir():
        others = [other for other in _candidates(path) if other != file] if path.is_dir() else []
        _note_unlisted(folder, [*listed, *_listed_in(others)], defects)
    return DetectionDataset(
        [record for record in records if record is not None],
        names,
        split=split,
        defects=defects,
        **_keypoints_of(content["categories"], file, defects),
    )


def _keypoints_of(categories, file, defects):
    """Names, skeleton and flip pairs of the keypoints, of the first category with some: COCO's only one is "person"."""
    category = next((entry for entry in categories if entry.get("keypoints") or entry.get("skeleton")), {})
    names, lines = category.get("keypoints") or [], category.get("skeleton") or []
    pairs = category.get("flip_pairs")
    try:
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name that is not text")
        skeleton = [(int(first) - 1, int(last) - 1) for first, last in lines]
        swapped = None if pairs is None else [(int(first) - 1, int(last) - 1) for first, last in pairs]
        if any(min(pair) < 0 or (names and max(pair) >= len(names)) for pair in [*skeleton, *(swapped or ())]):
            raise ValueError("a line to a point that does not exist")
        swapped = None if swapped is None else checked_pairs(swapped)
    except (TypeError, ValueError, OverflowError):
        defects.add(DROPPED, "keypoint names or skeletons that cannot be used", file.name)
        return {}
    return {"keypoint_names": names, "skeleton": skeleton, "flip_pairs": swapped}


def write(dataset, folder, split=None):
    """Fills a folder as `write_coco` documents it, and returns the path of the JSON file."""
    dataset, folder = as_dataset(dataset), pathlib.Path(folder)
    folder_of_images = ImageFolder(folder / "images")
    images, annotations = [], []
    for number, record in enumerate(dataset.records):
        height, width = record.image.height, record.image.width
        entry = {"id": number + 1, "file_name": folder_of_images.add(record), "height": height, "width": width}
        entry |= {key: values.tolist() for key, values in record.entries.items()}
        images.append(entry | ({"split": split} if split else {}))
        for row in range(len(record.boxes)):
            ids = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": int(record.labels[row]) + 1}
            annotations.append(ids | _annotation(record, row, height, width))
    points = {"keypoints": list(dataset.keypoint_names)} if dataset.keypoint_names else {}
    for key, pairs in (("skeleton", dataset.skeleton), ("flip_pairs", dataset.flip_pairs)):
        points |= {key: [[first + 1, last + 1] for first, last in pairs]} if pairs else {}
    categories = [{"id": i + 1, "name": name} | points for i, name in enumerate(dataset.class_names)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    return write_file(folder / (f"instances_{split}.json" if split else "instances.json"), text)


def holds(field):
    """Whether the format holds a per-object field: every one."""
    return True


# COCO's own names of per-object fields; others are under the `singular` of the table.
_NAMES = {schema.IS_CROWD: "iscrowd", schema.MASKS: "segmentation"}


def _name(field):
    return _NAMES.get(field.key, field.singular)


def _further_fields():
    """The rows of the table that are in an annotation as they are: no box, no class, no visibility of points."""
    fields = schema.object_fields(schema.GROUND_TRUTH)
    companions = {schema.BOXES, schema.LABELS, *(field.visibility for field in fields)}
    return [field for field in fields if field.key not in companions]


def _annotation(record, row, height, width):
    """One object's entries, without the ids."""
    ymin, xmin, ymax, xmax = (record.boxes[row] * np.array([height, width] * 2, np.float64)).tolist()
    entry = {"bbox": [xmin, ymin, xmax - xmin, ymax - ymin], "area": (xmax - xmin) * (ymax - ymin)}
    for field in _further_fields():
        values = record.get(field.key)
        if values is None or (field.moves == schema.AS_RASTER and values[row] is None):
            continue
        if field.moves == schema.AS_RASTER:
            entry[_name(field)] = masks.to_coco(values[row], (height, width))
        elif field.moves == schema.AS_POINTS and field.visibility is not None:
            y, x = (values[row] * np.array([height, width], np.float64)).T
            seen = record.get(field.visibility)[row]
            points = np.where(seen[:, None] > 0, np.stack([x, y, seen], axis=1), 0.0)
            entry |= {_name(field): points.reshape(-1).tolist(), f"num_{_name(field)}": int((seen > 0).sum())}
        else:
            value = json_value(field, values[row])
            entry[_name(field)] = int(value) if isinstance(value, bool) else value
    return entry


def _candidates(folder):
    """JSON files that may hold instances: the likely names first, in the folder, then in `annotations/`."""
    found = []
    for place in (folder, folder / "annotations"):
        files = sorted(place.glob("*.json")) if place.is_dir() else []
        files += sorted(place.glob("*/_annotations.coco.json")) if place == folder else []
        files = [file for file in files if is_file(file)]
        likely = [file for file in files if file.name.startswith("instances") or file.name.endswith(".coco.json")]
        others = [file for file in files if not file.name.startswith(_OTHER_KINDS)]
        found = likely or [file for file in others if file not in likely and _has_instances(file)]
        found = found or [file for file in files if file.name.startswith("person_keypoints")]
        if found:
            break
    return found


def _has_instances(file):
    """A cheap look at a JSON file of another name; unparsable files are skipped."""
    try:
        content = json.loads(file.read_text())
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _choose(path, split):
    """The file to read, and whether choosing it chose the split."""
    if path.is_file():
        return path, False
    files = _candidates(path)
    if split is not None:
        named = [file for file in files if _is_named_after(file, split)]
        if len(named) == 1:
            return named[0], True
    whole = [file for file in files if file.stem in ("instances", "instances_all")]
    if len(files) == 1 or whole:
        return (whole or files)[0], False
    received = "split=None" if split is None else f"split={split!r}"
    listed = ", ".join(str(file.relative_to(path)) for file in files)
    message = f"{path} holds several annotation files: {listed}. Received {received}. Name one split or one file."
    raise UnnamedSplitError(message, one_each(files, _is_named_after) if split is None else ())


def splits(path):
    """The names that `read` takes as `split`; of those that only the names of files tell, the usual ones."""
    files = _candidates(path) if path.is_dir() else [path]
    found = [name for name in USUAL_NAMES if path.is_dir() and sum(_is_named_after(file, name) for file in files) == 1]
    whole = [file for file in files if file.stem in ("instances", "instances_all")]
    if len(files) == 1 or whole:
        file = (whole or files)[0]
        entries = _parse(file).get("images")
        entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        found += sorted({str(entry["split"]) for entry in entries if "split" in entry})
        found += listed_splits([file.parent, file.parent.parent])
    return list(dict.fromkeys(found))


def _is_named_after(file, split):
    """`instances_train2017.json` and `train/_annotations.coco.json` are named after `train`."""
    return is_named_after(file.stem, split) or (file.name[0] == "_" and is_named_after(file.parent.name, split))


def _parse(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not readable JSON ({one_line(error, 200)}). Export it again.") from None
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise ValueError(f"A COCO file has images, annotations and categories. {file} lacks: {', '.join(missing)}.")
    return content


def _classes(content, file, class_names, defects):
    """Class names in label order, and a function: annotation -> label, or None where the class is refused."""
    try:
        listed = [(int(entry["id"]), str(entry["name"])) for entry in content["categories"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f'Each entry of "categories" in {file} needs an integer "id" and a "name".') from None
    categories = dict(listed)
    if len(categories) < len(listed):
        key = next(key for key, name in listed if categories[key] != name or listed.count((key, name)) > 1)
        raise ValueError(f'Each entry of "categories" in {file} needs a unique id. Received id {shown(key)} twice.')
    names = list(class_names) if class_names is not None else [categories[key] for key in sorted(categories)]
    positions = {name: label for label, name in enumerate(names)}

    def label_of(annotation):
        key = annotation.get("category_id")
        if not isinstance(key, int | float | str) or key not in categories:
            known = f"{shown(min(categories))}...{shown(max(categories))}" if categories else "none"
            message = (
                f'Annotation {_id(annotation)} in {file} has category_id {shown(key)}, which "categories" does not '
                f"list (known: {known}). Correct the annotation or add the category."
            )
            defects.refuse("unknown class ids", f"annotation {_id(annotation)}", message)
            return None
        if categories[key] not in positions:
            unknown = unknown_name("class", categories[key], positions)
            message = f"Annotation {_id(annotation)} in {file}: {unknown} Add it to class_names, or rename it."
            defects.refuse("unknown class names", f"annotation {_id(annotation)}", message)
            return None
        return positions[categories[key]]

    return names, label_of


def _entries(content, file, defects):
    seen, entries = set(), []
    for entry in content["images"]:
        if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("file_name"), str):
            message = f'Each entry of "images" in {file} needs an "id" and a "file_name". Received: {shown(entry, 200)}'
            defects.refuse('entries of "images" without id or file_name', shown(entry, 40), message)
        elif not isinstance(entry["id"], int | str):
            message = f'An "id" of "images" in {file} must be an integer or text. Received: {shown(entry["id"])}'
            defects.refuse('entries of "images" without a usable id', entry["file_name"], message)
        elif entry["id"] in seen:
            message = f'Each entry of "images" in {file} needs a unique id. Received id {shown(entry["id"])} twice.'
            defects.refuse("duplicate ids of images", entry["file_name"], message)
        else:
            seen.add(entry["id"])
            entries.append(entry)
    return entries


def _id(annotation):
    """The id of an annotation as messages show it."""
    return shown(annotation.get("id"))


def _by_image(content, entries, file, defects):
    """`{image id: annotations}`; an annotation of an image that is not listed is an error."""
    grouped, seen = {entry["id"]: [] for entry in entries}, set()
    for annotation in content["annotations"]:
        if not isinstance(annotation, dict):
            message = f'Each entry of "annotations" in {file} must be an object. Received: {shown(annotation)}'
            defects.refuse("entries that are not annotations", shown(annotation, 40), message)
            continue
        owner, key = annotation.get("image_id"), annotation.get("id")
        if not isinstance(owner, int | str) or owner not in grouped:
            message = (
                f'Annotation {_id(annotation)} in {file} belongs to image_id {shown(owner)}, which "images" does not '
                "list. Remove the annotation or list the image."
            )
            defects.refuse("annotations without an image", f"annotation {_id(annotation)}", message)
            continue
        if isinstance(key, int | str):
            if key in seen:
                defects.add(KEPT, "duplicate ids of annotations, which are ignored", f"annotation {_id(annotation)}")
            seen.add(key)
        grouped[owner].append(annotation)
    return grouped


def _listed_in(files):
    """The images that the files of other splits list; unparsable files are skipped."""
    for file in files:
        try:
            entries = _parse(file)["images"]
        except (ValueError, OSError):
            continue
        yield from (entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("file_name"), str))


def _note_unlisted(folder, entries, defects):
    """Counts images that lie in the folder and that no split lists."""
    known = {pathlib.PurePosixPath(entry["file_name"]).name for entry in entries}
    for file in sorted(folder.iterdir()):
        if is_image_name(file.name) and file.name not in known:
            defects.add(KEPT, "images without annotation, skipped", file.name)


def _of_split(entries, split, file):
    """The entries of a split: by their own `"split"`, else by `splits/<split>.txt` beside the file."""
    known = sorted({str(entry["split"]) for entry in entries if "split" in entry})
    if split in known:
        return [entry for entry in entries if entry.get("split") == split]
    roots = [file.parent, file.parent.parent]
    names, listed = read_split(roots, split)
    if names is None:
        raise ValueError(no_split(file, split, known or listed))
    by_name = {entry["file_name"]: entry for entry in entries} | {_stem(entry["file_name"]): entry for entry in entries}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise ValueError(f"The split '{split}' lists {absent[0]}, which {file} does not ({len(absent)} such names).")
    return [by_name[name] for name in names]


def _stem(name):
    return pathlib.PurePosixPath(name).stem


def _image_folder(file, split, entries):
    """Where the images lie: the first usual place that holds the first listed image found anywhere."""
    here, above = file.parent, file.parent.parent
    words = [word for word in re.split(r"[_\-. ]", file.stem) if word and word != "instances"]
    inner = ["images", *words, *(f"images/{word}" for word in words)] + ([split] if split else [])
    places = [here, *(here / name for name in inner), above, *(above / name for name in inner)]
    relative = [entry["file_name"] for entry in entries if not pathlib.PurePath(entry["file_name"]).is_absolute()]
    for name in relative[:20]:
        for place in places:
            if _lies_there(place, name, file):
                return place
    image_path(here, entries[0]["file_name"], above, file)  # raises where it leads out of the data set
    if not relative:
        return here
    looked = ", ".join(str(place) for place in dict.fromkeys(places) if place.is_dir())
    raise FileNotFoundError(
        f"Image not found: {shown(entries[0]['file_name'], 200)}, listed in {file}. Looked in: {looked}. "
        "Put the images into images/ beside the annotations."
    )


def _lies_there(place, name, file):
    """Whether an image that the file lists is in a place; what is there and no image is told of when it is opened."""
    try:
        path = image_path(place, name, file.parent.parent, file)
    except DataPathError:
        return False
    return os.path.lexists(path)


def _record(entry, annotations, folder, label_of, file, defects):
    """The `Record` of an entry, or None where its image is refused."""
    size = _size(entry, defects)
    try:
        path = image_path(folder, entry["file_name"], file.parent.parent, file)
    except DataPathError as error:
        defects.refuse("images outside the data set's folder", entry["file_name"], str(error), DataPathError)
        return None
    image = image_or_refuse(path, size, defects, f"listed in {file}")
    if image is None:
        return None
    shape = (image.height, image.width)
    rows = []
    for annotation in annotations:
        try:
            row = _row(annotation, shape, file, defects)
        except ValueError as error:
            defects.refuse("annotations without a readable bbox", entry["file_name"], str(error))
            continue
        row["label"] = label_of(annotation)
        if row["label"] is not None:
            rows.append(row)
    fields = schema.object_fields(schema.GROUND_TRUTH)
    values = {field.key: join_values(field, [row.get(field.key) for row in rows]) for field in fields}
    values = {key: column for key, column in values.items() if key not in (schema.BOXES, schema.LABELS)}
    return make_record(
        image=image,
        file_name=entry["file_name"],
        image_id=entry["id"],
        boxes_abs=[row["box"] for row in rows],
        labels=[row["label"] for row in rows],
        defects=defects,
        entries=_image_entries(entry),
        **values,
    )


def _size(entry, defects):
    """`(height, width)` as annotated, None where that is absent or no size: the image's own is taken then."""
    sides = (entry.get("height"), entry.get("width"))
    try:
        size = tuple(float("nan") if isinstance(side, bool) else float(side) for side in sides)
    except (TypeError, ValueError, OverflowError):
        size = (float("nan"),)
    if all(0 < side < float("inf") for side in size):
        return tuple(int(side) if side < _LARGEST and side.is_integer() else side for side in size)
    if any(side is not None for side in sides):
        defects.add(DROPPED, "invalid image sizes; the size of the file is used", entry["file_name"])
    return None


def _image_entries(entry):
    """The annotated per-image entries that an entry of "images" holds."""
    entries = {}
    for field in schema.image_fields():
        if field.annotated and entry.get(field.key) is not None:
            values = np.asarray(entry[field.key], field.dtype)
            if values.ndim == len(field.shape):
                entries[field.key] = values
    return entries


def _row(annotation, shape, file, defects):
    """The entries of one annotation. Raises `ValueError` for an invalid bbox."""
    box = annotation.get("bbox")
    try:
        x, y, width, height = (float("nan") if value is None else float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f'Annotation {_id(annotation)} in {file} needs "bbox": [x, y, width, height] in pixels. '
            f"Received: {shown(box)}"
        ) from None
    row = {"box": (y, x, y + height, x + width)}
    for field in _further_fields():
        try:
            value = annotation.get(_name(field))
            if field.moves == schema.AS_POINTS and field.visibility is not None:
                row[field.key], row[field.visibility] = _points(value, shape)
            else:
                row[field.key] = _value(field, value, shape)
        except (TypeError, ValueError, OverflowError):
            what = "masks that cannot be used" if field.moves == schema.AS_RASTER else None
            what = what or (f"{field.key} that cannot be used" if field.shape else None)
            kind = "neither true nor false" if field.dtype == "bool" else "no number"
            what = what or f'values of "{_name(field)}" that are {kind}'
            defects.add(DROPPED, what, f"annotation {_id(annotation)}")
            row[field.key] = None
    return row


def _value(field, value, shape):
    """One object's value in an annotation, None where there is none. Raises for what is none of its kind."""
    if field.moves == schema.AS_RASTER:
        return masks.from_coco(value, shape)
    if value is None:
        return None
    if not field.shape and field.dtype == "bool":
        return flag(value)
    if not field.shape:
        if not isinstance(value, int | float):
            raise ValueError
        return value if abs(value) < _LARGEST else float("nan")
    array = np.asarray(value, field.dtype)
    fixed = [side if isinstance(side, int) else array.shape[axis] for axis, side in enumerate(field.shape)]
    return array.reshape(fixed)


def _points(values, shape):
    """`([N, 2] normalized yx, NaN where not annotated, [N])` from x, y, v in pixels; `(None, None)` without any."""
    if not values:
        return None, None
    if not _are_points(values):
        raise ValueError("no x, y, v")
    table = np.reshape(np.asarray(values, np.float64), (-1, 3))
    seen = table[:, 2].astype(np.int32)
    return np.where(seen[:, None] > 0, table[:, 1::-1] / np.array(shape, np.float64), np.nan), seen


def _are_points(points):
    """Whether these are numbers x, y, v, as many as make up whole points."""
    numbers = isinstance(points, list) and all(isinstance(value, int | float) for value in points)
    return numbers and len(points) % 3 == 0 and all(abs(value) < _LARGEST for value in points)
