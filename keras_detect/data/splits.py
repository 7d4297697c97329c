"""Files that list the pictures of a split: `splits/<split>.txt` and VOC's `ImageSets/Main/<split>.txt`."""

import re

from keras_detect.data.paths import FILE, kind_of, read_text

_MAX_BYTES = 512 * 2**20
_PLACES = ("splits", "ImageSets/Main")


def read_split(roots, split):
    """The names listed for a split under the first of `roots` that has it.

    Returns:
        `(names, listed)`: the lines, stripped, or None if no file is named after the split; and the names of the
        splits that do exist, sorted.

    Raises:
        ValueError: the file lists nothing, or is no regular file.
    """
    listed = set()
    for root in roots:
        for place in _PLACES:
            file = root / place / f"{split}.txt"
            if kind_of(file) == FILE:
                names = [line.strip() for line in read_text(file, _MAX_BYTES).splitlines()]
                names = [name for name in names if name]
                if not names:
                    raise ValueError(f"The split file {file} is empty. Wanted: one picture's name a line.")
                return names, sorted(listed)
            if (root / place).is_dir():
                listed.update(path.stem for path in (root / place).glob("*.txt"))
    return None, sorted(listed)


def is_named_after(name, split):
    """Whether a word of a file's name is the split, as in `instances_train2017` or `pet_faces_train`."""
    words = re.split(r"[_\-. ]", name.lower())
    return any(re.fullmatch(rf"{re.escape(alias)}\d*", word) for alias in _aliases(split) for word in words)


def _aliases(split):
    return {split.lower()} | ({"valid", "validation"} if split.lower() == "val" else set())
