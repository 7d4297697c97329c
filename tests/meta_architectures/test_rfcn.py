"""R-FCN: what its second stage computes, how it trains and what it refuses. A contract row says the rest."""

import keras
import numpy as np
import pytest

from keras_detect import RFCN, schema
from keras_detect.backbones import ResNetV1
from keras_detect.heads import PositionSensitiveBoxPredictor
from tests import goldens, tiny
from tests.networks import undrawn


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_rfcn()


def test_the_heads_run_once_on_the_whole_map(model):
    """Twice the proposals, the same features: each proposal's answer is its own."""
    images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    maps = model.feature_extractor.extract_proposal_features(images)
    boxes = np.array([[[0.1, 0.1, 0.6, 0.8], [0.0, 0.3, 1.0, 0.7], [0.2, 0.2, 0.3, 0.9]]], "float32")
    all_three, last = (model.classify(maps, given, (64, 64)) for given in (boxes, boxes[:, 2:]))
    assert all_three[schema.BOX_ENCODINGS].shape == (1, 3, 3, 4)
    assert all_three[schema.CLASS_LOGITS].shape == (1, 3, 4)
    for key, value in last.items():
        goldens.assert_close(all_three[key][:, 2:], value, err_msg=key)


def test_a_head_by_hand():
    """Kernels of ones: a map of 2 channels of 3 reduces to relu(6) = 6, depth 1; every head channel is 6 + its bias."""
    head = PositionSensitiveBoxPredictor(num_classes=1, depth=1, crop_size=(2, 2), bins=(2, 2))
    head.build((None, None, None, 2))
    for layer in (head.reduce, head.box_head, head.class_head):
        layer.kernel.assign(np.ones(layer.kernel.shape, "float32"))
    head.class_head.bias.assign(np.arange(8, dtype="float32"))
    found = head(np.full((1, 3, 3, 2), 3.0, "float32"), np.array([[[0, 0, 1, 1]]], "float32"))
    goldens.assert_close(found[schema.BOX_ENCODINGS], np.full((1, 1, 1, 4), 6.0))
    # logits of background and class in each bin: 0 1, 2 3, 4 5, 6 7; the mean over the bins is 3 and 4
    goldens.assert_close(found[schema.CLASS_LOGITS], [[[9.0, 10.0]]])


def test_training_and_saving(tmp_path):
    model = tiny.tiny_rfcn()
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    images, y = tiny.tiny_batch()
    losses = [model.train_on_batch(images, y, return_dict=True)["loss"] for _ in range(3)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert model.loss_names[2:] == ("localization_loss", "classification_loss")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is RFCN
    ours, theirs = (each.predict_on_batch(images) for each in (model, again))
    for key in (schema.BOXES, schema.SCORES):
        goldens.assert_close(theirs[key], ours[key], err_msg=key)


def test_a_backbone_that_keeps_stride_16():
    with undrawn():
        backbone = ResNetV1(stage_strides=(1, 2, 2, 1), name="backbone")
        built = RFCN.from_backbone(backbone, num_classes=2, image_size=64)
    assert (built.feature_extractor.split, built.feature_extractor.tail) == ("C4", "C5_stride_16")
    assert built.box_predictor.reduce.kernel.shape == (1, 1, 2048, 1024)


@pytest.mark.parametrize(("argument", "value"), [("neck", "fpn"), ("number_of_stages", 1), ("cropper", object())])
def test_what_belongs_to_faster_rcnn_is_refused(argument, value):
    with pytest.raises(TypeError, match=f"without RoI features. Received: {argument}. Leave it out, or use FasterRCNN"):
        RFCN.from_backbone("tests_tiny", num_classes=2, image_size=64, **{argument: value})


def test_crops_that_the_bins_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"multiples of the bins. Received: crop_size=\(18, 17\), bins=\(3, 3\)"):
        PositionSensitiveBoxPredictor(num_classes=2, crop_size=(18, 17))
