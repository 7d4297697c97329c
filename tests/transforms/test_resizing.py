"""One description of a resizing: numpy, tf.data and the model agree on pixels, boxes, points and rasters."""

import itertools

import numpy as np
import pytest
from keras import ops

from keras_detect.kernels import resize
from keras_detect.transforms import resizers
from keras_detect.transforms.resizing import Resizing, true_window
from tests.goldens import BACKEND, both_modes

SIZES = [(21, 33), (47, 19), (7, 61)]  # odd ones, enlarged and made smaller by what follows
RULES = {
    "fixed": lambda **how: resizers.FixedShapeResizer(height=31, width=45, **how),
    "keep": lambda **how: resizers.KeepAspectRatioResizer(min_dimension=29, max_dimension=41, **how),
    "keep, padded": lambda **how: resizers.KeepAspectRatioResizer(
        min_dimension=29, max_dimension=41, pad_to_max_dimension=True, per_channel_pad_value=(3.0, 5.0, 7.0), **how
    ),
    "at most": lambda **how: resizers.ConditionalShapeResizer(condition="greater", size_threshold=35, **how),
}
HOW = [{"method": method} for method in resize.METHODS] + [{"method": "bilinear", "kernel": "legacy"}]
EVERY = [
    *(RULES[name](**how) for name, how in itertools.product(RULES, HOW)),
    resizers.IdentityResizer(),
    resizers.PadToMultipleResizer(multiple=16),
]


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


@pytest.mark.parametrize("resizer", EVERY, ids=repr)
def test_executors_agree(resizer):
    """Images within the rounding of uint8; true shapes, boxes, points and masks equal."""
    canvas = resizer.output_shape(max(h for h, _ in SIZES), max(w for _, w in SIZES), padded=True)
    batch, masks = np.zeros((3, 47, 61, 3), "uint8"), np.zeros((3, 2, 47, 61), "uint8")
    for index, (height, width) in enumerate(SIZES):
        batch[index, :height, :width] = random((height, width, 3), index)
        masks[index, :, :height, :width] = random((2, height, width), index) > 127
    shapes = np.array([(*size, 3) for size in SIZES], "int32")
    expected, expected_masks, sizes = [], [], []
    for image, mask, (height, width) in zip(batch, masks, SIZES, strict=True):
        resizing = resizer.resizing(height, width, canvas)
        expected.append(np.clip(np.rint(resizing.array(image)), 0, 255))
        expected_masks.append(resizing.rasters(mask))
        sizes.append((*resizing.after, 3))
    function = both_modes(resizer)[-1]
    images, new_shapes = function(ops.convert_to_tensor(batch), ops.convert_to_tensor(shapes))
    # Bicubic leaves 0...255 in the model, where nothing is rounded.
    images = np.clip(ops.convert_to_numpy(images), 0, 255)
    assert images.shape[1:3] == canvas
    np.testing.assert_allclose(images, expected, rtol=0, atol=0.5 + 2e-3)
    np.testing.assert_array_equal(ops.convert_to_numpy(new_shapes), sizes)
    of_batch = resizer.batch_resizing(ops.convert_to_tensor(shapes), 47, 61)
    np.testing.assert_array_equal(ops.convert_to_numpy(of_batch.batch_rasters(masks)), expected_masks)
    if BACKEND == "tensorflow":
        check_graph(resizer, batch, masks, canvas, expected, expected_masks, sizes)
    check_coordinates(resizer, of_batch, canvas)


def check_graph(resizer, batch, masks, canvas, expected, expected_masks, sizes):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None] * 3, tf.uint8)])
    def graph(image, mask):
        resizing = resizer.tf_resizing(tf.shape(image)[0], tf.shape(image)[1], canvas)
        return *resizer.resize_tf(image, canvas), resizing.tf_rasters(mask), resizing.move(tf.ones((1, 4)))

    for index, (height, width) in enumerate(SIZES):
        image, shape, mask, moved = graph(batch[index, :height, :width], masks[index, :, :height, :width])
        assert np.abs(image.numpy().astype(int) - expected[index]).max() <= 1
        assert tuple(shape.numpy()) == sizes[index]
        np.testing.assert_array_equal(mask, expected_masks[index])
        np.testing.assert_allclose(moved, resizer.resizing(height, width).move(np.ones((1, 4), "float32")), rtol=1e-6)


