import keras
import numpy as np
import pytest

from keras_detect.boxes import anchor_generators, box_ops
from tests.goldens import BACKEND, assert_close, golden_cases, jitted

host = keras.ops.convert_to_numpy

GENERATORS = {
    "grid_frcnn": anchor_generators.GridAnchorGenerator(scales=[0.25, 0.5, 1, 2], aspect_ratios=[0.5, 1, 2]),
    "grid_offset": anchor_generators.GridAnchorGenerator(
        scales=[0.5, 1], aspect_ratios=[1, 2], base_anchor_size=[10, 20], anchor_stride=[8, 4], anchor_offset=[2, 3]
    ),
    "ssd6": anchor_generators.SsdAnchorGenerator(aspect_ratios=(1, 2, 0.5, 3, 0.3333)),
    "ssd6_default": anchor_generators.SsdAnchorGenerator(),
    "ssd6_nonsquare": anchor_generators.SsdAnchorGenerator(),
    "ssd6_noreduce": anchor_generators.SsdAnchorGenerator(reduce_boxes_in_lowest_layer=False),
    "multiscale": anchor_generators.MultiscaleGridAnchorGenerator(),
    "multiscale_effdet_nonsquare": anchor_generators.MultiscaleGridAnchorGenerator(scales_per_octave=3),
    "flexible": anchor_generators.FlexibleGridAnchorGenerator(
        base_sizes=[[10, 20], [30]], aspect_ratios=[[1, 2], [0.5]], anchor_strides=[8, 16], anchor_offsets=[4, 8]
    ),
    "multiscale_unnormalized": anchor_generators.MultiscaleGridAnchorGenerator(
        min_level=3, max_level=5, anchor_scale=8, aspect_ratios=(0.5, 1, 2), scales_per_octave=1
    ),
    "multiscale_odd": anchor_generators.MultiscaleGridAnchorGenerator(
        min_level=3, max_level=5, aspect_ratios=(1,), scales_per_octave=1
    ),
}
IN_PIXELS = {"grid_frcnn", "grid_offset", "multiscale_unnormalized"}


@golden_cases("anchors/*")
def test_anchors_equal_upstream(case):
    name = case.name.removeprefix("anchors/")
    generator, image_shape = GENERATORS[name], (case.info["im_height"], case.info["im_width"])
    shapes = case.inputs["shapes"]
    assert list(generator.num_anchors_per_location()) == case.info["num_per_location"]
    levels = generator.levels(shapes, image_shape)
    assert len(levels) == len(case.outputs)
    for index, level in enumerate(levels):
        assert isinstance(level, np.ndarray) and level.dtype == np.float32
        level = box_ops.to_absolute(level, *image_shape) if name in IN_PIXELS else level
        assert_close(level, case.outputs[f"level{index}"])
    np.testing.assert_array_equal(generator(shapes, image_shape), np.concatenate(levels))


def test_multiscale_by_hand():
    # A 2 x 3 map of stride 8 on a 16 x 24 image, anchors 8 x 2 = 16 pixels square: centers at 4, 12 and 4, 12, 20.
    generator = anchor_generators.MultiscaleGridAnchorGenerator(
        min_level=3, max_level=3, anchor_scale=2.0, aspect_ratios=(1.0,), scales_per_octave=1
    )
    centers = [(y, x) for y in (4, 12) for x in (4, 12, 20)]
    wanted = [[(y - 8) / 16, (x - 8) / 24, (y + 8) / 16, (x + 8) / 24] for y, x in centers]
    assert_close(generator([(2, 3)], (16, 24)), wanted, 1e-6)


def test_grid_order_by_hand():
    # One cell at 0, base 10: ratio 1 with scales 1 and 2, then ratio 4 (twice as wide, half as high) with both.
    generator = anchor_generators.GridAnchorGenerator(
        scales=(1, 2), aspect_ratios=(1, 4), base_anchor_size=(10, 10), anchor_stride=(1, 1)
    )
    halves = np.array([(5, 5), (10, 10), (2.5, 10), (5, 20)])
    assert_close(generator([(1, 1)], (100, 200)), np.concatenate([-halves, halves], axis=-1) / [100, 200, 100, 200])


def test_ssd_scales_by_hand():
    # Scales 0.2 and 0.4, then 1.0 after the last: the additional anchors have sqrt(0.2 x 0.4) and sqrt(0.4 x 1).
    generator = anchor_generators.SsdAnchorGenerator(
        scales=(0.2, 0.4), aspect_ratios=(1.0,), reduce_boxes_in_lowest_layer=False
    )
    assert generator.num_layers == 2
    first, second = generator.levels([(1, 1), (1, 1)], (10, 10))
    assert_close(first[:, 2] - first[:, 0], [0.2, np.sqrt(0.08)])
    assert_close(second[:, 2] - second[:, 0], [0.4, np.sqrt(0.4)])
    one = anchor_generators.SsdAnchorGenerator(num_layers=1, reduce_boxes_in_lowest_layer=False, aspect_ratios=(1.0,))
    assert_close(one([(1, 1)], (10, 10))[:, 2], 0.5 + np.array([0.1, np.sqrt(0.2) / 2]))
    none = anchor_generators.SsdAnchorGenerator(interpolated_scale_aspect_ratio=0)
    assert none.num_anchors_per_location() == (3, 5, 5, 5, 5, 5)


