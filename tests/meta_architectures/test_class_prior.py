"""What new class heads answer before training: a foreground probability of 0.01; weights that are kept stay."""

import functools

import keras
import numpy as np
import pytest

from keras_detect import schema
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.heads import ConvolutionalBoxPredictor
from keras_detect.losses import SoftmaxCrossEntropyLoss
from tests import tiny


def logits(model):
    x, _ = tiny.tiny_batch()
    inputs = model.preprocess(keras.ops.convert_to_tensor(x))
    return keras.ops.convert_to_numpy(model(inputs, training=False)[schema.CLASS_LOGITS])


def foreground(model, softmax):
    """Mean probability of an object: of a class for sigmoid, of all classes together for softmax."""
    values = keras.ops.convert_to_tensor(logits(model))
    if softmax:
        return 1 - float(np.mean(keras.ops.convert_to_numpy(keras.ops.softmax(values))[..., 0]))
    return float(np.mean(keras.ops.convert_to_numpy(keras.ops.sigmoid(values))))


def test_sigmoid_heads_begin_at_one_hundredth():
    model = tiny.tiny_ssd(num_classes=4)
    assert foreground(model, softmax=False) == pytest.approx(0.01, rel=0.1)
    assert foreground(model.re_head(7), softmax=False) == pytest.approx(0.01, rel=0.1)


def test_a_new_head_without_a_bias_of_its_own_gets_one():
    head = functools.partial(ConvolutionalBoxPredictor, class_bias=0.0, background=False)
    model = tiny.tiny_ssd(num_classes=4, box_predictor=head)
    new = model.re_head(6)
    (name,) = [name for name in new.named_weights() if name.endswith("level_0_class/bias")]
    np.testing.assert_allclose(tiny.weights_of(new)[name], np.log(0.01 / 0.99), rtol=1e-6)
    same = model.re_head(4)  # as many classes: the head is kept
    np.testing.assert_array_equal(tiny.weights_of(same)[name], tiny.weights_of(model)[name])
    stated = tiny.tiny_ssd(num_classes=4, box_predictor=functools.partial(head, class_bias=-2.0)).re_head(6)
    np.testing.assert_array_equal(tiny.weights_of(stated)[name], np.float32(-2.0))


def test_softmax_heads_begin_with_background(tmp_path):
    head = functools.partial(ConvolutionalBoxPredictor, background=True)
    model = tiny.tiny_ssd(
        num_classes=4,
        box_predictor=head,
        classification_loss=SoftmaxCrossEntropyLoss(),
        postprocessor=Postprocessor(
            nms=tiny.tiny_ssd().postprocessor.nms, score_converter="softmax", has_background=True
        ),
    )
    assert foreground(model, softmax=True) == pytest.approx(0.01, rel=0.2)
    assert foreground(model.re_head(9), softmax=True) == pytest.approx(0.01, rel=0.2)
    model.save_to_preset(tmp_path / "preset")
    loaded = type(model).from_preset(tmp_path / "preset", num_classes=2)
    assert foreground(loaded, softmax=True) == pytest.approx(0.01, rel=0.2)
    kept = tiny.weights_of(type(model).from_preset(tmp_path / "preset"))
    for name, value in tiny.weights_of(model).items():
        np.testing.assert_array_equal(kept[name], value)


def test_a_second_stage_begins_with_the_share_of_objects_in_its_samples():
    """A quarter of the sampled proposals is an object: the background's logit is log(0.75 K / 0.25)."""
    for classes in (3, 5):
        model = tiny.tiny_faster_rcnn(num_classes=3)
        model = model if classes == 3 else model.re_head(classes)
        bias = keras.ops.convert_to_numpy(model.box_predictor.class_biases()[0])
        np.testing.assert_allclose(bias, [np.log(3 * classes), *[0.0] * classes], rtol=1e-6)
