"""What every suppression scheme starts from and ends with: pairs of anchor and class by score, and detections.

A suppression scheme is a callable `scheme(candidates) -> Detections`: one file of its own (`nms_greedy`, `nms_soft`)
with `@register_suppression("name")`, or a part that `MulticlassNonMaxSuppression(scheme=...)` takes.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.kernels.gather import gather_rows
from keras_detect.kernels.nms import earlier_columns, tf_nms
from keras_detect.kernels.top_k import top_k
from keras_detect.registry import Registry
from keras_detect.schema import PADDING_LABEL

SCHEMES = Registry("suppression scheme")
register_suppression = SCHEMES.register

_replacements: contextvars.ContextVar[dict[str, Callable] | None] = contextvars.ContextVar(
    "keras_detect_schemes", default=None
)

NOT_A_CANDIDATE = float("-inf")
SMALLEST_POOL = 256
_FEW_GROUPS = 8  # below it, choosing anchors first does not pay


@contextlib.contextmanager
def replaced_scheme(name: str, scheme: Callable) -> Iterator[None]:
    """Within this context (while a function is traced, that is) `scheme` runs in place of the registered one.

    For runtimes that have an operator of their own for what the scheme of that name does.
    """
    token = _replacements.set({**(_replacements.get() or {}), name: scheme})
    try:
        yield
    finally:
        _replacements.reset(token)


def scheme_of(name: str) -> Callable:
    """The suppression scheme of that name. Raises `ValueError` for an unknown one."""
    return (_replacements.get() or {}).get(name) or SCHEMES.get(name)


class Detections(NamedTuple):
    """What suppression selects, by falling score; rows from `num_detections` on are zeros with `PADDING_LABEL`.

    Attributes:
        boxes: `[B, D, 4]` float32.
        scores: `[B, D]` float32.
        labels: `[B, D]` int32.
        num_detections: `[B]` int32.
        indices: `[B, D]` int32, the anchor each row comes from, to gather masks, features and the like; 0 in padding.
    """

    boxes: Any
    scores: Any
    labels: Any
    num_detections: Any
    indices: Any


class Pool(NamedTuple):
    """Pairs by falling score, `[B, N]`, and their boxes, `[B, N, 4]`. Those of different groups never suppress."""

    boxes: Any
    scores: Any
    labels: Any
    anchors: Any
    group: Any
    flat: Any
    candidate: Any


class Candidates:
    """The pairs of anchor and class of one call, filtered by score: what a suppression scheme chooses from.

    Pairs of different groups never suppress one another: a group is a class, or everything if suppression is class
    agnostic. L = A x groups.

    Attributes:
        settings: the `MulticlassNonMaxSuppression`.
        source: where the boxes come from; see `MulticlassNonMaxSuppression.select`.
        scores: `[B, A, groups]` float32, -inf for what is not a candidate.
        flat_scores: the same as `[B, L]`.
        num_groups: int.
        cap: how many per group are kept.
        limit: D, the rows of the result.
        best_class: `[B, A]` int32, the class of each anchor if suppression is class agnostic, else `None`.
    """

    def __init__(self, settings, source, scores, clip_window, num_valid):
        self.settings, self.source = settings, source
        self.limit = settings.max_total_detections
        self.window = None if clip_window is None else ops.cast(ops.convert_to_tensor(clip_window), "float32")
        if settings.clip_first and self.window is not None:
            self.source = _ClippedBoxes(source, self.window)
        # XLA's and TensorFlow's ways to order 0.0 and -0.0 differ; neither passes a threshold of 0 or more.
        if settings.score_threshold < 0.0:
            scores = ops.where(scores == 0.0, 0.0, scores)
        scores = ops.where(scores > settings.score_threshold, scores, NOT_A_CANDIDATE)
        if num_valid is not None:
            counted = ops.arange(ops.shape(scores)[1], dtype="int32") < ops.cast(num_valid, "int32")[:, None]
            scores = ops.where(counted[:, :, None], scores, NOT_A_CANDIDATE)
        self.num_groups, self.cap, self.best_class = scores.shape[-1], settings.max_detections_per_class, None
        if settings.class_agnostic and scores.shape[-1]:
            self.best_class = ops.cast(ops.argmax(scores, axis=-1), "int32")
            scores = ops.max(scores, axis=-1, keepdims=True)
            self.num_groups, self.cap = 1, self.limit
        self.scores = scores
        self.num_anchors = ops.shape(scores)[1]
        self.batch = ops.shape(scores)[0]
        self.num_pairs = self.num_anchors * self.num_groups
        self.flat_scores = ops.reshape(scores, (self.batch, self.num_pairs))
        self.pool_size = settings.pool_size or max(SMALLEST_POOL, (5 * self.limit) // 2)
        if isinstance(self.num_pairs, int):
            self.pool_size = min(self.pool_size, self.num_pairs)
        else:  # an unknown number of anchors (TensorFlow only): enough pairs for a pool of known size
            filler = ops.full((self.batch, self.pool_size), NOT_A_CANDIDATE, dtype="float32")
            self.flat_scores = ops.concatenate([self.flat_scores, filler], axis=1)

    def best(self):
        """The best `pool_size` pairs as a `Pool`."""
        return self.pool(self.flat_scores)

    def all_boxes(self):
        """Every box, `[B, A, q, 4]`, and the scores `[B, A, groups]`, -inf where a box is not well formed.

        q is 1, or the number of groups. Coordinates lie within `±box_ops.LARGEST_COORDINATE`.
        """
        boxes = self.source.all()
        if boxes.shape[2] > 1 and self.num_groups == 1:  # one box per anchor: that of its best class
            all_anchors = ops.broadcast_to(ops.arange(self.num_anchors, dtype="int32"), (self.batch, self.num_anchors))
            boxes = self.source.at(all_anchors, self.best_class)[:, :, None]
        scores = ops.where(box_ops.well_formed(boxes), self.scores, NOT_A_CANDIDATE)
        return ops.clip(boxes, -box_ops.LARGEST_COORDINATE, box_ops.LARGEST_COORDINATE), scores

    def pool(self, flat_scores):
        """The best `pool_size` of `flat_scores [B, L]` as a `Pool`."""
        if not isinstance(self.num_pairs, int):
            scores, flat = top_k(flat_scores, self.pool_size)
            return self.describe(scores, ops.minimum(flat, self.num_pairs - 1))
        if self.num_groups < _FEW_GROUPS or self.num_anchors < 2 * self.pool_size:
            return self.describe(*top_k(flat_scores, self.pool_size))
        # Every one of the N best pairs belongs to one of the N anchors whose best pairs are best. Those anchors are
        # put in order again, so that pairs with equal scores stay in order.
        scores = ops.reshape(flat_scores, (self.batch, self.num_anchors, self.num_groups))
        anchors = ops.sort(top_k(ops.max(scores, axis=-1), self.pool_size)[1], axis=-1)
        scores = ops.reshape(gather_rows(scores, anchors), (self.batch, self.pool_size * self.num_groups))
        scores, flat = top_k(scores, self.pool_size)
        row, group = _divide(flat, self.num_groups)
        return self.describe(scores, gather_rows(anchors, row) * self.num_groups + group)

    def later_than(self, flat):
        """Which pairs have a greater number than `flat [B, 1]` int32: `[B, L]` bool."""
        if not isinstance(self.num_pairs, int):
            return ops.arange(ops.shape(self.flat_scores)[1], dtype="int32") > flat
        # By anchor and group: an exported file would hold the numbers of all pairs, megabytes, as a constant.
        first_of_anchor = ops.arange(0, self.num_pairs, self.num_groups, dtype="int32")
        later = ops.arange(self.num_groups, dtype="int32") > (flat - first_of_anchor)[:, :, None]
        return ops.reshape(later, (-1, self.num_pairs))

    def describe(self, scores, flat):
        """A `Pool` of the pairs `flat [B, N]` (anchor x groups + group) with the given scores."""
        anchors, group = (flat, ops.zeros_like(flat)) if self.num_groups == 1 else _divide(flat, self.num_groups)
        labels = group if self.best_class is None else gather_rows(self.best_class, anchors)
        boxes = self.source.at(anchors, labels)
        candidate = ops.logical_and(scores > NOT_A_CANDIDATE, box_ops.well_formed(boxes))
        return Pool(boxes, scores, labels, anchors, group, flat, candidate)

    def rivals(self, pool):
        """`[B or 1, N, N]` float32: 1 where the column's pair comes before the row's and is of its group, else 0."""
        earlier = ops.convert_to_tensor(earlier_columns(pool.scores.shape[1])[None])
        if self.num_groups == 1:
            return earlier
        # Whole numbers, so 0 or at least 1 apart: three vectorized kernels of TensorFlow's, where comparing is not one.
        group = ops.cast(pool.group, "float32")
        return ops.maximum(earlier - ops.abs(group[:, :, None] - group[:, None, :]), 0.0)

    def clipped(self, boxes):
        """Boxes cut at the window, and which are returned: those left with an area, or with `keep_empty` all."""
        if self.window is not None:
            boxes = box_ops.clip_to_window(boxes, self.window)
        area = box_ops.area(boxes)
        return boxes, ops.ones_like(area, dtype="bool") if self.settings.keep_empty else area > 0.0

    def detections(self, boxes, pool, reported):
        """`Detections` of the first D pairs of a pool that are `reported`, with boxes already clipped."""
        count, rows = boxes.shape[1], min(boxes.shape[1], self.limit)
        falling = np.arange(count, 0, -1, dtype="float32")
        rank, order = top_k(ops.where(reported, falling, 0.0), rows)
        filled = rank > 0.0
        boxes = gather_rows(boxes, order)
        if self.window is not None and self.settings.change_coordinate_frame:
            boxes = box_ops.change_coordinate_frame(boxes, self.window)

        missing = self.limit - rows

        def column(values, padding):
            values = ops.where(filled, gather_rows(values, order), ops.cast(padding, values.dtype))
            return ops.pad(values, ((0, 0), (0, missing)), constant_values=padding) if missing else values

        boxes = ops.where(filled[:, :, None], boxes, 0.0)
        return Detections(
            ops.pad(boxes, ((0, 0), (0, missing), (0, 0))) if missing else boxes,
            column(pool.scores, 0.0),
            column(pool.labels, PADDING_LABEL),
            ops.sum(ops.cast(filled, "int32"), axis=1),
            column(pool.anchors, 0),
        )

    def rescored(self, pool, scores, keep):
        """`Detections` of the pairs of a pool that a scheme keeps (`[B, N]` bool) with new scores (`[B, N]`)."""
        falling, order = top_k(ops.where(keep, scores, NOT_A_CANDIDATE), scores.shape[1])
        columns = pool._replace(scores=scores)
        pool = Pool(*(gather_rows(column, order) for column in columns))
        boxes, has_area = self.clipped(pool.boxes)
        return self.detections(boxes, pool, ops.logical_and(falling > NOT_A_CANDIDATE, has_area))

    def nothing(self):
        """Detections of no candidates at all."""
        shape = (self.batch, self.limit)
        labels = ops.full(shape, PADDING_LABEL, dtype="int32")
        zeros = ops.zeros(shape, dtype="int32")
        return Detections(
            ops.zeros((*shape, 4)), ops.zeros(shape), labels, ops.zeros((self.batch,), dtype="int32"), zeros
        )


class _ClippedBoxes:
    """The boxes of a source, cut at the window `[4]` or `[B, 4]`."""

    def __init__(self, source, window):
        self._source, self._window = source, window

    def all(self):
        boxes = self._source.all()
        shape = ops.shape(boxes)
        rows = ops.reshape(boxes, (shape[0], shape[1] * shape[2], 4))
        return ops.reshape(box_ops.clip_to_window(rows, self._window), shape)

    def at(self, anchors, labels):
        return box_ops.clip_to_window(self._source.at(anchors, labels), self._window)


def _divide(numbers, divisor):
    """Quotient and remainder of non-negative int32 tensors."""
    quotient = numbers // divisor
    return quotient, numbers - quotient * divisor


def native_suppression(candidates, soft_nms_sigma=0.0):
    """TensorFlow's kernel for every image and group, then the best of all groups; soft where `soft_nms_sigma` > 0."""
    boxes, scores = candidates.all_boxes()
    # XLA's kernel accepts no more than there are.
    cap = min(candidates.cap, candidates.num_anchors) if isinstance(candidates.num_anchors, int) else candidates.cap
    anchors, scores = tf_nms(
        boxes,
        scores,
        cap,
        candidates.settings.iou_threshold,
        candidates.settings.score_threshold,
        soft_nms_sigma,
    )
    group = ops.broadcast_to(ops.arange(candidates.num_groups, dtype="int32")[:, None], ops.shape(anchors))
    flat = ops.reshape(anchors * candidates.num_groups + group, (candidates.batch, candidates.num_groups * cap))
    scores = ops.reshape(scores, (candidates.batch, candidates.num_groups * cap))
    # First by pair, then by score: a stable sort keeps pairs with equal scores in order.
    if candidates.num_groups > 1:
        _, order = top_k(-flat, flat.shape[1])
        flat, scores = gather_rows(flat, order), gather_rows(scores, order)
    scores, order = top_k(scores, flat.shape[1])
    pool = candidates.describe(scores, gather_rows(flat, order))
    boxes, has_area = candidates.clipped(pool.boxes)
    return candidates.detections(boxes, pool, ops.logical_and(pool.candidate, has_area))
