"""One annotated picture, the cleaning every reader applies to the boxes it found, and the count of what was wrong."""

import dataclasses

import numpy as np
from absl import logging

from keras_detect.data import masks as instance_masks

# A coordinate may lie this far outside the picture, in pixels, before the clipping is reported: COCO's boxes are
# rounded to 0.01 pixel.
_ROUNDING = 0.1
_NAMES_SHOWN = 3
_MESSAGE_LENGTH, _PLACE_LENGTH = 1200, 200

# What happens to a defect, the worst first; training starts unless something is refused.
REFUSED, DROPPED, REPAIRED, KEPT = "refused", "dropped", "repaired", "kept"
ACTIONS = (REFUSED, DROPPED, REPAIRED, KEPT)


# Entries of a record and of an example that not every data set has, one row a box; masks are decoded apart.
OPTIONAL_ROWS = ("areas", "weights", "is_difficult", "is_group_of", "keypoints", "keypoint_visibility")


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """An annotated picture whose pixels are not decoded yet.

    Attributes:
        picture: `FilePicture`, `ArrayPicture` or `RecordPicture`.
        file_name: its name in the annotation, unique in a data set.
        image_id: the annotation's own id (int or str).
        boxes: [n, 4] float32, normalised yxyx, inside the picture, with an area.
        labels: [n] int32.
        is_crowd: [n] bool.
        areas: [n] float32, the annotated area in pixels, where the annotation has it (COCO: the mask's), else None.
        weights: [n] float32 or None.
        is_difficult: [n] bool or None: hard to see, as Pascal VOC marks it.
        is_group_of: [n] bool or None: a box around several objects, as Open Images marks it.
        masks: tuple of n masks as annotated (see `keras_detect.data.masks`; None for an object without), or None.
        keypoints: [n, N, 2] float32, normalised (y, x), NaN where a point is not annotated, or None.
        keypoint_visibility: [n, N] int32 as in COCO, 0 not annotated, 1 hidden, 2 visible, or None.
    """

    picture: object
    file_name: str
    image_id: object
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray | None = None
    weights: np.ndarray | None = None
    is_difficult: np.ndarray | None = None
    is_group_of: np.ndarray | None = None
    masks: tuple | None = None
    keypoints: np.ndarray | None = None
    keypoint_visibility: np.ndarray | None = None

    def visibility(self):
        """int32 [n, N], of records with keypoints: as annotated, else 2 where a point has a place."""
        if self.keypoint_visibility is not None:
            return self.keypoint_visibility
        return np.where(np.isfinite(self.keypoints).all(axis=-1), 2, 0).astype(np.int32)

    def read_masks(self):
        """uint8 [n, H, W], all 0 for an object without a mask. Raises `ValueError` naming the picture."""
        try:
            masks = self.masks or (None,) * len(self.boxes)
            return instance_masks.stack(masks, (self.picture.height, self.picture.width))
        except ValueError as error:
            raise ValueError(f"{self.file_name}: {error}") from None


