"""Pascal VOC's XML, one file per image."""

import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np

from keras_detect import schema
from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.label_map import find_label_map, read_label_map, write_label_map
from keras_detect.data.paths import DataPathError, read_bytes
from keras_detect.data.reading import flag, image_or_refuse, index_images, label_finder
from keras_detect.data.record import DROPPED, KEPT, Defects, make_record
from keras_detect.data.splits import listed_splits, no_split, read_split
from keras_detect.data.writing import ImageFolder, as_dataset
from keras_detect.files import write_file
from keras_detect.messages import one_line, shown
from keras_detect.registry import unknown_name

_ANNOTATIONS = ("Annotations", "annotations")
_IMAGES = ("JPEGImages", "images", "Images")
_MAX_BYTES = 32 * 2**20  # of the annotation of one image


def holds(field):
    """Whether the format holds a per-object field."""
    return field.key in (schema.BOXES, schema.LABELS, schema.IS_DIFFICULT)


def recognizes(path):
    """Whether `path` is a folder with VOC's annotations."""
    return path.is_dir() and _annotation_folder(path) is not None


def read(path, split=None, class_names=None, defects=None):
    """Reads a VOC folder; `keras_detect.load_dataset` documents the arguments and errors."""
    defects = Defects() if defects is None else defects
    folder = _annotation_folder(path)
    stems = sorted(file.stem for file in folder.glob("*.xml"))
    wanted = _of_split(path, split, folder, stems)
    label_map = None if class_names is not None else find_label_map([path])
    if label_map is not None:
        class_names = read_label_map(label_map).class_names
    parsed = {stem: _parse(folder / f"{stem}.xml", defects) for stem in (wanted if class_names is not None else stems)}
    names = list(class_names) if class_names is not None else _names(parsed, folder)
    label_of = label_finder(names)
    images = _index_images(path, folder)
    records = [
        _record(folder / f"{stem}.xml", parsed[stem], images, names, label_of, defects)
        for stem in wanted
        if parsed[stem]
    ]
    if defects.collect:
        _note_unlisted(stems, parsed, images, defects)
    return DetectionDataset([record for record in records if record is not None], names, split=split, defects=defects)


def write(dataset, folder, split=None):
    """Writes a data set as a VOC folder: `Annotations/`, `JPEGImages/`, and `label_map.json` with the class names.

    VOC holds boxes, classes and `difficult`. Crowds are written as difficult, and nothing else is kept.

    Args:
        dataset: `DetectionDataset`, or any iterable of its examples with `class_names`.
        folder: where to; created if absent.
        split: name of the list in `ImageSets/Main/`, or None for no list.

    Returns:
        The folder.
    """
    dataset, folder = as_dataset(dataset), pathlib.Path(folder)
    images = ImageFolder(folder / "JPEGImages")
    names = [images.add(record) for record in dataset.records]  # all of them first: a broken one leaves no annotation
    stems = [name.rsplit(".", 1)[0] for name in names]
    for record, name, stem in zip(dataset.records, names, stems, strict=True):
        write_file(folder / "Annotations" / f"{stem}.xml", _xml(record, name, dataset.class_names))
    if split:
        write_file(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))
    write_label_map(folder / "label_map.json", dataset.class_names)
    return folder


def _xml(record, name, class_names):
    height, width = record.image.height, record.image.width
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    difficult = record.get(schema.IS_DIFFICULT)
    hard = record.is_crowd if difficult is None else record.is_crowd | difficult
    for row, box in enumerate(record.boxes * np.array([height, width] * 2, np.float64)):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = class_names[record.labels[row]]
        ElementTree.SubElement(item, "difficult").text = str(int(hard[row]))
        corners = ElementTree.SubElement(item, "bndbox")
        ymin, xmin, ymax, xmax = box.tolist()
        for key, value in (("xmin", xmin), ("ymin", ymin), ("xmax", xmax), ("ymax", ymax)):
            ElementTree.SubElement(corners, key).text = f"{value:.10g}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _annotation_folder(path):
    for name in _ANNOTATIONS:
        if any((path / name).glob("*.xml")):
            return path / name
    return path if any(path.glob("*.xml")) else None


def splits(path):
    """The names that `read` takes as `split`."""
    return listed_splits([path])


