"""Training runs, recipes, schedules and callbacks. Importing the package registers what a saved model may refer to."""

from keras_detect.training import schedules
from keras_detect.training.best_model import BestModel
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.recipe import Recipe
from keras_detect.training.run import TrainingResult, train

__all__ = ["BestModel", "HistoryFile", "Recipe", "TrainingResult", "schedules", "train"]
