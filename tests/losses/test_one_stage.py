"""The one-stage loss on numbers worked by hand: sums, normalizer, and what a localization loss compares."""

import numpy as np
import pytest
from keras import ops

from keras_detect.boxes.box_coders import FasterRcnnBoxCoder
from keras_detect.boxes.matchers import Match
from keras_detect.boxes.target_assigner import Targets
from keras_detect.losses.classification import SigmoidCrossEntropyLoss
from keras_detect.losses.localization import IouLoss, L1Loss
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.registry import part
from tests.losses.gradients import gradient

ANCHORS = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], "float32")
CODER = FasterRcnnBoxCoder()
CODES = np.zeros((1, 2, 4), "float32")
CODES[0, 0, 0] = 0.5  # without scale factors: half the height of the anchor, downward


def targets():
    """The first anchor equals an object of the one class, the second is background."""
    positive = np.array([[True, False]])
    return Targets(
        class_targets=ops.array([[[1.0], [0.0]]]),
        class_weights=ops.ones((1, 2, 1)),
        box_targets=ops.zeros((1, 2, 4)),
        box_weights=ops.array([[1.0, 0.0]]),
        match=Match(matched_row=np.zeros((1, 2), "int32"), positive=positive, ignored=~positive & positive),
    )


def losses(loss, codes=CODES):
    return loss(codes, ops.zeros((1, 2, 1)), targets(), decode=lambda codes: CODER.decode(codes, ANCHORS))


def test_codes_by_hand():
    """|0.5| of one matched anchor; two anchors of one class at logit 0 cost log 2 each, over one match."""
    localization, classification = losses(OneStageLoss(classification=SigmoidCrossEntropyLoss(), localization=L1Loss()))
    assert float(localization) == pytest.approx(0.5, rel=1e-6)
    assert float(classification) == pytest.approx(2 * np.log(2), rel=1e-6)


def test_boxes_by_hand_with_their_slope():
    """[0.25, 0, 0.75, 0.5] against [0, 0, 0.5, 0.5]: IoU (1/8) / (3/8) = 1/3.

    With a code c the overlap is o = (1/2 - c/2) / 2, and d IoU / d c = -(1/4) (1/2) / (1/2 - o)^2 = -8/9.
    """
    loss = OneStageLoss(localization=IouLoss())
    assert float(losses(loss)[0]) == pytest.approx(2 / 3, rel=1e-5)
    slope = gradient(lambda codes: losses(loss, codes)[0], CODES)
    assert slope[0, 0, 0] == pytest.approx(8 / 9, rel=1e-4)
    assert not slope[0, 1].any()


@part
class UsersLoss:
    compares = "boxes"

    def __call__(self, predictions, targets, weights):
        return weights * ops.abs(predictions[..., 2] - targets[..., 2])


def test_a_users_loss_gets_what_it_states():
    assert float(losses(OneStageLoss(localization=UsersLoss()))[0]) == pytest.approx(0.25, rel=1e-5)  # ymax 0.75 - 0.5


def test_a_loss_that_states_nothing_is_refused():
    with pytest.raises(ValueError, match=r"states what it compares.*Received: <lambda> with compares=None"):
        OneStageLoss(localization=lambda predictions, targets, weights: weights)
