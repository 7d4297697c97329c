"""SSD where its parts meet: frames, padding, losses and coders in every combination that upstream allows."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.boxes.box_coders import MeanStddevBoxCoder, SquareBoxCoder
from keras_detect.boxes.matchers import ArgMaxMatcher, BipartiteMatcher
from keras_detect.boxes.similarity import IouSimilarity
from keras_detect.boxes.target_assigner import TargetAssigner
from keras_detect.layers.batch_normalization import BatchNormalization
from keras_detect.losses.classification import SigmoidFocalLoss, SoftmaxCrossEntropyLoss
from keras_detect.losses.hard_example_miner import HardExampleMiner
from keras_detect.losses.localization import GiouLoss, SmoothL1Loss
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from keras_detect.transforms.resizers import KeepAspectRatioResizer
from keras_detect.transforms.resizing import true_window
from tests import goldens, tiny

PADDING = KeepAspectRatioResizer(min_dimension=64, max_dimension=64, pad_to_max_dimension=True)
MINER = HardExampleMiner(num_hard_examples=None, iou_threshold=1.0, loss_type="cls", max_negatives_per_positive=3)


def test_true_window_is_the_true_share_of_the_canvas():
    window = true_window(ops.convert_to_tensor([[48, 64, 3], [64, 16, 3]]), ops.convert_to_tensor([64.0, 64.0]))
    expected = [[0, 0, 0.75, 1], [0, 0, 1, 0.25]]  # 48 / 64, 64 / 64; 64 / 64, 16 / 64
    np.testing.assert_array_equal(ops.convert_to_numpy(window), expected)


def test_targets_of_a_padded_image_live_in_the_padded_frame():
    """A 32 x 64 image fills the upper half of the 64 x 64 canvas: its whole-image box is [0, 0, 0.5, 1] there."""
    model = tiny.tiny_ssd(resizer=PADDING)
    inputs = goldens.jitted(model.preprocess)(ops.zeros((1, 32, 64, 3)))
    np.testing.assert_array_equal(ops.convert_to_numpy(inputs[schema.TRUE_IMAGE_SHAPES]), [[32, 64, 3]])
    predictions = goldens.jitted(model)(inputs)
    ground_truth = clean_ground_truth(
        {schema.BOXES: np.array([[[0.0, 0, 1, 1]]], "float32"), schema.LABELS: np.array([[2]])}
    )
    targets = model.assign_targets(ground_truth, predictions, inputs)
    positive = ops.convert_to_numpy(targets.match.positive)[0]
    decoded = model.box_coder.decode(targets.box_targets[0], predictions[schema.ANCHORS])
    np.testing.assert_allclose(
        ops.convert_to_numpy(decoded)[positive], np.tile([0, 0, 0.5, 1], (positive.sum(), 1)), atol=1e-5
    )
    assert positive.any()


def test_a_padded_batch_detects_what_each_image_alone_gives():
    model = tiny.tiny_ssd(resizer=PADDING)
    rng = np.random.default_rng(0)
    tall, wide = rng.integers(0, 256, (64, 40, 3), "uint8"), rng.integers(0, 256, (36, 64, 3), "uint8")
    canvas = np.zeros((2, 64, 64, 3), "uint8")
    canvas[0, :64, :40], canvas[1, :36, :64] = tall, wide
    shapes = np.array([[64, 40, 3], [36, 64, 3]], "int32")
    together = model.predict({schema.IMAGES: canvas, schema.TRUE_IMAGE_SHAPES: shapes}, verbose=0)
    for index, image in enumerate((tall, wide)):
        alone = model.predict(image[None], verbose=0)
        np.testing.assert_allclose(together[schema.BOXES][index], alone[schema.BOXES][0], atol=1e-4)
        np.testing.assert_allclose(together[schema.SCORES][index], alone[schema.SCORES][0], atol=1e-5)
        assert together[schema.BOXES][index].max() <= 1.0


def _assigner(matcher=None, coder=None):
    return TargetAssigner(
        similarity=IouSimilarity(),
        matcher=matcher or ArgMaxMatcher(matched_threshold=0.5, force_match_for_each_row=True),
        box_coder=coder or MeanStddevBoxCoder(stddev=0.1),
    )


COMBINATIONS = {
    "hard examples": {"detection_loss": OneStageLoss(hard_example_miner=MINER)},
    "softmax": {"detection_loss": OneStageLoss(classification=SoftmaxCrossEntropyLoss(), background_as_zeros=False)},
    "giou": {"detection_loss": OneStageLoss(classification=SigmoidFocalLoss(gamma=1.5), localization=GiouLoss())},
    "sums": {"detection_loss": OneStageLoss(localization=SmoothL1Loss(delta=0.5), normalize_by_num_matches=False)},
    "bipartite": {"target_assigner": _assigner(matcher=BipartiteMatcher())},
    "square coder": {"target_assigner": _assigner(coder=SquareBoxCoder()), "code_size": 3},
    "mean stddev coder": {"target_assigner": _assigner()},
}


#: what a backend computes in a way of its own: sorting, loops, suppression; the others are slow tests
ON_EVERY_BACKEND = ("hard examples", "giou", "bipartite")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ON_EVERY_BACKEND else pytest.mark.slow) for name in COMBINATIONS],
)
def test_every_combination_trains(name):
    parts = dict(COMBINATIONS[name])
    code_size = parts.pop("code_size", None)
    if code_size:
        predictor = tiny.tiny_ssd().box_predictor.get_config()
        parts["box_predictor"] = type(tiny.tiny_ssd().box_predictor).from_config(
            {**predictor, "box_code_size": code_size}
        )
    model = tiny.tiny_ssd(**parts)
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    x, y = tiny.tiny_batch()
    losses = [model.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(8)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert np.isfinite(model.predict_on_batch(x)[schema.BOXES]).all()


def test_frozen_batch_norm_keeps_statistics_and_scale():
    model = tiny.tiny_ssd(freeze_batchnorm=True)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]
    before = [[ops.convert_to_numpy(weight) for weight in layer.weights] for layer in norms]
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    x, y = tiny.tiny_batch()
    model.train_on_batch(x, y)
    assert norms
    for layer, weights in zip(norms, before, strict=True):
        assert not layer.trainable_variables
        for weight, value in zip(layer.weights, weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def test_parts_that_do_not_fit_are_refused():
    predictor = tiny.tiny_ssd().box_predictor.get_config()
    wrong = type(tiny.tiny_ssd().box_predictor).from_config({**predictor, "background": False})
    post = tiny.tiny_ssd().postprocessor
    with pytest.raises(ValueError, match="background"):
        tiny.tiny_ssd(box_predictor=wrong, postprocessor=post)
    with pytest.raises(ValueError, match=r"class_names must name each of the 3 classes. Received 2"):
        tiny.tiny_ssd(num_classes=3, class_names=["cat", "dog"])
    with pytest.raises(ValueError, match=r"differ from one another. Received repeated: cat"):
        tiny.tiny_ssd(num_classes=3, class_names=["cat", "dog", "cat"])
    with pytest.raises(ValueError, match="Unknown backbone"):
        type(tiny.tiny_ssd()).from_backbone("mobilenet_v9", num_classes=2)
