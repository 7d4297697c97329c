"""The objects and per-image entries of many records as columns, one array per field of the tables in `schema`."""

import numpy as np

from keras_detect import schema


def object_columns(records, stored_frame):
    """`{key: [n, ...]}` of the n objects of all records, in the order of the records; no rasters.

    A field takes part where the records have it: a flag where one of them is set, a field without default where every
    record with objects has it, one that refers to the stored image where the images stay as stored.

    Args:
        records: list of `Record`.
        stored_frame: whether the images stay as stored (no augmentation).
    """
    columns = {}
    for field in schema.object_fields(schema.GROUND_TRUTH):
        skipped = field.moves == schema.AS_RASTER or (field.moves == schema.OF_STORED_IMAGE and not stored_frame)
        column = None if skipped else _object_column(records, field)
        if column is not None and (column.any() or field.dtype != "bool"):
            columns[field.key] = column
    return columns


def _object_column(records, field):
    values = [record.get(field.key) for record in records]
    given = [len(record.boxes) > 0 and rows is not None for record, rows in zip(records, values, strict=True)]
    if field.key in (schema.BOXES, schema.LABELS):
        return np.concatenate(values)
    if not any(given):
        return None
    if field.default is None and not all(
        rows_given or not len(record.boxes) for record, rows_given in zip(records, given, strict=True)
    ):
        return None
    shape = _largest([rows for rows, is_given in zip(values, given, strict=True) if is_given], 1, field.shape)
    default = field.padding if field.default is None else field.default
    parts = []
    for record, rows, is_given in zip(records, values, given, strict=True):
        part = np.full((len(record.boxes), *shape), default, field.dtype)
        if is_given:
            part[(slice(None), *(slice(side) for side in rows.shape[1:]))] = rows
        parts.append(part)
    return np.concatenate(parts)


def image_columns(records):
    """`{key: [number of records, ...]}` of the annotated per-image entries that at least one record has."""
    columns = {}
    for field in schema.image_fields():
        values = [record.entries.get(field.key) for record in records]
        given = [np.asarray(value, field.dtype) for value in values if value is not None]
        if not field.annotated or not given:
            continue
        column = np.full((len(records), *_largest(given, 0, field.shape)), field.padding, field.dtype)
        for row, value in enumerate(values):
            if value is not None:
                value = np.asarray(value, field.dtype)
                column[(row, *(slice(side) for side in value.shape))] = value
        columns[field.key] = column
    return columns


def _largest(arrays, first_axis, shape):
    """The inner shape that holds all arrays: an int of the field's shape stays, a letter is the largest."""
    return tuple(
        side if isinstance(side, int) else max(array.shape[first_axis + axis] for array in arrays)
        for axis, side in enumerate(shape)
    )
