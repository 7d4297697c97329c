"""Losses of classes and boxes, and their sum in one-stage detectors. Importing the package registers them by name."""

from keras_detect.losses.classification import (
    BootstrappedSigmoidLoss,
    DiceLoss,
    PenaltyReducedLogisticFocalLoss,
    SigmoidCrossEntropyLoss,
    SigmoidFocalLoss,
    SoftmaxAgainstLogitsLoss,
    SoftmaxCrossEntropyLoss,
)
from keras_detect.losses.hard_example_miner import HardExampleMiner
from keras_detect.losses.localization import GiouLoss, IouLoss, L1Loss, L2Loss, SmoothL1Loss
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.registry import register_classification_loss, register_localization_loss

__all__ = [
    "BootstrappedSigmoidLoss",
    "DiceLoss",
    "GiouLoss",
    "HardExampleMiner",
    "IouLoss",
    "L1Loss",
    "L2Loss",
    "OneStageLoss",
    "PenaltyReducedLogisticFocalLoss",
    "SigmoidCrossEntropyLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftmaxAgainstLogitsLoss",
    "SoftmaxCrossEntropyLoss",
    "register_classification_loss",
    "register_localization_loss",
]


def __dir__():
    return __all__
