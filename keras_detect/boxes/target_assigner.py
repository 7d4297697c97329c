"""Target assignment: what each anchor should predict, and how much it counts."""

from typing import Any, NamedTuple

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.boxes.matchers import Match
from keras_detect.kernels.gather import gather_rows
from keras_detect.registry import part


class Targets(NamedTuple):
    """Targets and weights per anchor; gradients do not flow through them."""

    class_targets: Any  # [B, A, K] float32: the matched ground-truth box's, else the unmatched class target
    class_weights: Any  # [B, A, K] float32: the matched ground-truth box's, the negative weight, or 0 where ignored
    box_targets: Any  # [B, A, code_size] float32: codes of the matched ground-truth box, else 0
    box_weights: Any  # [B, A] float32: the matched ground-truth box's, else 0
    match: Match  # of [B, A] tensors


@part
class TargetAssigner:
    """Matches ground-truth boxes with anchors and encodes them, for a whole batch at once.

    Args:
        similarity: callable as in `similarity.py`; called with ground-truth boxes first.
        matcher: callable as in `matchers.py`.
        box_coder: as in `box_coders.py`.
        negative_class_weight: class weight of negative anchors.
    """

    similarity: Any
    matcher: Any
    box_coder: Any
    negative_class_weight: float = 1.0

    def __call__(
        self,
        anchors: Any,
        boxes: Any,
        class_targets: Any,
        unmatched_class_target: Any,
        weights: Any = None,
        valid: Any = None,
    ) -> Any:
        """Assigns targets.

        A row of padding changes nothing, with any numbers, NaN included. A ground-truth box without area
        (zero-sized, reversed, or with a coordinate that is not finite) is treated as padding: no anchor can learn it. A
        ground-truth box with weight 0 matches by threshold, and its anchors then count nothing; it is not forced on an
        anchor, and neither is a ground-truth box with nothing in common with any anchor.

        Args:
            anchors: `[A, 4]` or `[B, A, 4]`, in the frame of the boxes.
            boxes: `[B, M, 4]`, or what the box coder encodes (`KeypointBoxCoder`: `[B, M, 4 + 2N]`). M is static.
            class_targets: `[B, M, K]`, one-hot or soft.
            unmatched_class_target: `[K]`.
            weights: `[B, M]`; `None` for ones.
            valid: `[B, M]` bool, False on padding; `None` for all.

        Returns:
            `Targets`.
        """
        anchors, boxes, class_targets, unmatched = (
            ops.stop_gradient(box_ops.as_float32(value))
            for value in (anchors, boxes, class_targets, unmatched_class_target)
        )
        usable = ops.logical_and(ops.all(ops.isfinite(boxes[..., :4]), axis=-1), box_ops.area(boxes[..., :4]) > 0)
        if valid is not None:
            usable = ops.logical_and(usable, ops.cast(valid, "bool"))
        weights = ops.ones_like(boxes[..., 0]) if weights is None else ops.stop_gradient(box_ops.as_float32(weights))
        if boxes.shape[-2] == 0:  # one row of padding, so that there is something to gather from
            boxes, class_targets, weights, usable = (
                ops.pad(value, [[0, 0]] * (len(value.shape) - 1 - after) + [[0, 1]] + [[0, 0]] * after)
                for value, after in ((boxes, 1), (class_targets, 1), (weights, 0), (usable, 0))
            )
        boxes, class_targets = (ops.where(usable[..., None], value, 0.0) for value in (boxes, class_targets))
        weights = ops.where(usable, weights, 0.0)
        match = self._match(boxes[..., :4], anchors, usable, weights)
        return self._targets(match, anchors, boxes, class_targets, unmatched, weights)

    def _match(self, corners, anchors, usable, weights):
        similarity = self.similarity(corners, anchors)
        similarity = ops.where(usable[..., None], similarity, float("-inf"))
        apart = getattr(self.similarity, "apart", float("-inf"))
        forcible = ops.logical_and(weights > 0, ops.max(similarity, axis=-1) > apart)
        return self.matcher(similarity, forcible)

    def _targets(self, match, anchors, boxes, class_targets, unmatched, weights):
        row, positive = match.matched_row, match.positive
        box_targets = self.box_coder.encode(gather_rows(boxes, row), anchors)
        box_weights = ops.where(positive, gather_rows(weights, row), 0.0)
        negative_weights = ops.where(match.ignored, 0.0, self.negative_class_weight)
        class_weights = ops.where(positive, box_weights, negative_weights)[..., None]
        class_targets = ops.where(positive[..., None], gather_rows(class_targets, row), unmatched)
        return Targets(
            class_targets=class_targets,
            class_weights=ops.broadcast_to(class_weights, ops.shape(class_targets)),
            box_targets=ops.where(positive[..., None], box_targets, 0.0),
            box_weights=box_weights,
            match=match,
        )
