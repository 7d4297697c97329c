"""Trained weights: readers of every source, the strict restore, and the un-folding of batch norm."""

from keras_detect.weights.folded_batch_norm import unfold_batchnorm

__all__ = ["unfold_batchnorm"]


def __dir__():
    return __all__
