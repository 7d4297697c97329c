"""Freezing: weights are constants and no batch norm is left, in numbers that stay."""

import keras
import numpy as np
import pytest

from keras_detect import SSD, schema
from keras_detect.export import ExportError, ExportOptions, folding, weights_digest
from keras_detect.export.frozen import FrozenDetector, canvas_of
from keras_detect.transforms.resizers import IdentityResizer, KeepAspectRatioResizer
from tests import goldens, tiny

pytestmark = pytest.mark.skipif(goldens.BACKEND != "tensorflow", reason="graphs are frozen under TensorFlow")


def drawn(model):
    """The model with batch norm statistics that are not 0 and 1."""
    random = np.random.default_rng(0)
    for name, weight in model.named_weights().items():
        if name.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.3, 2.0, weight.shape))
        elif name.endswith(("beta", "moving_mean")):
            weight.assign(random.normal(size=weight.shape))
    return model


def raw_heads(model, images):
    predictions = model(model.preprocess(images), training=False)
    return {key: predictions[key] for key in (schema.BOX_ENCODINGS, schema.CLASS_LOGITS)}


def pre_activation_backbone():
    """Keras' own batch norm, behind an addition and behind a dense convolution: none may be lost."""
    inputs = x = keras.Input((None, None, 3))
    for index, filters in enumerate((8, 8, 8, 12, 16)):
        x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=bool(index % 2))(x)
        x = keras.layers.BatchNormalization(scale=index != 2)(x)
        x = keras.layers.Conv2D(filters, 1)(keras.layers.ReLU(6)(x))
        x = keras.layers.Add()([x, keras.layers.Conv2D(filters, 1)(x)])
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, x)


def build(name):
    if name == "pre_activation":
        return SSD.from_backbone(pre_activation_backbone(), num_classes=3, image_size=64, preprocess="tf")
    options = {"neck": "fpn"} if name == "shared_heads" else {}
    return tiny.tiny_ssd(**options)


@pytest.mark.parametrize("name", ["plain", "shared_heads", "pre_activation"])
def test_folded_heads_are_those_of_the_model(name):
    import tensorflow as tf

    model = drawn(build(name))
    frozen = FrozenDetector(model, ExportOptions())
    function = frozen.trace(lambda images: raw_heads(model, images), frozen.images_spec("uint8"))
    assert not function.variables
    operations = {node.op for node in function.graph.as_graph_def().node}
    assert not operations & {"FusedBatchNormV3", "ReadVariableOp", "Rsqrt"}
    images = tiny.tiny_batch(1)[0]
    expected = raw_heads(model, images)
    for key, value in function(tf.constant(images)).items():
        expected_value = keras.ops.convert_to_numpy(expected[key])
        assert value.shape == expected_value.shape  # static
        np.testing.assert_allclose(value.numpy(), expected_value, atol=1e-4 * np.abs(expected_value).max(), err_msg=key)


def test_nothing_but_what_the_outputs_need_is_kept():
    model = drawn(tiny.tiny_ssd())
    function = FrozenDetector(model, ExportOptions()).function
    weights = sum(weight.shape.num_elements() * 4 for weight in model.weights)
    assert function.graph.as_graph_def().ByteSize() < 1.5 * weights + 1e6


def test_every_batch_norm_is_folded_or_becomes_a_multiplication():
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, 4, 4, 2), name="x")
        values = [tf.constant(value, tf.float32) for value in ([1.0, 2.0], [0.5, -1.0], [0.1, 0.2], [1.0, 4.0])]
        norms = []
        for index, before in enumerate((x, tf.nn.conv2d(x, tf.ones((1, 1, 2, 2)), 1, "SAME"))):
            normalized = tf.raw_ops.FusedBatchNormV3(
                x=before, scale=values[0], offset=values[1], mean=values[2], variance=values[3], is_training=False
            ).y
            norms.append(tf.identity(normalized, name=f"y{index}"))
    graph_def = graph.as_graph_def()
    assert folding.fold_batch_norm(graph_def) == 1
    folding.remove_unused(graph_def, ["y0:0", "y1:0", "x"])
    assert not [node for node in graph_def.node if node.op.startswith("FusedBatchNorm")]
    pixels = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype("float32")
    found = []
    for definition in (graph.as_graph_def(), graph_def):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.graph_util.import_graph_def(definition, name="")
            found.append(session.run(["y0:0", "y1:0"], {"x:0": pixels}))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_the_size_of_the_input():
    model = tiny.tiny_ssd()
    assert canvas_of(model) == (64, 64)
    padded = model.with_parts(
        resizer=KeepAspectRatioResizer(min_dimension=32, max_dimension=64, pad_to_max_dimension=True)
    )
    assert canvas_of(padded) == (64, 64)
    with pytest.raises(ExportError, match=r"images of one size.*Pass image_size"):
        canvas_of(model.with_parts(resizer=IdentityResizer()))


def test_the_digest_follows_the_weights():
    model = tiny.tiny_ssd()
    before = weights_digest(model)
    assert before == weights_digest(tiny.tiny_ssd())
    weight = next(iter(model.named_weights().values()))
    weight.assign(weight + 1e-6)
    assert weights_digest(model) != before
