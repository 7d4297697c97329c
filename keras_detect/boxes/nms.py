"""Non-maximum suppression over classes, with static shapes; axes and boxes as in `schema`."""

from typing import Any

from keras import ops

from keras_detect.boxes import nms_greedy, nms_soft  # noqa: F401 (registers the schemes)
from keras_detect.boxes.nms_candidates import Candidates, scheme_of
from keras_detect.kernels.gather import gather_rows
from keras_detect.registry import part, seldom


@part
class MulticlassNonMaxSuppression:
    """Suppression of overlapping boxes, class by class; pairs with equal scores are visited by anchor, then by class.

    A pair of anchor and class is a candidate if its score is above the threshold (NaN never is) and its box is finite
    and not reversed. Suppression works on the boxes as they come, or with `clip_first` on the clipped ones; then they
    are clipped to the window, those left without area are dropped, and the best `max_total_detections` are returned.

    Args:
        score_threshold: candidates have a greater score.
        iou_threshold: a candidate is suppressed by a better one of its class if their IoU is greater.
        max_detections_per_class: how many per class are kept before clipping.
        max_total_detections: D, the rows of the result.
        class_agnostic: an anchor stands for its best class only, and boxes suppress those of other classes, too;
            `max_total_detections` then limits what is kept before clipping.
        soft_nms_sigma: above 0, the scores of overlapped boxes fall by `exp(-iou^2 / (2 sigma))` instead, boxes over
            `iou_threshold` still being suppressed; scores are the lowered ones (Bodla et al. 2017, with the factor of
            TensorFlow's kernel).
        change_coordinate_frame: return boxes in the frame in which the window is `[0, 0, 1, 1]`.
        pool_size: how many of the best pairs are looked at together; changes only the speed of greedy suppression.
            `None`: 2.5 D, at least 256.
        scheme: "greedy", "soft", a name given to `register_suppression`, or a callable `Candidates -> Detections`
            (`boxes.nms_candidates`). `None`: soft where `soft_nms_sigma` is above 0, else greedy.
        clip_first: boxes are clipped to the window before they suppress one another, as in torchvision.
        keep_empty: boxes that clipping leaves without area are returned too, as torchvision's RetinaNet does.

    Raises:
        ValueError: for a setting out of its range, an unknown scheme, and `soft_nms_sigma` with another scheme.
    """

    score_threshold: float = 0.0
    iou_threshold: float = 0.6
    max_detections_per_class: int = 100
    max_total_detections: int = 100
    class_agnostic: bool = False
    soft_nms_sigma: float = 0.0
    change_coordinate_frame: bool = True
    pool_size: int | None = None
    scheme: Any = None
    clip_first: bool = seldom(False)
    keep_empty: bool = seldom(False)

    def __post_init__(self):
        for name in ("max_detections_per_class", "max_total_detections", "pool_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        if not 0.0 <= self.iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must be in [0, 1]. Received: iou_threshold={self.iou_threshold}")
        if self.soft_nms_sigma < 0.0:
            raise ValueError(f"soft_nms_sigma must be 0 or positive. Received: soft_nms_sigma={self.soft_nms_sigma}")
        self._scheme()  # an unknown name raises here
        if self.scheme is not None and (self.scheme == "soft") != (self.soft_nms_sigma > 0.0):
            raise ValueError(
                "soft_nms_sigma belongs to the scheme 'soft', which needs it. Received: "
                f"scheme={self.scheme!r}, soft_nms_sigma={self.soft_nms_sigma}"
            )

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
                "Non-maximum suppression takes boxes [B, A, 4], [B, A, 1, 4] or, with boxes per class, [B, A, K, 4], "
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
        candidates = Candidates(self, source, scores, clip_window, num_valid)
        if isinstance(candidates.num_pairs, int) and candidates.num_pairs == 0:
            return candidates.nothing()
        return self._scheme()(candidates)

    def _scheme(self):
        if callable(self.scheme):
            return self.scheme
        return scheme_of(self.scheme or ("soft" if self.soft_nms_sigma > 0.0 else "greedy"))


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
