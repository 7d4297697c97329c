"""Whether an exported file detects what `predict` detects: the same comparison for every format."""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_detect import schema
from keras_detect.data.image import as_pixels, as_uint8
from keras_detect.transforms.resizers import FixedShapeResizer

PHOTOS = pathlib.Path(__file__).parents[1] / "photos"
#: by how much boxes (in shares of the image's side) and scores may differ; `None`: a difference is reported only
TOLERANCES: dict[str, float | None] = {"float32": 1e-3, "float16": 1e-2, "dynamic": None, "int8": None}
_LARGEST_SHARE_CUT = 0.1  # of the detections, that may differ because their scores lie at a cut
_LARGEST_SHARE_SWAPPED = 0.01  # of the detections, whose place a rival of the same score may take
_TIMED_RUNS = 5
_LONGEST_SIDE = 640  # of the images that a file without a fixed size is tried on


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How two sets of detections differ.

    Attributes:
        detections: how many `predict` reports.
        matched: how many of them the file reports too: the same class, box, score and mask within the tolerance.
        missing: how many one side reports and the other does not, those near the score cut and swapped ones left out.
        box_difference: the largest of the matched ones, in shares of the image's side.
        score_difference: the largest of the matched ones.
        swapped: how many have a rival in their place: of the same class, the same score within the tolerance, and with
            an overlap for which the better of the two suppresses the other.
    """

    detections: int
    matched: int
    missing: int
    box_difference: float
    score_difference: float
    swapped: int = 0

    def __add__(self, other):
        return Comparison(
            self.detections + other.detections,
            self.matched + other.matched,
            self.missing + other.missing,
            max(self.box_difference, other.box_difference),
            max(self.score_difference, other.score_difference),
            self.swapped + other.swapped,
        )

    @property
    def equal(self) -> bool:
        """Whether nothing is missing, and no more than a tenth lies so near a cut that it could not be compared.

        Of a hundred detections, one may be swapped.
        """
        compared = self.matched >= (1.0 - _LARGEST_SHARE_CUT) * self.detections - 1
        return not self.missing and compared and self.swapped <= _LARGEST_SHARE_SWAPPED * self.detections


NOTHING = Comparison(0, 0, 0, 0.0, 0.0)


def compare(
    expected: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    tolerance: float,
    score_threshold: float = 0.0,
    iou_threshold: float | None = None,
) -> Comparison:
    """Matches the detections of two batches image by image and class by class, as sets.

    The order of detections does not matter: two with nearly equal scores may change places. A detection that one side
    lacks counts as missing unless a cut may have taken it: its score is within the tolerance of `score_threshold`, or
    of the lowest score of a side whose rows are all filled.

    Args:
        expected: of `predict` (`schema`): `"boxes" [B, D, 4]` normalised yxyx, `"scores" [B, D]`, `"labels" [B, D]`,
            `"num_detections" [B]`, optional `"masks" [B, D, h, w]`.
        found: of the file, with as many images.
        tolerance: of boxes (shares of the side) and of scores; ten times that of the mean difference of a mask's cells,
            which move with its box.
        score_threshold: below which the model reports nothing.
        iou_threshold: of the model's greedy suppression: of two boxes of one class that overlap more, the one with the
            better score is reported, so that the least difference swaps two of equal score. `None`: nothing is swapped.
    """
    total = NOTHING
    for image in range(len(expected[schema.NUM_DETECTIONS])):
        sides = _Rows.of(expected, image, score_threshold), _Rows.of(found, image, score_threshold)
        total += _compare_image(*sides, tolerance, iou_threshold)
    return total


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The detections of one image, and the score below which there may be others."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    cut: float
    masks: np.ndarray | None = None

    @classmethod
    def of(cls, detections, image, score_threshold):
        count = int(detections[schema.NUM_DETECTIONS][image])
        keys = (schema.BOXES, schema.SCORES, schema.LABELS)
        boxes, scores, labels = (np.asarray(detections[key])[image] for key in keys)
        full = count == len(scores) and count > 0
        masks = np.asarray(detections[schema.MASKS])[image, :count] if schema.MASKS in detections else None
        cut = float(scores.min()) if full else score_threshold
        return cls(boxes[:count], scores[:count], labels[:count], cut, masks)


def _compare_image(expected, found, tolerance, iou_threshold):
    box_gap = np.abs(expected.boxes[:, None] - found.boxes[None]).max(-1, initial=0.0)
    score_gap = np.abs(expected.scores[:, None] - found.scores[None])
    same_label = expected.labels[:, None] == found.labels[None]
    rows, columns = np.nonzero(same_label & (box_gap <= tolerance) & (score_gap <= tolerance))
    alike = _same_masks(expected.masks, found.masks, rows, columns, 10.0 * tolerance)
    rows, columns = rows[alike], columns[alike]
    row_of: dict[int, int] = {}  # found -> expected
    for index in np.argsort(box_gap[rows, columns] + score_gap[rows, columns], kind="stable"):
        row, column = int(rows[index]), int(columns[index])
        if column not in row_of and row not in row_of.values():
            row_of[column] = row
    lost = [row for row in range(len(expected.scores)) if row not in row_of.values()]
    added = [column for column in range(len(found.scores)) if column not in row_of]
    rivals = same_label & (score_gap <= tolerance)
    rivals &= _overlaps(expected.boxes, found.boxes) > (np.inf if iou_threshold is None else iou_threshold)
    swapped = _paired(rivals, lost, added)
    missing = sum(expected.scores[row] > found.cut + tolerance for row in lost if row not in swapped)
    missing += sum(found.scores[row] > expected.cut + tolerance for row in added if row not in swapped.values())
    matched = list(row_of.values()), list(row_of)
    return Comparison(
        detections=len(expected.scores),
        matched=len(row_of),
        missing=int(missing),
        box_difference=float(box_gap[matched].max(initial=0.0)),
        score_difference=float(score_gap[matched].max(initial=0.0)),
        swapped=len(swapped),
    )


def _same_masks(masks, others, rows, columns, tolerance):
    """`[n]` bool: whether the masks of `rows` differ by at most the tolerance from the others' of `columns`."""
    if masks is None:
        return np.ones(len(rows), bool)
    if others is None or masks.shape[1:] != others.shape[1:]:
        return np.zeros(len(rows), bool)
    gap = np.abs(masks[rows] - others[columns]).reshape(len(rows), -1)
    return gap.mean(axis=1) <= tolerance if len(rows) else np.ones(0, bool)