def test_ssd_strides_and_offsets_in_pixels():
    generator = anchor_generators.SsdAnchorGenerator(
        num_layers=1, anchor_strides=[(10, 20)], anchor_offsets=[(3, 4)], aspect_ratios=(1.0,)
    )
    anchors = generator([(2, 2)], (100, 100)).reshape(2, 2, 3, 4)
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert_close(centers[:, :, 0], [[[0.03, 0.04], [0.03, 0.24]], [[0.13, 0.04], [0.13, 0.24]]])
    half_a_stride = anchor_generators.SsdAnchorGenerator(num_layers=1, anchor_strides=[(10, 20)], aspect_ratios=(1.0,))
    first = half_a_stride([(2, 2)], (100, 100))[0]
    assert_close((first[:2] + first[2:]) / 2, [0.05, 0.1])


def test_multiscale_offset_depends_on_the_image_side():
    # 320 is no multiple of 128: level 7 starts at 0 (GOLDEN.md 8.18); 256 is: it starts at 64.
    generator = anchor_generators.MultiscaleGridAnchorGenerator(
        min_level=7, max_level=7, aspect_ratios=(1,), scales_per_octave=1
    )
    anchors = generator([(3, 2)], (320, 256)) * [320, 256, 320, 256]
    centers = ((anchors[:, :2] + anchors[:, 2:]) / 2).reshape(3, 2, 2)
    assert_close(centers[:, 0, 0], [0, 128, 256])
    assert_close(centers[0, :, 1], [64, 192])


def _of_width(generator, shapes, height):
    return jitted(lambda width: generator(shapes, (height, width)))


def test_tensor_sizes_give_the_same_anchors():
    cases = [
        (anchor_generators.SsdAnchorGenerator(num_layers=2), [(10, 5), (5, 3)], (300, 160)),
        (anchor_generators.MultiscaleGridAnchorGenerator(min_level=6, max_level=7), [(4, 2), (2, 1)], (256, 128)),
        (GENERATORS["grid_offset"], [(3, 4)], (64, 80)),
        (GENERATORS["flexible"], [(4, 5), (2, 3)], (32, 40)),
    ]
    for generator, shapes, image_shape in cases:
        wanted = generator(shapes, image_shape)
        image = tuple(keras.ops.convert_to_tensor(side, dtype="int32") for side in image_shape)
        assert_close(_of_width(generator, shapes, image_shape[0])(image[1]), wanted)
        if BACKEND != "jax":  # a feature map of unknown size exists in TensorFlow's graphs and eagerly only
            tensors = [tuple(keras.ops.convert_to_tensor(side, dtype="int32") for side in shape) for shape in shapes]
            assert_close(generator(tensors, image), wanted)
            assert_close(generator(tensors, image_shape), wanted)


def test_an_unknown_side_gets_half_a_stride():
    generator = anchor_generators.MultiscaleGridAnchorGenerator(
        min_level=7, max_level=7, aspect_ratios=(1,), scales_per_octave=1
    )
    anchors = host(generator([(3, 3)], (320, keras.ops.convert_to_tensor(320, dtype="int32")))) * 320
    centers = ((anchors[:, :2] + anchors[:, 2:]) / 2).reshape(3, 3, 2)
    assert_close(centers[:, 0, 0], [0, 128, 256])
    assert_close(centers[0, :, 1], [64, 192, 320])


def test_graphs_with_unknown_sizes():
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has unknown sizes")
    import tensorflow as tf

    generator = GENERATORS["ssd6"]

    @tf.function(input_signature=[tf.TensorSpec((6, 2), "int32"), tf.TensorSpec((2,), "int32")])
    def anchors(shapes, image_shape):
        return generator([tuple(tf.unstack(shape)) for shape in tf.unstack(shapes)], tuple(tf.unstack(image_shape)))

    shapes = [[19, 10], [10, 5], [5, 3], [3, 2], [2, 1], [1, 1]]
    assert_close(anchors(tf.constant(shapes), tf.constant([300, 160])), generator(shapes, (300, 160)))


def test_a_changed_result_does_not_change_the_next():
    generator = GENERATORS["ssd6"]
    shapes = [(2, 2)] * 6
    first = generator.levels(shapes, (300, 300))
    first[0][:] = 7
    assert generator.levels(shapes, (300, 300))[0].max() < 2


def test_wrong_number_of_feature_maps_is_named():
    with pytest.raises(ValueError, match=r"set up for 6 feature maps. Received: 5 .*as many levels"):
        GENERATORS["ssd6"]([(1, 1)] * 5, (300, 300))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="max_level >= min_level"):
        anchor_generators.MultiscaleGridAnchorGenerator(min_level=5, max_level=4)
    with pytest.raises(ValueError, match=r"one entry of anchor_strides per level, 6"):
        anchor_generators.SsdAnchorGenerator(anchor_strides=[(8, 8)])
    with pytest.raises(ValueError, match=r"\[2\] base sizes and \[1\] aspect ratios"):
        anchor_generators.FlexibleGridAnchorGenerator(
            base_sizes=[[1, 2]], aspect_ratios=[[1]], anchor_strides=[8], anchor_offsets=[4]
        )


@pytest.mark.parametrize("name", GENERATORS)
def test_config_round_trip(name):
    config = keras.saving.serialize_keras_object(GENERATORS[name])
    restored = keras.saving.deserialize_keras_object(config)
    assert restored == GENERATORS[name] and hash(restored) == hash(GENERATORS[name])
