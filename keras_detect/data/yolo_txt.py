"""YOLO's text files, one per image, one line per box: `class cx cy width height`, normalized by the image's sides.

Layouts: a `data.yaml` that names the folders of the splits and the classes; or `classes.txt` (`obj.names`) beside
`images/` and `labels/`, or beside images and text files in one folder. A line with the corners of a polygon instead
of a box, as for segmentation, is read as that mask and the box around it.
"""

import pathlib
import re

import numpy as np

from keras_detect import schema
from keras_detect.data import masks
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.image import is_image_name
from keras_detect.data.paths import FILE, FOLDER, DataPathError, files_below, is_file, kind_of, read_text
from keras_detect.data.reading import image_or_refuse
from keras_detect.data.record import DROPPED, KEPT, Defects, make_record
from keras_detect.data.splits import USUAL_NAMES, listed_splits, no_split, read_split
from keras_detect.data.writing import ImageFolder, as_dataset
from keras_detect.data.yaml_texts import read_yaml
from keras_detect.files import write_file
from keras_detect.messages import shown

_NAMES = ("classes.txt", "obj.names")
_SPLITS = ("train", "val", "test")
_MAX_CLASS = 99_999
_MAX_LIST, _MAX_LABELS = 512 * 2**20, 32 * 2**20  # bytes of a list of images, and of the boxes of one image


def holds(field):
    """Whether the format, as it is written, holds a per-object field."""
    return field.key in (schema.BOXES, schema.LABELS)


