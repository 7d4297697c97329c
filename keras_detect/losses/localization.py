"""Localization losses: parts that map predictions, targets and weights to one loss per anchor.

Predictions and targets `[B, A, code]`, weights `[B, A]`, result `[B, A]` float32. All arithmetic is float32; values and
gradients are finite, for boxes without area too.

A loss states in its attribute `compares` what it is called with: `"codes"`, the box codes as the box coder makes them
(`L2Loss`, `SmoothL1Loss` and `L1Loss`, which sum over the code), or `"boxes"`, the decoded boxes `[B, A, 4]` (`IouLoss`
and `GiouLoss`). A loss of your own states it too; one that does not is refused when the model is built.
"""

from typing import Any

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.registry import part, register_localization_loss

CODES, BOXES = "codes", "boxes"


def check_compares(loss):
    """Raises `ValueError` unless the localization loss states what it compares. Returns the loss."""
    compares = getattr(loss, "compares", None)
    if compares not in (CODES, BOXES):
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ValueError(
            f"A localization loss states what it compares: `compares = '{CODES}'` for box codes, "
            f"`compares = '{BOXES}'` for decoded boxes, as an IoU loss needs. Received: {name} with "
            f"compares={compares!r}. Set the attribute in the class, without a type annotation."
        )
    return loss


def localization_losses(loss, encodings, targets, weights, decode):
    """The localization loss of each anchor, on what the loss compares.

    Args:
        loss: a localization loss.
        encodings: `[B, A, code]` predicted box codes.
        targets: `[B, A, code]` wanted box codes.
        weights: `[B, A]`.
        decode: function, box codes `[B, A, code]` -> boxes `[B, A, 4]`; called only for a loss that compares boxes.

    Returns:
        `[B, A]` float32.
    """
    if loss.compares == BOXES:
        encodings, targets = decode(encodings)[..., :4], decode(targets)[..., :4]
    return loss(encodings, targets, weights)


@register_localization_loss("l2")
@part
class L2Loss:
    """Half the sum of squared differences, each multiplied by its anchor's weight before it is squared."""

    compares = CODES

    def __call__(self, predictions: Any, targets: Any, weights: Any) -> Any:
        difference, weights = _difference(predictions, targets, weights)
        return ops.square(weights) * 0.5 * _over_code(ops.square(difference), weights)


@register_localization_loss("smooth_l1")
@part
class SmoothL1Loss:
    """Huber loss: half the squared difference up to `delta`, `delta * (|difference| - delta / 2)` beyond it.

    Args:
        delta: where the parabola ends.

    Raises:
        ValueError: for a `delta` that is not positive.

    Girshick, 2015 (arXiv:1504.08083), eq. 3, is `delta=1`.
    """

    compares = CODES

    delta: float = 1.0

    def __post_init__(self):
        if not self.delta > 0:
            raise ValueError(f"`delta` must be positive (for 0, use L1Loss). Received: delta={self.delta!r}")

    def __call__(self, predictions: Any, targets: Any, weights: Any) -> Any:
        difference, weights = _difference(predictions, targets, weights)
        distance = ops.abs(difference)
        # d * (2|x| - d) / 2 with d = min(|x|, delta): both branches in one expression.
        parabola = ops.minimum(distance, self.delta)
        return weights * _over_code(parabola * (distance - 0.5 * parabola), weights)


@register_localization_loss("l1")
@part
class L1Loss:
    """Sum of absolute differences. Predictions of the weights' shape are compared value by value, without a sum."""

    compares = CODES

    def __call__(self, predictions: Any, targets: Any, weights: Any) -> Any:
        difference, weights = _difference(predictions, targets, weights)
        return weights * _over_code(ops.abs(difference), weights)


@register_localization_loss("iou")
@part
class IouLoss:
    """1 - IoU of each predicted box with its target. Boxes that do not meet have loss 1 and no gradient."""

    compares = BOXES

    def __call__(self, predictions: Any, targets: Any, weights: Any) -> Any:
        return ops.cast(weights, "float32") * (1.0 - box_ops.matched_iou(predictions, targets))


@register_localization_loss("giou")
@part
class GiouLoss:
    """1 - generalized IoU of each predicted box with its target, in [0, 2] (Rezatofighi et al., 2019, algorithm 1)."""

    compares = BOXES

    def __call__(self, predictions: Any, targets: Any, weights: Any) -> Any:
        return ops.cast(weights, "float32") * (1.0 - box_ops.matched_giou(predictions, targets))


def _difference(predictions, targets, weights):
    return ops.cast(predictions, "float32") - ops.cast(targets, "float32"), ops.cast(weights, "float32")


def _over_code(losses, weights):
    """`losses` summed over their last axis if the weights lack it."""
    return ops.sum(losses, axis=-1) if len(losses.shape) > len(weights.shape) else losses
