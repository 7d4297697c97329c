"""Detections as COCO's results file lists them, with the ids of an annotation file or of the order of files."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data.pasting import to_rle
from keras_detect.inference.detections import Detections
from keras_detect.messages import shown

_LISTED = 5  # names in one message


class COCOIds:
    """The ids of images and categories.

    Args:
        paths: the image files.
        class_names: of the model, or `None`.
        annotations: a COCO annotation file: images have the ids of their file names, and classes those of the
            categories of their names. `None`: images are numbered from 1 in the order of `paths`, and categories are
            labels + 1.

    Raises:
        FileNotFoundError: no such annotation file.
        ValueError: not a COCO annotation file; an image or a class that it does not have.
    """

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        class_names: Sequence[str] | None,
        annotations: str | os.PathLike | None = None,
    ):
        self._categories: dict[int, int] | None = None
        if annotations is None:
            self._images = {path: number for number, path in enumerate(paths, start=1)}
            return
        content = _read(annotations)
        self._images = _image_ids(content["images"], paths, annotations)
        self._categories = _category_ids(content["categories"], class_names, annotations)

    def image(self, path: pathlib.Path) -> Any:
        """The id of an image file."""
        return self._images[path]

    def category(self, label: int) -> int:
        """The id of a class."""
        return label + 1 if self._categories is None else self._categories[label]


def coco_results(found: Detections, image_id: Any, category_id: Callable[[int], int]) -> list[dict[str, Any]]:
    """The entries of one image in COCO's results file.

    Args:
        found: the detections in the image.
        image_id: its id.
        category_id: gives the id of a label.

    Returns:
        A dict per detection: `"image_id"`, `"category_id"`, `"bbox"` (x, y, width and height in pixels), `"score"`, and
        with masks `"segmentation"` (COCO's run lengths), with keypoints `"keypoints"` (x, y in pixels and 1, or three
        zeros for a point that the object has not).
    """
    height, width = found.image_size
    corners = found[schema.BOXES].astype(np.float64) * [height, width, height, width]
    masks = found.get(schema.MASKS)
    runs = None if masks is None else to_rle(masks, found[schema.BOXES], found.image_size)
    entries = []
    for row, (ymin, xmin, ymax, xmax) in enumerate(corners.tolist()):
        box = [round(value, 2) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]
        entry = {
            "image_id": image_id,
            "category_id": category_id(int(found[schema.LABELS][row])),
            "bbox": box,
            "score": round(float(found[schema.SCORES][row]), 5),
        }
        if runs is not None:
            entry["segmentation"] = runs[row]
        if schema.KEYPOINTS in found:
            entry["keypoints"] = _points(found, row)
        entries.append(entry)
    return entries


def _points(found, row):
    """`[x, y, 1, ...]` of one object's keypoints, zeros for those without a score."""
    points = np.nan_to_num(found[schema.KEYPOINTS][row].astype(np.float64)) * np.asarray(found.image_size)
    seen = np.ones(len(points)) if schema.KEYPOINT_SCORES not in found else found[schema.KEYPOINT_SCORES][row] > 0
    table = np.stack([points[:, 1], points[:, 0], np.ones(len(points))], axis=1) * np.reshape(seen, (-1, 1))
    return [value for x, y, shown in table.tolist() for value in (round(x, 2), round(y, 2), int(shown))]


def _read(file):
    path = pathlib.Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"No such annotation file: {shown(path, 400)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for image in content["images"]:
            image["id"], str(image["file_name"])
        for category in content["categories"]:
            int(category["id"]), str(category["name"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f'{shown(path, 400)} is not a COCO annotation file. Expected JSON with "images" (id, file_name) and '
            f'"categories" (id, name). Received: {type(error).__name__} {shown(error)}'
        ) from None
    return content


def _image_ids(images, paths, file):
    """`{path: id}`: an image's file name is the end of its path, or its last part where only one image has it."""
    by_name = {pathlib.PurePosixPath(image["file_name"]).as_posix(): image["id"] for image in images}
    by_last: dict[str, list] = {}
    for name, number in by_name.items():
        by_last.setdefault(name.rpartition("/")[2], []).append(number)
    ids, unknown = {}, []
    for path in paths:
        parts = path.absolute().parts[1:]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        name = next((end for end in ends if end in by_name), None)
        same = by_last.get(path.name, [])
        if name is not None:
            ids[path] = by_name[name]
        elif len(same) == 1:
            ids[path] = same[0]
        else:
            unknown.append(path)
    if unknown:
        raise ValueError(
            f"{shown(file, 400)} has no id, or several, for {_listed(unknown)}. Pass the images that it annotates."
        )
    return ids


def _category_ids(categories, class_names, file):
    """`{label: id}`."""
    known = {str(category["name"]): int(category["id"]) for category in categories}
    if class_names is None:
        raise ValueError(
            f"The categories of {shown(file, 400)} are found by the names of the classes, and the model has none. "
            "Leave the annotation file out: categories are then labels + 1."
        )
    missing = [name for name in class_names if name not in known]
    if missing:
        raise ValueError(
            f"{shown(file, 400)} has no category for {_listed(missing)}. Received categories: {_listed(list(known))}."
        )
    return {label: known[name] for label, name in enumerate(class_names)}


def _listed(names):
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown(name) for name in names[:_LISTED]) + more