def _paired(allowed, rows, columns):
    """`{row: column}` of given rows and columns of a bool array, each at most once."""
    pairs: dict[int, int] = {}
    for row in rows:
        column = next((column for column in columns if allowed[row, column] and column not in pairs.values()), None)
        if column is not None:
            pairs[row] = column
    return pairs


def _overlaps(boxes, others):
    """IoU of `[M, 4]` and `[N, 4]` boxes, `[M, N]`; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [np.prod(np.maximum(some[:, 2:] - some[:, :2], 0.0), axis=-1) for some in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0)


def sample_images(images: Sequence[Any] | None, image_size: tuple[int, int] | None) -> list[np.ndarray]:
    """The images that a file is tried on, `[H, W, 3]` uint8.

    Args:
        images: as `model.detect` takes them; `None`: the photos that ship with the package, mirrored and cut out too.
        image_size: `(height, width)` that the file takes, to which they are resized; `None`: any.
    """
    if images is None:
        pixels = [variant for path in sorted(PHOTOS.glob("*.jpg")) for variant in _variants(as_pixels(path))]
    else:
        pixels = [as_pixels(image) for image in images]
    if not pixels:
        raise ValueError("images contains no image to compare the file with.")
    return [_resized(image, image_size) for image in pixels]


def _variants(photo):
    height, width = photo.shape[:2]
    return [
        photo,
        photo[:, ::-1],
        photo[height // 5 :, : 2 * width // 3],
        photo[: 3 * height // 4, width // 4 :],
    ]


def _resized(image, size):
    if size is None:
        longest = max(image.shape[:2])
        if longest <= _LONGEST_SIDE:
            return np.ascontiguousarray(image)
        size = [max(side * _LONGEST_SIDE // longest, 1) for side in image.shape[:2]]
    resized, _ = FixedShapeResizer(height=size[0], width=size[1]).resize_image(image)
    return as_uint8(resized)


def batches_of(images: Sequence[np.ndarray], batch_size: int | None) -> list[np.ndarray]:
    """`[B, H, W, 3]` batches of images of one size each; a short one is filled up by repeating its last image."""
    batches = []
    groups: dict[tuple, list[np.ndarray]] = {}
    for image in images:
        groups.setdefault(image.shape, []).append(image)
    for group in groups.values():
        size = batch_size or min(len(group), 2)
        for start in range(0, len(group), size):
            some = group[start : start + size]
            batches.append(np.stack(some + some[-1:] * (size - len(some))))
    return batches


@dataclasses.dataclass(frozen=True)
class Reference:
    """What `predict` answers, which a file has to repeat.

    Attributes:
        route: how the model comes to the exporter: the backend that it lives under, and what follows.
        images: how many images there are.
        batches: `[B, H, W, 3]` uint8 each.
        expected: the detections of each batch.
        milliseconds: of `predict_on_batch` on the first batch.
        score_threshold: below which the model reports nothing.
        iou_threshold: of its greedy suppression, `None` where it has none.
    """

    route: str
    images: int
    batches: list[np.ndarray]
    expected: list[dict[str, np.ndarray]]
    milliseconds: float
    score_threshold: float
    iou_threshold: float | None = None


def reference_of(model, images, image_size, batch_size) -> Reference:
    """The `Reference` of a model on `images` (`sample_images`), for a file with this input."""
    pixels = sample_images(images, image_size)
    batches = batches_of(pixels, batch_size)
    backend = keras.backend.backend()
    return Reference(
        route=backend if backend == "tensorflow" else f"{backend} -> .keras -> tensorflow",
        images=len(pixels),
        batches=batches,
        expected=[predicted(model, batch) for batch in batches],
        milliseconds=milliseconds(model.predict_on_batch, batches[0]),
        score_threshold=score_threshold_of(model),
        iou_threshold=iou_threshold_of(model),
    )


def predicted(model, batch: np.ndarray) -> dict[str, np.ndarray]:
    """What `predict` answers for a batch, as numpy arrays."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model.predict_on_batch(batch))


def score_threshold_of(model) -> float:
    """The score below which the model reports nothing, 0 where it does not say."""
    final = getattr(model, "final_suppression", None)
    return 0.0 if final is None else final.score_threshold


def iou_threshold_of(model) -> float | None:
    """The overlap above which the model's greedy suppression drops the weaker of two boxes; `None` without it."""
    final = getattr(model, "final_suppression", None)
    if final is None or final.scheme not in (None, "greedy") or final.soft_nms_sigma > 0.0:
        return None
    return final.iou_threshold


def compare_runner(runner, reference: Reference, tolerance: float) -> Comparison:
    """The `Comparison` of an opened file over all batches."""
    total = NOTHING
    for batch, wanted in zip(reference.batches, reference.expected, strict=True):
        total += compare(wanted, runner(batch), tolerance, reference.score_threshold, reference.iou_threshold)
    return total


def milliseconds(function: Callable[[np.ndarray], Any], batch: np.ndarray) -> float:
    """Median of a few calls, in milliseconds; the first one is not counted."""
    function(batch)
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        function(batch)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
