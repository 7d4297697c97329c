"""Image resizers: the original's numbers, hand-worked pixels, agreement of the three implementations."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.layers import image_resizers as resizers
from keras_detect.layers import interpolation
from tests.goldens import BACKEND, assert_close, both_modes, compiled, golden_cases

CLASSES = {
    "fixed_shape_resizer": resizers.FixedShapeResizer,
    "keep_aspect_ratio_resizer": resizers.KeepAspectRatioResizer,
    "identity_resizer": resizers.IdentityResizer,
    "conditional_shape_resizer": resizers.ConditionalShapeResizer,
    "pad_to_multiple_resizer": resizers.PadToMultipleResizer,
}
METHODS = {"BILINEAR": "bilinear", "NEAREST_NEIGHBOR": "nearest", "BICUBIC": "bicubic", "AREA": "area"}


def from_config(text):
    """The resizer that a case's text describes, with the original's kernel."""
    kind, body = re.fullmatch(r"(\w+) \{(.*)\}", text).groups()
    kernels = {"conditional_shape_resizer": "align_corners", "identity_resizer": None, "pad_to_multiple_resizer": None}
    kernel = kernels.get(kind, "legacy")
    settings = {"kernel": kernel} if kernel else {}
    for name, value in re.findall(r"(\w+): (\[[^\]]*\]|\S+)", body):
        if value.startswith("["):
            settings[name] = tuple(float(number) for number in value[1:-1].split(","))
        elif name == "resize_method":
            settings["method"] = METHODS[value]
        elif value in ("true", "false"):
            settings[name] = value == "true"
        else:
            settings[name] = value.lower() if name == "condition" else int(value)
    return CLASSES[kind](**settings)


@golden_cases("resizer/*/fixed*", "resizer/*/keep", "resizer/*/keep_pad", "resizer/*/keep_pad_chan")
def test_original_fixed_and_aspect(case):
    check_golden(case)


@golden_cases("resizer/*/keep_big", "resizer/*/identity", "resizer/*/cond_*", "resizer/*/multiple")
def test_original_other(case):
    check_golden(case)


def check_golden(case):
    resizer = from_config(case.info["config"])
    image, expected, shape = case.inputs["image"], case.outputs["image"], case.outputs["true_shape"]
    assert resizer.output_shape(*image.shape[:2]) == expected.shape[:2]
    assert resizer.resized_size(*image.shape[:2]) == tuple(shape[:2])
    for call in both_modes(resizer):
        actual, actual_shapes = call(ops.convert_to_tensor(image[None]))
        assert_close(actual, expected[None])
        assert ops.convert_to_numpy(actual_shapes).tolist() == [shape.tolist()]
    actual, actual_shape = resizer.resize_image(image)
    assert_close(actual, expected)
    assert actual_shape == tuple(shape)
    if BACKEND == "tensorflow":
        actual, actual_shape = compiled(resizer.resize_tf)(ops.convert_to_tensor(image))
        assert_close(actual, expected)
        assert actual_shape.numpy().tolist() == shape.tolist()
    if getattr(resizer, "condition", "") != "smaller":
        check_padded(resizer, image, expected, shape)


def check_padded(resizer, image, expected, shape):
    """The same picture in a larger canvas, beside one of another size: its true region comes out as if alone."""
    height, width, channels = image.shape
    batch = np.full((2, height + 9, width + 5, channels), 77.0, "float32")
    batch[0, :height, :width] = image
    true_shapes = np.array([[height, width, channels], [height + 9, width + 5, channels]], "int32")
    for call in both_modes(resizer):
        actual, actual_shapes = call(ops.convert_to_tensor(batch), ops.convert_to_tensor(true_shapes))
        actual, actual_shapes = ops.convert_to_numpy(actual), ops.convert_to_numpy(actual_shapes)
        assert actual.shape[1:3] == resizer.output_shape(height + 9, width + 5, padded=True)
        assert actual_shapes[0].tolist() == shape.tolist()
        assert_close(actual[0, : shape[0], : shape[1]], expected[: shape[0], : shape[1]])
        pad_value = np.array(resizer.per_channel_pad_value)
        for outside in (actual[0, shape[0] :], actual[0, :, shape[1] :]):
            assert np.all(outside == pad_value)
