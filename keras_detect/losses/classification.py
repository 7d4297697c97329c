"""Classification losses: parts that map logits, targets and weights to unreduced losses.

Shapes, unless a class says otherwise: logits and targets `[B, A, K]` (K counts the background column where there is
one), weights `[B, A, K]` or `[B, A, 1]`. All arithmetic is float32, for logits of any dtype; values and gradients
are finite for logits of any finite size.
"""

from typing import Any

from keras import ops

from keras_detect.registry import part, register_classification_loss


@register_classification_loss("sigmoid_cross_entropy")
@part
class SigmoidCrossEntropyLoss:
    """Cross entropy of each class on its own (a sigmoid per class); `[B, A, K]`."""

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        return weights * _sigmoid_cross_entropy(logits, targets)


@register_classification_loss("sigmoid_focal")
@part
class SigmoidFocalLoss:
    """Cross entropy that counts what is already right less, by `(1 - p_t) ** gamma`; `[B, A, K]`.

    Args:
        gamma: how strongly; 0 is plain cross entropy.
        alpha: weight of the positives, `1 - alpha` that of the negatives; `None`: both 1.

    Raises:
        ValueError: for a negative `gamma` or an `alpha` outside [0, 1].

    Lin et al., 2017 (arXiv:1708.02002), eq. 5.
    """

    gamma: float = 2.0
    alpha: float | None = 0.25

    def __post_init__(self):
        if not self.gamma >= 0:
            raise ValueError(f"`gamma` must be >= 0. Received: gamma={self.gamma!r}")
        _check_share("alpha", self.alpha)

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        loss = weights * _sigmoid_cross_entropy(logits, targets)
        if self.gamma:
            probability = ops.sigmoid(logits)
            wrong = targets + probability - 2.0 * targets * probability  # 1 - p_t
            loss = loss * _power(wrong, self.gamma)
        if self.alpha is not None:
            loss = loss * (1.0 - self.alpha + (2.0 * self.alpha - 1.0) * targets)
        return loss


@register_classification_loss("softmax_cross_entropy")
@part
class SoftmaxCrossEntropyLoss:
    """Cross entropy over classes that exclude one another; `[B, A]`. An anchor's weight is the mean of its weights.

    A target row of zeros has loss 0 and no gradient.

    Args:
        logit_scale: the logits are divided by it (a temperature).

    Raises:
        ValueError: for a `logit_scale` that is not positive.
    """

    logit_scale: float = 1.0

    def __post_init__(self):
        _check_scale(self.logit_scale)

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        return _softmax_cross_entropy(logits / self.logit_scale, targets, weights)


@part
class SoftmaxAgainstLogitsLoss:
    """Softmax cross entropy where `targets` are a teacher's logits; `[B, A]` (Hinton et al., 2015, arXiv:1503.02531).

    Args:
        logit_scale: both logits are divided by it (a temperature).

    Raises:
        ValueError: for a `logit_scale` that is not positive.
    """

    logit_scale: float = 1.0

    def __post_init__(self):
        _check_scale(self.logit_scale)

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        return _softmax_cross_entropy(
            logits / self.logit_scale, ops.softmax(targets / self.logit_scale, axis=-1), weights
        )


@register_classification_loss("bootstrapped_sigmoid")
@part
class BootstrappedSigmoidLoss:
    """Sigmoid cross entropy against a mixture of the label and the model's own opinion, for noisy labels; `[B, A, K]`.

    Args:
        alpha: share of the label in the target.
        bootstrap_type: the opinion is the probability (`"soft"`) or the probability rounded to 0 or 1 (`"hard"`).

    Raises:
        ValueError: for an `alpha` outside [0, 1] or another type.

    Reed et al., 2014 (arXiv:1412.6596), eq. 6 and 8.
    """

    alpha: float = 0.5
    bootstrap_type: str = "soft"

    def __post_init__(self):
        _check_share("alpha", self.alpha)
        if self.bootstrap_type not in ("soft", "hard"):
            raise ValueError(
                f"`bootstrap_type` must be 'soft' or 'hard'. Received: bootstrap_type={self.bootstrap_type!r}"
            )

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        soft = self.bootstrap_type == "soft"
        opinion = ops.sigmoid(logits) if soft else ops.cast(logits > 0.0, "float32")
        mixture = self.alpha * targets + (1.0 - self.alpha) * opinion
        return weights * _sigmoid_cross_entropy(logits, mixture)


@part
class PenaltyReducedLogisticFocalLoss:
    """Focal loss on a heatmap whose negatives near an object's center count less; `[B, A, K]`.

    Targets are in [0, 1]; exactly 1 marks a center. Probabilities are kept within [1e-4, 1 - 1e-4].

    Args:
        alpha: exponent of the focal factor.
        beta: exponent of `1 - target`, the reduction around a center.

    Law and Deng, 2018 (arXiv:1808.01244), eq. 1; Zhou et al., 2019 (arXiv:1904.07850), eq. 1.
    """

    alpha: float = 2.0
    beta: float = 4.0

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        probability = ops.clip(ops.sigmoid(logits), 1e-4, 1.0 - 1e-4)
        center = _power(1.0 - probability, self.alpha) * ops.log(probability)
        around = _power(1.0 - targets, self.beta) * _power(probability, self.alpha) * ops.log(1.0 - probability)
        return -weights * ops.where(ops.equal(targets, 1.0), center, around)


@part
class DiceLoss:
    """1 minus the Dice coefficient of prediction and target over the anchors (pixels) of a class; `[B, K]`.

    A class without target or prediction has loss 1.

    Args:
        squared_normalization: whether predictions and targets are squared first.
        from_logits: whether predictions are logits; otherwise probabilities.

    Milletari et al., 2016 (arXiv:1606.04797), section 3.
    """

    squared_normalization: bool = False
    from_logits: bool = True

    def __call__(self, logits: Any, targets: Any, weights: Any) -> Any:
        logits, targets, weights = _float32(logits, targets, weights)
        probability = ops.sigmoid(logits) if self.from_logits else logits
        if self.squared_normalization:
            probability, targets = ops.square(probability), ops.square(targets)
        probability, targets = probability * weights, targets * weights
        shared = 2.0 * ops.sum(probability * targets, axis=1)
        total = ops.sum(probability + targets, axis=1)
        return 1.0 - shared / ops.where(total > 0.0, total, 1.0)


def _float32(*tensors):
    return [ops.cast(tensor, "float32") for tensor in tensors]


def _sigmoid_cross_entropy(logits, targets):
    """max(x, 0) - x t + log(1 + exp(-|x|)), with the right slope at x = 0 too (a head that starts at zero)."""
    positive = logits >= 0.0
    size = ops.where(positive, logits, -logits)
    return ops.where(positive, logits, 0.0) - logits * targets + ops.log1p(ops.exp(-size))


def _softmax_cross_entropy(logits, targets, weights):
    """`[B, A]`. Not the backends' fused kernels: TensorFlow's has a gradient where the targets are all zero."""
    return -ops.mean(weights, axis=-1) * ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1)


def _power(base, exponent):
    """`base ** exponent` of a base in [0, 1], cheaper for 2 and with a finite slope at 0 for exponents below 1."""
    if exponent == 2.0:
        return ops.square(base)
    if exponent == 4.0:
        return ops.square(ops.square(base))
    if exponent < 1.0:
        base = ops.maximum(base, 1e-12)
    return ops.power(base, exponent)


def _check_share(name, value):
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value!r}")


def _check_scale(value):
    if not value > 0:
        raise ValueError(f"`logit_scale` must be positive. Received: logit_scale={value!r}")
