"""Parts of a data set: what lists them (`splits/<split>.txt`, VOC's `ImageSets/Main/<split>.txt`), names, or chance."""

import re
from typing import Any

import numpy as np

from keras_detect.data.paths import FILE, kind_of, read_text
from keras_detect.messages import shown

_MAX_BYTES = 512 * 2**20
_PLACES = ("splits", "ImageSets/Main")
#: names of splits by what they are for, the usual one first
USUAL = {
    "train": ("train", "training", "trainval"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
USUAL_NAMES = tuple(name for names in USUAL.values() for name in names)


class UnnamedSplitError(ValueError):
    """A folder has an annotation file per split, and no split was named.

    Attributes:
        splits: their names; () where a file is named after no usual split, or two after the same.
    """

    def __init__(self, message: str, splits=()):
        super().__init__(message)
        self.splits = tuple(splits)


def one_each(files, is_named) -> tuple[str, ...]:
    """The usual splits that files are named after, one each and in their usual order; () where that is not so.

    Args:
        files: the files.
        is_named: `(file, split) -> bool`.
    """
    found = [next((name for name in USUAL_NAMES if is_named(file, name)), "") for file in files]
    return tuple(sorted(found, key=USUAL_NAMES.index)) if all(found) and len({*found}) == len(found) else ()


def no_split(place, split, known, listed_in=""):
    """Error text for data without a split of this name; `listed_in` says in parentheses where it would be listed."""
    available = f"Available: {shown(', '.join(known), 400)}." if known else "It has no splits: leave the split out."
    return f"{place} has no split '{split}'{listed_in}. {available}"


def read_split(roots, split):
    """The names listed for a split under the first of `roots` that has it.

    Returns:
        `(names, listed)`: the lines, stripped, or None if no file is named after the split; and the names of the
        splits that do exist, sorted.

    Raises:
        ValueError: the file lists nothing, or is not a regular file.
    """
    listed = set()
    for root in roots:
        for place in _PLACES:
            file = root / place / f"{split}.txt"
            if kind_of(file) == FILE:
                names = [line.strip() for line in read_text(file, _MAX_BYTES).splitlines()]
                names = [name for name in names if name]
                if not names:
                    raise ValueError(f"The split file {file} is empty. Expected: one image name per line.")
                return names, sorted(listed)
            if (root / place).is_dir():
                listed.update(path.stem for path in (root / place).glob("*.txt"))
    return None, sorted(listed)


def is_named_after(name, split):
    """Whether a word of a file's name is the split, as in `instances_train2017` or `pet_faces_train`."""
    words = re.split(r"[_\-. ]", name.lower())
    return any(re.fullmatch(rf"{re.escape(alias)}\d*", word) for alias in _aliases(split) for word in words)


def _aliases(split):
    return {split.lower()} | (set(USUAL["validation"]) if split.lower() == "val" else set())


def listed_splits(roots) -> list[str]:
    """The splits that files under the first of `roots` with some list, sorted."""
    for root in roots:
        listed = {path.stem for place in _PLACES if (root / place).is_dir() for path in (root / place).glob("*.txt")}
        if listed:
            return sorted(listed)
    return []


def named_splits(names) -> list[str]:
    """The usual splits that files of these names (without endings) are named after."""
    usual = [split for split, *_ in USUAL.values()]
    return [split for split in usual if any(is_named_after(name, split) for name in names)]


def split_for(purpose: str, splits) -> str | None:
    """The split for "train", "validation" or "test" among `splits`, None if none has a usual name."""
    return next((name for name in USUAL[purpose] if name in splits), None)


def random_split(dataset: Any, fraction: float, seed: int = 0) -> tuple[Any, Any]:
    """Two data sets: all but a random part of the images, and that part.

    Args:
        dataset: a `DetectionDataset` of two or more images.
        fraction: of the images in the part, in (0, 1); rounded, and at least one image in each.
        seed: int, 0 or more; it and the number of images decide which ones.

    Returns:
        `(rest, part)`, both in the order of `dataset`.

    Raises:
        ValueError: a fraction outside (0, 1), or fewer than two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1). Received: fraction={fraction!r}")
    count = len(dataset)
    if count < 2:
        raise ValueError(
            f"A data set of {count} image cannot be split. Give images for validation, or a fraction of 0."
        )
    held = min(max(round(count * fraction), 1), count - 1)
    chosen = set(np.random.default_rng(seed).permutation(count)[:held].tolist())
    rest, part = ([i for i in range(count) if (i in chosen) is inside] for inside in (False, True))
    return dataset.subset(rest), dataset.subset(part)
