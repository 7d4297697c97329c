"""COCO's JSON of instances: finding the file and its pictures, reading it, writing it."""

import json
import pathlib
import re

import numpy as np

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.picture import find_picture
from keras_detect.data.record import Defects, make_record
from keras_detect.data.splits import read_split
from keras_detect.registry import unknown_name

# COCO's other annotation files, which hold no boxes of their own.
_OTHER_KINDS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")


def recognises(path):
    """Whether `path` is a COCO JSON file or a folder with one."""
    return path.suffix.lower() == ".json" if path.is_file() else bool(_candidates(path))


def read(path, split=None, class_names=None):
    """Reads a COCO file or folder; `keras_detect.load_dataset` documents the arguments and errors."""
    file, split_by_file = _choose(path, split)
    content = _parse(file)
    names, label_of = _classes(content, file, class_names)
    entries = _entries(content, file)
    if split is not None and not split_by_file:
        entries = _of_split(entries, split, file)
    if not entries:
        raise ValueError(f'No pictures are listed in {file}. Wanted: at least one entry in "images".')
    annotations = _by_image(content, file)
    folder = _picture_folder(file, split, entries)
    defects = Defects()
    records = [_record(entry, annotations.get(entry["id"], ()), folder, label_of, file, defects) for entry in entries]
    defects.report(str(path))
    return DetectionDataset(records, names, split=split)


def write_coco(dataset, folder, split=None):
    """Writes a data set as a COCO folder: `images/*.png` and `instances.json` (or `instances_<split>.json`).

    Args:
        dataset: `DetectionDataset`, or any iterable of its examples with `class_names`.
        folder: where to; created if absent.
        split: name put into the file name and into every image's `"split"`; pictures of different splits share
            `images/`, so give them different file names.

    Returns:
        Path of the JSON file.
    """
    from PIL import Image

    folder = pathlib.Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, example in enumerate(dataset):
        height, width = example["image"].shape[:2]
        name = f"{pathlib.Path(str(example['file_name'])).stem}.png"
        Image.fromarray(example["image"]).save(folder / "images" / name)
        entry = {"id": number + 1, "file_name": name, "height": height, "width": width}
        images.append(entry | ({"split": split} if split else {}))
        sides = np.array([height, width] * 2, np.float64)
        for row, box in enumerate(example["boxes"] * sides):
            ymin, xmin, ymax, xmax = (float(value) for value in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": int(example["labels"][row]) + 1,
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "area": float(example["areas"][row]) if "areas" in example else (xmax - xmin) * (ymax - ymin),
                    "iscrowd": int(example["is_crowd"][row]),
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(dataset.class_names)]
    file = folder / (f"instances_{split}.json" if split else "instances.json")
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def _candidates(folder):
    """JSON files that may hold instances: the likely names first, in the folder, then in `annotations/`."""
    found = []
    for place in (folder, folder / "annotations"):
        files = sorted(place.glob("*.json")) if place.is_dir() else []
        files += sorted(place.glob("*/_annotations.coco.json")) if place == folder else []
        likely = [file for file in files if file.name.startswith("instances") or file.name.endswith(".coco.json")]
        others = [file for file in files if not file.name.startswith(_OTHER_KINDS)]
        found = likely or [file for file in others if file not in likely and _has_instances(file)]
        if found:
            break
    return found


def _has_instances(file):
    """A cheap look at a JSON file of another name; a broken one is none of ours here."""
    try:
        content = json.loads(file.read_text())
    except (ValueError, OSError):
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
    raise ValueError(
        f"{path} holds several annotation files: {listed}. Received {received}. Name one split or one file."
    )


def _is_named_after(file, split):
    """`instances_train2017.json` and `train/_annotations.coco.json` are named after `train`."""
    words = re.split(r"[_\-. ]", file.stem.lower()) + ([file.parent.name.lower()] if file.name[0] == "_" else [])
    aliases = {split.lower()} | ({"valid", "validation"} if split.lower() == "val" else set())
    return any(re.fullmatch(rf"{re.escape(alias)}\d*", word) for alias in aliases for word in words)