def one_line(text, length=_MESSAGE_LENGTH):
    """A text as one line that can be printed, without its middle where it is too long."""
    text = " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= length else f"{text[: 2 * length // 3]} ... {text[-length // 4 :]}"


class Defects:
    """Counts what is wrong with a data set and what was done about it.

    Args:
        collect: False: the first thing that cannot be used raises, as loading wants it. True: it is counted like the
            rest and left out, as `check` wants it.
    """

    def __init__(self, collect=False):
        self.collect = collect
        self._places = {}

    def add(self, action, kind, place, count=1):
        """Counts `count` defects of a kind at a place (a file name); `action` is one of `ACTIONS`."""
        self._places.setdefault((action, kind), []).extend([one_line(place, _PLACE_LENGTH)] * count)

    def refuse(self, kind, place, message, error=ValueError):
        """Raises `error(message)`, or counts the defect where all are collected."""
        if not self.collect:
            raise error(one_line(message))
        self.add(REFUSED, kind, place)

    def merge(self, other):
        """Takes the counts of another `Defects` in."""
        for (action, kind), places in other._places.items():
            self._places.setdefault((action, kind), []).extend(places)

    def rows(self):
        """[(action, kind, count, places)], the worst action first; places are different names in the order found."""
        rows = [(action, kind, len(places), tuple(dict.fromkeys(places))) for (action, kind), places in self]
        return sorted(rows, key=lambda row: ACTIONS.index(row[0]))

    def counts(self):
        """`{kind: number of defects}`."""
        return {kind: len(places) for (_, kind), places in self}

    def __iter__(self):
        return iter(self._places.items())

    def summary(self):
        """One line with what was repaired, dropped or refused and the first file names; "" if nothing was."""
        parts = []
        for action, kind, count, places in self.rows():
            if action != KEPT:
                more = ", ..." if len(places) > _NAMES_SHOWN else ""
                parts.append(f"{action} {kind}: {count} ({', '.join(places[:_NAMES_SHOWN])}{more})")
        return "; ".join(parts)

    def report(self, source):
        """Logs the summary as one warning; silent when there is nothing to say."""
        summary = self.summary()
        if summary:
            logging.warning("%s: %s", source, summary)


def make_record(picture, file_name, image_id, boxes_abs, labels, defects=None, is_crowd=None, **rows):
    """A `Record` from pixel boxes, clipped to the picture.

    Dropped and counted: boxes with NaN, reversed or without an area, boxes outside the picture, boxes whose weight is
    negative or no number.

    Args:
        picture: `FilePicture`, `ArrayPicture` or `RecordPicture`.
        file_name: its name in the annotation.
        image_id: the annotation's id.
        boxes_abs: [n, 4] yxyx in pixels of the picture.
        labels: [n] int.
        defects: the `Defects` that counts what was repaired.
        is_crowd: [n] bool, default all False.
        **rows: further entries of `Record`, [n] each, or None.
    """
    defects = Defects() if defects is None else defects
    boxes_abs = np.asarray(boxes_abs, np.float64).reshape(-1, 4)
    count = len(boxes_abs)
    sides = np.array([picture.height, picture.width] * 2, np.float64)
    finite = np.isfinite(boxes_abs).all(axis=1)
    known = np.where(finite[:, None], boxes_abs, 0.0)
    clipped = np.clip(known, 0.0, sides)
    boxes = (clipped / sides).astype(np.float32)
    has_area = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    reversed_ = finite & (known[:, 2:] < known[:, :2]).any(axis=1)
    flat = finite & ~reversed_ & (known[:, 2:] == known[:, :2]).any(axis=1)
    weights = None if rows.get("weights") is None else np.asarray(rows["weights"], np.float32).reshape(-1)
    light = np.zeros(count, bool) if weights is None else ~(np.isfinite(weights) & (weights >= 0))
    keep = finite & has_area & ~light
    moved = (np.abs(clipped - known) > _ROUNDING).any(axis=1) & keep
    for action, kind, where in (
        (DROPPED, "boxes with a coordinate that is no number", ~finite),
        (DROPPED, "reversed boxes", reversed_),
        (DROPPED, "boxes of zero area", flat),
        (DROPPED, "boxes outside the picture", finite & ~has_area & ~reversed_ & ~flat),
        (DROPPED, "boxes with a weight that is no number from 0", light & finite & has_area),
        (REPAIRED, "boxes that left the picture, clipped", moved),
    ):
        if where.any():
            defects.add(action, kind, file_name, int(where.sum()))
    kept = {name: _kept(name, values, keep) for name, values in rows.items() if values is not None}
    if "areas" in kept and (wrong := ~(np.isfinite(kept["areas"]) & (kept["areas"] >= 0))).any():
        defects.add(REPAIRED, "areas that are no number from 0, replaced by the box's", file_name, int(wrong.sum()))
        kept["areas"] = np.where(wrong, box_areas(clipped[keep]), kept["areas"]).astype(np.float32)
    return Record(
        picture=picture,
        file_name=file_name,
        image_id=image_id,
        boxes=boxes[keep],
        labels=np.asarray(labels, np.int32).reshape(-1)[keep],
        is_crowd=np.zeros(int(keep.sum()), bool) if is_crowd is None else _kept("is_crowd", is_crowd, keep),
        **kept,
    )


def box_areas(boxes):
    """[n] areas of [n, 4] yxyx boxes, in their own units."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


_DTYPES = {
    "is_crowd": bool,
    "areas": np.float32,
    "weights": np.float32,
    "is_difficult": bool,
    "is_group_of": bool,
    "keypoints": np.float32,
    "keypoint_visibility": np.int32,
}


def _kept(name, values, keep):
    """The values of the rows kept; masks stay a tuple."""
    if name == "masks":
        return tuple(mask for mask, wanted in zip(values, keep, strict=True) if wanted)
    values = np.asarray(values, _DTYPES[name])
    return (values if name.startswith("keypoint") else values.reshape(-1))[keep]
