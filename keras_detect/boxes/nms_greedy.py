"""Greedy suppression, exact: visit the pairs by falling score, drop what overlaps a kept one of its group too much.

How the work is kept small without changing the result: what greedy suppression decides about the N best pairs depends
on those N pairs alone. So they are settled first; if they yield all the detections asked for, or no other pair passes
the threshold, the result is final. Otherwise the complete form is run: further pools of N pairs after the first one, or
TensorFlow's kernel.
"""

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.boxes.nms_candidates import (
    NOT_A_CANDIDATE,
    SMALLEST_POOL,
    Detections,
    native_suppression,
    register_suppression,
)
from keras_detect.kernels import dispatch
from keras_detect.kernels.gather import gather_rows, put_rows
from keras_detect.kernels.nms import greedy_keep, times_column
from keras_detect.kernels.top_k import last_column


@register_suppression("greedy")
def greedy(candidates):
    """`Detections` of greedy suppression at `iou_threshold`, from `Candidates`."""
    result, final, pool, keep = _first_pool_result(candidates)
    if final is True:
        return result
    # Measured on two cores, on crowded boxes: for 12,000 anchors of one class the kernel takes 3 ms where further
    # pools take 20; for 1917 anchors of 90 classes 13 ms each, for eight such images 140 ms and 50 ms.
    native = dispatch.use_native("tensorflow") and candidates.num_groups == 1

    def complete():
        return tuple(native_suppression(candidates) if native else _pools_result(candidates, pool, keep))

    return Detections(*ops.cond(final, lambda: tuple(result), complete))


def _first_pool_result(candidates):
    """Detections from the best pairs, whether they are final (`True` or a bool tensor), the pool, and what is kept."""
    pool = candidates.pool(candidates.flat_scores)
    rivals = candidates.rivals(pool)
    keep = greedy_keep(_suppression(candidates, pool, rivals), pool.candidate)
    keep = ops.logical_and(keep, _rank_in_group(rivals, keep) < candidates.cap)
    boxes, has_area = candidates.clipped(pool.boxes)
    result = candidates.detections(boxes, pool, ops.logical_and(keep, has_area))
    if isinstance(candidates.num_pairs, int) and candidates.pool_size == candidates.num_pairs:
        return result, True, pool, keep
    kept = ops.sum(ops.cast(keep, "int32"), axis=1)
    final = ops.logical_or(result.num_detections == candidates.limit, kept == candidates.num_groups * candidates.cap)
    return result, ops.all(ops.logical_or(final, last_column(pool.scores) == NOT_A_CANDIDATE)), pool, keep


def _pools_result(candidates, first, first_keep):
    """The complete hard suppression in `keras.ops`: pool after pool until enough is found or nothing is left.

    What is kept is remembered in a buffer with room for every class's `cap`, and suppresses later pools. It starts with
    what is kept of the first pool: `first_keep [B, N]` bool.
    """
    room = candidates.num_groups * candidates.cap
    room = min(room, candidates.num_pairs) if isinstance(candidates.num_pairs, int) else room
    chunk = min(room, SMALLEST_POOL)
    room = -(-room // chunk) * chunk
    size = (candidates.batch, room + 1)  # the last slot takes what is not kept
    empty = (
        ops.zeros((*size, 4)),
        ops.full(size, NOT_A_CANDIDATE, dtype="float32"),
        ops.zeros(size, dtype="int32"),
        ops.full(size, -1, dtype="int32"),  # group, -1 where empty
        ops.zeros((candidates.batch,), dtype="int32"),  # how many are kept
        ops.zeros((candidates.batch,), dtype="int32"),  # how many of them have an area in the window
    )

    def after(pool, keep, boxes, scores, flat, group, kept, reported):
        """Score and number of the last pair seen, and the buffer with what is kept of the pool."""
        slot = ops.where(keep, kept[:, None] + ops.cumsum(ops.cast(keep, "int32"), axis=1) - 1, room)
        has_area = candidates.clipped(pool.boxes)[1]
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

    def unfinished(last_score, last_flat, boxes, scores, flat, group, kept, reported):
        wanted = ops.logical_and(reported < candidates.limit, kept < candidates.num_groups * candidates.cap)
        return ops.any(ops.logical_and(last_score > NOT_A_CANDIDATE, wanted))

    def body(last_score, last_flat, boxes, scores, flat, group, kept, reported):
        last_score = last_score[:, None]
        unseen = ops.logical_and(candidates.flat_scores == last_score, candidates.later_than(last_flat[:, None]))
        unseen = ops.logical_or(candidates.flat_scores < last_score, unseen)
        pool = candidates.pool(ops.where(unseen, candidates.flat_scores, NOT_A_CANDIDATE))
        meets_kept = _meets_kept(candidates, pool, boxes, group, kept, chunk)
        alive = ops.logical_and(pool.candidate, ops.logical_not(meets_kept))
        rivals = candidates.rivals(pool)
        keep = greedy_keep(_suppression(candidates, pool, rivals), alive)
        classes = ops.arange(candidates.num_groups, dtype="int32")
        count = ops.sum(ops.cast(group[:, :, None] == classes, "int32"), axis=1)
        rank = _rank_in_group(rivals, keep) + ops.cast(gather_rows(count, pool.group), "float32")
        keep = ops.logical_and(keep, rank < candidates.cap)
        return after(pool, keep, boxes, scores, flat, group, kept, reported)

    _, _, boxes, scores, flat, group, _, _ = ops.while_loop(unfinished, body, after(first, first_keep, *empty))
    kept = group[:, :-1] >= 0
    pool = candidates.describe(scores[:, :-1], flat[:, :-1])
    boxes, has_area = candidates.clipped(boxes[:, :-1])
    return candidates.detections(boxes, pool, ops.logical_and(kept, has_area))


def _meets_kept(candidates, pool, boxes, group, kept, chunk):
    """Which of a pool `[B, N]` a kept box of its group suppresses; only the filled part of the buffer is visited."""

    def some_left(step, met):
        return step * chunk < ops.max(kept)

    def body(step, met):
        start = step * chunk
        some_boxes = ops.slice(boxes, [0, start, 0], [boxes.shape[0] or ops.shape(boxes)[0], chunk, 4])
        some_group = ops.slice(group, [0, start], [group.shape[0] or ops.shape(group)[0], chunk])
        meets = box_ops.iou(pool.boxes, some_boxes) > candidates.settings.iou_threshold
        meets = ops.logical_and(meets, pool.group[:, :, None] == some_group[:, None, :])
        return step + 1, ops.logical_or(met, ops.any(meets, axis=-1))

    return ops.while_loop(some_left, body, (ops.convert_to_tensor(0, "int32"), ops.zeros_like(pool.candidate)))[1]


def _suppression(candidates, pool, rivals):
    """`[B, N, N]` float32: 1 where the column's pair, if kept, suppresses the row's."""
    return ops.where(box_ops.iou(pool.boxes, pool.boxes) > candidates.settings.iou_threshold, rivals, 0.0)


def _rank_in_group(rivals, keep):
    """How many better pairs of its group are kept, `[B, N]` float32."""
    return times_column(rivals, ops.cast(keep, "float32"))