def _parse(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not readable JSON ({error}). Export or download it again.") from None
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if not isinstance(content, dict) or missing:
        raise ValueError(f"A COCO file has images, annotations and categories. {file} lacks: {', '.join(missing)}.")
    return content


def _classes(content, file, class_names):
    """Class names in label order, and the label of each category id (None: not in `class_names`)."""
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'Each of "categories" in {file} needs an integer "id" and a "name".') from None
    names = list(class_names) if class_names is not None else [categories[key] for key in sorted(categories)]
    positions = {name: label for label, name in enumerate(names)}

    def label_of(annotation):
        key = annotation.get("category_id")
        if key not in categories:
            known = f"{min(categories)}...{max(categories)}" if categories else "none"
            raise ValueError(
                f'Annotation {annotation.get("id")} in {file} has category_id {key}, which "categories" does not '
                f"list (known: {known}). Correct the annotation or add the category."
            )
        if categories[key] not in positions:
            raise ValueError(
                f"Annotation {annotation.get('id')} in {file}: {unknown_name('class', categories[key], positions)} "
                "Add it to class_names."
            )
        return positions[categories[key]]

    return names, label_of


def _entries(content, file):
    seen = set()
    for entry in content["images"]:
        if "id" not in entry or "file_name" not in entry:
            raise ValueError(f'Each of "images" in {file} needs an "id" and a "file_name". Received: {entry}')
        if entry["id"] in seen:
            raise ValueError(f'Each of "images" in {file} needs its own id. Received id {entry["id"]} twice.')
        seen.add(entry["id"])
    return content["images"]


def _by_image(content, file):
    """`{image id: annotations}`; an annotation of a picture that is not listed is an error."""
    grouped = {entry["id"]: [] for entry in content["images"]}
    for annotation in content["annotations"]:
        owner = annotation.get("image_id")
        if owner not in grouped:
            raise ValueError(
                f'Annotation {annotation.get("id")} in {file} belongs to image_id {owner}, which "images" does not '
                "list. Remove the annotation or list the picture."
            )
        grouped[owner].append(annotation)
    return grouped


def _of_split(entries, split, file):
    """The entries of a split: by their own `"split"`, else by `splits/<split>.txt` beside the file."""
    known = sorted({str(entry["split"]) for entry in entries if "split" in entry})
    if split in known:
        return [entry for entry in entries if entry.get("split") == split]
    roots = [file.parent, file.parent.parent]
    names, listed = read_split(roots, split)
    if names is None:
        available = ", ".join(known or listed) or "none"
        raise ValueError(f"{file} has no split '{split}'. Available: {available}.")
    by_name = {entry["file_name"]: entry for entry in entries} | {_stem(entry["file_name"]): entry for entry in entries}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise ValueError(f"The split '{split}' lists {absent[0]}, which {file} does not ({len(absent)} such names).")
    return [by_name[name] for name in names]


def _stem(name):
    return pathlib.PurePosixPath(name).stem


def _picture_folder(file, split, entries):
    """Where the pictures lie: the first usual place that holds the first listed picture found anywhere."""
    here, above = file.parent, file.parent.parent
    words = [word for word in re.split(r"[_\-. ]", file.stem) if word and word != "instances"]
    inner = ["images", *words, *(f"images/{word}" for word in words)] + ([split] if split else [])
    places = [here, *(here / name for name in inner), above, *(above / name for name in inner)]
    for entry in entries[:20]:
        for place in places:
            if (place / entry["file_name"]).is_file():
                return place
    looked = ", ".join(str(place) for place in dict.fromkeys(places) if place.is_dir())
    raise FileNotFoundError(
        f"Picture not found: {entries[0]['file_name']}, listed in {file}. Looked in: {looked}. "
        "Put the pictures into images/ beside the annotations."
    )


def _record(entry, annotations, folder, label_of, file, defects):
    size = (entry.get("height"), entry.get("width"))
    size = size if all(isinstance(side, int | float) and side > 0 for side in size) else None
    picture = find_picture(str(folder / entry["file_name"]), annotated_size=size)
    boxes, labels, crowd, areas = [], [], [], []
    for annotation in annotations:
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(
                f'Annotation {annotation.get("id")} in {file} needs "bbox": [x, y, width, height] in pixels. '
                f"Received: {box}"
            )
        x, y, width, height = (float("nan") if value is None else float(value) for value in box)
        boxes.append((y, x, y + height, x + width))
        labels.append(label_of(annotation))
        crowd.append(bool(annotation.get("iscrowd", 0)))
        areas.append(annotation.get("area"))
    return make_record(
        picture=picture,
        file_name=entry["file_name"],
        image_id=entry["id"],
        boxes_abs=boxes,
        labels=labels,
        is_crowd=crowd,
        areas=None if any(area is None for area in areas) else areas,
        defects=defects,
    )
