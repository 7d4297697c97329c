"""Soft suppression with a Gaussian: overlap lowers a score instead of dropping the box (Bodla et al. 2017)."""

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.boxes.nms_candidates import NOT_A_CANDIDATE, native_suppression, register_suppression
from keras_detect.kernels import dispatch
from keras_detect.kernels.gather import gather_class, gather_rows


@register_suppression("soft")
def soft(candidates):
    """`Detections` of soft suppression with the settings' `soft_nms_sigma`, from `Candidates`.

    Scores fall by `exp(-iou^2 / (2 sigma))` (the factor of TensorFlow's kernel); boxes over `iou_threshold` go.
    """
    if dispatch.use_native("tensorflow"):
        return native_suppression(candidates, candidates.settings.soft_nms_sigma)
    return _portable(candidates)


def _portable(candidates):
    """One detection per step, the best of all groups."""
    settings, all_boxes = candidates.settings, candidates.source.all()
    per_anchor = all_boxes.shape[2]
    formed = box_ops.well_formed(all_boxes)
    if per_anchor > 1 and candidates.num_groups == 1:
        formed = gather_class(formed, candidates.best_class)[:, :, None]
    room = candidates.num_groups * candidates.cap
    room = min(room, candidates.num_pairs) if isinstance(candidates.num_pairs, int) else room
    classes, slots = ops.arange(candidates.num_groups, dtype="int32"), ops.arange(room, dtype="int32")
    state = (
        ops.convert_to_tensor(0, "int32"),
        ops.where(formed, candidates.scores, NOT_A_CANDIDATE),  # [B, A, groups], falling from step to step
        ops.zeros((candidates.batch, candidates.num_groups), dtype="int32"),  # how many each class has kept
        ops.full((candidates.batch, room), NOT_A_CANDIDATE, dtype="float32"),
        ops.zeros((candidates.batch, room), dtype="int32"),
        ops.zeros((candidates.batch,), dtype="int32"),  # how many of the kept have an area in the window
    )

    def unfinished(step, scores, count, kept_scores, kept, reported):
        left = ops.logical_and(ops.max(scores, axis=(1, 2)) > NOT_A_CANDIDATE, reported < candidates.limit)
        return ops.logical_and(step < room, ops.any(left))

    def body(step, scores, count, kept_scores, kept, reported):
        flat_scores = ops.reshape(scores, (candidates.batch, candidates.num_pairs))
        flat = ops.cast(ops.argmax(flat_scores, axis=1), "int32")[:, None]
        best = candidates.describe(gather_rows(flat_scores, flat), flat)
        count = count + ops.cast(ops.logical_and(classes == best.group, best.candidate), "int32")
        if candidates.best_class is not None and per_anchor > 1:
            others = gather_class(all_boxes, candidates.best_class)
        else:
            others = all_boxes[:, :, 0] if per_anchor == 1 else gather_class(all_boxes, best.group)
        overlap = box_ops.iou(best.boxes, others)[:, 0]
        weight = ops.exp(-0.5 / settings.soft_nms_sigma * ops.square(overlap))
        weight = ops.where(overlap > settings.iou_threshold, 0.0, weight)[:, :, None]
        lowered = ops.where(weight > 0.0, scores * weight, NOT_A_CANDIDATE)
        lowered = ops.where(lowered > settings.score_threshold, lowered, NOT_A_CANDIDATE)
        lowered = ops.where((count >= candidates.cap)[:, None, :], NOT_A_CANDIDATE, lowered)
        scores = ops.where((classes == best.group)[:, None, :], lowered, scores)
        itself = ops.arange(candidates.num_pairs, dtype="int32") == best.flat
        scores = ops.where(ops.reshape(itself, ops.shape(scores)), NOT_A_CANDIDATE, scores)
        here = slots == step
        kept_scores, kept = ops.where(here, best.scores, kept_scores), ops.where(here, best.flat, kept)
        has_area = ops.logical_and(best.candidate, candidates.clipped(best.boxes)[1])[:, 0]
        return step + 1, scores, count, kept_scores, kept, reported + ops.cast(has_area, "int32")

    _, _, _, scores, flat, _ = ops.while_loop(unfinished, body, state)
    pool = candidates.describe(scores, flat)
    boxes, has_area = candidates.clipped(pool.boxes)
    return candidates.detections(boxes, pool, ops.logical_and(pool.candidate, has_area))
