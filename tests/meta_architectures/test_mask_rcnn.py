"""Mask R-CNN's third stage on numbers worked by hand: which masks are learned, from where, and what is detected."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from keras_detect.meta_architectures.mask_rcnn import MaskRCNN, MaskStage
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from tests import tiny
from tests.goldens import assert_close, compiled, jitted

# the mask of `tiny.filled` in a box, sampled from edge to edge: its lower right quarter is not the object
L_SHAPE = np.ones((8, 8))
L_SHAPE[4:, 4:] = 0.0
PADDING = KeepAspectRatioResizer(min_dimension=64, max_dimension=64, pad_to_max_dimension=True)

# what JAX, which compiles every operation of an eager model, would take half a minute for: run once
ONCE = pytest.mark.backend_free


def test_the_loss_by_hand():
    """Logits 0 cost log 2 in every cell: the mean over the positives' cells, times the weight; none without them."""
    stage = MaskStage(loss_weight=3.0)
    logits, targets = np.zeros((2, 2, 2, 3), "float32"), np.ones((2, 2, 2, 3), "float32")
    logits[0, 1] = 7.0  # a negative's logits cost nothing
    for weights, expected in (
        ([[1, 0], [1, 1]], 3 * math.log(2)),
        ([[0.5, 0], [0, 0]], 3 * math.log(2)),
        ([[0, 0], [0, 0]], 0.0),
    ):
        loss = jitted(stage.losses)(ops.array(logits), ops.array(targets), ops.array(weights, "float32"))
        assert float(loss) == pytest.approx(expected, rel=1e-6)
    right = np.where(targets > 0, 20.0, -20.0).astype("float32")
    assert float(stage.losses(ops.array(right), ops.array(targets), ops.ones((2, 2)))) < 1e-6


class Watched:
    """A `MaskStage` that keeps what its loss is given."""

    def __init__(self, stage):
        self.stage, self.cropper, self.seen = stage, stage.cropper, []

    def losses(self, *given):
        self.seen.append([ops.convert_to_numpy(value) for value in given])
        return self.stage.losses(*given)


def learned(model, x, y, boxes):
    """The loss, and `(logits, targets, weights)` of the masks, of a step in which `boxes [B, P, 4]` are the proposals.

    They are normalized to the preprocessed image.
    """
    model.mask_stage = Watched(model.mask_stage)
    sampled = (ops.array(boxes, "float32"), ops.array([len(row) for row in boxes], "int32"))
    object.__setattr__(model.box_stage, "sample", lambda *_: sampled)
    inputs, y, _ = model._preprocess_data((x, y))
    predictions = model(inputs, training=True)
    losses = model.compute_losses(clean_ground_truth(y), predictions, inputs, training=True)
    (seen,) = model.mask_stage.seen
    return losses["mask_loss"], seen


def eagerly(model):
    model.compile(optimizer="sgd", run_eagerly=True, jit_compile=False)
    return model


@ONCE
def test_targets_are_the_masks_in_the_proposals_of_positives_alone():
    """The first proposal is the object, the second lies apart: one positive, whose target is the mask in its box."""
    model = eagerly(tiny.tiny_mask_rcnn())
    boxes = np.array([[[0.125, 0.25, 0.625, 0.75]]], "float32")
    y = {schema.BOXES: boxes, schema.LABELS: np.array([[2]]), schema.MASKS: tiny.filled(boxes)}
    x = tiny.tiny_batch(batch_size=1)[0]
    loss, (logits, targets, weights) = learned(model, x, y, [[*boxes[0], [0.7, 0.0, 1.0, 0.2]]])
    np.testing.assert_array_equal(np.sort(weights, axis=1), [[0.0, 1.0]])
    row = int(weights.argmax())
    # the outermost samples lie on the box's edges, between the mask and what is beyond it
    np.testing.assert_array_equal(targets[0, row, 1:7, 1:7], L_SHAPE[1:7, 1:7])
    assert 0.2 < targets[0, row, 0, :4].min() < targets[0, row, 0, :4].max() < 1.0
    expected = np.logaddexp(0, logits[0, row]) - targets[0, row] * logits[0, row]
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-5)


@ONCE
@pytest.mark.parametrize("change", ["empty", "mask_weights", "is_crowd", "weights"])
def test_objects_that_teach_no_mask(change):
    """Without a mask, or with a weight of 0, an object's mask costs nothing; without a mask its box still does."""
    model = eagerly(tiny.tiny_mask_rcnn())
    boxes = np.array([[[0.125, 0.25, 0.625, 0.75]]], "float32")
    y = {schema.BOXES: boxes, schema.LABELS: np.array([[2]]), schema.MASKS: tiny.filled(boxes)}
    more = {"empty": (schema.MASKS, y[schema.MASKS] * 0), "is_crowd": (schema.IS_CROWD, np.array([[True]]))}
    key, value = more.get(change, (change, np.zeros((1, 1), "float32")))
    loss, (_, _, weights) = learned(model, tiny.tiny_batch(batch_size=1)[0], {**y, key: value}, boxes)
    assert float(loss) == 0.0 and not weights.any()


