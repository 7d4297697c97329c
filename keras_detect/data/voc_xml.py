"""Pascal VOC's XML, one file a picture."""

import xml.etree.ElementTree as ElementTree

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.picture import find_picture, is_picture_name
from keras_detect.data.record import Defects, make_record
from keras_detect.data.splits import read_split
from keras_detect.registry import unknown_name

_ANNOTATIONS = ("Annotations", "annotations")
_PICTURES = ("JPEGImages", "images", "Images")


def recognises(path):
    """Whether `path` is a folder with VOC's annotations."""
    return path.is_dir() and _annotation_folder(path) is not None


def read(path, split=None, class_names=None):
    """Reads a VOC folder; `keras_detect.load_dataset` documents the arguments and errors."""
    folder = _annotation_folder(path)
    stems = sorted(file.stem for file in folder.glob("*.xml"))
    wanted = _of_split(path, split, folder, stems)
    parsed = {stem: _parse(folder / f"{stem}.xml") for stem in (wanted if class_names is not None else stems)}
    names = list(class_names) if class_names is not None else _names(parsed, folder)
    labels = {name: label for label, name in enumerate(names)}
    pictures = _index_pictures(path, folder)
    defects = Defects()
    records = [_record(folder / f"{stem}.xml", parsed[stem], pictures, labels, defects) for stem in wanted]
    defects.report(str(path))
    return DetectionDataset(records, names, split=split)


def _annotation_folder(path):
    for name in _ANNOTATIONS:
        if any((path / name).glob("*.xml")):
            return path / name
    return path if any(path.glob("*.xml")) else None


def _of_split(path, split, folder, stems):
    """Stems of the XML files of a split, in the order of its list."""
    if split is None:
        return stems
    names, listed = read_split([path], split)
    if names is None:
        available = ", ".join(listed) or "none"
        raise ValueError(f"{path} has no split '{split}' (ImageSets/Main/{split}.txt). Available: {available}.")
    known = set(stems)
    wanted = []
    for name in names:
        # A line is an id, an id and a flag (VOC's lists per class), or a file name.
        choices = [name, name.rsplit(".", 1)[0], name.split()[0]]
        stem = next((choice for choice in choices if choice in known), None)
        if stem is None:
            raise FileNotFoundError(f"The split '{split}' lists {name}, and {folder} has no XML file of that name.")
        wanted.append(stem)
    return wanted


def _parse(file):
    """The parts of an annotation that are used: file name, size or None, and (class, corners) per object."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is not readable XML ({error}). Export it again or remove it.") from None
    try:
        size = (int(float(root.findtext("size/height", "0"))), int(float(root.findtext("size/width", "0"))))
        objects = []
        for item in root.iter("object"):
            corners = [item.findtext(f"bndbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")]
            name = item.findtext("name")
            if name is None or None in corners:
                raise ValueError("an object lacks its name or a corner of its bndbox")
            objects.append((name.strip(), tuple(float(corner) for corner in corners)))
    except ValueError as error:
        raise ValueError(f"{file} is not a Pascal VOC annotation ({error}). Correct it or remove it.") from None
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rsplit("/", 1)[-1]
    return name, size if min(size) > 0 else None, objects


def _names(parsed, folder):
    names = sorted({name for _, _, objects in parsed.values() for name, _ in objects})
    if not names:
        raise ValueError(f"No object is annotated in {folder}. Pass class_names to read a set of empty pictures.")
    return names


def _index_pictures(path, folder):
    """`{file name or stem: path}` of the pictures; a file's own name goes before the stem of another."""
    places = [path / name for name in _PICTURES if (path / name).is_dir()] or [folder, path]
    files = [file for place in places for file in sorted(place.iterdir()) if is_picture_name(file.name)]
    if not files:
        looked = ", ".join(str(place) for place in places)
        raise FileNotFoundError(f"No pictures found in {looked}. Wanted: {path / _PICTURES[0]} with the pictures.")
    return {file.stem: file for file in files} | {file.name: file for file in files}


def _record(file, parsed, pictures, labels, defects):
    name, size, objects = parsed
    found = pictures.get(name) or pictures.get(file.stem)
    if found is None:
        raise FileNotFoundError(f"Picture not found: {name or file.stem}, annotated in {file}.")
    for class_name, _ in objects:
        if class_name not in labels:
            raise ValueError(f"{file}: {unknown_name('class', class_name, labels)} Add it to class_names.")
    return make_record(
        picture=find_picture(str(found), annotated_size=size),
        file_name=found.name,
        image_id=file.stem,
        boxes_abs=[corners for _, corners in objects],
        labels=[labels[class_name] for class_name, _ in objects],
        defects=defects,
    )
