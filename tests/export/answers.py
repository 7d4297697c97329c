"""The answers of `predict`, and whether a file's are equal to them."""

import numpy as np

from keras_detect.export.verification import compare

CLASS_NAMES = ("circle", "square", "triangle")


def predicted(model, images):
    return {key: np.asarray(value) for key, value in model.predict_on_batch(images).items()}


def assert_equal(expected, found):
    result = compare(expected, found, 1e-3)
    assert result.missing == 0
    assert result.matched >= 0.95 * result.detections > 0  # the last ones may lie on either side of the cut