def recognizes(path):
    """Whether `path` is a `data.yaml`, or a folder with one or with a list of classes."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml")
    return _yaml(path) is not None or any(is_file(path / name) for name in _NAMES)


def read(path, split=None, class_names=None, defects=None):
    """Reads a YOLO data set; `keras_detect.load_dataset` documents the arguments and errors."""
    defects = Defects() if defects is None else defects
    yaml_file = path if path.is_file() else _yaml(path)
    root = path.parent if path.is_file() else path
    content = {} if yaml_file is None else places_and_names(yaml_file)
    stored = stored_names(root, content, yaml_file)
    if class_names is None and stored is None:
        raise ValueError(
            f"{root} names no classes. Expected: names in data.yaml, or classes.txt, or class_names=[...]."
        )
    names = list(class_names) if class_names is not None else stored
    positions = {name: label for label, name in enumerate(names)}
    # The numbers in the files follow the stored list; without one they are labels.
    labels = {number: positions.get(name) for number, name in enumerate(stored if stored is not None else names)}
    images = _images(root, content, split, yaml_file)
    if not images:
        raise ValueError(
            f"No images found in {root}. Expected: images/ and labels/, or the folders that data.yaml names."
        )
    records = [_record(file, labels, stored or names, defects) for file in images]
    _count_orphans(images, defects)
    return DetectionDataset([record for record in records if record is not None], names, split=split, defects=defects)


def write(dataset, folder, split=None):
    """Writes a data set as `images/<split>/`, `labels/<split>/` and `data.yaml`; without a split, the split is "train".

    YOLO holds boxes and classes; crowds become ordinary boxes, and nothing else is kept.

    Args:
        dataset: `DetectionDataset`, or any iterable of its examples with `class_names`.
        folder: where to; created if absent.
        split: name of the folders.

    Returns:
        Path of `data.yaml`.

    Raises:
        ValueError: a `data.yaml` with other classes is there already.
    """
    dataset, folder, split = as_dataset(dataset), pathlib.Path(folder), split or "train"
    yaml_file = folder / "data.yaml"
    splits = {split: f"images/{split}"}
    if yaml_file.is_file():
        before = places_and_names(yaml_file)
        if stored_names(folder, before, yaml_file) != dataset.class_names:
            raise ValueError(f"{yaml_file} lists other classes. Write into another folder.")
        splits = {key: before[key] for key in _SPLITS if isinstance(before.get(key), str)} | splits
    images = ImageFolder(folder / "images" / split)
    for record in dataset.records:
        stem = images.add(record).rsplit(".", 1)[0]
        write_file(folder / "labels" / split / f"{stem}.txt", _lines(record))
    lines = ["path: .", *(f"{key}: {place}" for key, place in splits.items())]
    lines += [f"nc: {len(dataset.class_names)}", "names:"]
    lines += [f"  {number}: {_quoted(name)}" for number, name in enumerate(dataset.class_names)]
    return write_file(yaml_file, "\n".join(lines) + "\n")


def _lines(record):
    boxes = record.boxes.astype(np.float64)
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    rows = zip(record.labels, centers, sizes, strict=True)
    return "".join(f"{label} {x:.9g} {y:.9g} {width:.9g} {height:.9g}\n" for label, (y, x), (height, width) in rows)


def _quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _yaml(folder):
    """The YAML file of a folder that names classes: `data.yaml`, else the only one that does."""
    files = [folder / "data.yaml"] if is_file(folder / "data.yaml") else sorted(folder.glob("*.y*ml"))
    files = [file for file in files if is_file(file)]
    files = [file for file in files if file.name == "data.yaml" or re.search(r"^names\s*:", _start(file), re.MULTILINE)]
    return files[0] if len(files) == 1 else None


def _start(file):
    with open(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(1_000_000)


def places_and_names(file):
    """The dict of a `data.yaml`, its places and names checked."""
    content = read_yaml(file)
    for key in (*_SPLITS, "valid", "path"):
        places = content.get(key)
        places = places if isinstance(places, list) else [places or ""]
        if not all(isinstance(place, str) for place in places):
            raise ValueError(f"{key} in {file} must be a folder, a file or a list of them. Received: {shown(places)}")
    return content


def stored_names(root, content, yaml_file):
    """The list of class names in the order of the numbers, or None."""
    names = content.get("names")
    texts = list(names.values()) if isinstance(names, dict) else names if isinstance(names, list) else []
    if not all(isinstance(name, str) for name in texts):
        raise ValueError(f"names in {yaml_file} must be one string per class. Received: {shown(names)}")
    if isinstance(names, dict):
        try:
            names = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            raise ValueError(f"names in {yaml_file} must have numbers before the names.") from None
        if min(names, default=0) < 0 or max(names, default=0) > _MAX_CLASS:
            raise ValueError(
                f"names in {yaml_file} must be numbers from 0 to {_MAX_CLASS}. Received: {shown(max(names))}"
            )
        return [names.get(number, f"class_{number}") for number in range(max(names, default=-1) + 1)]
    if isinstance(names, list):
        return list(names)
    for name in _NAMES:
        if kind_of(root / name) == FILE:
            lines = read_text(root / name, _MAX_LIST).splitlines()
            return [line.strip() for line in lines if line.strip()]
    return None


def splits(path):
    """The names that `read` takes as `split`."""
    yaml_file = path if path.is_file() else _yaml(path)
    root = path.parent if path.is_file() else path
    content = {} if yaml_file is None else places_and_names(yaml_file)
    named = [key for key in (*_SPLITS, "valid") if content.get(key)]
    if named:
        return named
    folders = [name for name in USUAL_NAMES if (root / "images" / name).is_dir() or (root / name / "images").is_dir()]
    return folders or listed_splits([root])


def _images(root, content, split, yaml_file):
    """Paths of the images of a split, or of all, in the order of their names."""
    named = {key: content[key] for key in (*_SPLITS, "valid") if content.get(key)}
    if named:
        if split is None:
            chosen = list(named.values())
        elif split in named or (split == "val" and "valid" in named):
            chosen = [named.get(split, named.get("valid"))]
        else:
            raise ValueError(no_split(yaml_file, split, named))
        places = [place for value in chosen for place in (value if isinstance(value, list) else [value])]
        base = root / str(content.get("path") or ".")
        files = [file for place in places for file in _at(place, [base, root], yaml_file)]
        return list(dict.fromkeys(files))
    folders = [root / "images", root] if split is None else [root / "images" / split, root / split / "images"]
    for folder in folders:
        files = files_below(folder, is_image_name) if kind_of(folder) == FOLDER else []
        if files:
            return files
    if split is None:
        return []
    names, listed = read_split([root], split)
    if names is None:
        raise ValueError(no_split(root, split, listed))
    wanted = {pathlib.PurePosixPath(name).stem for name in names}
    return [file for file in _images(root, {}, None, yaml_file) if file.stem in wanted]


def _at(place, bases, yaml_file):
    """The images that one entry of `data.yaml` means: a folder, or a text file that lists images."""
    # Some exports say "../train/images" where they mean "train/images".
    texts = [str(place), re.sub(r"^(\.\./)+", "", str(place))]
    candidates = [base / text for text in texts for base in bases]
    path = next((candidate for candidate in candidates if kind_of(candidate, yaml_file) is not None), None)
    if path is None:
        raise FileNotFoundError(
            f"{yaml_file} names {shown(place)}, which is neither under {bases[0]} nor under {bases[-1]}."
        )
    if kind_of(path) == FOLDER:
        return files_below(path, is_image_name)
    lines = [line.strip() for line in read_text(path, _MAX_LIST).splitlines() if line.strip()]
    return [path.parent / line for line in lines]


def _label_file(image):
    """Beside the image, or with the last folder `images` of its path called `labels`."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            return pathlib.Path(*parts).with_suffix(".txt")
    beside = image.parent / "labels" / f"{image.stem}.txt"
    return beside if is_file(beside) else image.with_suffix(".txt")