def _of_split(path, split, folder, stems):
    """Stems of the XML files of a split, in the order of its list."""
    if split is None:
        return stems
    names, listed = read_split([path], split)
    if names is None:
        raise ValueError(no_split(path, split, listed, f" (ImageSets/Main/{split}.txt)"))
    known = set(stems)
    wanted = []
    for name in names:
        # A line is an id, an id and a flag (VOC's lists per class), or a file name.
        choices = [name, name.rsplit(".", 1)[0], name.split()[0]]
        stem = next((choice for choice in choices if choice in known), None)
        if stem is None:
            raise FileNotFoundError(
                f"The split '{split}' lists {shown(name)}, and {folder} has no XML file of that name."
            )
        wanted.append(stem)
    return wanted


def _parse(file, defects):
    """The parts of an annotation that are used: file name, size or None, and (class, corners, difficult) per object.

    None where the file is refused and all defects are collected.
    """
    try:
        content, odd = _content(ElementTree.fromstring(read_bytes(file, _MAX_BYTES)))
        if odd:
            defects.add(DROPPED, 'values of "difficult" that are neither true nor false', file.name, odd)
        return content
    except DataPathError as error:
        defects.refuse("annotations that are not regular files", file.name, str(error), DataPathError)
    except (ElementTree.ParseError, UnicodeDecodeError, LookupError) as error:
        message = f"{file} is not readable XML ({one_line(error, 200)}). Export it again or remove it."
        defects.refuse("unreadable annotations", file.name, message)
    except (ValueError, OverflowError) as error:
        message = f"{file} is not a Pascal VOC annotation ({one_line(error, 200)}). Correct it or remove it."
        defects.refuse("annotations that are not Pascal VOC", file.name, message)
    return None


def _content(root):
    size = (int(float(root.findtext("size/height", "0"))), int(float(root.findtext("size/width", "0"))))
    objects, odd = [], 0
    for item in root.iter("object"):
        corners = [item.findtext(f"bndbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")]
        name = item.findtext("name")
        if name is None or None in corners:
            raise ValueError("an object lacks its name or a corner of its bndbox")
        try:
            difficult = flag(item.findtext("difficult"))
        except ValueError:
            odd += 1
            difficult = False
        objects.append((name, tuple(float(corner) for corner in corners), difficult))
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rsplit("/", 1)[-1]
    return (name, size if min(size) > 0 else None, objects), odd


def _names(parsed, folder):
    names = sorted({name.strip() for content in parsed.values() if content for name, _, _ in content[2]})
    if not names:
        raise ValueError(f"No object is annotated in {folder}. Pass class_names to read a set of empty images.")
    return names


def _index_images(path, folder):
    places = [path / name for name in _IMAGES if (path / name).is_dir()] or [folder, path]
    found = index_images(places)
    if not found:
        looked = ", ".join(str(place) for place in places)
        raise FileNotFoundError(f"No images found in {looked}. Expected: {path / _IMAGES[0]} with the images.")
    return found


def _note_unlisted(stems, parsed, images, defects):
    """Counts images without an annotation, be it one of another split."""
    used = {images.get(stem) for stem in stems} - {None}
    used |= {images.get(content[0]) or images.get(stem) for stem, content in parsed.items() if content}
    for file in sorted(set(images.values()) - used):
        defects.add(KEPT, "images without annotation, skipped", file.name)


def _record(file, parsed, images, names, label_of, defects):
    """The `Record` of an annotation, or None where it is refused."""
    name, size, objects = parsed
    found = images.get(name) or images.get(file.stem)
    if found is None:
        message = f"Image not found: {shown(name or file.stem, 200)}, annotated in {file}."
        defects.refuse("annotations whose image is missing", file.name, message, FileNotFoundError)
        return None
    for class_name, _, _ in objects:
        if label_of(class_name) is None:
            message = f"{file}: {unknown_name('class', class_name.strip(), names)} Add it to class_names, or rename it."
            defects.refuse("unknown class names", file.name, message)
    objects = [entry for entry in objects if label_of(entry[0]) is not None]
    image = image_or_refuse(found, size, defects, f"annotated in {file}")
    if image is None:
        return None
    return make_record(
        image=image,
        file_name=found.name,
        image_id=file.stem,
        boxes_abs=[corners for _, corners, _ in objects],
        labels=[label_of(class_name) for class_name, _, _ in objects],
        is_difficult=[difficult for _, _, difficult in objects],
        defects=defects,
    )