@ONCE
def test_masks_of_padded_images_are_found_where_the_image_lies():
    """A wide image, at the left half of a canvas, on a model that pads it below: the targets are those of the image."""
    model = eagerly(tiny.tiny_mask_rcnn(resizer=PADDING))
    boxes = np.array([[[0.25, 0.25, 0.75, 0.75]]], "float32")
    small, canvas = np.zeros((1, 1, 32, 64), np.uint8), np.zeros((1, 1, 48, 128), np.uint8)
    small[..., 8:24, 16:48] = 1
    small[..., 16:24, 32:48] = 0
    canvas[..., :32, :64] = small
    labels = np.array([[0]])
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 128, 3), dtype=np.uint8)
    proposals = boxes * np.array([0.5, 1.0, 0.5, 1.0], "float32")  # normalized to the preprocessed image
    found = []
    for x, masks in (
        (images[:, :32, :64], small),
        ({schema.IMAGES: images, schema.TRUE_IMAGE_SHAPES: np.array([[32, 64, 3]], "int32")}, canvas),
    ):
        y = {schema.BOXES: boxes, schema.LABELS: labels, schema.MASKS: masks}
        found.append(learned(model, x, y, proposals)[1][1][0, 0])
    for targets in found:
        np.testing.assert_array_equal(targets[1:7, 1:7], L_SHAPE[1:7, 1:7])


def test_detections_are_cropped_again_in_the_frame_of_the_padded_image():
    model = tiny.tiny_mask_rcnn(resizer=PADDING)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)

    def both(images):
        inputs = model.preprocess(images)
        predictions = model(inputs, training=False)
        found = model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES])
        boxes = found[schema.BOXES] * ops.array([0.5, 1.0, 0.5, 1.0])
        maps = [predictions[f"{schema.FEATURES_TO_CROP}_0"]]
        features = model.mask_stage.cropper(maps, boxes, (64, 64))
        every = ops.sigmoid(model.mask_predictor(ops.reshape(features, (-1, *features.shape[2:]))))
        return found, every

    found, every = (keras.tree.map_structure(np.asarray, value) for value in compiled(both)(ops.array(images)))
    labels, count = found[schema.LABELS], found[schema.NUM_DETECTIONS]
    every = every.reshape(*labels.shape, 8, 8, 3)
    for image in range(2):
        for row in range(model.num_detections):
            mask = found[schema.MASKS][image, row]
            if row < count[image]:
                assert_close(mask, every[image, row, :, :, labels[image, row]], 1e-5)
            else:
                assert not mask.any()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("agnostic", marks=ONCE),
        "from the box classifier's features",
        pytest.param("pyramid", marks=ONCE),
        pytest.param("pyramid, box features", marks=ONCE),
    ],
)
def test_every_kind_of_third_stage_trains_and_detects(kind):
    options = tiny.mask_parts(class_agnostic=kind == "agnostic")
    if "features" in kind:
        head = tiny.MaskPredictor(num_classes=3, mask_size=5, num_convolutions=1, depth=8, upsampling="resize")
        options = {"mask_predictor": head, "mask_stage": MaskStage()}
    if "pyramid" in kind:
        options["neck"] = "fpn"
    model = tiny.tiny_mask_rcnn(**options)
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    x, y = tiny.tiny_batch(batch_size=2)
    assert model.train_on_batch(x, y, return_dict=True)["mask_loss"] > 0
    found = model.predict_on_batch(x)
    assert found[schema.MASKS].shape == (2, model.num_detections, *model.mask_predictor.mask_size)


def test_default_parts():
    model = MaskRCNN.from_backbone("tests_tiny", num_classes=2, image_size=64)
    assert model.mask_predictor.mask_size == (28, 28)
    assert model.mask_stage.cropper.output_size == (14, 14)
    assert model.ground_truth_keys == (schema.MASKS,)


@pytest.mark.backend_free
def test_what_is_refused():
    with pytest.raises(ValueError, match="same classes"):
        tiny.tiny_mask_rcnn(**tiny.mask_parts(num_classes=2))
    with pytest.raises(TypeError, match="three stages"):
        tiny.tiny_mask_rcnn(number_of_stages=2)
    model = eagerly(tiny.tiny_mask_rcnn())
    x, y = tiny.tiny_batch(batch_size=1)
    del y[schema.MASKS]
    with pytest.raises(ValueError, match=r"learns from y\['masks'\]"):
        model.train_on_batch(x, y)