def _count_orphans(images, defects):
    """Counts label files without an image, be it one of another split."""
    places = {_label_file(image).parent: image.parent for image in images}
    beside = {place: set(place.iterdir()) for place in set(places.values()) if place.is_dir()}
    known = {image.stem for files in beside.values() for image in files if is_image_name(image.name)}
    known |= {image.stem for image in images}
    for folder in sorted(places):
        for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            box = is_file(file) and re.match(r"\s*\d+(\s+[-+.\deE]+){4}", _start(file))
            if box and file.stem not in known:
                defects.add(DROPPED, "annotations whose image is missing", file.name)


def _record(file, labels, names, defects):
    """The `Record` of an image, or None where it is refused."""
    image = image_or_refuse(file, None, defects, "named by the data set")
    if image is None:
        return None
    sides = np.array([image.height, image.width] * 2, np.float64)
    label_file = _label_file(file)
    rows = _rows(label_file, labels, names, defects)
    if rows is None:
        rows = []
        defects.add(KEPT, "images without annotation file, treated as empty", file.name)
    polygons = [polygon for _, _, polygon in rows]
    far = [polygon is not None and not np.abs(polygon).max() <= masks.FARTHEST for polygon in polygons]
    if any(far):
        defects.add(DROPPED, "masks that cannot be used", file.name, sum(far))
        polygons = [None if too_far else polygon for polygon, too_far in zip(polygons, far, strict=True)]
    with np.errstate(over="ignore"):  # a coordinate too large to be a number is dropped as one
        boxes = np.array([box for _, box, _ in rows], np.float64).reshape(-1, 4) * sides
    return make_record(
        image=image,
        file_name=file.name,
        image_id=file.stem,
        boxes_abs=boxes,
        labels=[label for label, _, _ in rows],
        defects=defects,
        masks=[_mask(polygon, image) for polygon in polygons] if any(p is not None for p in polygons) else None,
    )


def _mask(polygon, image):
    return None if polygon is None else ((polygon * [image.width, image.height]).reshape(-1),)


def _rows(file, labels, names, defects):
    """[(label, box normalized yxyx, polygon [n, 2] normalized xy or None)] of a file, None where there is none."""
    try:
        lines = read_text(file, _MAX_LABELS).splitlines()
    except FileNotFoundError:
        return None
    except DataPathError as error:
        defects.refuse("annotations that are not regular files", file.name, str(error), DataPathError)
        return []
    except UnicodeDecodeError:
        defects.refuse("unreadable annotations", file.name, f"{file} is not text. Write it again or remove it.")
        return []
    rows = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        place = f"{file}, line {number + 1}"
        try:
            values = [float(value) for value in line.split()]
            if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
                raise ValueError
            key = int(values[0])
            if key != values[0]:
                raise ValueError
        except (ValueError, OverflowError):
            message = f'{place} is not "class cx cy width height" or a polygon. Received: "{shown(line)}"'
            defects.refuse("lines that are not a box", file.name, message)
            continue
        if labels.get(key) is None:
            missing = key in labels
            what = f"class '{shown(names[key])}', which class_names lacks" if missing else f"class {shown(key)}"
            message = f"{place} has {what}. Known: 0...{len(names) - 1}. Correct the line or add the class."
            defects.refuse("unknown class ids", file.name, message)
            continue
        rows.append((labels[key], *_shape(values[1:])))
    return rows


def _shape(values):
    """`(box normalized yxyx, polygon or None)` of the numbers after the class."""
    if len(values) == 4:
        x, y, width, height = values
        return (y - height / 2, x - width / 2, y + height / 2, x + width / 2), None
    polygon = np.array(values, np.float64).reshape(-1, 2)
    (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
    return (top, left, bottom, right), polygon
