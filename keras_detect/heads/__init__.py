"""Prediction heads. Importing the package registers them by name."""

from keras_detect.heads import convolutional, mask_rcnn, region_proposal, weight_shared

__all__ = ["convolutional", "mask_rcnn", "region_proposal", "weight_shared"]
