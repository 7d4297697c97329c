"""Hard example mining: only the anchors with the largest losses count."""

from typing import Any

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.kernels.gather import gather_rows, put_rows
from keras_detect.kernels.nms import earlier_columns, greedy_keep
from keras_detect.kernels.top_k import top_k
from keras_detect.registry import part, unknown_name

_LOSS_TYPES = ("cls", "loc", "both")


@part
class HardExampleMiner:
    """Sums the losses of the hardest anchors of each image (Shrivastava et al. 2016; SSD's 3:1 rule, Liu et al. 2016).

    Anchors are ranked by falling loss, of equal ones the first first; a NaN ranks highest, so that a diverged loss
    shows. Non-maximum suppression with the losses as scores drops boxes that overlap a harder one; then the best
    `num_hard_examples` remain, and of these all positives and, by rank, so many negatives as the ratio allows. Ignored
    anchors remain as long as the negatives before them do. Gradients flow through the losses, not the choice.

    Args:
        num_hard_examples: maximum number of anchors per image; `None`: all.
        iou_threshold: a box is dropped if its IoU with a harder kept one is greater; from 1 on nothing is dropped,
            which needs no suppression and is much faster.
        loss_type: what ranks the anchors: "cls", "loc" or "both" (weighted sum).
        cls_loss_weight: of the classification loss in "both".
        loc_loss_weight: of the localization loss in "both".
        max_negatives_per_positive: negatives kept for each positive kept; `None` for all.
        min_negatives_per_image: negatives that are kept even without positives.
    """

    num_hard_examples: int | None = 64
    iou_threshold: float = 0.7
    loss_type: str = "both"
    cls_loss_weight: float = 0.05
    loc_loss_weight: float = 0.06
    max_negatives_per_positive: float | None = None
    min_negatives_per_image: int = 0

    def __post_init__(self):
        if self.loss_type not in _LOSS_TYPES:
            raise ValueError(unknown_name("loss_type", self.loss_type, _LOSS_TYPES))
        if self.num_hard_examples is not None and self.num_hard_examples < 1:
            raise ValueError(
                f"num_hard_examples must be at least 1, or None for all. Received: {self.num_hard_examples}"
            )
        if self.max_negatives_per_positive is not None and not self.max_negatives_per_positive >= 0:
            raise ValueError(
                "max_negatives_per_positive must not be negative; None keeps all negatives. "
                f"Received: {self.max_negatives_per_positive}"
            )

    def __call__(self, location_losses: Any, cls_losses: Any, decoded_boxes: Any, match: Any) -> Any:
        """Mined losses of a batch.

        Args:
            location_losses: `[B, A]`, one number per anchor, weights applied.
            cls_losses: `[B, A]`, likewise, summed over classes.
            decoded_boxes: `[B, A, 4]` predicted boxes; used for suppression only.
            match: `Match` of the anchors; `None` where there is no ratio to keep.

        Returns:
            `(localization loss, classification loss)`: float32 scalars, summed over anchors and images.
        """
        location_losses = ops.cast(location_losses, "float32")
        cls_losses = ops.cast(cls_losses, "float32")
        if self.max_negatives_per_positive is not None and match is None:
            raise ValueError("max_negatives_per_positive needs a match. Received: match=None")
        if location_losses.shape[1] == 0:
            return ops.sum(location_losses), ops.sum(cls_losses)
        chosen = ops.stop_gradient(self.choose(location_losses, cls_losses, decoded_boxes, match))
        # where, not a product: the loss of an anchor that is not chosen may be infinite.
        return (
            ops.sum(ops.where(chosen > 0.0, location_losses, 0.0)),
            ops.sum(ops.where(chosen > 0.0, cls_losses, 0.0)),
        )

    def choose(self, location_losses: Any, cls_losses: Any, decoded_boxes: Any, match: Any) -> Any:
        """Which anchors count: `[B, A]` float32, 0 or 1. Arguments as in `__call__`."""
        losses = {"cls": cls_losses, "loc": location_losses}.get(self.loss_type)
        if losses is None:
            losses = cls_losses * self.cls_loss_weight + location_losses * self.loc_loss_weight
        losses = ops.stop_gradient(losses)
        losses = ops.where(ops.isnan(losses), float("inf"), losses)
        num_anchors = losses.shape[1]
        limit = min(self.num_hard_examples or num_anchors, num_anchors)
        if self.iou_threshold >= 1.0:
            _, order = top_k(losses, limit)
            kept = ops.ones_like(order, dtype="float32")
        else:
            _, order = top_k(losses, num_anchors)
            kept = self._not_suppressed(gather_rows(ops.stop_gradient(decoded_boxes), order))
            kept = ops.where(ops.cumsum(kept, axis=1) <= limit, kept, 0.0)
        if self.max_negatives_per_positive is not None:
            kept = kept * self._within_ratio(
                kept, _gather_mask(match.positive, order), _gather_mask(match.ignored, order)
            )
        return put_rows(ops.zeros_like(losses), order, kept)

    def _within_ratio(self, kept, positive, ignored):
        """1 for the positives and for what comes before the negatives run out; all `[B, N]` by falling loss."""
        num_positives = ops.sum(kept * positive, axis=1, keepdims=True)
        allowed = ops.maximum(
            ops.floor(self.max_negatives_per_positive * num_positives), float(self.min_negatives_per_image)
        )
        negatives = kept * (1.0 - positive) * (1.0 - ignored)
        return ops.maximum(positive, ops.cast(ops.cumsum(negatives, axis=1) <= allowed, "float32"))

    def _not_suppressed(self, boxes):
        """`[B, A]` float32: 1 for the boxes, ordered by falling loss, that suppression keeps."""
        boxes = ops.cast(boxes, "float32")
        formed = box_ops.well_formed(boxes)
        # A malformed box meets nothing.
        boxes = ops.where(formed[:, :, None], boxes, 0.0)
        earlier = earlier_columns(boxes.shape[1])

        def one(image_boxes):  # one image at a time: the pairs of a whole batch take much memory
            meets = box_ops.iou(image_boxes, image_boxes) > self.iou_threshold
            keep = greedy_keep(ops.where(meets, earlier, 0.0)[None], ops.ones((1, boxes.shape[1]), dtype="bool"))
            return ops.cast(keep[0], "float32")

        return ops.map(one, boxes)


def _gather_mask(mask, rows):
    """`mask [B, A]` bool at `rows [B, N]` as float32."""
    return gather_rows(ops.cast(ops.convert_to_tensor(mask), "float32"), rows)
