"""Localisation losses: parts that map predictions, targets and weights to one loss per anchor.

Predictions and targets `[B, A, code]`, weights `[B, A]`, result `[B, A]` float32. `L2Loss`, `SmoothL1Loss` and `L1Loss`
compare box codes and sum over the code; `IouLoss` and `GiouLoss` compare decoded boxes `[B, A, 4]`. All arithmetic is
float32; values and gradients are finite, for boxes without area too.
"""

from keras import ops

from keras_detect.boxes import box_ops
from keras_detect.registry import part, register_localization_loss


@register_localization_loss("l2")
@part
class L2Loss:
    """Half the sum of squared differences, each multiplied by its anchor's weight before it is squared."""

    def __call__(self, predictions, targets, weights):
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

    delta: float = 1.0

    def __post_init__(self):
        if not self.delta > 0:
            raise ValueError(f"`delta` is positive; L1Loss is its limit at 0. Received: delta={self.delta!r}")

    def __call__(self, predictions, targets, weights):
        difference, weights = _difference(predictions, targets, weights)
        distance = ops.abs(difference)
        # d * (2|x| - d) / 2 with d = min(|x|, delta): both branches in one expression.
        parabola = ops.minimum(distance, self.delta)
        return weights * _over_code(parabola * (distance - 0.5 * parabola), weights)


@register_localization_loss("l1")
@part
class L1Loss:
    """Sum of absolute differences. Predictions of the weights' shape are compared value by value, without a sum."""

    def __call__(self, predictions, targets, weights):
        difference, weights = _difference(predictions, targets, weights)
        return weights * _over_code(ops.abs(difference), weights)


@register_localization_loss("iou")
@part
class IouLoss:
    """1 - IoU of each predicted box with its target. Boxes that do not meet have loss 1 and no gradient."""

    def __call__(self, predictions, targets, weights):
        return ops.cast(weights, "float32") * (1.0 - box_ops.matched_iou(predictions, targets))


@register_localization_loss("giou")
@part
class GiouLoss:
    """1 - generalised IoU of each predicted box with its target, in [0, 2] (Rezatofighi et al., 2019, algorithm 1)."""

    def __call__(self, predictions, targets, weights):
        return ops.cast(weights, "float32") * (1.0 - box_ops.matched_giou(predictions, targets))


def _difference(predictions, targets, weights):
    return ops.cast(predictions, "float32") - ops.cast(targets, "float32"), ops.cast(weights, "float32")


def _over_code(losses, weights):
    """`losses` summed over their last axis if the weights lack it."""
    return ops.sum(losses, axis=-1) if len(losses.shape) > len(weights.shape) else losses
