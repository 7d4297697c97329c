"""Ground truth and detections of many images, collected once for several metrics.

One `Collected` can serve several evaluators, so that a report over ten thousand images keeps them once.
"""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_detect import schema
from keras_detect.evaluation.keypoints import checked_sigmas
from keras_detect.evaluation.objects import joined, objects_of


class Collected:
    """Collects ground truth and detections batch by batch, without the images.

    A detection with box, label and score takes 36 bytes, a true object up to 39; masks are kept as run lengths, and
    every other row of `schema.object_fields` that comes along as it is.

    Args:
        class_names: the K class names.
        keypoint_sigmas: N deviations of COCO's object keypoint similarity, as shares of the square root of an object's
            area; default: COCO's for 17 keypoints, else 0.05 for each.

    Raises:
        ValueError: no class names, or deviations that are not positive.
    """

    def __init__(self, class_names: Sequence[str], keypoint_sigmas: Sequence[float] | None = None):
        self.keypoint_sigmas = checked_sigmas(keypoint_sigmas)
        self.class_names = list(schema.check_class_names(class_names))
        if not self.class_names:
            raise ValueError("Detection metrics need the class names. Received an empty list.")
        self.reset()

    def reset(self) -> None:
        """Forgets every image."""
        self.count = 0
        self.version = object()  # another one after every change
        self._ground_truth: list[Any] = []
        self._found: list[Any] = []
        self._sizes: list[Any] = []
        self._verified: list[Any] = []

    def update(self, ground_truth: dict[str, Any], detections: dict[str, Any], image_sizes: Any = None) -> None:
        """Adds a batch of images; nothing of it is kept where it is refused.

        Args:
            ground_truth: `y`: `"boxes"` [B, M, 4] normalized yxyx, `"labels"` [B, M] (rows below 0 are padding);
                optional every other row of `schema.object_fields` [B, M, ...], such as `"is_crowd"`, `"masks"` and
                `"areas"` in pixels (COCO: the mask's area; default: the box's); `"image_size"` [B, 2]. `"masks"` are
                pixels [B, M, H, W] of whole images, or [B, M] masks as annotated (`keras_detect.masks.decode`), of an
                object without one None or empty.
                `"verified_labels"` [B, V] int, padded with -1: classes checked for in the whole image (Open Images).
            detections: `"boxes"` [B, D, 4] normalized yxyx, `"scores"` [B, D], `"labels"` [B, D], optional every other
                row of the table and `"num_detections"` [B]. Rows past it or with a label below 0 do not count.
                `"masks"` [B, D, h, w] over the boxes are compared at the size of the true masks, else of the image.
            image_sizes: [B, 2] height and width in pixels; default: `ground_truth["image_size"]`.

        Raises:
            ValueError: other batch sizes or row counts, a label that no class name has, a box or score that is not
                finite.
        """
        ground_truth, detections = _arrays(ground_truth), _arrays(detections)
        labels = ground_truth[schema.LABELS] if schema.LABELS in ground_truth else ground_truth[schema.CLASSES]
        sizes = ground_truth.get(schema.IMAGE_SIZE) if image_sizes is None else to_host(image_sizes)
        count = len(labels)
        if len(detections[schema.SCORES]) != count or (sizes is not None and len(sizes) != count):
            raise ValueError(
                "Ground truth, detections and image sizes must cover the same images. Received: "
                f"{count} of ground truth, {len(detections[schema.SCORES])} of detections, "
                f"{'no' if sizes is None else len(sizes)} sizes"
            )
        rasters = _raster_sizes(ground_truth, sizes)
        true_rows = self._ground_truth_of(ground_truth, labels, rasters)
        found_rows = self._found_of(detections, rasters)
        self._ground_truth.append(true_rows)
        self._found.append(found_rows)
        sizes = np.zeros((count, 2)) if sizes is None else np.asarray(sizes).reshape(count, -1)[:, :2]
        self._sizes.append(sizes.astype(np.int64))
        verified = ground_truth.get(schema.VERIFIED_LABELS)
        self._verified.append(None if verified is None else verified.astype(np.int64).reshape(count, -1))
        self.count += count
        self.version = object()

    def _ground_truth_of(self, ground_truth, labels, raster_sizes):
        """The rows of a batch that are objects."""
        _check_rows("ground truth", ground_truth[schema.BOXES], labels)
        entries = ground_truth | {schema.LABELS: labels}
        rows = objects_of(entries, schema.GROUND_TRUTH, labels >= 0, self.count, raster_sizes)
        self._check(rows, "ground truth")
        return rows

    def _found_of(self, detections, raster_sizes):
        """The rows of a batch that are detections."""
        scores, labels = detections[schema.SCORES], detections[schema.LABELS]
        _check_rows("detections", detections[schema.BOXES], labels)
        _check_rows("detections", detections[schema.BOXES], scores, "scores")
        keep = labels >= 0
        if schema.NUM_DETECTIONS in detections:
            keep &= np.arange(labels.shape[1]) < np.reshape(detections[schema.NUM_DETECTIONS], (-1, 1))
        rows = objects_of(detections, schema.DETECTIONS, keep, self.count, raster_sizes)
        self._check(rows, "detections")
        _check_finite(rows.scores, rows.image - self.count, "score", "detections")
        return rows

    def _check(self, rows, what):
        labels = rows.labels
        if len(labels) and labels.max() >= len(self.class_names):
            raise ValueError(
                f"Labels must be in [0, {len(self.class_names)}), one per class name. Received label "
                f"{int(labels.max())} in the {what}."
            )
        _check_finite(rows.boxes, rows.image - self.count, "box", what)

    def ground_truth(self) -> Any:
        """Every true object, as `Objects`."""
        return joined(self._ground_truth)

    def found(self) -> Any:
        """Every detection, as `Objects`."""
        return joined(self._found)

    def image_sizes(self) -> Any:
        """[N, 2] int heights and widths in pixels; 0 where they were not given."""
        return np.concatenate([np.zeros((0, 2), np.int64), *self._sizes])

    def verified(self) -> Any:
        """[N, K] bool, which classes are annotated or verified in an image; None where no image says so."""
        if all(rows is None for rows in self._verified):
            return None
        table, first = np.zeros((self.count, len(self.class_names)), bool), 0
        for rows, sizes in zip(self._verified, self._sizes, strict=True):
            if rows is None:
                table[first : first + len(sizes)] = True
            else:
                images, columns = np.nonzero((rows >= 0) & (rows < len(self.class_names)))
                table[first + images, rows[images, columns]] = True
            first += len(sizes)
        ground_truth = self.ground_truth()
        table[ground_truth.image, ground_truth.labels] = True
        return table


