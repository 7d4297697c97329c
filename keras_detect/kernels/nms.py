"""Non-maximum suppression over classes, exact and with static shapes; axes and boxes as in `schema.py`.

How the work is kept small without changing the result: greedy suppression visits the (anchor, class) pairs by falling
score, and what it decides about the first N pairs depends on those N pairs alone. So the N best pairs are settled
first; if they yield all the detections asked for, or no other pair passes the threshold, the result is final.
Otherwise the complete way is run: further pools of N pairs, or TensorFlow's kernel.

Pairs with equal scores are visited by anchor, then by class.
"""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.kernels import native
from keras_detect.kernels.rows import divide, gather_class, gather_rows, last_column, put_rows, top_k
from keras_detect.registry import part
from keras_detect.schema import PADDING_LABEL

_NOT_A_CANDIDATE = float("-inf")
_SMALLEST_POOL = 256
_SMALL_PRODUCT = 512
_FEW_GROUPS = 8  # below it, choosing anchors first does not pay


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


class _Pool(NamedTuple):
    """Pairs by falling score, `[B, N]`, and their boxes, `[B, N, 4]`. Those of different groups never suppress."""

    boxes: Any
    scores: Any
    labels: Any
    anchors: Any
    group: Any
    flat: Any
    candidate: Any


@part
class MulticlassNonMaxSuppression:
    """Greedy suppression of overlapping boxes, class by class.

    A pair of anchor and class is a candidate if its score is above the threshold (NaN never is) and its box is finite
    and not reversed. Suppression works on the boxes as they come; then they are clipped to the window, those left
    without area are dropped, and the best `max_total_detections` are returned.

    Args:
        score_threshold: candidates have a greater score.
        iou_threshold: a candidate is suppressed by a better one of its class if their IoU is greater.
        max_detections_per_class: how many a class may keep before clipping.
        max_total_detections: D, the rows of the result.
        class_agnostic: an anchor stands for its best class only, and boxes suppress one another whatever their class;
            `max_total_detections` then limits what is kept before clipping.
        soft_nms_sigma: above 0, the scores of overlapped boxes fall by `exp(-iou^2 / (2 sigma))` instead, boxes over
            `iou_threshold` still being suppressed; scores are the lowered ones (Bodla et al. 2017, with the factor of
            TensorFlow's kernel).
        change_coordinate_frame: return boxes in the frame in which the window is `[0, 0, 1, 1]`.
        pool_size: N of the module's docstring; changes the speed only. `None`: 2.5 D, at least 256.
    """

    score_threshold: float = 0.0
    iou_threshold: float = 0.6
    max_detections_per_class: int = 100
    max_total_detections: int = 100
    class_agnostic: bool = False
    soft_nms_sigma: float = 0.0
    change_coordinate_frame: bool = True
    pool_size: int | None = None

    def __post_init__(self):
        for name in ("max_detections_per_class", "max_total_detections", "pool_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0.0 <= self.iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must be in [0, 1]. Received: iou_threshold={self.iou_threshold}")
        if self.soft_nms_sigma < 0.0:
            raise ValueError(f"soft_nms_sigma must be 0 or positive. Received: soft_nms_sigma={self.soft_nms_sigma}")

    def __call__(self, boxes, scores, clip_window=None, num_valid=None):
        """Selects detections.

        Args:
            boxes: `[B, A, 4]` or `[B, A, q, 4]`; q is 1, or K for boxes per class.
            scores: `[B, A, K]`.
            clip_window: `[4]` or `[B, 4]` in the frame of the boxes, or `None`: no clipping, no change of frame.
            num_valid: `[B]` int, how many leading anchors count, or `None` for all.

        Returns:
            `Detections`. Raises `ValueError` for shapes that do not fit.
        """
        boxes, scores = ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores)
        if len(boxes.shape) == 3:
            boxes = ops.expand_dims(boxes, 2)
        if len(boxes.shape) != 4 or boxes.shape[-1] != 4 or boxes.shape[2] not in (1, scores.shape[-1]):
            raise ValueError(
                "Non-maximum suppression wants boxes [B, A, 4], [B, A, 1, 4] or, with boxes per class, [B, A, K, 4], "
                f"and scores [B, A, K]. Received: boxes {tuple(boxes.shape)}, scores {tuple(scores.shape)}"
            )
        return self.select(_GivenBoxes(boxes), scores, clip_window, num_valid)

    def select(self, source, scores, clip_window=None, num_valid=None):
        """As `__call__`, for boxes that are made when they are needed.

        Args:
            source: has `at(anchors [B, N], labels [B, N]) -> [B, N, 4]` and `all() -> [B, A, q, 4]`.
            scores: `[B, A, K]`.
            clip_window: as in `__call__`.
            num_valid: as in `__call__`.
        """
        scores = ops.cast(ops.convert_to_tensor(scores), "float32")
        if len(scores.shape) != 3:
            raise ValueError(f"Scores must be [B, A, K]. Received: {tuple(scores.shape)}")
        task = _Task(self, source, scores, clip_window, num_valid)
        if isinstance(task.num_pairs, int) and task.num_pairs == 0:
            return task.nothing()
        fast = native.use_native("tensorflow")
        if self.soft_nms_sigma > 0.0:
            return _native_result(task) if fast else _soft_result(task)
        result, final = _first_pool_result(task)
        if final is True:
            return result
        # Measured on two cores, on crowded boxes: for 12,000 anchors of one class the kernel takes 3 ms where further
        # pools take 20; for 1917 anchors of 90 classes 13 ms each, for eight such images 140 ms and 50 ms.
        complete = _native_result if fast and task.num_groups == 1 else _pools_result
        return Detections(*ops.cond(final, lambda: tuple(result), lambda: tuple(complete(task))))


