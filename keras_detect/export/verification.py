"""Whether an exported file detects what `predict` detects: the same comparison for every format."""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_detect import schema
from keras_detect.boxes import box_ops
from keras_detect.data.image import as_pixels, as_uint8
from keras_detect.export.frozen import is_one_stage
from keras_detect.transforms.resizers import FixedShapeResizer

PHOTOS = pathlib.Path(__file__).parents[1] / "photos"
#: by how much boxes (in shares of the image's side) and scores may differ; `None`: a difference is reported only
TOLERANCES: dict[str, float | None] = {"float32": 1e-3, "float16": 1e-2, "dynamic": None, "int8": None}
_QUANTIZED = 5e-2  # within which detections of a file without a tolerance are matched, for the report
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
        tied: how many score as the last one reported, within the tolerance, and have another candidate of that score
            in their place. A detector that is not trained scores everything alike.
    """

    detections: int
    matched: int
    missing: int
    box_difference: float
    score_difference: float
    swapped: int = 0
    tied: int = 0

    def __add__(self, other):
        return Comparison(
            self.detections + other.detections,
            self.matched + other.matched,
            self.missing + other.missing,
            max(self.box_difference, other.box_difference),
            max(self.score_difference, other.score_difference),
            self.swapped + other.swapped,
            self.tied + other.tied,
        )

    @property
    def equal(self) -> bool:
        """Whether nothing is missing, and no more than a tenth lies so near a cut that it could not be compared.

        Of a hundred detections, one may be swapped.
        """
        compared = self.matched + self.tied >= (1.0 - _LARGEST_SHARE_CUT) * self.detections - 1
        return not self.missing and compared and self.swapped <= _LARGEST_SHARE_SWAPPED * self.detections


NOTHING = Comparison(0, 0, 0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What a one-stage detector may report: every anchor with every class, before suppression.

    Attributes:
        boxes: `[B, A, 1 or K, 4]` normalized yxyx, clipped to the image.
        scores: `[B, A, K]`.
    """

    boxes: np.ndarray
    scores: np.ndarray

    def hold(self, image: int, box: np.ndarray, score: float, label: int, tolerance: float) -> bool:
        """Whether one of an image has this label, and this box and score within the tolerance."""
        boxes = self.boxes[image, :, min(label, self.boxes.shape[2] - 1)]
        is_box = np.abs(boxes - box).max(-1) <= tolerance
        return bool(np.any(is_box & (np.abs(self.scores[image, :, label] - score) <= tolerance)))


def candidates_of(model, batch: np.ndarray) -> Candidates:
    """The `Candidates` of a one-stage detector in `[B, H, W, 3]` images."""
    inputs = model.preprocess(batch)
    stage = model.final_stage(model(inputs, training=False), inputs[schema.TRUE_IMAGE_SHAPES])
    boxes = stage.boxes()
    flat = keras.ops.reshape(boxes, (len(batch), -1, 4))
    flat = keras.ops.clip(box_ops.change_coordinate_frame(flat, stage.window), 0.0, 1.0)
    scores = stage.postprocessor.scores(stage.class_logits)
    return Candidates(keras.ops.convert_to_numpy(flat).reshape(boxes.shape), keras.ops.convert_to_numpy(scores))


def compare(
    expected: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    tolerance: float,
    score_threshold: float = 0.0,
    iou_threshold: float | None = None,
    candidates: Candidates | None = None,
) -> Comparison:
    """Matches the detections of two batches image by image and class by class, as sets.

    The order of detections does not matter: two with nearly equal scores may change places. A detection that one side
    lacks counts as missing unless a cut may have taken it: its score is within the tolerance of `score_threshold`, or
    of the lowest score of a side whose rows are all filled.

    Args:
        expected: of `predict` (`schema`): `"boxes" [B, D, 4]` normalized yxyx, `"scores" [B, D]`, `"labels" [B, D]`,
            `"num_detections" [B]`, optional `"masks" [B, D, h, w]`, `"keypoints" [B, D, N, 2]` and
            `"keypoint_scores" [B, D, N]`.
        found: of the file, with as many images.
        tolerance: of boxes (shares of the side) and of scores; of the mean difference of an object's keypoints, and of
            their scores; ten times that of the mean difference of a mask's cells, which move with its box.
        score_threshold: below which the model reports nothing.
        iou_threshold: of the model's greedy suppression: of two boxes of one class that overlap more, the one with the
            better score is reported, so that the least difference swaps two of equal score. `None`: nothing is swapped.
        candidates: of the model; of those that score as the last one reported, either side may report any that do not
            suppress each other. `None`: nothing is tied.
    """
    total = NOTHING
    for image in range(len(expected[schema.NUM_DETECTIONS])):
        sides = _Rows.of(expected, image, score_threshold), _Rows.of(found, image, score_threshold)
        matching = _Matching(*sides, tolerance, np.inf if iou_threshold is None else iou_threshold)
        if candidates is not None:
            matching.set_ties_aside(functools.partial(candidates.hold, image))
        total += matching.comparison()
    return total


