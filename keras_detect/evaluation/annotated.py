"""Batches to evaluate on, with masks as annotated: pixels of the network's input would be another ground truth."""

import numpy as np

from keras_detect import schema
from keras_detect.data import masks


def evaluation_batches(model, data, batch_size):
    """Batches `(x, y)` of a `DetectionDataset`, or `data` itself where it is batches already.

    Of a data set with masks, for a model that learns masks, `y["masks"]` is [B, M] objects, each as annotated.
    """
    if not hasattr(data, "batches"):
        return data
    keys = [field.key for field in schema.object_fields(schema.GROUND_TRUTH) if field.moves == schema.AS_RASTER]
    wanted = getattr(model, "ground_truth_keys", ())
    keys = [key for key in keys if key in wanted and any(r.get(key) is not None for r in getattr(data, "records", ()))]
    if not keys:
        return data.batches(model, batch_size)
    return _Annotated(data.batches(model, batch_size, masks=False), data.records, keys)


class _Annotated:
    """Batches in the order of the records, whose rasters they have as annotated."""

    def __init__(self, batches, records, keys):
        self._batches, self._records, self._keys = batches, records, keys

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        first = 0
        for x, y in self._batches:
            count, rows = (int(side) for side in y[schema.LABELS].shape)
            records = self._records[first : first + count]
            yield x, {**y, **{key: _rows(records, key, rows) for key in self._keys}}
            first += count


def _rows(records, key, rows):
    """[B, M] objects: the masks of each record, None in padding."""
    found = np.full((len(records), rows), None, object)
    for image, record in enumerate(records):
        for row, mask in enumerate((record.get(key) or ())[:rows]):
            found[image, row] = mask
    return found


def without_padding(x, y):
    """`y` whose rasters, where they are pixels of padded images, are run lengths of the true images.

    Args:
        x: images [B, H, W, 3], or a dict of them with the shapes that they have on their canvas; numpy arrays.
        y: ground truth of the batch.
    """
    shapes = x.get(schema.RESIZED_IMAGE_SHAPES, x.get(schema.TRUE_IMAGE_SHAPES)) if isinstance(x, dict) else None
    found = dict(y)
    for field in schema.object_fields(schema.GROUND_TRUTH):
        raster = y.get(field.key)
        if field.moves != schema.AS_RASTER or raster is None or len(raster.shape) != 4:
            continue
        raster = np.asarray(raster)
        canvas = (x[schema.IMAGES] if isinstance(x, dict) else x).shape[1:3]
        if raster.shape[2:] != canvas or shapes is None:
            continue
        found[field.key] = np.full(raster.shape[:2], None, object)
        for image, row in zip(*np.nonzero(raster.any(axis=(2, 3))), strict=True):
            height, width = (int(side) for side in shapes[image][:2])
            found[field.key][image, row] = masks.encode(raster[image, row, :height, :width])
    return found
