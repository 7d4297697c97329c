"""What the readers share: opening a listed image, finding it by its name, reading true and false."""

import numbers

from keras_detect.data.image import ImageError, find_image, is_image_name
from keras_detect.data.paths import DataPathError
from keras_detect.messages import shown

_FLAGS = dict.fromkeys(("1", "true", "yes"), True) | dict.fromkeys(("0", "false", "no", "", "-1"), False)


def image_or_refuse(path, annotated_size, defects, where):
    """The `FileImage` at a path; None where it is refused and all defects are collected.

    Args:
        path: the file.
        annotated_size: `(height, width)` in pixels or None, see `find_image`.
        defects: `Defects`.
        where: words for the error of a missing file, such as "listed in a.json".

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or of another size.
    """
    try:
        return find_image(str(path), annotated_size=annotated_size)
    except FileNotFoundError:
        message = f"Image not found: {shown(path.name, 200)}, {where}. Looked in: {shown(path.parent, 400)}."
        defects.refuse("annotations whose image is missing", path.name, message, FileNotFoundError)
    except ValueError as error:
        kind = "annotated sizes that differ from the file" if "were drawn on" in str(error) else "unreadable images"
        known = (ImageError, DataPathError, ValueError)
        defects.refuse(kind, path.name, str(error), next(kind for kind in known if isinstance(error, kind)))
    return None


def index_images(folders):
    """`{file name or stem: path}` of the images in folders; a file's own name goes before the stem of another."""
    files = [file for folder in folders for file in sorted(folder.iterdir()) if is_image_name(file.name)]
    return {file.stem: file for file in files} | {file.name: file for file in files}


def label_finder(class_names):
    """A function from a class name as it is in a file to its label, or None.

    Spaces around a name count where they tell two classes apart and do not matter otherwise.
    """
    exact = {name: label for label, name in enumerate(class_names)}
    stripped = {name.strip(): label for name, label in exact.items()}
    if len(stripped) < len(exact):
        stripped = exact

    def label_of(text):
        return exact.get(text, exact.get(text.strip(), stripped.get(text.strip())))

    return label_of


def flag(value):
    """What an annotation means by a value of "iscrowd", "difficult" and the like, which some write as text.

    True: true, 1, "1", "true", "yes". False: false, 0, "0", "false", "no", nothing at all, and -1, by which Open Images
    means "not known". Letters' case and a fraction of zero ("1.0") do not matter.

    Raises:
        ValueError: anything else, such as 2.
    """
    if value is None:
        return False
    if isinstance(value, numbers.Real) and value in (-1, 0, 1):
        return bool(value == 1)
    if isinstance(value, str):
        text = value[:20].strip().lower().removesuffix(".0")
        if len(value) <= 20 and text in _FLAGS:
            return _FLAGS[text]
    raise ValueError(f"neither true nor false: {shown(value)}")
