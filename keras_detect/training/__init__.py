"""Training runs, recipes, schedules and callbacks. Importing the package registers what a saved model may refer to."""

from keras_detect.training.architectures import ARCHITECTURES
from keras_detect.training.augmentations import AUGMENTATIONS
from keras_detect.training.averaged_weights import AveragedWeights
from keras_detect.training.averaging_adamw import AveragingAdamW
from keras_detect.training.best_model import BestModel
from keras_detect.training.divergence import StopOnDivergence, TrainingDiverged
from keras_detect.training.early_stopping import EarlyStopping
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.recipe import Recipe
from keras_detect.training.resume import Resume, ResumeError
from keras_detect.training.run import TrainingResult, train
from keras_detect.training.run_folder import TrainingInterrupted
from keras_detect.training.schedules import (
    CosineDecayWithWarmup,
    ExponentialDecayWithBurnIn,
    InverseTimeDecay,
    ManualStepping,
)
from keras_detect.training.start import DEFAULT_START

__all__ = [
    "ARCHITECTURES",
    "AUGMENTATIONS",
    "DEFAULT_START",
    "AveragedWeights",
    "AveragingAdamW",
    "BestModel",
    "CosineDecayWithWarmup",
    "EarlyStopping",
    "ExponentialDecayWithBurnIn",
    "HistoryFile",
    "InverseTimeDecay",
    "ManualStepping",
    "Recipe",
    "Resume",
    "ResumeError",
    "StopOnDivergence",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingResult",
    "train",
]


def __dir__():
    return __all__
