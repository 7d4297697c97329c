"""Keypoints of a CenterNet: where each lies from the object's center, and heatmaps that say so more exactly."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_detect import schema
from keras_detect.boxes import heatmaps
from keras_detect.kernels.gather import gather_rows
from keras_detect.kernels.top_k import top_k
from keras_detect.losses.classification import PenaltyReducedLogisticFocalLoss
from keras_detect.losses.localization import L1Loss
from keras_detect.meta_architectures.center_net_tasks import Task, checked_codes
from keras_detect.registry import part, serializable, unknown_name

RANKINGS = ("min_distance", "score_distance_ratio", "score_scaled_distance_ratio", "gaussian_weighted")
MIN_OVERLAP = 0.7  # of the Gaussians around keypoints, before they are scaled by the keypoint's deviation
_FAR = 1e5  # cells: the distance of a candidate that does not count


@part
class KeypointCandidates:
    """How keypoints that were regressed from an object's center move to peaks of the heatmaps nearby.

    A keypoint takes a candidate of its own kind if that lies in the object's box and close enough; else it stays, with
    the score `unmatched_score`. All numbers are upstream's.

    Args:
        score_threshold: least score of a candidate.
        per_keypoint: how many peaks of each heatmap are candidates.
        peak_size: side of the window, in cells, of which a peak is the maximum; 1: every cell is one.
        unmatched_score: of keypoints without a candidate.
        box_scale: factor of the box's sides; candidates outside of it do not count.
        search_scale: greatest distance to the nearest candidate, as a share of the longer scaled side.
        ranking: which candidate is taken: the nearest ("min_distance"), or that of the largest score by distance plus
            `distance_offset` ("score_distance_ratio") or plus `distance_multiplier` times the longer side of the box
            ("score_scaled_distance_ratio"), or that of the largest score times a Gaussian of the distance, which then
            is the score ("gaussian_weighted").
        distance_offset: cells.
        distance_multiplier: a share of the longer side.
        deviation_multiplier: factor of the keypoints' deviations in that Gaussian.

    Raises:
        ValueError: an unknown ranking, or a count below 1.
    """

    score_threshold: float = 0.1
    per_keypoint: int = 100
    peak_size: int = 3
    unmatched_score: float = 0.1
    box_scale: float = 1.2
    search_scale: float = 0.3
    ranking: str = "min_distance"
    distance_offset: float = 1.0
    distance_multiplier: float = 0.1
    deviation_multiplier: float = 1.0

    def __post_init__(self):
        if self.ranking not in RANKINGS:
            raise ValueError(unknown_name("ranking", self.ranking, RANKINGS))
        for name in ("per_keypoint", "peak_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)!r}")

    def find(self, heatmap: Any, offsets: Any) -> tuple[Any, Any]:
        """`(points [B, n, C, 2] in cells, scores [B, n, C])` of the best peaks of each keypoint.

        Args:
            heatmap: `[B, h, w, n]` scores.
            offsets: `[B, h, w, 2]` or `[B, h, w, 2 n]`.
        """
        batch, _, width, number = ops.shape(heatmap)
        scores, cells = heatmaps.channel_peaks(heatmap, self.per_keypoint, self.peak_size)
        rows = cells
        if offsets.shape[-1] > 2:
            rows = cells * number + ops.reshape(ops.arange(number, dtype="int32"), (1, -1, 1))
        flat = ops.reshape(offsets, (batch, -1, 2))
        moved = gather_rows(flat, ops.reshape(rows, (batch, number * self.per_keypoint)))
        corners = ops.cast(ops.stack([cells // width, cells % width], axis=-1), "float32")
        return corners + ops.reshape(moved, (batch, number, self.per_keypoint, 2)), scores

    def refine(self, regressed: Any, candidates: Any, boxes: Any, deviations: tuple[float, ...]) -> tuple[Any, Any]:
        """`(points [B, D, n, 2], scores [B, D, n])`.

        Args:
            regressed: `[B, D, n, 2]`, in cells.
            candidates: what `find` returned.
            boxes: `[B, D, 4]`, of the objects, in cells, or `None`: the score alone decides, as in upstream.
            deviations: n numbers, of the keypoints.
        """
        points, scores = candidates
        difference = ops.expand_dims(regressed, 3) - ops.expand_dims(points, 1)
        distances = ops.sqrt(ops.sum(ops.square(difference), axis=-1))
        distances = ops.where(ops.expand_dims(scores >= self.score_threshold, 1), distances, _FAR)
        nearest = ops.min(distances, axis=-1)
        ranks = self._ranks(distances, ops.expand_dims(scores, 1), boxes, deviations)
        batch, detections, number = ops.shape(regressed)[:3]
        # not `ops.argmax`, whose operations neither ONNX nor LiteRT has
        _, chosen = top_k(ops.reshape(ranks, (batch * detections * number, self.per_keypoint)), 1)
        chosen = ops.reshape(chosen, (batch, detections, number))
        rows = ops.arange(number, dtype="int32") * self.per_keypoint + chosen
        rows = ops.reshape(rows, (batch, detections * number))
        taken = ops.reshape(gather_rows(ops.reshape(points, (batch, -1, 2)), rows), ops.shape(regressed))
        best = ops.reshape(gather_rows(ops.reshape(scores, (batch, -1)), rows), (batch, detections, number))
        if self.ranking == "gaussian_weighted":
            best = ops.max(ranks, axis=-1)
        matched = self._matched(taken, best, nearest, boxes)
        return (
            ops.where(ops.expand_dims(matched, -1), taken, regressed),
            ops.where(matched, best, self.unmatched_score),
        )

    def _ranks(self, distances, scores, boxes, deviations):
        """`[B, D, n, C]`, the largest of which is the candidate to take."""
        if self.ranking == "min_distance":
            return -distances
        if self.ranking == "score_distance_ratio":
            return scores / (distances + self.distance_offset)
        if boxes is None:
            raise ValueError(f"ranking={self.ranking!r} needs the sizes of objects. Received an ObjectTask without.")
        heights, widths = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
        if self.ranking == "score_scaled_distance_ratio":
            offsets = ops.maximum(heights, widths)[..., None, None] * self.distance_multiplier
            return scores / (distances + offsets)
        own = np.asarray(deviations, "float32") * self.deviation_multiplier
        sigma = heatmaps.gaussian_deviations(heights, widths, MIN_OVERLAP)[..., None] * own
        return scores * ops.exp(-ops.square(distances) / (2.0 * ops.square(sigma))[..., None])

    def _matched(self, points, scores, nearest, boxes):
        if boxes is None:
            return scores >= self.score_threshold
        middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2.0, (boxes[..., 2:] - boxes[..., :2]) / 2.0
        half = half * self.box_scale
        low, high = ops.expand_dims(middle - half, 2), ops.expand_dims(middle + half, 2)
        inside = ops.all(ops.logical_and(points >= low, points <= high), axis=-1)
        radius = 2.0 * ops.max(half, axis=-1) * self.search_scale
        close = nearest <= ops.expand_dims(radius, -1)
        return ops.logical_and(ops.logical_and(inside, close), scores >= self.score_threshold)


@serializable
class KeypointTask(Task):
    """The keypoints of the objects of one class (Zhou et al. 2019, arXiv:1904.07850, section 6.2).

    Each is regressed from the object's center; with `candidates` it then moves to a peak of its heatmap. Several tasks
    may share the keypoints of the data: each has a class and indices of its own.

    Args:
        class_id: label of the objects that have them.
        indices: which keypoints of the data they are, n of N.
        deviations: n factors of the Gaussians around them, small for those that are annotated exactly; default: 1.
        heatmap_loss: part `(logits, targets, weights) -> [B, A, n]`.
        localization_loss: part `(predictions, targets, weights) -> [B, A]` that compares codes, in cells.
        loss_weights: factors of the losses of heatmaps, of offsets and of the regression from the center.
        radius: cells around a keypoint, and around a center, that learn offsets.
        per_keypoint_offset: whether each keypoint has offsets of its own.
        candidates: `KeypointCandidates`, or `None` for keypoints that are regressed alone, with the object's score.
        clip: whether keypoints outside of the image are moved to its border, with score 0.
        heatmap_bias: start of the heatmaps' bias.
        skeleton: pairs of keypoints of the data, counted from 0, that a line joins in drawings.
        name: of the task.
        **kwargs: `heads` as in `Task`; Keras' own `dtype`, `trainable`. The heads are "heatmap", "regression" and
            "offset".

    Raises:
        ValueError: no keypoint, the same one twice, another number of deviations, or a localization loss of boxes.
    """

    checkpoint_family = "center_net_keypoints"
    settings = (
        "class_id",
        "indices",
        "deviations",
        "heatmap_loss",
        "localization_loss",
        "loss_weights",
        "radius",
        "per_keypoint_offset",
        "candidates",
        "clip",
        "heatmap_bias",
        "skeleton",
    )
    ground_truth_keys = (schema.KEYPOINTS,)

    def __init__(
        self,
        *,
        class_id: int,
        indices: Sequence[int],
        deviations: Sequence[float] | None = None,
        heatmap_loss: Any = None,
        localization_loss: Any = None,
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        radius: int = 0,
        per_keypoint_offset: bool = False,
        candidates: KeypointCandidates | None = None,
        clip: bool = False,
        heatmap_bias: float = -2.19,
        skeleton: Sequence[tuple[int, int]] = (),
        name: str = "keypoints",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.class_id, self.indices = int(class_id), tuple(int(index) for index in indices)
        self.deviations = (1.0,) * len(self.indices) if deviations is None else tuple(deviations)
        self.heatmap_loss = heatmap_loss or PenaltyReducedLogisticFocalLoss()
        self.localization_loss = checked_codes(localization_loss or L1Loss())
        self.loss_weights, self.radius = tuple(loss_weights), radius
        self.per_keypoint_offset, self.candidates = per_keypoint_offset, candidates
        self.clip, self.heatmap_bias = clip, heatmap_bias
        self.skeleton = tuple((int(first), int(last)) for first, last in skeleton)
        self.loss_names = tuple(f"{name}_{loss}" for loss in _LOSSES[-1 if candidates is None else 0 :])
        distinct = len(set(self.indices)) == len(self.indices) > 0
        if not distinct or min(self.indices) < 0 or len(self.deviations) != len(self.indices):
            raise ValueError(
                "A keypoint task has at least one keypoint, each once, and a deviation for each. Received: "
                f"indices={self.indices}, deviations={self.deviations}."
            )

    def check_classes(self, num_classes: int) -> None:
        if not 0 <= self.class_id < num_classes:
            raise ValueError(
                f"The task '{self.name}' is for objects of one of the {num_classes} classes. Received: "
                f"class_id={self.class_id}. Leave the task out, or give it another class."
            )

    def channels(self) -> dict[str, tuple[int, float]]:
        number = len(self.indices)
        heads = {"heatmap": (number, self.heatmap_bias), "regression": (2 * number, 0.0)}
        heads["offset"] = (2 * number if self.per_keypoint_offset else 2, 0.0)
        return {"regression": heads["regression"]} if self.candidates is None else heads

    def targets(self, y: Any, frame: Any, size: tuple[int, int]) -> "KeypointTargets":
        """`KeypointTargets` of a batch; `size` is `(height, width)` of the maps in cells."""
        if y.get(schema.KEYPOINTS) is None:
            raise ValueError(
                f"The task '{self.name}' learns y['{schema.KEYPOINTS}'] [B, M, N, 2]. Received y with: {sorted(y)}."
            )
        self._check_number(y[schema.KEYPOINTS])
        points = frame.cells(ops.take(y[schema.KEYPOINTS], np.asarray(self.indices), axis=2))
        annotated = ops.logical_not(ops.any(ops.isnan(points), axis=-1))
        if y.get(schema.KEYPOINT_VISIBILITY) is not None:
            visible = ops.take(y[schema.KEYPOINT_VISIBILITY], np.asarray(self.indices), axis=2) > 0
            annotated = ops.logical_and(annotated, visible)
        mine = ops.logical_and(y[schema.LABELS] == self.class_id, y["valid"])
        weights = ops.where(mine, y[schema.WEIGHTS], 0.0)
        weights = ops.where(annotated, ops.expand_dims(weights, -1), 0.0)
        boxes = frame.cells(y[schema.BOXES])
        without = ops.logical_and(y["valid"], ops.max(weights, axis=-1) < 1e-3)
        known = ops.logical_not(heatmaps.inside_boxes(boxes, without, size))
        return KeypointTargets(
            points=ops.where(ops.expand_dims(annotated, -1), points, 0.0),
            weights=weights,
            boxes=boxes,
            centers=(boxes[..., :2] + boxes[..., 2:]) / 2.0,
            cell_weights=heatmaps.true_cells(frame.true_image_shapes, frame.stride, size) * ops.cast(known, "float32"),
        )

    def _check_number(self, keypoints):
        number = keypoints.shape[2]
        if isinstance(number, int) and number <= max(self.indices):
            raise ValueError(
                f"The task '{self.name}' learns the keypoint {max(self.indices)}. Received y['{schema.KEYPOINTS}'] "
                f"with {number} keypoints, counted from 0."
            )

    def compute_losses(self, y: Any, predictions: dict[str, Any], frame: Any) -> dict[str, Any]:
        maps = self.maps(predictions, "regression")
        size = tuple(ops.shape(maps[0])[1:3])
        targets = self.targets(y, frame, size)
        number = len(self.indices)
        centers = ops.repeat(ops.expand_dims(targets.centers, 2), number, axis=2)
        losses = [self._localization(maps, centers, targets, size, True)]
        if self.candidates is not None:
            offsets = self.maps(predictions, "offset")
            losses.insert(0, self._localization(offsets, targets.points, targets, size, self.per_keypoint_offset))
            losses.insert(0, self._heatmap(self.maps(predictions, "heatmap"), targets, size))
        weights = self.loss_weights[-len(losses) :]
        return {name: weight * loss for name, weight, loss in zip(self.loss_names, weights, losses, strict=True)}

    def _heatmap(self, maps, targets, size):
        counted = ops.cast(targets.weights > 0.0, "float32")
        sides = targets.boxes[..., 2:] - targets.boxes[..., :2]
        scale = heatmaps.gaussian_deviations(sides[..., 0], sides[..., 1], MIN_OVERLAP)
        # keypoint by keypoint: all Gaussians at once would take n times the memory
        planes = [
            heatmaps.largest_gaussian(targets.points[:, :, index], scale * deviation, counted[:, :, index], size)
            for index, deviation in enumerate(self.deviations)
        ]
        flat = (-1, size[0] * size[1], len(self.indices))
        heat = ops.reshape(ops.stack(planes, axis=-1), flat)
        cell_weights = ops.reshape(targets.cell_weights, (-1, size[0] * size[1], 1))
        total = sum(ops.sum(self.heatmap_loss(ops.reshape(logits, flat), heat, cell_weights)) for logits in maps)
        return total / (len(maps) * ops.maximum(ops.sum(counted), 1.0))

    def _localization(self, maps, sources, targets, size, per_keypoint):
        """The loss of the vectors from the cells around `sources [B, R, n, 2]` to the keypoints."""
        number = len(self.indices)
        around = ops.expand_dims(ops.floor(sources), 3) + _disc(self.radius)
        limits = np.asarray(size, "float32") if all(isinstance(side, int) for side in size) else ops.stack(size)
        limits = ops.cast(limits, "float32")
        inside = ops.all(ops.logical_and(around >= 0.0, around < limits), axis=-1)
        weights = ops.where(inside, ops.expand_dims(targets.weights, -1), 0.0)
        vectors = ops.expand_dims(targets.points, 3) - around
        cells = ops.cast(ops.clip(around, 0.0, limits - 1.0), "int32")
        rows = cells[..., 0] * size[1] + cells[..., 1]
        if per_keypoint:
            rows = rows * number + ops.reshape(ops.arange(number, dtype="int32"), (1, 1, -1, 1))
        batch = ops.shape(rows)[0]
        rows, weights = ops.reshape(rows, (batch, -1)), ops.reshape(weights, (batch, -1))
        vectors = ops.reshape(vectors, (batch, -1, 2))
        found = [gather_rows(ops.reshape(feature_map, (batch, -1, 2)), rows) for feature_map in maps]
        ones = ops.ones_like(weights)
        total = sum(ops.sum(weights * self.localization_loss(each, vectors, ones)) for each in found)
        return total / (len(maps) * ops.maximum(ops.sum(weights), 1.0))

    def decode(self, predictions: dict[str, Any], centers: Any, frame: Any) -> dict[str, Any]:
        """Keypoints normalized to the true image and their scores; zeros for objects of other classes."""
        peaks, number = centers.peaks, len(self.indices)
        vectors = heatmaps.values_at(self.maps(predictions, "regression")[-1], peaks.rows, peaks.columns)
        shape = ops.shape(vectors)
        cells = ops.cast(ops.stack([peaks.rows, peaks.columns], axis=-1), "float32")
        points = ops.expand_dims(cells, 2) + ops.reshape(vectors, (shape[0], shape[1], number, 2))
        scores = ops.repeat(ops.expand_dims(peaks.scores, -1), number, axis=-1)
        if self.candidates is not None:
            heatmap = ops.sigmoid(self.maps(predictions, "heatmap")[-1])
            candidates = self.candidates.find(heatmap, self.maps(predictions, "offset")[-1])
            points, scores = self.candidates.refine(points, candidates, centers.boxes, self.deviations)
        points = frame.normalized(points)
        if self.clip:
            inside = ops.all(ops.logical_and(points >= 0.0, points <= 1.0), axis=-1)
            points, scores = ops.clip(points, 0.0, 1.0), ops.where(inside, scores, 0.0)
        mine = ops.expand_dims(ops.logical_and(centers.found, peaks.labels == self.class_id), -1)
        return {
            schema.KEYPOINTS: self._placed(ops.where(ops.expand_dims(mine, -1), points, 0.0)),
            schema.KEYPOINT_SCORES: self._placed(ops.where(mine, scores, 0.0)),
        }

    def _placed(self, values):
        """`values [B, D, n, ...]` at their `indices` among the keypoints of the data, zeros between them."""
        places = np.full(max(self.indices) + 1, len(self.indices))
        places[list(self.indices)] = np.arange(len(self.indices))
        if np.array_equal(places, np.arange(len(self.indices))):
            return values
        padded = ops.pad(values, [[0, 0], [0, 0], [0, 1], *([[0, 0]] * (len(values.shape) - 3))])
        return ops.take(padded, places, axis=2)


_LOSSES = ("heatmap_loss", "offset_localization_loss", "regression_localization_loss")


class KeypointTargets(NamedTuple):
    """What `KeypointTask` learns; R rows of ground truth, all coordinates in cells.

    Attributes:
        points: `[B, R, n, 2]`, zeros where a keypoint is not annotated.
        weights: `[B, R, n]`, 0 for such keypoints and for objects of other classes.
        boxes: `[B, R, 4]`.
        centers: `[B, R, 2]`, of the boxes.
        cell_weights: `[B, h, w]`, 0 outside of the true image and inside objects without such keypoints, of any class.
    """

    points: Any
    weights: Any
    boxes: Any
    centers: Any
    cell_weights: Any


def _disc(radius):
    """`[n, 2]` float32: the cells at most `radius` from a cell, relative to it."""
    steps = np.arange(-radius, radius + 1)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid[(grid**2).sum(axis=-1) <= radius**2].astype("float32")
