"""`load_dataset`: finds out the format of annotated pictures on disk and reads them."""

import pathlib

from keras_detect.data import coco_json, voc_xml
from keras_detect.data.picture import is_picture_name

_READERS = {"coco": coco_json, "voc": voc_xml}


def load_dataset(path, split=None, class_names=None, format=None):
    """Reads annotated pictures from disk and finds the format out.

    COCO: a `.json` file, or a folder with `instances*.json` (also under `annotations/`). Pascal VOC: a folder with
    `Annotations/*.xml` (or `annotations/`) and `JPEGImages/` (or `images/`). A folder with both is read as COCO.
    VOC's corners are taken as they stand, `xmin / width`, without the shift by one of VOC's 1-based pixels: today's
    labelling tools write 0-based corners.

    Boxes are clipped to their picture; boxes without area are dropped; one warning counts both. A picture without
    objects is kept.

    Args:
        path: the file or folder.
        split: name of a part ("train", "val"...), as in `splits/<split>.txt`, `ImageSets/Main/<split>.txt`,
            `instances_<split>*.json` or the `"split"` of a COCO image; None reads everything.
        class_names: the names in label order, None to take the annotation's (COCO: by category id; VOC: sorted, over
            all splits).
        format: "coco" or "voc", None to find out.

    Returns:
        `DetectionDataset`.

    Raises:
        FileNotFoundError: no such path, or a picture is missing.
        ValueError: nothing annotated is found, an unreadable annotation or picture, an unknown split or class.
    """
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}. Give the folder with the pictures and annotations.")
    if format is not None and format not in _READERS:
        raise ValueError(f"format is one of {', '.join(_READERS)}, or None to find out. Received: format={format!r}")
    names = [format] if format else list(_READERS)
    for name in names:
        if _READERS[name].recognises(path):
            dataset = _READERS[name].read(path, split=split, class_names=class_names)
            dataset.defects.report(str(path))
            return dataset
    raise ValueError(_nothing_found(path))


def _nothing_found(path):
    wanted = (
        "Wanted: COCO (a .json file, or a folder with instances*.json) or Pascal VOC (a folder with Annotations/*.xml "
        "and JPEGImages/)."
    )
    if path.is_file():
        return f"{path} is not a file of annotations. {wanted}"
    entries = sorted(entry.name for entry in path.iterdir())
    if not entries:
        return f"The folder {path} is empty. {wanted}"
    pictures = sum(is_picture_name(name) for name in entries)
    if pictures:
        return f"{path} holds {pictures} pictures and no annotations. {wanted}"
    shown = ", ".join(entries[:5]) + (", ..." if len(entries) > 5 else "")
    return f"No annotations found in {path} (it holds: {shown}). {wanted}"
