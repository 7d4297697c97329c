"""One annotated picture, and the cleaning every reader applies to the boxes it found."""

import dataclasses

import numpy as np
from absl import logging

# A coordinate may lie this far outside the picture, in pixels, before the clipping is reported: COCO's boxes are
# rounded to 0.01 pixel.
_ROUNDING = 0.1
_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """An annotated picture whose pixels are not decoded yet.

    Attributes:
        picture: `FilePicture` or `ArrayPicture`.
        file_name: its name in the annotation, unique in a data set.
        image_id: the annotation's own id (int or str).
        boxes: [n, 4] float32, normalised yxyx, inside the picture, with an area.
        labels: [n] int32.
        is_crowd: [n] bool.
        areas: [n] float32, the annotated area in pixels, where the annotation has it (COCO: the mask's), else None.
        weights: [n] float32 or None.
    """

    picture: object
    file_name: str
    image_id: object
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray | None = None
    weights: np.ndarray | None = None


class Defects:
    """Counts what a reader had to repair, and says it in one warning."""

    def __init__(self):
        self._names = {}

    def add(self, kind, file_name, count=1):
        """Counts `count` defects of a kind in a file."""
        self._names.setdefault(kind, []).extend([file_name] * count)

    def counts(self):
        """`{kind: number of defects}`."""
        return {kind: len(names) for kind, names in self._names.items()}

    def report(self, source):
        """Logs one warning with the counts and the first file names; silent when there is nothing to say."""
        parts = []
        for kind, names in self._names.items():
            first = list(dict.fromkeys(names))
            more = ", ..." if len(first) > _NAMES_SHOWN else ""
            parts.append(f"{kind}: {len(names)} ({', '.join(map(str, first[:_NAMES_SHOWN]))}{more})")
        if parts:
            logging.warning("%s: %s", source, "; ".join(parts))


def make_record(picture, file_name, image_id, boxes_abs, labels, is_crowd=None, areas=None, weights=None, defects=None):
    """A `Record` from pixel boxes, clipped to the picture; boxes without an area or with NaN are dropped and counted.

    Args:
        picture: `FilePicture` or `ArrayPicture`.
        file_name: its name in the annotation.
        image_id: the annotation's id.
        boxes_abs: [n, 4] yxyx in pixels of the picture.
        labels: [n] int.
        is_crowd: [n] bool, default all False.
        areas: [n] areas in pixels, or None.
        weights: [n] or None.
        defects: the `Defects` that counts what was repaired.
    """
    boxes_abs = np.asarray(boxes_abs, np.float64).reshape(-1, 4)
    count = len(boxes_abs)
    sides = np.array([picture.height, picture.width] * 2, np.float64)
    finite = np.isfinite(boxes_abs).all(axis=1)
    clipped = np.clip(np.where(finite[:, None], boxes_abs, 0.0), 0.0, sides)
    boxes = (clipped / sides).astype(np.float32)
    has_area = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    keep = finite & has_area
    if defects is not None:
        moved = (np.abs(clipped - boxes_abs) > _ROUNDING).any(axis=1) & keep
        for kind, where in (
            ("dropped boxes with a coordinate that is no number", ~finite),
            ("dropped boxes without area inside the picture", finite & ~has_area),
            ("clipped boxes that left the picture", moved),
        ):
            if where.any():
                defects.add(kind, file_name, int(where.sum()))
    crowd = np.zeros(count, bool) if is_crowd is None else np.asarray(is_crowd, bool)
    return Record(
        picture=picture,
        file_name=file_name,
        image_id=image_id,
        boxes=boxes[keep],
        labels=np.asarray(labels, np.int32).reshape(-1)[keep],
        is_crowd=crowd.reshape(-1)[keep],
        areas=None if areas is None else np.asarray(areas, np.float32).reshape(-1)[keep],
        weights=None if weights is None else np.asarray(weights, np.float32).reshape(-1)[keep],
    )
