"""How a one-stage detector turns unreduced losses into two scalars."""

from typing import Any

from keras import ops

from keras_detect.losses.classification import SigmoidFocalLoss
from keras_detect.losses.localization import SmoothL1Loss, check_compares, localization_losses
from keras_detect.registry import part


@part
class OneStageLoss:
    """Classification and localization loss of SSD (Liu et al. 2016, eq. 1) and RetinaNet (Lin et al. 2017, section 4).

    Both sums run over the anchors of the whole batch and are divided by the sum of the box weights of the batch (the
    number of matched anchors where all weights are 1), at least 1.

    Args:
        classification: part `(logits, targets, weights) -> [B, A, C] or [B, A]`.
        localization: part `(predictions, targets, weights) -> [B, A]`, of box codes or of boxes (its `compares`).
        classification_weight: factor of the classification loss.
        localization_weight: factor of the localization loss.
        normalize_by_num_matches: divide by the number of matches as above; otherwise the plain sums.
        normalize_localization_by_code_size: also divide the localization loss by the length of a box code.
        background_as_zeros: an unmatched anchor's target is all zeros; `False` sets its background column to 1, which
            softmax needs.
        hard_example_miner: part that picks the anchors that count, or `None` for all (focal loss).

    Raises:
        ValueError: a localization loss that does not state what it compares.
    """

    classification: Any = SigmoidFocalLoss(gamma=2.0, alpha=0.25)
    localization: Any = SmoothL1Loss(delta=1.0)
    classification_weight: float = 1.0
    localization_weight: float = 1.0
    normalize_by_num_matches: bool = True
    normalize_localization_by_code_size: bool = False
    background_as_zeros: bool = True
    hard_example_miner: Any = None

    def __post_init__(self):
        check_compares(self.localization)

    def __call__(self, encodings: Any, logits: Any, targets: Any, decode: Any) -> Any:
        """Losses of one batch.

        Args:
            encodings: `[B, A, code]` float32 predicted box codes.
            logits: `[B, A, C]` float32, C counts the background column where there is one.
            targets: `Targets` of the target assigner.
            decode: function box codes `[B, A, code]` -> boxes `[B, A, 4]`.

        Returns:
            `(localization_loss, classification_loss)`, float32 scalars.
        """
        classification = self.classification(logits, targets.class_targets, targets.class_weights)
        if len(classification.shape) == 3:
            classification = ops.sum(classification, axis=-1)
        localization = localization_losses(
            self.localization, encodings, targets.box_targets, targets.box_weights, decode
        )
        if self.hard_example_miner is not None:
            localization, classification = self.hard_example_miner(
                localization, classification, decode(encodings), targets.match
            )
        normalizer = ops.maximum(ops.sum(targets.box_weights), 1.0) if self.normalize_by_num_matches else 1.0
        code_size = encodings.shape[-1] if self.normalize_localization_by_code_size else 1
        return (
            self.localization_weight * ops.sum(localization) / (normalizer * code_size),
            self.classification_weight * ops.sum(classification) / normalizer,
        )
