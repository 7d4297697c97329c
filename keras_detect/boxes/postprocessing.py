"""From raw predictions to detections: scores, suppression, decoding of what is needed, undoing the padding."""

from typing import Any, NamedTuple

from keras import ops

from keras_detect import schema
from keras_detect.kernels.gather import gather_rows
from keras_detect.kernels.top_k import top_k
from keras_detect.registry import part, seldom, unknown_name

_SCORE_CONVERTERS = {
    "sigmoid": ops.sigmoid,
    "softmax": lambda logits: ops.softmax(logits, axis=-1),
    "identity": lambda logits: logits,
}


@part
class Postprocessor:
    """Detections from box codes and class logits, in float32 for any precision of the network.

    Args:
        nms: `MulticlassNonMaxSuppression`.
        score_converter: "sigmoid", "softmax" (over all columns, the background's included) or "identity".
        logit_scale: logits are divided by it before the conversion; positive.
        has_background: whether the first column of the logits is the background; it is never reported.
        candidates_per_level: how many of the best pairs of anchor and class of each feature map take part in
            suppression, as in torchvision; `None`: all.
        suppress_by_level: for one class: boxes suppress only those of the same feature map, as torchvision's proposals.
    """

    nms: Any
    score_converter: str = "sigmoid"
    logit_scale: float = 1.0
    has_background: bool = True
    candidates_per_level: int | None = seldom(None)
    suppress_by_level: bool = seldom(False)

    def __post_init__(self):
        if self.candidates_per_level is not None and self.candidates_per_level < 1:
            raise ValueError(
                f"candidates_per_level must be at least 1. Received: candidates_per_level={self.candidates_per_level}"
            )
        if self.score_converter not in _SCORE_CONVERTERS:
            raise ValueError(unknown_name("score converter", self.score_converter, _SCORE_CONVERTERS))
        if not self.logit_scale > 0.0:
            raise ValueError(f"logit_scale must be positive. Received: logit_scale={self.logit_scale}")

    @property
    def needs_levels(self):
        """Whether the feature map of each anchor matters."""
        return self.candidates_per_level is not None or self.suppress_by_level

    def levels(self, predictions, anchor_generator):
        """`AnchorLevels` from `predictions["anchor_levels"]` where `needs_levels`, else `None`."""
        if not self.needs_levels:
            return None
        return AnchorLevels(predictions[schema.ANCHOR_LEVELS], len(anchor_generator.num_anchors_per_location()))

    def __call__(self, box_encodings, class_logits, anchors, box_coder, window, num_valid=None, levels=None):
        """Detections of a batch.

        Args:
            box_encodings: `[B, A, code]`, or `[B, A, K, code]` with a box per class.
            class_logits: `[B, A, K]`, or `[B, A, K + 1]` with the background first.
            anchors: `[A, 4]` or `[B, A, 4]`, normalized to the preprocessed (padded) image.
            box_coder: what `decode`s the codes.
            window: `[B, 4]` or `[4]`, the true image in the frame of the anchors.
            num_valid: `[B]` int, how many leading anchors (proposals) count, or `None` for all.
            levels: `AnchorLevels`, where `needs_levels`.

        Returns:
            The detections dict of `schema`, boxes clipped and normalized to the true image.
        """
        return as_detections(self.select(box_encodings, class_logits, anchors, box_coder, window, num_valid, levels))

    def select(self, box_encodings, class_logits, anchors, box_coder, window, num_valid=None, levels=None):
        """As `__call__`, but returns `nms.Detections`, whose anchor indices let masks and the like be gathered.

        Args:
            box_encodings: as in `__call__`.
            class_logits: as in `__call__`.
            anchors: as in `__call__`.
            box_coder: as in `__call__`.
            window: as in `__call__`.
            num_valid: as in `__call__`.
            levels: as in `__call__`.
        """
        boxes, scores = _CodedBoxes(box_encodings, anchors, box_coder), self.scores(class_logits)
        if self.candidates_per_level is not None:
            scores = _best_of_levels(scores, levels, self.candidates_per_level)
        if not self.suppress_by_level:
            return self.nms.select(boxes, scores, window, num_valid)
        mine = ops.expand_dims(levels.numbers, -1) == ops.arange(levels.count, dtype="int32")
        found = self.nms.select(boxes, ops.where(mine, scores, float("-inf")), window, num_valid)
        return found._replace(labels=ops.minimum(found.labels, 0))

    def scores(self, class_logits):
        """`[B, A, K]` or, with a background column, `[B, A, K + 1]` logits to `[B, A, K]` float32 scores."""
        logits = ops.convert_to_tensor(class_logits)
        if self.has_background and self.score_converter != "softmax":
            return self.all_scores(logits[..., 1:])
        scores = self.all_scores(logits)
        return scores[..., 1:] if self.has_background else scores

    def all_scores(self, class_logits):
        """Float32 scores of the shape of `class_logits`, the background's included where there is one."""
        logits = ops.cast(class_logits, "float32")
        if self.logit_scale != 1.0:
            logits = logits / self.logit_scale
        return _SCORE_CONVERTERS[self.score_converter](logits)


