"""What `detect` returns for one image."""

import importlib
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.data.pasting import THRESHOLD, paste
from keras_detect.export.errors import MissingPackageError

CLASS_NAMES = "class_names"
_PLACED = (schema.BOXES, schema.SCORES, schema.LABELS, schema.MASKS, schema.TRACK_IDS)


class Detections(dict):
    """The detections of one image: a dict of numpy arrays, best first, and the size of the image.

    Its entries are `"boxes" [n, 4]` float32 (normalized yxyx), `"scores" [n]` float32, `"labels" [n]` int32,
    `"class_names"` (a list of n strings, `None` if the model has no class names) and every further per-object field of
    `schema` that the model outputs, such as `"masks" [n, h, w]` over the boxes (`keras_detect.masks.paste`).

    Attributes:
        image_size: `(height, width)` of the image in pixels.
    """

    image_size: tuple[int, int]

    def __init__(self, fields: dict[str, Any], image_size: tuple[int, int]):
        super().__init__(fields)
        self.image_size = (int(image_size[0]), int(image_size[1]))

    def to_supervision(self) -> Any:
        """The detections as `supervision.Detections`, for its annotators, trackers and zones.

        Returns:
            `xyxy` [n, 4] float32 in pixels of the image, `confidence`, `class_id`, `mask` [n, H, W] bool and
            `tracker_id` where there are such fields; `data["class_name"]` (a label without a name: its number), and in
            `data` every further field as it is here.

        Raises:
            MissingPackageError: supervision is not installed.
        """
        supervision = _imported("supervision")
        mask = self.get(schema.MASKS)
        tracks = self.get(schema.TRACK_IDS)
        data = {key: self[key] for key in self._further_fields()}
        return supervision.Detections(
            xyxy=self._corners(),
            confidence=self[schema.SCORES].astype(np.float32),
            class_id=self[schema.LABELS].astype(int),
            mask=paste(mask, self[schema.BOXES], self.image_size) > 0 if mask is not None and len(mask) else None,
            tracker_id=None if tracks is None else tracks.astype(int),
            data={"class_name": np.asarray(self._names(), dtype=str), **data},
        )

    def to_fiftyone(self) -> Any:
        """The detections as `fiftyone.Detections`, for a field of a sample.

        Returns:
            A `fiftyone.Detection` each: `label` (without a name: its number), `bounding_box` (x, y, width and height,
            normalized), `confidence`, `index` (the track's) and `mask` (bool, of the box) where there are such fields,
            and every further field as an attribute.

        Raises:
            MissingPackageError: FiftyOne is not installed.
        """
        fiftyone = _imported("fiftyone")
        return fiftyone.Detections(
            detections=[self._fiftyone(fiftyone, row) for row in range(len(self[schema.LABELS]))]
        )

    def _fiftyone(self, fiftyone, row):
        ymin, xmin, ymax, xmax = (float(value) for value in self[schema.BOXES][row])
        more = {key: self[key][row].tolist() for key in self._further_fields()}
        if schema.TRACK_IDS in self:
            more["index"] = int(self[schema.TRACK_IDS][row])
        if schema.MASKS in self:
            more["mask"] = self[schema.MASKS][row] >= THRESHOLD
        return fiftyone.Detection(
            label=self._names()[row],
            bounding_box=[xmin, ymin, xmax - xmin, ymax - ymin],
            confidence=float(self[schema.SCORES][row]),
            **more,
        )

    def _names(self):
        names = self[CLASS_NAMES]
        return [str(int(label)) for label in self[schema.LABELS]] if names is None else list(names)

    def _corners(self):
        """`[n, 4]` float32: x and y of the box's corners, in pixels."""
        height, width = self.image_size
        return self[schema.BOXES][:, [1, 0, 3, 2]].astype(np.float32) * np.float32([width, height, width, height])

    def _further_fields(self):
        """Keys of the fields that the other packages have no place of their own for."""
        return [
            field.key
            for field in schema.object_fields(schema.DETECTIONS)
            if field.key in self and field.key not in _PLACED
        ]


def detections_of(
    detector, batch: dict[str, np.ndarray], row: int, score_threshold: float, image_size: tuple[int, int]
) -> Detections:
    """The detections of one image of a batch, without padding rows.

    Args:
        detector: whose `class_names` name the labels.
        batch: detections of the batch (`schema`), numpy arrays `[B, D, ...]`; boxes are normalized yxyx.
        row: which image of the batch.
        score_threshold: detections below it are skipped.
        image_size: `(height, width)` of the image in pixels.
    """
    count = int(batch[schema.NUM_DETECTIONS][row])
    keep = batch[schema.SCORES][row, :count] >= score_threshold
    fields = {
        field.key: batch[field.key][row, :count][keep]
        for field in schema.object_fields(schema.DETECTIONS)
        if field.key in batch
    }
    return named(fields, detector.class_names, image_size)


def named(fields: dict[str, Any], class_names: Any, image_size: tuple[int, int]) -> Detections:
    """`Detections` of per-object fields, with the class name of each label."""
    names = None if class_names is None else [class_names[label] for label in fields[schema.LABELS]]
    return Detections({**fields, CLASS_NAMES: names}, image_size)


def _imported(package):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"to_{package}() needs {package}, which cannot be imported ({error}). Install the extra: "
            f"pip install 'keras-detect[{package}]'."
        ) from None