#: what further belongs to a detection: the tolerances that the mean of its differences may reach
_MEAN = {schema.MASKS: 10.0, schema.KEYPOINTS: 1.0, schema.KEYPOINT_SCORES: 1.0}


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The detections of one image, and the score below which there may be others."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    cut: float
    further: dict[str, np.ndarray]

    @classmethod
    def of(cls, detections, image, score_threshold):
        count = int(detections[schema.NUM_DETECTIONS][image])
        keys = (schema.BOXES, schema.SCORES, schema.LABELS)
        boxes, scores, labels = (np.asarray(detections[key])[image] for key in keys)
        full = count == len(scores) and count > 0
        further = {key: np.asarray(detections[key])[image, :count] for key in _MEAN if key in detections}
        cut = float(scores.min()) if full else score_threshold
        return cls(boxes[:count], scores[:count], labels[:count], cut, further)


class _Matching:
    """Pairs of one detection of `predict` and one of the file, and what is left on either side."""

    def __init__(self, expected: _Rows, found: _Rows, tolerance: float, iou_threshold: float):
        self.expected, self.found, self.tolerance, self.iou_threshold = expected, found, tolerance, iou_threshold
        self.box_gap = np.abs(expected.boxes[:, None] - found.boxes[None]).max(-1, initial=0.0)
        self.score_gap = np.abs(expected.scores[:, None] - found.scores[None])
        self.same_label = expected.labels[:, None] == found.labels[None]
        is_near = (self.box_gap <= tolerance) & (self.score_gap <= tolerance)
        rows, columns = np.nonzero(self.same_label & is_near)
        for key, factor in _MEAN.items():
            values = expected.further.get(key), found.further.get(key)
            alike = _is_alike(*values, rows, columns, factor * tolerance)
            rows, columns = rows[alike], columns[alike]
        self.row_of: dict[int, int] = {}  # found -> expected
        for index in np.argsort(self.box_gap[rows, columns] + self.score_gap[rows, columns], kind="stable"):
            row, column = int(rows[index]), int(columns[index])
            if column not in self.row_of and row not in self.row_of.values():
                self.row_of[column] = row
        self.lost = [row for row in range(len(expected.scores)) if row not in self.row_of.values()]
        self.added = [column for column in range(len(found.scores)) if column not in self.row_of]
        self.tied = 0

    def set_ties_aside(self, is_candidate: Callable[..., bool]) -> None:
        """Counts what has another candidate of the lowest score in its place as tied, and no longer as left."""
        rows = [row for row in self.lost if self._is_tied(self.expected, row, self.found, is_candidate)]
        columns = [column for column in self.added if self._is_tied(self.found, column, self.expected, is_candidate)]
        self.tied = min(len(rows), len(columns))
        self.lost = [row for row in self.lost if row not in rows[: self.tied]]
        self.added = [column for column in self.added if column not in columns[: self.tied]]

    def _is_tied(self, side, row, other, is_candidate):
        """Whether a detection has the lowest score, is a candidate, and is not suppressed by another of its side."""
        if self._is_clear(side, row, other):
            return False
        same_label = side.labels == side.labels[row]
        same_label[row] = False
        overlaps = _overlaps(side.boxes[row : row + 1], side.boxes[same_label])
        if overlaps.max(initial=0.0) > self.iou_threshold + self.tolerance:
            return False
        return is_candidate(side.boxes[row], side.scores[row], side.labels[row], self.tolerance)

    def _is_clear(self, side, row, other):
        """Whether the score of a detection lies so far above the other side's cut that the cut cannot have taken it."""
        return side.scores[row] > other.cut + self.tolerance

    def comparison(self) -> Comparison:
        rivals = self.same_label & (self.score_gap <= self.tolerance)
        rivals &= _overlaps(self.expected.boxes, self.found.boxes) > self.iou_threshold
        swapped = _paired(rivals, self.lost, self.added)
        missing = sum(self._is_clear(self.expected, row, self.found) for row in self.lost if row not in swapped)
        left = [column for column in self.added if column not in swapped.values()]
        missing += sum(self._is_clear(self.found, column, self.expected) for column in left)
        matched = list(self.row_of.values()), list(self.row_of)
        return Comparison(
            detections=len(self.expected.scores),
            matched=len(self.row_of),
            missing=int(missing),
            box_difference=float(self.box_gap[matched].max(initial=0.0)),
            score_difference=float(self.score_gap[matched].max(initial=0.0)),
            swapped=len(swapped),
            tied=self.tied,
        )