class Evaluator(abc.ABC):
    """A metric over ground truth and detections: `update` adds a batch, `result` computes over everything added.

    Args:
        class_names: the K class names.
        collected: a `Collected` to share with other evaluators, so that a batch is added (and kept) once; default:
            one of its own.

    Raises:
        ValueError: no class names, or other ones than the shared collection has.
    """

    def __init__(self, class_names: Sequence[str], collected: Any = None):
        self.class_names = [str(name) for name in class_names]
        self.share(Collected(self.class_names) if collected is None else collected)

    def share(self, collected: Any) -> None:
        """Looks at the images of another `Collected` from now on, and forgets its own."""
        if collected.class_names != self.class_names:
            raise ValueError(
                "Evaluators that share a collection have the same class names. "
                f"Received: {self.class_names} and {collected.class_names}"
            )
        self.collected = collected

    def reset(self) -> None:
        """Forgets every image."""
        self.collected.reset()

    def update(self, ground_truth: dict[str, Any], detections: dict[str, Any], image_sizes: Any = None) -> None:
        """Adds a batch of images: see `Collected.update`."""
        self.collected.update(ground_truth, detections, image_sizes)

    @abc.abstractmethod
    def result(self) -> dict[str, Any]:
        """The metrics over every image added, a dict; floats in it may enter the logs of `fit`."""


def to_host(tensor):
    """A numpy array of a tensor of the running backend, of tf.data or of anything array-like."""
    return np.asarray(keras.ops.convert_to_numpy(tensor) if keras.ops.is_tensor(tensor) else tensor)


def _arrays(tensors):
    """The entries that the tables know, on the host."""
    known = {field.key for field in (*schema.object_fields(), *schema.image_fields())} | {schema.CLASSES}
    return {key: to_host(value) for key, value in tensors.items() if key in known and value is not None}


def _raster_sizes(ground_truth, sizes):
    """[B, 2] height and width of each image's masks: their own where they have one, else the image's; or None."""
    masks = ground_truth.get(schema.MASKS)
    if masks is not None and masks.ndim == 4:
        return np.tile(np.asarray(masks.shape[2:]), (len(masks), 1))
    if sizes is None:
        return None
    sizes = np.array(sizes).reshape(len(sizes), -1)[:, :2]
    for image, row in enumerate(masks) if masks is not None else ():
        sizes[image] = next((mask["size"] for mask in row if isinstance(mask, dict)), sizes[image])
    return sizes


def _check_rows(what, boxes, rows, name="labels"):
    if boxes.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[:2] != rows.shape:
        raise ValueError(
            f"The {what} need boxes [B, n, 4] and {name} [B, n]. "
            f"Received: boxes {list(boxes.shape)}, {name} {list(rows.shape)}"
        )


def _check_finite(values, image, name, what):
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1) if len(values) else np.ones(0, bool)
    if not finite.all():
        wrong = int(np.flatnonzero(~finite)[0])
        advice = "A model that finds this has diverged." if what == "detections" else "Correct the annotation."
        raise ValueError(
            f"Every {name} in the {what} must be finite. Received {np.asarray(values[wrong]).tolist()} in image "
            f"{int(image[wrong])} of the batch; {int(np.sum(~finite))} such rows. {advice}"
        )