def as_detections(found):
    """`nms.Detections` as the detections dict of `schema`."""
    return {
        schema.BOXES: found.boxes,
        schema.SCORES: found.scores,
        schema.LABELS: found.labels,
        schema.NUM_DETECTIONS: found.num_detections,
    }


class FinalStage(NamedTuple):
    """What the last suppression of a detector starts from; arguments as of `Postprocessor.__call__`.

    Attributes:
        raw_boxes_clipped: whether upstream reports the boxes before suppression (`raw_detection_boxes`) clipped and
            normalized to the true image; else they are in the frame of the anchors.
        further: function, `nms.Detections` -> dict of further per-object fields of the detections; `None`: there are
            none.
    """

    postprocessor: Postprocessor
    box_encodings: Any
    class_logits: Any
    anchors: Any
    box_coder: Any
    window: Any
    num_valid: Any = None
    levels: Any = None
    raw_boxes_clipped: bool = False
    further: Any = None

    def detections(self, found):
        """The detections dict of `schema` of what `select` returned, with all further fields."""
        return as_detections(found) | ({} if self.further is None else self.further(found))

    def select(self):
        """`nms.Detections`, with the index of each one's anchor."""
        return self.postprocessor.select(
            self.box_encodings,
            self.class_logits,
            self.anchors,
            self.box_coder,
            self.window,
            self.num_valid,
            self.levels,
        )

    def boxes(self):
        """`[B, A, q, 4]`: every decoded box in the frame of the anchors, before suppression."""
        return _CodedBoxes(self.box_encodings, self.anchors, self.box_coder).all()


class AnchorLevels(NamedTuple):
    """Which feature map each anchor belongs to: `numbers [A]` int32, of `count` maps."""

    numbers: Any
    count: int  # type: ignore[assignment]  # hides tuple.count, which is not used


def _best_of_levels(scores, levels, number):
    """`scores [B, A, K]` with -inf for pairs that are not among the `number` best of their feature map."""
    best, bounds = ops.max(scores, axis=-1), []
    rows = min(number, best.shape[1]) if isinstance(best.shape[1], int) else number
    for level in range(levels.count):
        # the best pairs belong to the anchors whose best pairs are best
        values, anchors = top_k(ops.where(levels.numbers == level, best, float("-inf")), rows)
        if scores.shape[-1] > 1:
            pairs = ops.where(ops.expand_dims(values, -1) > float("-inf"), gather_rows(scores, anchors), float("-inf"))
            values, _ = top_k(ops.reshape(pairs, (-1, rows * scores.shape[-1])), min(number, rows * scores.shape[-1]))
        bounds.append(values[:, -1] if values.shape[-1] == number else ops.full_like(values[:, -1], float("-inf")))
    bounds = ops.take(ops.stack(bounds, axis=1), levels.numbers, axis=1)
    return ops.where(scores >= ops.expand_dims(bounds, -1), scores, float("-inf"))


class _CodedBoxes:
    """Boxes decoded where suppression asks for them; see `MulticlassNonMaxSuppression.select`."""

    def __init__(self, encodings, anchors, coder):
        self._codes = ops.cast(ops.convert_to_tensor(encodings), "float32")
        if len(self._codes.shape) == 3:
            self._codes = ops.expand_dims(self._codes, 2)
        self._anchors = ops.cast(ops.convert_to_tensor(anchors), "float32")
        self._coder = coder

    def all(self):
        """`[B, A, q, 4]`."""
        return self._coder.decode(self._codes, ops.expand_dims(self._anchors, -2))[..., :4]

    def at(self, anchors, labels):
        """`[B, N, 4]`; with a box per anchor the labels do not matter."""
        num_anchors, per_anchor, size = ops.shape(self._codes)[1], self._codes.shape[2], self._codes.shape[3]
        codes = ops.reshape(self._codes, (-1, num_anchors * per_anchor, size))
        codes = gather_rows(codes, anchors if per_anchor == 1 else anchors * per_anchor + labels)
        shared = len(self._anchors.shape) == 2
        chosen = ops.take(self._anchors, anchors, axis=0) if shared else gather_rows(self._anchors, anchors)
        return self._coder.decode(codes, chosen)[..., :4]