def _is_alike(values, others, rows, columns, tolerance):
    """`[n]` bool: whether the values of `rows` differ on average by at most the tolerance from others' of `columns`."""
    if values is None:
        return np.ones(len(rows), bool)
    if others is None or values.shape[1:] != others.shape[1:]:
        return np.zeros(len(rows), bool)
    gap = np.abs(values[rows] - others[columns]).reshape(len(rows), -1)
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


def matching_tolerance(precision: str) -> float:
    """Within which boxes and scores are matched: the tolerance of a precision, or where it has none, 0.05."""
    return TOLERANCES.get(precision) or _QUANTIZED


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
    """

    route: str
    images: int
    batches: list[np.ndarray]
    expected: list[dict[str, np.ndarray]]
    milliseconds: float


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
    )


def predicted(model, batch: np.ndarray) -> dict[str, np.ndarray]:
    """What `predict` answers for a batch, as numpy arrays."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model.predict_on_batch(batch))


def compare_batches(
    run: Callable[[np.ndarray], dict[str, np.ndarray]],
    batches: Sequence[np.ndarray],
    expected: Sequence[dict[str, np.ndarray]],
    model: Any,
    tolerance: float,
) -> Comparison:
    """The `Comparison` of an opened file, or of a compiled detector, with `predict` over all batches.

    Args:
        run: the file: `images [B, H, W, 3]` uint8 -> detections.
        batches: the images of each call.
        expected: what `predict` answers for each batch.
        model: the detector, on any backend.
        tolerance: of boxes (shares of the side) and of scores.
    """
    found = [run(batch) for batch in batches]
    lowest, overlap = score_threshold_of(model), _iou_threshold_of(model)
    pairs = list(zip(expected, found, strict=True))
    total = sum((compare(*pair, tolerance, lowest, overlap) for pair in pairs), NOTHING)
    if total.equal or not is_one_stage(model):
        return total
    with_ties = zip(pairs, batches, strict=True)
    return sum(
        (compare(*pair, tolerance, lowest, overlap, candidates_of(model, batch)) for pair, batch in with_ties), NOTHING
    )


def score_threshold_of(model) -> float:
    """The score below which the model reports nothing, 0 where it does not say."""
    final = getattr(model, "final_suppression", None)
    return 0.0 if final is None else final.score_threshold


def _iou_threshold_of(model) -> float | None:
    """The overlap above which the model's greedy suppression drops the weaker of two boxes; `None` without it."""
    final = getattr(model, "final_suppression", None)
    if final is None or final.scheme not in (None, "greedy") or final.soft_nms_sigma > 0.0:
        return None
    return final.iou_threshold


def share_at_cut(expected: Sequence[dict[str, np.ndarray]], tolerance: float, score_threshold: float) -> float:
    """The share of detections whose score lies within the tolerance of the lowest that their image may report."""
    rows = [
        _Rows.of(batch, image, score_threshold)
        for batch in expected
        for image in range(len(batch[schema.NUM_DETECTIONS]))
    ]
    count = sum(len(image.scores) for image in rows)
    return sum(int((image.scores <= image.cut + tolerance).sum()) for image in rows) / max(count, 1)


def milliseconds(function: Callable[[np.ndarray], Any], batch: np.ndarray) -> float:
    """Median of a few calls, in milliseconds; the first one is not counted."""
    function(batch)
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        function(batch)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
