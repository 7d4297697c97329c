"""Callbacks for `fit`."""

from keras_detect.evaluation.callback import COCOEvaluation
from keras_detect.training.averaged_weights import AveragedWeights
from keras_detect.training.best_model import BestModel
from keras_detect.training.divergence import StopOnDivergence
from keras_detect.training.early_stopping import EarlyStopping
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.resume import Resume
from keras_detect.training.tensorboard_images import TensorBoardImages

__all__ = [
    "AveragedWeights",
    "BestModel",
    "COCOEvaluation",
    "EarlyStopping",
    "HistoryFile",
    "Resume",
    "StopOnDivergence",
    "TensorBoardImages",
]


def __dir__():
    return __all__
