"""`CenterNet.from_backbone`: what it chooses, what it takes by name, and what it refuses."""

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect import schema
from keras_detect.backbones.backbone import Backbone, register_backbone
from keras_detect.heads.point_heads import PointHead
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act
from keras_detect.meta_architectures.center_net_keypoints import KeypointTask
from keras_detect.meta_architectures.center_net_tasks import ObjectTask
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from tests import tiny

SMALL = PointHead(filters=(8,))


@register_backbone("tests_from_stride_4")
class FromStride4(Backbone):
    """Four strided convolutions: levels C2, C3, C4."""

    def __init__(self, **kwargs):
        inputs = x = keras.Input((None, None, 3))
        levels, hyperparams = {}, ConvHyperparams(activation="relu6", batch_norm_momentum=0.9)
        for number in range(1, 5):
            x = conv_bn_act(x, 8, 3, strides=2, hyperparams=hyperparams, name=f"conv_{number}")
            levels[f"C{number}"] = x
        levels.pop("C1")
        super().__init__(inputs=inputs, outputs=levels, strides={"C2": 4, "C3": 8, "C4": 16}, **kwargs)


def build(**options):
    return keras_detect.CenterNet.from_backbone(
        "tests_from_stride_4", **{"image_size": 64, "weights": None, "heads": SMALL, **options}
    )


def test_boxes_and_keypoints_train_save_and_detect(tmp_path):
    keras.utils.set_random_seed(0)
    model = build(class_names=["person", "dog"], tasks=("boxes", "keypoints"), num_keypoints=3)
    assert isinstance(model.resizer, KeepAspectRatioResizer) and model.stride == 4
    assert [type(task) for task in model.tasks] == [ObjectTask, KeypointTask]
    images, y = tiny.full_batch(num_classes=2)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(images, y, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.class_names == ("person", "dog") and loaded.started_from == "random weights"
    found = model.detect(images[0], score_threshold=0.0)
    again = loaded.detect(images[0], score_threshold=0.0)
    assert found[schema.KEYPOINTS].shape == (len(found["scores"]), 3, 2)
    for key in ("boxes", "scores", "keypoints", "keypoint_scores"):
        np.testing.assert_array_equal(found[key], again[key])


@pytest.mark.backend_free
def test_what_is_chosen_where_nothing_is_said():
    model = build(num_classes=3, tasks=["keypoints"], image_size=None, heads=None)
    objects, keypoints = model.tasks
    assert model.resizer.max_dimension == 512
    assert len(keypoints.indices) == 17 and keypoints.candidates is not None and keypoints.class_id == 0
    assert objects.heads == PointHead() and objects.num_classes == 3
    assert build(class_names=["a"], tasks=ObjectTask(num_classes=1, heads=SMALL)).num_classes == 1
    assert build(num_classes=2, neck="center_net_deconvolution").feature_extractor.map_names == ("P2",)
    model.resizer = model.resizer.with_size(64)
    mobile = keras_detect.CenterNet.from_backbone("mobilenet_v2", num_classes=2, weights=None)
    assert mobile.object_task.heads.separable
    assert mobile.feature_extractor.channels == {"P2": 24}


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({}, ValueError, "num_classes or class_names"),
        ({"num_classes": 2, "tasks": ("boxes", "masks2")}, ValueError, "Unknown task 'masks2'"),
        ({"num_classes": 2, "num_keypoints": 4}, ValueError, "num_keypoints is for the task 'keypoints'"),
        ({"num_classes": 2, "tasks": "keypoints", "num_keypoints": 0}, ValueError, "positive integer"),
        ({"num_classes": 2, "anchor_generator": "ssd"}, TypeError, "anchor_generator"),
        ({"num_classes": 2, "tasks": [ObjectTask(num_classes=3)]}, ValueError, "built for 3 classes"),
        ({"num_classes": 2, "resizer": 64, "image_size": None}, ValueError, "resizer is a part"),
    ],
)
@pytest.mark.backend_free
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


@pytest.mark.backend_free
def test_a_backbone_without_stride_4_is_refused():
    with pytest.raises(ValueError, match="C2"):
        keras_detect.CenterNet.from_backbone("tests_tiny", num_classes=2, weights=None)


def rectangles(number, seed=0, side=64):
    """`(images, y)`: a dark and a bright rectangle on gray, with three keypoints on the diagonal of each dark one."""
    rng = np.random.default_rng(seed)
    images, boxes = np.full((number, side, side, 3), 120, "uint8"), np.zeros((number, 2, 4), "float32")
    for image in range(number):
        for label, left in enumerate((2, 34)):
            size, corner = rng.integers(14, 28, 2), np.array([rng.integers(2, 30), left])
            images[image, corner[0] : corner[0] + size[0], left : left + size[1]] = 255 * label
            boxes[image, label] = [*corner, *(corner + size)]
    y = {schema.BOXES: boxes / side, schema.LABELS: np.tile([0, 1], (number, 1)).astype("int32")}
    return images, tiny.with_keypoints(y)


@pytest.mark.slow
def test_boxes_and_keypoints_are_learned_by_heart():
    keras.utils.set_random_seed(0)
    images, y = rectangles(8)
    tasks, heads = ("boxes", "keypoints"), PointHead(filters=(32,))
    model = build(num_classes=2, tasks=tasks, num_keypoints=3, heads=heads)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, 400)))
    model.fit(images, y, batch_size=8, epochs=400, verbose=0)
    found = model.predict(images, verbose=0)
    of_class = found[schema.LABELS][:, None] == np.arange(2)[:, None]
    rows = np.where(of_class, found[schema.SCORES][:, None], -1.0).argmax(-1)
    boxes = np.take_along_axis(found[schema.BOXES], rows[..., None], axis=1)
    scores = np.take_along_axis(found[schema.SCORES], rows, axis=1)
    assert scores.min() > 0.5
    assert np.abs(boxes - y[schema.BOXES]).max() < 0.05
    points = np.take_along_axis(found[schema.KEYPOINTS], rows[..., None, None], axis=1)[:, 0]
    assert np.abs(points - y[schema.KEYPOINTS][:, 0]).max() < 0.05


def test_sizes_start_at_an_eighth_of_the_side():
    """Boxes fit from the first steps on; in cells of 4 pixels, and for stretched images of both sides together."""
    for image_size, side in ((128, 4.0), ((64, 256), 4.0)):
        model = build(num_classes=2, image_size=image_size)
        assert model.object_task.size_bias == side
        out = next(layers[-1] for (head, _), layers in model.object_task.towers().items() if head == "size")
        np.testing.assert_array_equal(out.bias, [side, side])