def check_coordinates(resizer, of_batch, canvas):
    """Boxes `[B, n, 4]` and points `[B, n, N, 2]` of a batch move as those of its images one by one, and back."""
    rng = np.random.default_rng(0)
    boxes, points = rng.uniform(0, 60, (3, 2, 4)).astype("float32"), rng.uniform(0, 60, (3, 2, 5, 2)).astype("float32")
    for values in (boxes, points):
        for name in ("move", "to_canvas", "from_canvas"):
            together = ops.convert_to_numpy(getattr(of_batch, name)(ops.convert_to_tensor(values)))
            for index, size in enumerate(SIZES):
                alone = getattr(resizer.resizing(*size, canvas), name)(values[index])
                np.testing.assert_allclose(together[index], alone, rtol=1e-6)
                assert alone.dtype == np.float32
        moved = of_batch.move(ops.convert_to_tensor(values))
        np.testing.assert_allclose(ops.convert_to_numpy(of_batch.inverse((47, 61)).move(moved)), values, rtol=1e-5)
        moved = of_batch.from_canvas(of_batch.to_canvas(ops.convert_to_tensor(values)))
        np.testing.assert_allclose(ops.convert_to_numpy(moved), values, rtol=1e-5)
    windows = ops.convert_to_numpy(of_batch.window())
    for index, size in enumerate(SIZES):
        np.testing.assert_allclose(windows[index], resizer.resizing(*size, canvas).window(), rtol=1e-6)


def test_coordinates_by_hand():
    # 20 x 40 in 10 x 30 on 16 x 32: y halves, x takes 3/4; the image fills 10/16 and 30/32 of the canvas.
    resizing = Resizing(before=(20, 40), after=(10, 30), canvas=(16, 32), xp=resize.NUMPY)
    assert resizing.move(np.float32([[4, 8, 20, 40]])).tolist() == [[2, 6, 10, 30]]
    assert resizing.move(np.float32([4, 8])).tolist() == [2, 6]
    assert resizing.inverse().move(np.float32([[2, 6, 10, 30]])).tolist() == [[4, 8, 20, 40]]
    assert resizing.to_canvas(np.float32([[0.5, 0.5, 1, 1]])).tolist() == [[10 / 32, 30 / 64, 10 / 16, 30 / 32]]
    assert resizing.window().tolist() == [0, 0, 10 / 16, 30 / 32]
    window = true_window(ops.convert_to_tensor([[10, 30, 3]]), (16, 32))
    assert ops.convert_to_numpy(window).tolist() == [[0, 0, 10 / 16, 30 / 32]]


def test_what_is_enlarged_comes_back():
    """Doubled by its nearest pixels and shrunk again, an image is what it was: numpy, batch and graph."""
    image = random((9, 13, 3))
    there = Resizing(before=(9, 13), after=(18, 26), canvas=(20, 32), method="nearest", xp=resize.NUMPY)
    large = there.array(image)
    assert large.shape == (20, 32, 3) and not large[18:].any() and not large[:, 26:].any()
    np.testing.assert_array_equal(large[:18, :26], np.repeat(np.repeat(image, 2, 0), 2, 1))
    np.testing.assert_array_equal(there.inverse().array(large), image)
    sizes = [ops.convert_to_tensor(np.float32([side, side])) for side in (9, 13, 18, 26)]
    of_batch = Resizing(before=sizes[:2], after=sizes[2:], canvas=(20, 32), method="nearest", xp=ops)
    back = of_batch.inverse((9, 13)).batch(of_batch.batch(ops.convert_to_tensor(np.stack([image, image[::-1]]))))
    np.testing.assert_array_equal(ops.convert_to_numpy(back), np.stack([image, image[::-1]]))
    if BACKEND == "tensorflow":
        np.testing.assert_array_equal(there.inverse().tf_image(there.tf_image(image)), image)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="concerns TensorFlow graphs")
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32"])
def test_rasters_of_every_dtype(dtype):
    import tensorflow as tf

    rasters = random((2, 5, 7)).astype(dtype)
    resizer = resizers.FixedShapeResizer(height=10, width=14)
    expected = resizer.resizing(5, 7).rasters(rasters)
    np.testing.assert_array_equal(expected, np.repeat(np.repeat(rasters, 2, 1), 2, 2))
    found = tf.function(lambda raster: resizer.tf_resizing(5, 7).tf_rasters(raster))(tf.constant(rasters))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_a_mask_stays_on_its_box():
    """A filled box of a mask and the box itself land in the same pixels, but for half a pixel of rounding."""
    mask = np.zeros((1, 60, 80), "uint8")
    mask[0, 12:45, 20:63] = 1
    for size in ((30, 40), (91, 133)):
        resizing = resizers.FixedShapeResizer(height=size[0], width=size[1]).resizing(60, 80)
        rows, columns = (np.flatnonzero(resizing.rasters(mask)[0].any(axis)) for axis in (1, 0))
        found = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        np.testing.assert_allclose(found, resizing.move(np.float32([12, 20, 45, 63])), atol=0.5 + 1e-3)


def test_marked_images_pass_as_they_are():
    resizer = resizers.KeepAspectRatioResizer(min_dimension=16, max_dimension=24, pad_to_max_dimension=True)
    images = ops.convert_to_tensor(random((2, 24, 24, 3)))
    shapes = ops.convert_to_tensor([[12, 24, 3], [24, 12, 3]])
    passed, passed_shapes = resizer(images, shapes, resized=True)
    assert passed is images and passed_shapes is shapes
    with pytest.raises(ValueError, match="canvas that this model's resizer makes"):
        resizer(images[:, :20], shapes, resized=True)
    with pytest.raises(ValueError, match="Received: images"):
        resizer(images, None, resized=True)
