"""Similarities of two sets of boxes: callables `(boxes1 [..., N, 4], boxes2 [..., M, 4]) -> [..., N, M]` float32.

`apart` is the similarity of two boxes that have nothing in common; a ground-truth box that is no more similar than that
to any anchor is not forced on one (see `TargetAssigner`).
"""

from typing import Any

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.registry import part


@part
class IouSimilarity:
    """Intersection over union; symmetric."""

    apart = 0.0

    def __call__(self, boxes1: Any, boxes2: Any) -> Any:
        return box_ops.iou(boxes1, boxes2)


@part
class IoaSimilarity:
    """Intersection over the area of `boxes2`; not symmetric."""

    apart = 0.0

    def __call__(self, boxes1: Any, boxes2: Any) -> Any:
        return box_ops.ioa(boxes1, boxes2)


@part
class NegSquaredDistanceSimilarity:
    """Minus the squared Euclidean distance of the four coordinates: 0 for equal boxes, negative otherwise."""

    apart = float("-inf")

    def __call__(self, boxes1: Any, boxes2: Any) -> Any:
        return -box_ops.squared_distance(boxes1, boxes2)


@part
class ThresholdedIouSimilarity:
    """The score of the first box where the IoU is above a threshold, else 0.

    Args:
        iou_threshold: in [0, 1]; a pair counts if its IoU is greater.
    """

    iou_threshold: float = 0.5
    apart = 0.0

    def __call__(self, boxes1: Any, boxes2: Any, scores1: Any = None) -> Any:
        """`scores1 [..., N]` are the scores of `boxes1`; without them every box has score 1."""
        overlap = box_ops.iou(boxes1, boxes2)
        scores = ops.ones_like(overlap) if scores1 is None else ops.expand_dims(ops.cast(scores1, "float32"), -1)
        return ops.where(overlap > self.iou_threshold, scores, 0.0)
