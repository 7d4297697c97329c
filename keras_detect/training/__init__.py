"""Schedules, optimizers and recipes. Importing the room registers what a saved model may refer to."""

from keras_detect.training import schedules
from keras_detect.training.recipe import Recipe

__all__ = ["Recipe", "schedules"]
