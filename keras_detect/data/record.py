"""One annotated image, the cleaning every reader applies to the boxes it found, and the count of what was wrong."""

import dataclasses

import numpy as np
from absl import logging

from keras_detect import schema
from keras_detect.data import masks as instance_masks
from keras_detect.messages import one_line, shown

# A coordinate may lie this far outside the image, in pixels, before the clipping is reported: COCO's boxes are
# rounded to 0.01 pixel.
_ROUNDING = 0.1
_NAMES_SHOWN = 3
_PLACE_LENGTH = 200

# What happens to a defect, the worst first; training starts unless something is refused.
REFUSED, DROPPED, REPAIRED, KEPT = "refused", "dropped", "repaired", "kept"
ACTIONS = (REFUSED, DROPPED, REPAIRED, KEPT)


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """An annotated image whose pixels are not decoded yet.

    Attributes:
        image: `FileImage`, `ArrayImage` or `RecordImage`.
        file_name: its name in the annotation, unique in a data set.
        image_id: the annotation's own id (int or str).
        objects: `{key: [n, ...]}`, arrays as the rows of `schema.object_fields` say; boxes lie inside the image and
            have an area. `"boxes"`, `"labels"` and `"is_crowd"` are always there, others where the annotation has them.
            Rasters are a tuple of n masks as annotated (see `data/masks.py`; None for an object without).
        entries: `{key: array}` of the annotated rows of `schema.image_fields` that the image has.
    """

    image: object
    file_name: str
    image_id: object
    objects: dict
    entries: dict = dataclasses.field(default_factory=dict)

    @property
    def boxes(self):
        """[n, 4] float32, normalized yxyx."""
        return self.objects[schema.BOXES]

    @property
    def labels(self):
        """[n] int32."""
        return self.objects[schema.LABELS]

    @property
    def is_crowd(self):
        """[n] bool."""
        return self.objects[schema.IS_CROWD]

    def get(self, key):
        """The values of the n objects under a key of `schema.object_fields`, None where they are not annotated."""
        return self.objects.get(key)

    @property
    def size(self):
        """`(height, width)` of the image in pixels."""
        return self.image.height, self.image.width

    def read_raster(self, key=schema.MASKS):
        """uint8 [n, H, W], all 0 for an object without a mask. Raises `ValueError` naming the image."""
        try:
            return instance_masks.stack(self.get(key) or (None,) * len(self.boxes), self.size)
        except ValueError as error:
            raise ValueError(f"{shown(self.file_name, 200)}: {error}") from None


def raster_keys():
    """Keys of the per-object fields that are kept as masks until their pixels are asked for."""
    return [field.key for field in schema.object_fields(schema.GROUND_TRUTH) if field.moves == schema.AS_RASTER]


def join_values(field, values):
    """What an annotation says about each object of an image -> the values of `make_record`.

    Args:
        field: row of `schema.object_fields`.
        values: n values, None where the annotation is silent.

    Returns:
        [n, ...] array (rasters: tuple), gaps filled with the field's default and axes with a letter to the largest;
        None where nothing is said, or where something is missing that has no default.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    if field.moves == schema.AS_RASTER:
        return tuple(values)
    if field.default is None and len(known) < len(values):
        return None
    known = [np.asarray(value, field.dtype) for value in known]
    shape = tuple(max(array.shape[axis] for array in known) for axis in range(len(field.shape)))
    joined = np.full((len(values), *shape), field.padding if field.default is None else field.default, field.dtype)
    arrays = iter(known)
    for row, value in enumerate(values):
        if value is not None:
            array = next(arrays)
            joined[(row, *(slice(side) for side in array.shape))] = array
    return joined


class Defects:
    """Counts what is wrong with a data set and what was done about it.

    Args:
        collect: False: the first thing that cannot be used raises, as loading needs it. True: it is counted like the
            rest and skipped, as `check` needs it.
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

    def merge_split(self, other):
        """Takes the counts of another split of the same folder in, but for the places that are counted already."""
        for key, places in other._places.items():
            known = self._places.setdefault(key, [])
            seen = {*known}
            known.extend(place for place in places if place not in seen)

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


