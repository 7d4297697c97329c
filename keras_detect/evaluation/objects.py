"""Objects of many images as columns: what every metric reads of ground truth and of detections."""

import numpy as np

from keras_detect import schema
from keras_detect.data import masks, pasting


class Objects:
    """Ground truth or detections of many images, in the order of the images.

    The columns that metrics use most are attributes too: `boxes` [n, 4] float32 normalized yxyx, `labels` [n] int,
    `scores` [n] float32, `areas` [n] float32 in pixels (NaN where not annotated), `is_crowd`, `is_difficult`,
    `is_group_of` [n] bool.

    Args:
        image: [n] int, number of the image.
        columns: `{key: [n, ...]}`, rows of `schema.object_fields`; of rasters [n] objects: COCO's run lengths, None for
            none.
    """

    def __init__(self, image, columns):
        self.image = image
        self.columns = columns

    def __len__(self):
        return len(self.image)

    def __contains__(self, key):
        return key in self.columns

    def __getitem__(self, key):
        """The column of a field; its default (NaN where it has none) where nothing was said about it."""
        if key not in self.columns:
            field = next(field for field in schema.object_fields() if field.key == key)
            self.columns[key] = _empty_rows(field, len(self), field.shape)
        return self.columns[key]

    boxes = property(lambda self: self[schema.BOXES])
    labels = property(lambda self: self[schema.LABELS])
    scores = property(lambda self: self[schema.SCORES])
    areas = property(lambda self: self[schema.AREAS])
    is_crowd = property(lambda self: self[schema.IS_CROWD])
    is_difficult = property(lambda self: self[schema.IS_DIFFICULT])
    is_group_of = property(lambda self: self[schema.IS_GROUP_OF])

    def where(self, keep):
        """The objects of a boolean mask or of rising indices."""
        return Objects(self.image[keep], {key: column[keep] for key, column in self.columns.items()})


def objects_of(entries, occurs, keep, first_image, raster_sizes=None):
    """The `Objects` of a batch.

    Args:
        entries: dict of arrays [B, n, ...], as y or detections have them.
        occurs: `schema.GROUND_TRUTH` or `schema.DETECTIONS`.
        keep: [B, n] bool, the rows that are objects.
        first_image: number of the batch's first image.
        raster_sizes: [B, 2] int, height and width of each image's rasters, where detections or annotated masks have
            some; None where they are not known.

    Raises:
        ValueError: a field whose rows are not those of `keep`, or rasters without known sizes.
    """
    columns = {}
    for field in schema.object_fields(occurs):
        values = entries.get(field.key)
        if values is None:
            continue
        if values.shape[:2] != keep.shape:
            raise ValueError(
                f"{field.key} need one row per object: [{keep.shape[0]}, {keep.shape[1]}, ...]. "
                f"Received: {list(values.shape)}"
            )
        if field.moves == schema.AS_RASTER:
            columns[field.key] = _run_lengths(field, values, keep, entries[schema.BOXES], occurs, raster_sizes)
        else:
            # numpy counts with int64; in a batch labels are int32
            dtype = np.int64 if field.key == schema.LABELS else field.dtype
            columns[field.key] = values[keep].astype(dtype)
    return Objects(np.nonzero(keep)[0] + first_image, columns)


def joined(parts):
    """The `Objects` of several batches as one."""
    image = np.concatenate([np.zeros(0, np.int64), *(part.image for part in parts)])
    columns = {}
    for field in schema.object_fields():
        given = [part.columns[field.key] for part in parts if field.key in part.columns]
        if not given:
            continue
        shape = tuple(max(column.shape[axis] for column in given) for axis in range(1, given[0].ndim))
        pieces = []
        for part in parts:
            piece = _empty_rows(field, len(part), shape)
            if field.key in part.columns:
                own = part.columns[field.key]
                if own.shape[1:] == shape:
                    piece = own
                else:
                    piece[(slice(None), *(slice(side) for side in own.shape[1:]))] = own
            pieces.append(piece)
        columns[field.key] = np.concatenate(pieces)
    if schema.BOXES not in columns:  # nothing was added
        columns |= {schema.BOXES: np.zeros((0, 4), np.float32), schema.LABELS: np.zeros(0, np.int64)}
    return Objects(image, columns)


def _empty_rows(field, count, shape):
    if field.moves == schema.AS_RASTER:
        return np.full(count, None, object)
    default = field.default
    if default is None:
        default = np.nan if np.dtype(field.dtype).kind == "f" else field.padding
    return np.full((count, *(side if isinstance(side, int) else 0 for side in shape)), default, field.dtype)


def _run_lengths(field, values, keep, boxes, occurs, sizes):
    """[n] objects: the rasters of the rows that are objects, as run lengths; None for an object without one.

    `values` are pixels of the image [B, n, H, W] (ground truth), pixels of the boxes [B, n, h, w] (detections), or
    masks as annotated [B, n] (ground truth, objects).
    """
    found = np.full(int(keep.sum()), None, object)
    annotated, placed = values.dtype == object, occurs == schema.DETECTIONS
    if (annotated or placed) and not (sizes is not None and np.all(sizes)) and len(found):
        raise ValueError(
            f"The {field.key} of detections need the images' sizes in pixels. Received y without "
            f'"{schema.IMAGE_SIZE}" and no image_sizes. Pass image_sizes [B, 2] (height, width).'
        )
    first = 0
    for image in range(len(values)):
        rows = np.flatnonzero(keep[image])
        if placed:
            own = pasting.to_rle(values[image, rows], boxes[image, rows], sizes[image]) if len(rows) else []
        elif annotated:
            own = [masks.run_lengths(values[image, row], sizes[image]) for row in rows]
        else:
            own = [masks.encode(plane) if plane.any() else None for plane in values[image, rows] >= 0.5]
        for number, runs in enumerate(own, start=first):
            found[number] = runs
        first += len(rows)
    return found
