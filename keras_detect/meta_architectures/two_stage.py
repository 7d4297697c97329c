"""The two stages of Faster R-CNN as parts: what is matched, sampled, suppressed and lost in each.

All boxes are normalized to the preprocessed (padded) image.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_detect import schema
from keras_detect.boxes import box_ops
from keras_detect.boxes.postprocessing import FinalStage
from keras_detect.boxes.samplers import BalancedPositiveNegativeSampler
from keras_detect.kernels.gather import gather_rows
from keras_detect.kernels.top_k import top_k
from keras_detect.losses.classification import SoftmaxCrossEntropyLoss
from keras_detect.losses.localization import SmoothL1Loss, check_compares, localization_losses
from keras_detect.meta_architectures.ground_truth import positives_per_image
from keras_detect.registry import part, seldom


class GroundTruth(NamedTuple):
    """Ground truth of a batch in the frame of the preprocessed image."""

    boxes: Any  # [B, M, 4]
    class_targets: Any  # [B, M, K + 1] one-hot, background first; zeros in padding
    weights: Any  # [B, M]
    valid: Any  # [B, M] bool


@part
class ProposalStage:
    """First stage: anchors, what they should predict, and which become proposals (Ren et al. 2015, section 3.1).

    Losses are divided by the number of sampled anchors of each image and averaged over the batch.

    Args:
        anchor_generator: part, feature map sizes -> anchors `[A, 4]`.
        target_assigner: matches anchors with ground truth; holds the box coder.
        postprocessor: `Postprocessor` with softmax and background; its suppression keeps the frame of the
            preprocessed image, and its `max_total_detections` is P.
        sampler: chooses the anchors that count.
        batch_size: how many of an image.
        clip_anchors: in training, clip anchors to the image; else those that cross its border take no part. At
            inference they are always clipped.
        keep_anchors: anchors stay as they are beyond the border, in training and at inference, as in torchvision;
            `clip_anchors` does not matter then.
        localization: part `(predictions, targets, weights) -> [B, A]`, of box codes or of boxes (its `compares`).
        objectness: part `(logits, targets, weights) -> [B, A]`.
        localization_weight, objectness_weight: factors of the two losses.

    Raises:
        ValueError: a suppression that changes the frame of the boxes; a localization loss that does not state what it
            compares.
    """

    anchor_generator: Any
    target_assigner: Any
    postprocessor: Any
    sampler: Any = BalancedPositiveNegativeSampler(positive_fraction=0.5)
    batch_size: int = 256
    clip_anchors: bool = True
    keep_anchors: bool = seldom(False)
    localization: Any = SmoothL1Loss(delta=1.0)
    objectness: Any = SoftmaxCrossEntropyLoss()
    localization_weight: float = 1.0
    objectness_weight: float = 1.0

    def __post_init__(self):
        check_compares(self.localization)
        if self.postprocessor.nms.change_coordinate_frame:
            raise ValueError(
                "Proposals stay in the frame of the preprocessed image, from which they are cropped. Received a "
                "suppression with change_coordinate_frame=True: pass change_coordinate_frame=False."
            )

    @property
    def num_proposals(self) -> int:
        """P."""
        return self.postprocessor.nms.max_total_detections

    def anchors(self, feature_map_shapes: Sequence[tuple[int, int]], image_shape: Any, training: bool | None) -> Any:
        """`[A, 4]`, clipped to `[0, 1]`. Anchors that take no part have no area: all coordinates are 0."""
        anchors = self.anchor_generator(feature_map_shapes, image_shape)
        if self.keep_anchors:
            return anchors
        numpy = isinstance(anchors, np.ndarray)
        xp = np if numpy else ops
        if training and not self.clip_anchors:
            inside = xp.all(xp.logical_and(anchors >= 0.0, anchors <= 1.0), axis=-1, keepdims=True)
            return xp.where(inside, anchors, xp.zeros_like(anchors))
        return xp.clip(anchors, 0.0, 1.0)

    def propose(self, predictions: dict[str, Any], window: Any) -> tuple[Any, Any]:
        """Proposals: `(boxes [B, P, 4], number [B])`, best first, clipped to the window; without gradient.

        Args:
            predictions: dict with `"rpn_box_encodings"`, `"rpn_objectness"`, `"anchors"`.
            window: `[B, 4]`, the true image in the preprocessed one.
        """
        found = self.postprocessor.select(*self._candidates(predictions), window, levels=self._levels(predictions))
        return ops.stop_gradient(found.boxes), found.num_detections

    def final_stage(self, predictions: dict[str, Any], window: Any) -> FinalStage:
        """`FinalStage` of the proposals as detections of class 0, normalized to the window `[B, 4]`."""
        nms = dataclasses.replace(self.postprocessor.nms, change_coordinate_frame=True)
        post = dataclasses.replace(self.postprocessor, nms=nms)
        return FinalStage(post, *self._candidates(predictions), window, levels=self._levels(predictions))

    def _levels(self, predictions):
        return self.postprocessor.levels(predictions, self.anchor_generator)

    def _candidates(self, predictions) -> tuple[Any, Any, Any, Any]:
        """Box codes, logits, anchors and coder, without gradient."""
        anchors = ops.stop_gradient(predictions[schema.ANCHORS])
        encodings = ops.stop_gradient(predictions[schema.RPN_BOX_ENCODINGS])
        logits = ops.stop_gradient(predictions[schema.RPN_OBJECTNESS])
        # an anchor without area is no object for sure: its score is exactly 0
        logits = ops.where(_takes_part(anchors)[:, None], logits, ops.array([0.0, float("-inf")], "float32"))
        return encodings, logits, anchors, self.target_assigner.box_coder

    def losses(self, predictions: dict[str, Any], ground_truth: Any, seed: Any) -> tuple[Any, Any, Any]:
        """`(localization loss, objectness loss, positives)`, float32 scalars; `seed` draws the sample.

        The positives are the anchors in the sample that learn a box, per image.
        """
        anchors = predictions[schema.ANCHORS]
        ones = ops.ones_like(ground_truth.weights)[..., None]
        targets = self.target_assigner(
            anchors, ground_truth.boxes, ones, ops.zeros((1,)), ground_truth.weights, ground_truth.valid
        )
        positive = targets.class_targets[..., 0] > 0
        counted = ops.logical_and(targets.class_weights[..., 0] > 0, _takes_part(anchors))
        sampled = ops.cast(self.sampler(counted, positive, self.batch_size, seed), "float32")
        number = ops.maximum(ops.sum(sampled, axis=1), 1.0)
        weights = sampled * targets.box_weights
        localization = localization_losses(
            self.localization,
            predictions[schema.RPN_BOX_ENCODINGS],
            targets.box_targets,
            weights,
            lambda codes: self.target_assigner.box_coder.decode(codes, anchors),
        )
        wanted = ops.one_hot(ops.cast(positive, "int32"), 2, dtype="float32")
        objectness = self.objectness(predictions[schema.RPN_OBJECTNESS], wanted, sampled[..., None])
        return (
            self.localization_weight * ops.mean(ops.sum(localization, axis=1) / number),
            self.objectness_weight * ops.mean(ops.sum(_over_classes(objectness), axis=1) / number),
            positives_per_image(weights),
        )


@part
class BoxStage:
    """Second stage: which proposals are classified in training, the losses, and the detections.

    Losses are divided by the number of proposals of each image and averaged over the batch.

    Args:
        target_assigner: matches proposals with ground truth; holds the box coder.
        postprocessor: `Postprocessor` of the detections.
        sampler: chooses the proposals that count in training.
        batch_size: how many of an image.
        classification: part `(logits, targets, weights) -> [B, P]` or `[B, P, K + 1]`.
        localization: part `(predictions, targets, weights) -> [B, P]`, of box codes or of boxes (its `compares`).
        classification_weight, localization_weight: factors of the two losses.
        hard_example_miner: part that picks the proposals with the largest losses in place of the sampler, or `None`.

    Raises:
        ValueError: a localization loss that does not state what it compares.
    """

    target_assigner: Any
    postprocessor: Any
    sampler: Any = BalancedPositiveNegativeSampler(positive_fraction=0.25)
    batch_size: int = 64
    classification: Any = SoftmaxCrossEntropyLoss()
    localization: Any = SmoothL1Loss(delta=1.0)
    classification_weight: float = 1.0
    localization_weight: float = 1.0
    hard_example_miner: Any = None

    def __post_init__(self):
        check_compares(self.localization)

    def assign(self, proposals: Any, ground_truth: Any) -> Any:
        """`Targets` of the proposals `[B, P, 4]`."""
        columns = ground_truth.class_targets.shape[-1]
        background = ops.one_hot(0, columns, dtype="float32")
        return self.target_assigner(
            proposals,
            ground_truth.boxes,
            ground_truth.class_targets,
            background,
            ground_truth.weights,
            ground_truth.valid,
        )

    def sample(self, proposals: Any, num_proposals: Any, ground_truth: Any, seed: Any) -> tuple[Any, Any]:
        """A random choice: `(boxes [B, N, 4], number [B])`; with a hard example miner all proposals."""
        if self.hard_example_miner is not None:
            return proposals, num_proposals
        targets = self.assign(proposals, ground_truth)
        weights = targets.class_weights[..., 0]
        # where every proposal is ignored, all may be chosen
        weights = weights + ops.cast(ops.sum(weights, axis=1, keepdims=True) == 0.0, "float32")
        existing = leading(num_proposals, proposals.shape[1])
        positive = ops.argmax(targets.class_targets, axis=-1) > 0
        chosen = self.sampler(ops.logical_and(existing, weights > 0), positive, self.batch_size, seed)
        chosen = ops.cast(chosen, "float32")
        # ties fall to the lower index, so the chosen come first and in order
        _, rows = top_k(chosen, min(self.batch_size, proposals.shape[1]))
        number = ops.cast(ops.sum(chosen, axis=1), "int32")
        boxes = ops.where(leading(number, rows.shape[1])[..., None], gather_rows(proposals, rows), 0.0)
        return boxes, number

    @property
    def most_positives(self) -> int:
        """How many positives of an image a sample has at most."""
        fraction = getattr(self.sampler, "positive_fraction", 1.0)
        return self.batch_size if self.hard_example_miner else max(1, int(fraction * self.batch_size))

    def losses(
        self, predictions: dict[str, Any], proposals: Any, num_proposals: Any, ground_truth: Any
    ) -> tuple[Any, Any, Any]:
        """`(localization loss, classification loss, positives)`, float32 scalars.

        The positives are the proposals that learn a box, per image.

        Args:
            predictions: dict with `"box_encodings"` `[B, P, q, code]` and `"class_logits"` `[B, P, K + 1]`.
            proposals: `[B, P, 4]`.
            num_proposals: `[B]`, how many of them exist.
            ground_truth: `GroundTruth`.
        """
        targets = self.assign(proposals, ground_truth)
        existing = ops.cast(leading(num_proposals, proposals.shape[1]), "float32")
        number = ops.cast(ops.maximum(num_proposals, 1), "float32")[:, None]
        share = existing / (number * ops.cast(ops.shape(proposals)[0], "float32"))
        encodings = _of_class(predictions[schema.BOX_ENCODINGS], targets.class_targets)
        localization = share * localization_losses(
            self.localization,
            encodings,
            targets.box_targets,
            targets.box_weights,
            lambda codes: self.target_assigner.box_coder.decode(codes, proposals),
        )
        classification = share * _over_classes(
            self.classification(predictions[schema.CLASS_LOGITS], targets.class_targets, targets.class_weights)
        )
        if self.hard_example_miner is not None:
            localization, classification = self.hard_example_miner(
                localization, classification, proposals, targets.match
            )
        return (
            self.localization_weight * ops.sum(localization),
            self.classification_weight * ops.sum(classification),
            positives_per_image(existing * targets.box_weights),
        )


def _takes_part(anchors):
    return box_ops.area(anchors) > 0.0


def leading(number, length):
    """`[B, length]` bool: the first `number [B]` of each row."""
    return ops.arange(length, dtype="int32")[None] < ops.cast(number, "int32")[:, None]


def _over_classes(losses):
    return ops.sum(losses, axis=-1) if len(losses.shape) == 3 else losses


def _of_class(encodings, class_targets):
    """The box codes `[B, P, code]` of each proposal's class; zeros for the background where every class has a box."""
    if encodings.shape[2] == 1:
        return encodings[:, :, 0]
    label = ops.argmax(class_targets, axis=-1)
    return ops.sum(encodings * ops.one_hot(label - 1, encodings.shape[2], dtype="float32")[..., None], axis=2)
