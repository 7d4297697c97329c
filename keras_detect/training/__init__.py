"""Schedules, optimizers and recipes. Importing the room registers what a saved model may refer to."""

from keras_detect.training import schedules
from keras_detect.training.best_model import BestModel
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.recipe import Recipe

__all__ = ["BestModel", "HistoryFile", "Recipe", "schedules"]