def make_record(image, file_name, image_id, boxes_abs, labels, defects=None, entries=None, **rows):
    """A `Record` from pixel boxes, clipped to the image.

    Dropped and counted: boxes with NaN, reversed or without an area, boxes outside the image, boxes whose weight is
    negative or no number.

    Args:
        image: `FileImage`, `ArrayImage` or `RecordImage`.
        file_name: its name in the annotation.
        image_id: the annotation's id.
        boxes_abs: [n, 4] yxyx in pixels of the image.
        labels: [n] int.
        defects: the `Defects` that counts what was repaired.
        entries: annotated per-image entries, see `Record`.
        **rows: further per-object fields (`schema.object_fields`), n values each, or None.
    """
    defects = Defects() if defects is None else defects
    boxes_abs = np.asarray(boxes_abs, np.float64).reshape(-1, 4)
    count = len(boxes_abs)
    sides = np.array([image.height, image.width] * 2, np.float64)
    finite = np.isfinite(boxes_abs).all(axis=1)
    known = np.where(finite[:, None], boxes_abs, 0.0)
    clipped = np.clip(known, 0.0, sides)
    boxes = (clipped / sides).astype(np.float32)
    has_area = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    reversed_ = finite & (known[:, 2:] < known[:, :2]).any(axis=1)
    flat = finite & ~reversed_ & (known[:, 2:] == known[:, :2]).any(axis=1)
    weights = rows.get(schema.WEIGHTS)
    weights = None if weights is None else np.asarray(weights, np.float32).reshape(-1)
    light = np.zeros(count, bool) if weights is None else ~(np.isfinite(weights) & (weights >= 0))
    keep = finite & has_area & ~light
    moved = (np.abs(clipped - known) > _ROUNDING).any(axis=1) & keep
    for action, kind, where in (
        (DROPPED, "boxes with a coordinate that is not a number", ~finite),
        (DROPPED, "reversed boxes", reversed_),
        (DROPPED, "boxes of zero area", flat),
        (DROPPED, "boxes outside the image", finite & ~has_area & ~reversed_ & ~flat),
        (DROPPED, "boxes with a weight that is not a number >= 0", light & finite & has_area),
        (REPAIRED, "boxes that extend beyond the image, clipped", moved),
    ):
        if where.any():
            defects.add(action, kind, file_name, int(where.sum()))
    objects = {schema.BOXES: boxes[keep], schema.LABELS: np.asarray(labels, np.int32).reshape(-1)[keep]}
    objects[schema.IS_CROWD] = np.zeros(int(keep.sum()), bool)
    objects |= _kept(rows, keep)
    areas = objects.get(schema.AREAS)
    if areas is not None and (wrong := ~(np.isfinite(areas) & (areas >= 0))).any():
        defects.add(
            REPAIRED, "areas that are not a number >= 0, replaced by the area of the box", file_name, int(wrong.sum())
        )
        objects[schema.AREAS] = np.where(wrong, box_areas(clipped[keep]), areas).astype(np.float32)
    return Record(image, file_name, image_id, objects, dict(entries or {}))


def _kept(rows, keep):
    """`{key: values}` of the rows kept, in the table's dtypes and shapes, and the visibility of points without one."""
    fields = {field.key: field for field in schema.object_fields(schema.GROUND_TRUTH)}
    kept = {}
    for key, values in rows.items():
        if values is None:
            continue
        field = fields[key]
        if field.moves == schema.AS_RASTER:
            kept[key] = tuple(mask for mask, wanted in zip(values, keep, strict=True) if wanted)
            continue
        values = np.asarray(values, field.dtype)
        if values.ndim != 1 + len(field.shape):
            if not len(keep) and field.shape:
                continue  # no object, so nothing says how large an axis with a letter is
            values = values.reshape(len(keep), *field.shape)
        kept[key] = values[keep]
    for field in fields.values():
        if field.visibility is not None and field.key in kept and field.visibility not in kept:
            seen = np.isfinite(kept[field.key]).all(axis=-1)
            kept[field.visibility] = np.where(seen, 2, 0).astype(fields[field.visibility].dtype)
    return {key: kept[key] for key in fields if key in kept}


def box_areas(boxes):
    """[n] areas of [n, 4] yxyx boxes, in their own units."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
