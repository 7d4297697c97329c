"""Image resizers: upstream's numbers, hand-worked pixels, agreement of the three implementations."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.kernels import resize
from keras_detect.transforms import resizers
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
    """The resizer that a case's text describes, with upstream's kernel."""
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
def test_upstream_fixed_and_aspect(case):
    check_golden(case)


@golden_cases("resizer/*/keep_big", "resizer/*/identity", "resizer/*/cond_*", "resizer/*/multiple")
def test_upstream_other(case):
    check_golden(case)


@golden_cases("resizer/*/keep_pad_masks")
def test_upstream_masks(case):
    """The case names no config: its image is resized as in keep_pad."""
    resizer = resizers.KeepAspectRatioResizer(
        min_dimension=60, max_dimension=70, pad_to_max_dimension=True, kernel="legacy"
    )
    image, masks = case.inputs["image"], case.inputs["masks"]
    resized, shape = resizer.resize_image(image)
    assert_close(resized, case.outputs["image"])
    assert shape == tuple(case.outputs["true_shape"])
    np.testing.assert_array_equal(resizer.resizing(*image.shape[:2]).rasters(masks), case.outputs["masks"])


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
    """The same image in a larger canvas, beside one of another size: its true region comes out as if alone."""
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


@golden_cases("ops/pad_to_multiple")
def test_upstream_pad_to_multiple(case):
    multiple = 32  # 12 x 14 becomes 32 x 32
    for call in both_modes(lambda x: resizers.pad_to_multiple(x, multiple)):
        assert_close(call(ops.convert_to_tensor(case.inputs["x"])), case.outputs["y"], 0.0)


def make_image(height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, size=(height, width, 3)).astype("float32")


def row(values, length, **settings):
    """An image of one row, resized to `length` columns, as a list."""
    resizer = resizers.FixedShapeResizer(height=1, width=length, **settings)
    image = np.array(values, "float32")[None, None, :, None]
    return ops.convert_to_numpy(resizer(ops.convert_to_tensor(image))[0])[0, 0, :, 0].tolist()


@pytest.mark.parametrize(
    ("settings", "length", "expected"),
    [
        # Positions 0, 4/3, 8/3 of 0..3: between 10 and 20 a third of the way, between 20 and 40 two thirds.
        ({"kernel": "legacy"}, 3, [0.0, 40 / 3, 100 / 3]),
        # Positions (i + 1/2) 4/3 - 1/2 = 1/6, 3/2, 17/6.
        ({"kernel": "half_pixel"}, 3, [10 / 6, 15.0, 20 + 20 * 5 / 6]),
        # Positions 0, 3/2, 3.
        ({"kernel": "align_corners"}, 3, [0.0, 15.0, 40.0]),
        # Doubled: -1/4, 1/4, 3/4 ... ; before the first center the border repeats.
        ({"kernel": "half_pixel"}, 8, [0.0, 2.5, 7.5, 12.5, 17.5, 25.0, 35.0, 40.0]),
        # floor of 0, 4/3, 8/3 and of 2/3, 2, 10/3; round of 0, 1.5, 3
        ({"method": "nearest", "kernel": "legacy"}, 3, [0.0, 10.0, 20.0]),
        ({"method": "nearest", "kernel": "half_pixel"}, 3, [0.0, 20.0, 40.0]),
        ({"method": "nearest", "kernel": "align_corners"}, 3, [0.0, 20.0, 40.0]),
        # Each output covers 4/3 pixels: (0 + 10/3) 3/4, (20/3 + 40/3) 3/4, (20/3 + 40) 3/4.
        ({"method": "area"}, 3, [2.5, 15.0, 35.0]),
        # Half way: weights -1/16, 9/16, 9/16, -1/16 between 10 and 20 (Keys, a = -1/2).
        ({"method": "bicubic", "kernel": "half_pixel"}, 1, [(-0.0 + 90 + 180 - 40) / 16]),
    ],
)
def test_hand_worked_rows(settings, length, expected):
    assert_close(row([0.0, 10.0, 20.0, 40.0], length, **settings), expected, 1e-6)


ALL = [
    (method, kernel)
    for method in resize.METHODS
    for kernel in resize.KERNELS
    if (method, kernel) != ("area", "align_corners")
]


@pytest.mark.parametrize(("method", "kernel"), ALL)
@pytest.mark.parametrize("size", [(17, 90), (61, 40)])
def test_all_ways_agree(method, kernel, size):
    resizer = resizers.FixedShapeResizer(height=size[0], width=size[1], method=method, kernel=kernel)
    image = make_image(48, 40)
    host, _ = resizer.resize_image(image)
    shapes = np.array([[48, 40, 3]], "int32")
    for call in both_modes(resizer):
        for true_shapes in (None, ops.convert_to_tensor(shapes)):
            images, _ = call(ops.convert_to_tensor(image[None]), true_shapes)
            np.testing.assert_allclose(ops.convert_to_numpy(images)[0], host, rtol=0, atol=1e-3)
    if BACKEND == "tensorflow":
        # TensorFlow's area kernel adds up float32 shares of pixels.
        tolerance = 3e-3 if method == "area" else 1e-3
        np.testing.assert_allclose(resizer.resize_tf(ops.convert_to_tensor(image))[0], host, rtol=0, atol=tolerance)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="concerns TensorFlow graphs")
@pytest.mark.parametrize(("method", "kernel"), ALL)
def test_xla_and_unknown_sizes(method, kernel):
    # XLA's own kernel for legacy bilinear is wrong when it shrinks, so the resizer must not use it.
    import tensorflow as tf

    resizer = resizers.FixedShapeResizer(height=30, width=50, method=method, kernel=kernel)
    image = make_image(48, 40)
    host, _ = resizer.resize_image(image)
    compiled_by_xla = tf.function(lambda x: resizer(x)[0], jit_compile=True)
    np.testing.assert_allclose(compiled_by_xla(image[None])[0], host, rtol=0, atol=1e-3)
    unknown = tf.TensorSpec([None, None, None, 3])
    call = tf.function(resizer, input_signature=[unknown])
    images, shapes = call(image[None])
    np.testing.assert_allclose(images[0], host, rtol=0, atol=1e-3)
    assert shapes.numpy().tolist() == [[30, 50, 3]]
    call = tf.function(resizer, input_signature=[unknown, tf.TensorSpec([None, 3], tf.int32)])
    images, _ = call(np.pad(image, [[0, 4], [0, 9], [0, 0]])[None], np.array([[48, 40, 3]], "int32"))
    np.testing.assert_allclose(images[0], host, rtol=0, atol=1e-3)


EVERY = [
    resizers.FixedShapeResizer(height=36, width=52),
    resizers.KeepAspectRatioResizer(min_dimension=40, max_dimension=60),
    resizers.KeepAspectRatioResizer(
        min_dimension=40, max_dimension=60, pad_to_max_dimension=True, per_channel_pad_value=(10.0, 20.0, 30.0)
    ),
    resizers.IdentityResizer(),
    resizers.ConditionalShapeResizer(condition="greater", size_threshold=50),
    resizers.PadToMultipleResizer(multiple=32),
]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="concerns TensorFlow graphs")
@pytest.mark.parametrize("resizer", EVERY, ids=repr)
def test_every_resizer_with_unknown_sizes(resizer):
    import tensorflow as tf

    call = tf.function(resizer, input_signature=[tf.TensorSpec([None, None, None, 3])])
    for image in (make_image(48, 64), make_image(70, 30)):
        host, shape = resizer.resize_image(image)
        images, shapes = call(image[None])
        assert_close(images[0], host)
        assert shapes.numpy().tolist() == [list(shape)]
        again, again_shape = tf.function(resizer.resize_tf)(tf.constant(image))
        assert_close(again, host)
        assert again_shape.numpy().tolist() == list(shape)


@pytest.mark.parametrize("resizer", EVERY, ids=repr)
def test_what_has_its_size_passes_bit_for_bit(resizer):
    once, shape = resizer.resize_image(make_image(48, 64))
    twice, shape_again = resizer.resize_image(once[: shape[0], : shape[1]])
    np.testing.assert_array_equal(once, twice)
    assert shape == shape_again
    images = ops.convert_to_tensor(once[None])
    for call in both_modes(resizer):
        actual, shapes = call(images, ops.convert_to_tensor(np.array([shape], "int32")))
        actual = ops.convert_to_numpy(actual)[0, : once.shape[0], : once.shape[1]]
        np.testing.assert_array_equal(actual[: shape[0], : shape[1]], once[: shape[0], : shape[1]])
        assert ops.convert_to_numpy(shapes).tolist() == [list(shape)]
    if once.shape == shape:
        assert resizer(images)[0] is images


def test_images_of_one_batch_do_not_touch_one_another():
    resizer = resizers.KeepAspectRatioResizer(min_dimension=30, max_dimension=45)
    first, second = make_image(20, 30, 1), make_image(40, 24, 2)
    batch = np.full((2, 40, 30, 3), np.inf, "float32")
    batch[0, :20, :30], batch[1, :40, :24] = first, second
    # 20 x 30: factor min(30/20, 45/30) = 1.5 gives 30 x 45. 40 x 24: min(30/24, 45/40) = 1.125 gives 45 x 27.
    shapes = ops.convert_to_tensor(np.array([[20, 30, 3], [40, 24, 3]], "int32"))
    for call in both_modes(resizer):
        images, new_shapes = call(ops.convert_to_tensor(batch), shapes)
        assert ops.convert_to_numpy(new_shapes).tolist() == [[30, 45, 3], [45, 27, 3]]
        for index, image in enumerate((first, second)):
            alone, (height, width, _) = resizer.resize_image(image)
            actual = ops.convert_to_numpy(images)[index]
            np.testing.assert_allclose(actual[:height, :width], alone, rtol=0, atol=1e-3)
            assert not np.any(actual[height:]) and not np.any(actual[:, width:])


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_uint8_stays_uint8_and_rounds(method):
    resizer = resizers.FixedShapeResizer(height=31, width=33, method=method)
    image = np.random.default_rng(0).choice([0, 255], size=(20, 21, 3)).astype("uint8")
    exact, _ = resizer.resize_image(image.astype("float32"))
    actual, shape = resizer.resize_image(image)
    assert actual.dtype == np.uint8
    assert shape == (31, 33, 3)
    # Bicubic leaves 0...255 between hard edges: it must saturate, not wrap around.
    np.testing.assert_array_equal(actual, np.clip(np.rint(exact), 0, 255))
    if BACKEND == "tensorflow":
        graph, _ = compiled(resizer.resize_tf)(ops.convert_to_tensor(image))
        assert graph.dtype == "uint8"
        assert np.max(np.abs(graph.numpy().astype(int) - actual)) <= 1


def test_gray_weights():
    resizer = resizers.FixedShapeResizer(height=1, width=1, convert_to_grayscale=True)
    gray, shape = resizer.resize_image(np.array([[[100.0, 200.0, 50.0]]], "float32"))
    # 0.2989 * 100 + 0.587 * 200 + 0.114 * 50
    assert_close(gray, [[[152.99]]])
    assert shape == (1, 1, 1)


def test_a_thin_image_keeps_one_pixel():
    resizer = resizers.KeepAspectRatioResizer(min_dimension=100, max_dimension=100)
    assert resizer.resized_size(1, 1000) == (1, 100)


def test_an_empty_true_region_is_finite():
    resizer = resizers.KeepAspectRatioResizer(min_dimension=30, max_dimension=45)
    shapes = ops.convert_to_tensor(np.zeros((1, 3), "int32"))
    images, _ = resizer(ops.convert_to_tensor(make_image(20, 30)[None]), shapes)
    assert np.all(np.isfinite(ops.convert_to_numpy(images)))


@pytest.mark.parametrize("resizer", EVERY, ids=repr)
def test_round_trip(resizer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(resizer))
    assert again == resizer
    assert hash(again) == hash(resizer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resizers.FixedShapeResizer(height=0, width=3), "height=0"),
        (lambda: resizers.FixedShapeResizer(height=3, width=3, method="cubic"), "method='cubic'"),
        (lambda: resizers.FixedShapeResizer(height=3, width=3, kernel="old"), "kernel='old'"),
        (lambda: resizers.FixedShapeResizer(height=3, width=3, method="area", kernel="align_corners"), "corners"),
        (lambda: resizers.KeepAspectRatioResizer(min_dimension=9, max_dimension=8), "max_dimension=8"),
        (lambda: resizers.ConditionalShapeResizer(condition="less"), "condition='less'"),
        (lambda: resizers.PadToMultipleResizer(multiple=0), "multiple=0"),
        (lambda: resizers.IdentityResizer().resize_image(np.zeros((3, 3))), r"shape \(3, 3\)"),
        (lambda: resizers.ConditionalShapeResizer(condition="smaller").output_shape(9, 9, padded=True), "fixed canvas"),
        (
            lambda: resizers.KeepAspectRatioResizer(
                min_dimension=4, max_dimension=8, pad_to_max_dimension=True, per_channel_pad_value=(1.0, 2.0)
            ).resize_image(np.zeros((4, 6, 3))),
            "2 for 3 channels",
        ),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_size():
    fixed = resizers.FixedShapeResizer(height=10, width=20, kernel="legacy")
    assert fixed.with_size(np.int64(32)) == resizers.FixedShapeResizer(height=32, width=32, kernel="legacy")
    assert fixed.with_size([8, 9]) == resizers.FixedShapeResizer(height=8, width=9, kernel="legacy")
    keep = resizers.KeepAspectRatioResizer(min_dimension=600, max_dimension=1024)
    # half of the long side: 300 of 600
    assert keep.with_size(512) == resizers.KeepAspectRatioResizer(min_dimension=300, max_dimension=512)
    assert keep.with_size((48, 64)) == resizers.KeepAspectRatioResizer(min_dimension=48, max_dimension=64)
    for wrong in ("320", 3.5, (1, 2, 3), None, (32, 32.0)):
        for resizer in (fixed, keep):
            with pytest.raises(ValueError, match=r"image_size must be an int or a pair of ints. Received: image_size="):
                resizer.with_size(wrong)
    with pytest.raises(ValueError, match="IdentityResizer has no size to change"):
        resizers.IdentityResizer().with_size(32)
