"""Faster R-CNN's stages on numbers worked by hand, and what is special about a model of two stages."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.boxes.anchor_generators import GridAnchorGenerator
from keras_detect.boxes.samplers import BalancedPositiveNegativeSampler
from keras_detect.heads.mask_rcnn import MaskRCNNBoxPredictor
from keras_detect.losses.hard_example_miner import HardExampleMiner
from keras_detect.losses.localization import IouLoss
from keras_detect.meta_architectures import faster_rcnn_defaults as defaults
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.two_stage import GroundTruth
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from tests import goldens, tiny
from tests.losses.gradients import gradient

ANCHORS = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]], "float32")
ALL = BalancedPositiveNegativeSampler(positive_fraction=1.0)


def replaced(stage, **changes):
    return type(stage)(**{**{name: getattr(stage, name) for name in stage.__dataclass_fields__}, **changes})


def one_ground_truth(box, label=0, classes=2, weight=1.0):
    targets = np.zeros((1, 1, classes + 1), "float32")
    targets[0, 0, label + 1] = 1.0
    return GroundTruth(
        boxes=ops.array([[box]], "float32"),
        class_targets=ops.array(targets),
        weights=ops.array([[weight]], "float32"),
        valid=ops.array([[True]]),
    )


def first_stage(**changes):
    stage = tiny.tiny_faster_rcnn().proposal_stage
    return replaced(stage, **changes)


def second_stage(**changes):
    return replaced(defaults.box_stage(), **changes)


def test_first_stage_losses_by_hand():
    """One anchor equals the ground truth, two meet nothing of it: all three count.

    Objectness: logits (0, 0) cost log 2 each, so the mean over three anchors is log 2. Localization: the codes of the
    matching anchor should be 0; a prediction of 2 in one coordinate costs 2 - 0.5 = 1.5 (delta 1), divided by three
    anchors and times the weight 2.
    """
    stage = first_stage(sampler=ALL, batch_size=3, localization_weight=2.0)
    codes = np.zeros((1, 3, 4), "float32")
    codes[0, 0, 1] = 2.0
    codes[0, 1, 1] = 9.0  # a negative's codes cost nothing
    predictions = {
        schema.ANCHORS: ops.array(ANCHORS),
        schema.RPN_BOX_ENCODINGS: ops.array(codes),
        schema.RPN_OBJECTNESS: ops.zeros((1, 3, 2)),
    }
    ground_truth = one_ground_truth([0.0, 0.0, 0.5, 0.5])
    localization, objectness, positives = goldens.jitted(lambda: stage.losses(predictions, ground_truth, seed=0))()
    assert float(positives) == 1.0
    assert float(objectness) == pytest.approx(math.log(2.0), rel=1e-6)
    assert float(localization) == pytest.approx(2.0 * 1.5 / 3, rel=1e-5)


def test_anchors_across_the_border_are_clipped_or_take_no_part():
    grid = GridAnchorGenerator(scales=(1.0,), aspect_ratios=(1.0,), base_anchor_size=(32.0, 32.0))
    clipped = first_stage(anchor_generator=grid).anchors([(2, 2)], (32, 32), training=True)
    # centers at 0 and 16 of 32 pixels, side 32: only what is inside remains
    np.testing.assert_allclose(clipped, [[0, 0, 0.5, 0.5], [0, 0, 0.5, 1], [0, 0, 1, 0.5], [0, 0, 1, 1]])
    pruned = first_stage(anchor_generator=grid, clip_anchors=False)
    np.testing.assert_allclose(pruned.anchors([(2, 2)], (32, 32), training=True), [[0] * 4] * 3 + [[0, 0, 1, 1]])
    np.testing.assert_allclose(pruned.anchors([(2, 2)], (32, 32), training=False), clipped)
    predictions = {
        schema.ANCHORS: ops.array(pruned.anchors([(2, 2)], (32, 32), training=True)),
        schema.RPN_BOX_ENCODINGS: ops.zeros((1, 4, 4)),
        schema.RPN_OBJECTNESS: ops.zeros((1, 4, 2)),
    }
    boxes, number = goldens.jitted(pruned.propose)(predictions, ops.array([[0.0, 0.0, 1.0, 1.0]]))
    assert int(number[0]) == 1
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 1, 1])
    # and of the one anchor left, log 2 is the whole loss
    ground_truth = one_ground_truth([0.0, 0.0, 1.0, 1.0])
    losses = goldens.jitted(lambda: pruned.losses(predictions, ground_truth, seed=0))()
    assert float(losses[1]) == pytest.approx(math.log(2.0), rel=1e-6)


def test_second_stage_losses_by_hand():
    """Two proposals exist, the third is padding; one is the ground truth's, of class 1 of 2, one is background.

    Logits 0 in three columns cost log 3 for each of the two: (log 3 + log 3) / 2. The codes of class 1 are off by 3 in
    one coordinate: 3 - 0.5 = 2.5, over two proposals and times the weight 2; those of class 0 do not matter.
    """
    stage = second_stage()
    codes = np.zeros((1, 3, 2, 4), "float32")
    codes[0, 0, 1, 2] = 3.0
    codes[0, 0, 0] = 7.0
    codes[0, 1] = 5.0
    predictions = {schema.BOX_ENCODINGS: ops.array(codes), schema.CLASS_LOGITS: ops.zeros((1, 3, 3))}
    ground_truth = one_ground_truth([0.0, 0.0, 0.5, 0.5], label=1)
    proposals, number = ops.array(ANCHORS[None]), ops.array([2], "int32")
    losses = goldens.jitted(lambda: stage.losses(predictions, proposals, number, ground_truth))()
    assert float(losses[0]) == pytest.approx(2.0 * 2.5 / 2, rel=1e-5)
    assert float(losses[1]) == pytest.approx(math.log(3.0), rel=1e-6)
    assert float(losses[2]) == 1.0


# A code of 5 in y (scale 10) moves the matching box [0, 0, 0.5, 0.5] by half its height, to [0.25, 0, 0.75, 0.5]: the
# intersection is 1/8, the union 3/8, the IoU 1/3. A shift s = code / 20 leaves an overlap o = (1/2 - s) / 2 of boxes of
# area 1/4: d IoU / d s = -(1/2) (1/2) / (1/2 - o)^2 = -16/9, and the loss grows by 16/9 / 20 for each unit of the code.
IOU_LOSS, IOU_SLOPE = 2 / 3, 16 / 9 / 20


def test_an_iou_loss_in_the_first_stage_compares_boxes():
    stage = first_stage(sampler=ALL, batch_size=3, localization=IouLoss())
    codes = np.zeros((1, 3, 4), "float32")
    codes[0, 0, 0] = 5.0

    def loss(codes):
        predictions = {
            schema.ANCHORS: ops.array(ANCHORS),
            schema.RPN_BOX_ENCODINGS: codes,
            schema.RPN_OBJECTNESS: ops.zeros((1, 3, 2)),
        }
        return stage.losses(predictions, one_ground_truth([0.0, 0.0, 0.5, 0.5]), seed=0)[0]

    factor = stage.localization_weight / 3  # of three sampled anchors one is positive
    assert float(goldens.jitted(loss)(ops.array(codes))) == pytest.approx(factor * IOU_LOSS, rel=1e-5)
    slope = gradient(loss, codes)
    assert slope[0, 0, 0] == pytest.approx(factor * IOU_SLOPE, rel=1e-4)
    assert not slope[0, 1:].any()


def test_an_iou_loss_in_the_second_stage_compares_boxes():
    stage = second_stage(localization=IouLoss())
    codes = np.zeros((1, 3, 2, 4), "float32")
    codes[0, 0, 1, 0] = 5.0
    codes[0, 0, 0] = 7.0  # of the other class

    def loss(codes):
        predictions = {schema.BOX_ENCODINGS: codes, schema.CLASS_LOGITS: ops.zeros((1, 3, 3))}
        ground_truth = one_ground_truth([0.0, 0.0, 0.5, 0.5], label=1)
        return stage.losses(predictions, ops.array(ANCHORS[None]), ops.array([2], "int32"), ground_truth)[0]

    factor = stage.localization_weight / 2  # of two proposals one is positive
    assert float(goldens.jitted(loss)(ops.array(codes))) == pytest.approx(factor * IOU_LOSS, rel=1e-5)
    slope = gradient(loss, codes)
    assert slope[0, 0, 1, 0] == pytest.approx(factor * IOU_SLOPE, rel=1e-4)
    assert not slope[0, 0, 0].any()
    assert not slope[0, 1:].any()


@pytest.mark.parametrize("stage", [first_stage, second_stage])
def test_a_loss_that_does_not_state_what_it_compares_is_refused(stage):
    def my_loss(predictions, targets, weights):
        return weights

    with pytest.raises(ValueError, match=r"compares = 'boxes'.*Received: my_loss with compares=None"):
        stage(localization=my_loss)


def test_hard_example_mining_takes_the_place_of_sampling():
    """Of the two proposals the miner keeps the one with the larger loss: log 3 + 2.5 instead of both."""
    miner = HardExampleMiner(num_hard_examples=1, iou_threshold=1.0, cls_loss_weight=1.0, loc_loss_weight=1.0)
    stage = second_stage(hard_example_miner=miner, localization_weight=1.0)
    codes = np.zeros((1, 3, 2, 4), "float32")
    codes[0, 0, 1, 2] = 3.0
    predictions = {schema.BOX_ENCODINGS: ops.array(codes), schema.CLASS_LOGITS: ops.zeros((1, 3, 3))}
    ground_truth, proposals, number = (
        one_ground_truth([0.0, 0.0, 0.5, 0.5], label=1),
        ops.array(ANCHORS[None]),
        ops.array([2]),
    )
    sampled, count = stage.sample(proposals, number, ground_truth, seed=0)
    np.testing.assert_array_equal(sampled, proposals)
    assert int(count[0]) == 2
    losses = goldens.jitted(lambda: stage.losses(predictions, proposals, number, ground_truth))()
    assert float(losses[0]) == pytest.approx(2.5 / 2, rel=1e-5)
    assert float(losses[1]) == pytest.approx(math.log(3.0) / 2, rel=1e-6)


def test_a_sample_has_its_size_and_its_share_of_positives():
    """Of 40 proposals, 20 on the object and 15 of the others existing, 8 are drawn, at most 2 of them positive."""
    rng = np.random.default_rng(0)
    on, off = np.tile([0.1, 0.1, 0.4, 0.4], (20, 1)), np.tile([0.6, 0.6, 0.9, 0.9], (20, 1))
    proposals = np.concatenate([on, off]).astype("float32")[None]
    proposals[0, :, 2:] += rng.uniform(0, 0.01, (40, 2)).astype("float32")
    stage = second_stage(batch_size=8)
    ground_truth = one_ground_truth([0.1, 0.1, 0.4, 0.4])
    seeds = keras.random.SeedGenerator(3)
    draws = [stage.sample(ops.array(proposals), ops.array([35]), ground_truth, seeds) for _ in range(5)]
    for boxes, number in draws:
        boxes = np.asarray(ops.convert_to_numpy(boxes))[0]
        assert int(number[0]) == len(boxes) == 8
        assert (boxes[:, 0] < 0.5).sum() == 2
        rows = [int(np.flatnonzero((proposals[0] == box).all(axis=1))[0]) for box in boxes]
        assert rows == sorted(set(rows))
        assert max(rows) < 35
    assert any(not np.array_equal(draws[0][0], boxes) for boxes, _ in draws[1:])
    again = stage.sample(ops.array(proposals), ops.array([35]), ground_truth, keras.random.SeedGenerator(3))
    np.testing.assert_array_equal(again[0], draws[0][0])
    few, number = stage.sample(ops.array(proposals), ops.array([1]), ground_truth, 0)
    assert int(number[0]) == 1
    assert not np.asarray(ops.convert_to_numpy(few))[0, 1:].any()


def test_training_twice_gives_the_same_losses():
    x, y = tiny.tiny_batch()
    runs = []
    for _ in range(2):
        model = tiny.tiny_faster_rcnn()
        model.compile(optimizer=keras.optimizers.SGD(0.01))
        runs.append([model.train_on_batch(x, y, return_dict=True) for _ in range(3)])
    for first, second in zip(*runs, strict=True):
        np.testing.assert_allclose(list(first.values()), list(second.values()), rtol=1e-4)


def test_more_truths_than_samples_train():
    model = tiny.tiny_faster_rcnn(box_stage=second_stage(batch_size=4))
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    x, _ = tiny.tiny_batch(batch_size=2)
    corners = np.stack(np.meshgrid(np.arange(5) / 5, np.arange(5) / 5), -1).reshape(-1, 2)
    boxes = np.tile(np.concatenate([corners, corners + 0.2], axis=1), (2, 1, 1)).astype("float32")
    y = {schema.BOXES: boxes, schema.LABELS: np.tile(np.arange(25) % 3, (2, 1))}
    losses = [model.train_on_batch(x, y) for _ in range(2)]
    assert np.isfinite(losses).all()


def test_one_stage_finds_objects_of_one_class():
    model = tiny.tiny_faster_rcnn(num_classes=1, number_of_stages=1)
    assert model.loss_names == ("rpn_localization_loss", "rpn_objectness_loss")
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    x, y = tiny.tiny_batch(num_classes=3)  # for any classes
    y[schema.LABELS] = np.minimum(y[schema.LABELS], 0)
    history = model.fit(x, y, epochs=8, verbose=0).history
    assert history["rpn_objectness_loss"][-1] < history["rpn_objectness_loss"][0]
    assert "classification_loss" not in history
    detections = model.predict(x, verbose=0)
    assert detections[schema.BOXES].shape == (4, 300, 4)
    assert set(np.unique(detections[schema.LABELS])) <= {0, schema.PADDING_LABEL}
    again = FasterRCNN.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    with pytest.raises(ValueError, match="no class head"):
        model.re_head(num_classes=2)


def test_stages_and_parts_must_fit():
    with pytest.raises(ValueError, match="one class"):
        tiny.tiny_faster_rcnn(num_classes=2, number_of_stages=1)
    with pytest.raises(ValueError, match="number_of_stages is 1"):
        tiny.tiny_faster_rcnn(number_of_stages=3)
    with pytest.raises(ValueError, match="A one-stage model has no second stage"):
        tiny.tiny_faster_rcnn(
            num_classes=1, number_of_stages=1, box_predictor=MaskRCNNBoxPredictor(num_classes=1, name="b")
        )
    with pytest.raises(ValueError, match="agree on the anchors per location"):
        tiny.tiny_faster_rcnn(region_predictor=defaults.region_predictor(GridAnchorGenerator(scales=(1.0,))))
    with pytest.raises(ValueError, match="'split' would be ignored"):
        tiny.tiny_faster_rcnn(neck="fpn", split="C4")
    with pytest.raises(ValueError, match="'bpn'"):
        tiny.tiny_faster_rcnn(neck="bpn")


@pytest.mark.parametrize("shared", [True, False])
def test_box_predictor_averages_cells_and_sorts_codes_by_class(shared):
    predictor = MaskRCNNBoxPredictor(num_classes=2, share_box_across_classes=shared)
    predictor.build((None, 2, 2, 1))
    boxes = 1 if shared else 2
    predictor.box_head.set_weights([np.arange(4 * boxes, dtype="float32")[None], np.ones(4 * boxes, "float32")])
    predictor.class_head.set_weights([np.array([[1.0, 2.0, 3.0]]), np.array([0.0, 0.0, 0.5])])
    features = np.array([1.0, 2.0, 3.0, 6.0], "float32").reshape(1, 1, 2, 2, 1)  # mean 3
    outputs = keras.tree.map_structure(ops.convert_to_numpy, predictor(features))
    codes = (3.0 * np.arange(4 * boxes) + 1.0).reshape(1, 1, boxes, 4)
    np.testing.assert_allclose(outputs[schema.BOX_ENCODINGS], codes)
    np.testing.assert_allclose(outputs[schema.CLASS_LOGITS], [[[3.0, 6.0, 9.5]]])


def test_padding_is_a_scaled_black_pixel():
    """Faster R-CNN pads before it scales: black becomes -1 with the default scaling, not 0."""
    model = tiny.tiny_faster_rcnn()
    inputs = model.preprocess(np.full((1, 20, 64, 3), 255, "uint8"))
    images = ops.convert_to_numpy(inputs[schema.IMAGES])
    assert images.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(inputs[schema.TRUE_IMAGE_SHAPES], [[20, 64, 3]])
    assert (images[0, :20] == 1.0).all()
    assert (images[0, 20:] == -1.0).all()


@pytest.mark.parametrize("padded_canvas", [True, False])
def test_images_of_different_sizes_share_a_batch(padded_canvas):
    """An image on a larger canvas is detected as it is alone, normalized to itself and not to the canvas."""
    resizer = KeepAspectRatioResizer(min_dimension=48, max_dimension=64, pad_to_max_dimension=padded_canvas)
    model = tiny.tiny_faster_rcnn(resizer=resizer)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((60, 80), (90, 70))]
    canvas = np.zeros((2, 96, 96, 3), "uint8")
    for image, row in zip(images, canvas, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    shapes = np.array([image.shape for image in images], "int32")
    together = model.predict({schema.IMAGES: canvas, schema.TRUE_IMAGE_SHAPES: shapes}, verbose=0)
    assert together[schema.BOXES].max() <= 1.0
    for index, image in enumerate(images):
        found = np.arange(100) < together[schema.NUM_DETECTIONS][index]
        assert found.any()
        if padded_canvas:  # without padding, the network sees another border of the image when it is alone
            alone = model.predict(image[None], verbose=0)
            np.testing.assert_allclose(together[schema.SCORES][index], alone[schema.SCORES][0], atol=1e-5)
            np.testing.assert_allclose(together[schema.BOXES][index], alone[schema.BOXES][0], atol=1e-4)
