"""Necks and feature extractors. Importing the package registers the necks by name."""

from keras_detect.necks import bifpn, fpn, ssd_feature_maps

__all__ = ["bifpn", "fpn", "ssd_feature_maps"]