class _GivenBoxes:
    """Boxes that are there already: `[B, A, q, 4]`."""

    def __init__(self, boxes):
        self._boxes = ops.cast(boxes, "float32")

    def all(self):
        return self._boxes

    def at(self, anchors, labels):
        num_anchors, per_anchor = ops.shape(self._boxes)[1], self._boxes.shape[2]
        rows = ops.reshape(self._boxes, (-1, num_anchors * per_anchor, 4))
        return gather_rows(rows, anchors if per_anchor == 1 else anchors * per_anchor + labels)


class _Task:
    """One call: settings, filtered scores `[B, L]` with L = A x groups, and what the ways of solving it share."""

    def __init__(self, settings, source, scores, clip_window, num_valid):
        self.settings, self.source = settings, source
        self.limit = settings.max_total_detections
        self.window = None if clip_window is None else ops.cast(ops.convert_to_tensor(clip_window), "float32")
        # XLA's and TensorFlow's ways to order 0.0 and -0.0 differ; no threshold of 0 or more lets either pass.
        if settings.score_threshold < 0.0:
            scores = ops.where(scores == 0.0, 0.0, scores)
        scores = ops.where(scores > settings.score_threshold, scores, _NOT_A_CANDIDATE)
        if num_valid is not None:
            counted = ops.arange(ops.shape(scores)[1], dtype="int32") < ops.cast(num_valid, "int32")[:, None]
            scores = ops.where(counted[:, :, None], scores, _NOT_A_CANDIDATE)
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
        self.pool_size = settings.pool_size or max(_SMALLEST_POOL, (5 * self.limit) // 2)
        if isinstance(self.num_pairs, int):
            self.pool_size = min(self.pool_size, self.num_pairs)
        else:  # an unknown number of anchors (TensorFlow only): enough pairs for a pool of known size
            filler = ops.full((self.batch, self.pool_size), _NOT_A_CANDIDATE, dtype="float32")
            self.flat_scores = ops.concatenate([self.flat_scores, filler], axis=1)

    def pool(self, flat_scores):
        """The best `pool_size` of `flat_scores [B, L]` as a `_Pool`."""
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
        row, group = divide(flat, self.num_groups)
        return self.describe(scores, gather_rows(anchors, row) * self.num_groups + group)

    def describe(self, scores, flat):
        """A `_Pool` of the pairs `flat [B, N]` (anchor x groups + group) with the given scores."""
        anchors, group = (flat, ops.zeros_like(flat)) if self.num_groups == 1 else divide(flat, self.num_groups)
        labels = group if self.best_class is None else gather_rows(self.best_class, anchors)
        boxes = self.source.at(anchors, labels)
        candidate = ops.logical_and(scores > _NOT_A_CANDIDATE, well_formed(boxes))
        return _Pool(boxes, scores, labels, anchors, group, flat, candidate)

    def clipped(self, boxes):
        """Boxes cut at the window, and which are left with an area."""
        if self.window is not None:
            boxes = box_ops.clip_to_window(boxes, self.window)
        return boxes, box_ops.area(boxes) > 0.0

    def result(self, boxes, pool, reported):
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

    def nothing(self):
        """Detections of no candidates at all."""
        shape = (self.batch, self.limit)
        labels = ops.full(shape, PADDING_LABEL, dtype="int32")
        zeros = ops.zeros(shape, dtype="int32")
        return Detections(
            ops.zeros((*shape, 4)), ops.zeros(shape), labels, ops.zeros((self.batch,), dtype="int32"), zeros
        )


def _native_result(task):
    """TensorFlow's kernel for every image and class, then the best of all classes."""
    boxes = task.source.all()
    if boxes.shape[2] > 1 and task.num_groups == 1:  # one box per anchor: that of its best class
        all_anchors = ops.broadcast_to(ops.arange(task.num_anchors, dtype="int32"), (task.batch, task.num_anchors))
        boxes = task.source.at(all_anchors, task.best_class)[:, :, None]
    scores = ops.where(well_formed(boxes), task.scores, _NOT_A_CANDIDATE)
    # XLA's kernel wants no more than there are.
    cap = min(task.cap, task.num_anchors) if isinstance(task.num_anchors, int) else task.cap
    anchors, scores = native.tf_nms(
        ops.clip(boxes, -box_ops.LARGEST_COORDINATE, box_ops.LARGEST_COORDINATE),
        scores,
        cap,
        task.settings.iou_threshold,
        task.settings.score_threshold,
        task.settings.soft_nms_sigma,
    )
    group = ops.broadcast_to(ops.arange(task.num_groups, dtype="int32")[:, None], ops.shape(anchors))
    flat = ops.reshape(anchors * task.num_groups + group, (task.batch, task.num_groups * cap))
    scores = ops.reshape(scores, (task.batch, task.num_groups * cap))
    # First by pair, then by score: a stable sort keeps pairs with equal scores in order.
    if task.num_groups > 1:
        _, order = top_k(-flat, flat.shape[1])
        flat, scores = gather_rows(flat, order), gather_rows(scores, order)
    scores, order = top_k(scores, flat.shape[1])
    pool = task.describe(scores, gather_rows(flat, order))
    boxes, has_area = task.clipped(pool.boxes)
    return task.result(boxes, pool, ops.logical_and(pool.candidate, has_area))


def _first_pool_result(task):
    """Detections from the best pairs, and whether they are final: `True`, or a scalar bool tensor."""
    pool = task.pool(task.flat_scores)
    rivals = _rivals(task, pool)
    keep = greedy_keep(_suppression(task, pool, rivals), pool.candidate)
    keep = ops.logical_and(keep, _rank_in_group(rivals, keep) < task.cap)
    boxes, has_area = task.clipped(pool.boxes)
    result = task.result(boxes, pool, ops.logical_and(keep, has_area))
    if isinstance(task.num_pairs, int) and task.pool_size == task.num_pairs:
        return result, True
    kept = ops.sum(ops.cast(keep, "int32"), axis=1)
    final = ops.logical_or(result.num_detections == task.limit, kept == task.num_groups * task.cap)
    return result, ops.all(ops.logical_or(final, last_column(pool.scores) == _NOT_A_CANDIDATE))


def _pools_result(task):
    """The complete hard suppression in `keras.ops`: pool after pool until enough is found or nothing is left.

    What is kept is remembered in a buffer with room for every class's `cap`, and suppresses later pools.
    """
    room = task.num_groups * task.cap
    room = min(room, task.num_pairs) if isinstance(task.num_pairs, int) else room
    chunk = min(room, _SMALLEST_POOL)
    room = -(-room // chunk) * chunk
    size = (task.batch, room + 1)  # the last slot takes what is not kept
    state = (
        ops.full((task.batch,), float("inf"), dtype="float32"),  # score and number of the last pair seen
        ops.full((task.batch,), -1, dtype="int32"),
        ops.zeros((*size, 4)),
        ops.full(size, _NOT_A_CANDIDATE, dtype="float32"),
        ops.zeros(size, dtype="int32"),
        ops.full(size, -1, dtype="int32"),  # group, -1 where empty
        ops.zeros((task.batch,), dtype="int32"),  # how many are kept
        ops.zeros((task.batch,), dtype="int32"),  # how many of them have an area in the window
    )
    numbers = ops.arange(ops.shape(task.flat_scores)[1], dtype="int32")

    def unfinished(last_score, last_flat, boxes, scores, flat, group, kept, reported):
        wanted = ops.logical_and(reported < task.limit, kept < task.num_groups * task.cap)
        return ops.any(ops.logical_and(last_score > _NOT_A_CANDIDATE, wanted))

    def body(last_score, last_flat, boxes, scores, flat, group, kept, reported):
        last_score, last_flat = last_score[:, None], last_flat[:, None]
        unseen = ops.logical_and(task.flat_scores == last_score, numbers > last_flat)
        unseen = ops.logical_or(task.flat_scores < last_score, unseen)
        pool = task.pool(ops.where(unseen, task.flat_scores, _NOT_A_CANDIDATE))
        meets_kept = _meets_kept(task, pool, boxes, group, kept, chunk)
        alive = ops.logical_and(pool.candidate, ops.logical_not(meets_kept))
        rivals = _rivals(task, pool)
        keep = greedy_keep(_suppression(task, pool, rivals), alive)
        classes = ops.arange(task.num_groups, dtype="int32")
        count = ops.sum(ops.cast(group[:, :, None] == classes, "int32"), axis=1)
        rank = _rank_in_group(rivals, keep) + ops.cast(gather_rows(count, pool.group), "float32")
        keep = ops.logical_and(keep, rank < task.cap)
        slot = ops.where(keep, kept[:, None] + ops.cumsum(ops.cast(keep, "int32"), axis=1) - 1, room)
        has_area = task.clipped(pool.boxes)[1]
        return (
            last_column(pool.scores),
            last_column(pool.flat),
            put_rows(boxes, slot, pool.boxes),
            put_rows(scores, slot, pool.scores),
            put_rows(flat, slot, pool.flat),
            put_rows(group, slot, ops.where(keep, pool.group, -1)),
            kept + ops.sum(ops.cast(keep, "int32"), axis=1),
            reported + ops.sum(ops.cast(ops.logical_and(keep, has_area), "int32"), axis=1),
        )

    _, _, boxes, scores, flat, group, _, _ = ops.while_loop(unfinished, body, state)
    kept = group[:, :-1] >= 0
    pool = task.describe(scores[:, :-1], flat[:, :-1])
    boxes, has_area = task.clipped(boxes[:, :-1])
    return task.result(boxes, pool, ops.logical_and(kept, has_area))


def _meets_kept(task, pool, boxes, group, kept, chunk):
    """Which of a pool `[B, N]` a kept box of its group suppresses; only the filled part of the buffer is visited."""

    def some_left(step, met):
        return step * chunk < ops.max(kept)

    def body(step, met):
        start = step * chunk
        some_boxes = ops.slice(boxes, [0, start, 0], [boxes.shape[0] or ops.shape(boxes)[0], chunk, 4])
        some_group = ops.slice(group, [0, start], [group.shape[0] or ops.shape(group)[0], chunk])
        meets = box_ops.iou(pool.boxes, some_boxes) > task.settings.iou_threshold
        meets = ops.logical_and(meets, pool.group[:, :, None] == some_group[:, None, :])
        return step + 1, ops.logical_or(met, ops.any(meets, axis=-1))

    return ops.while_loop(some_left, body, (ops.convert_to_tensor(0, "int32"), ops.zeros_like(pool.candidate)))[1]


def _soft_result(task):
    """Soft suppression in `keras.ops`: one detection per step, the best of all classes."""
    settings, all_boxes = task.settings, task.source.all()
    per_anchor = all_boxes.shape[2]
    formed = well_formed(all_boxes)
    if per_anchor > 1 and task.num_groups == 1:
        formed = gather_class(formed, task.best_class)[:, :, None]
    room = task.num_groups * task.cap
    room = min(room, task.num_pairs) if isinstance(task.num_pairs, int) else room
    classes, slots = ops.arange(task.num_groups, dtype="int32"), ops.arange(room, dtype="int32")
    state = (
        ops.convert_to_tensor(0, "int32"),
        ops.where(formed, task.scores, _NOT_A_CANDIDATE),  # [B, A, groups], falling from step to step
        ops.zeros((task.batch, task.num_groups), dtype="int32"),  # how many each class has kept
        ops.full((task.batch, room), _NOT_A_CANDIDATE, dtype="float32"),
        ops.zeros((task.batch, room), dtype="int32"),
        ops.zeros((task.batch,), dtype="int32"),  # how many of the kept have an area in the window
    )

    def unfinished(step, scores, count, kept_scores, kept, reported):
        left = ops.logical_and(ops.max(scores, axis=(1, 2)) > _NOT_A_CANDIDATE, reported < task.limit)
        return ops.logical_and(step < room, ops.any(left))

    def body(step, scores, count, kept_scores, kept, reported):
        flat_scores = ops.reshape(scores, (task.batch, task.num_pairs))
        flat = ops.cast(ops.argmax(flat_scores, axis=1), "int32")[:, None]
        best = task.describe(gather_rows(flat_scores, flat), flat)
        count = count + ops.cast(ops.logical_and(classes == best.group, best.candidate), "int32")
        if task.best_class is not None and per_anchor > 1:
            others = gather_class(all_boxes, task.best_class)
        else:
            others = all_boxes[:, :, 0] if per_anchor == 1 else gather_class(all_boxes, best.group)
        overlap = box_ops.iou(best.boxes, others)[:, 0]
        weight = ops.exp(-0.5 / settings.soft_nms_sigma * ops.square(overlap))
        weight = ops.where(overlap > settings.iou_threshold, 0.0, weight)[:, :, None]
        lowered = ops.where(weight > 0.0, scores * weight, _NOT_A_CANDIDATE)
        lowered = ops.where(lowered > settings.score_threshold, lowered, _NOT_A_CANDIDATE)
        lowered = ops.where((count >= task.cap)[:, None, :], _NOT_A_CANDIDATE, lowered)
        scores = ops.where((classes == best.group)[:, None, :], lowered, scores)
        itself = ops.arange(task.num_pairs, dtype="int32") == best.flat
        scores = ops.where(ops.reshape(itself, ops.shape(scores)), _NOT_A_CANDIDATE, scores)
        here = slots == step
        kept_scores, kept = ops.where(here, best.scores, kept_scores), ops.where(here, best.flat, kept)
        has_area = ops.logical_and(best.candidate, task.clipped(best.boxes)[1])[:, 0]
        return step + 1, scores, count, kept_scores, kept, reported + ops.cast(has_area, "int32")

    _, _, _, scores, flat, _ = ops.while_loop(unfinished, body, state)
    pool = task.describe(scores, flat)
    boxes, has_area = task.clipped(pool.boxes)
    return task.result(boxes, pool, ops.logical_and(pool.candidate, has_area))


def _rivals(task, pool):
    """`[B or 1, N, N]` float32: 1 where the column's pair comes before the row's and is of its group, else 0."""
    earlier = ops.convert_to_tensor(earlier_columns(task.pool_size)[None])
    if task.num_groups == 1:
        return earlier
    # Whole numbers, so 0 or at least 1 apart: three vectorised kernels of TensorFlow's, where comparing is not one.
    group = ops.cast(pool.group, "float32")
    return ops.maximum(earlier - ops.abs(group[:, :, None] - group[:, None, :]), 0.0)


def _suppression(task, pool, rivals):
    """`[B, N, N]` float32: 1 where the column's pair, if kept, suppresses the row's."""
    return ops.where(box_ops.iou(pool.boxes, pool.boxes) > task.settings.iou_threshold, rivals, 0.0)


def _rank_in_group(rivals, keep):
    """How many better pairs of its group are kept, `[B, N]` float32."""
    return _times_column(rivals, ops.cast(keep, "float32"))


def earlier_columns(count):
    """`[count, count]` float32 numpy array: 1 where the column comes before the row, else 0."""
    return np.tril(np.ones((count, count), "float32"), -1)


def greedy_keep(suppression, candidate):
    """What greedy suppression keeps of boxes that stand by falling score.

    Keeping box i depends on the boxes before it only, so `keep = candidate and no kept earlier box suppresses` has one
    solution, and iterating it settles at least one more box per round: as many rounds as the longest chain of boxes
    that release one another, a handful in practice.

    Args:
        suppression: `[B, N, N]` float32, 1 where the column's box suppresses the row's; 0 on and above the diagonal.
        candidate: `[B, N]` bool.

    Returns:
        `[B, N]` bool.
    """
    start = ops.cast(candidate, "float32")

    def round_(keep):
        return ops.where(_times_column(suppression, keep) > 0.0, 0.0, start)

    def changing(keep, before):
        return ops.any(keep != before)

    def body(keep, before):
        keep = round_(keep)
        return round_(keep), keep

    return ops.while_loop(changing, body, (round_(start), start))[0] > 0.0


def _times_column(matrix, column):
    """`[B, N, N]` times `[B, N]`: `[B, N]`. TensorFlow's product takes 70 us for a single pool of 256, the sum 25."""
    if matrix.shape[-1] <= _SMALL_PRODUCT:
        return ops.sum(matrix * column[:, None, :], axis=-1)
    return ops.matmul(matrix, column[:, :, None])[:, :, 0]


def well_formed(boxes):
    """Finite and not reversed: `[..., 4]` to `[...]` bool."""
    finite = ops.all(ops.isfinite(boxes), axis=-1)
    return ops.logical_and(finite, ops.all(boxes[..., 2:] >= boxes[..., :2], axis=-1))
