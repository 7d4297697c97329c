"""Batches that the data pipeline resized: what the network sees is what the model would have made."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.data.dataset import DetectionDataset
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests import tiny

SIZES = [(40, 90), (75, 31), (64, 64)]
RESIZERS = {
    "padded": KeepAspectRatioResizer(min_dimension=48, max_dimension=64, pad_to_max_dimension=True),
    "padded with a color": KeepAspectRatioResizer(
        min_dimension=48, max_dimension=64, pad_to_max_dimension=True, per_channel_pad_value=(123.68, 116.0, 103.94)
    ),
    "padded by the pipeline": KeepAspectRatioResizer(
        min_dimension=48, max_dimension=64, per_channel_pad_value=(10.0, 20.0, 30.0)
    ),
    "stretched": FixedShapeResizer(height=64, width=64),
}


def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3)).astype("uint8") for size in SIZES]


def batch_of(resizer):
    data = DetectionDataset.from_arrays(images(), [[]] * 3, [[]] * 3, ["a", "b", "c"])
    x, _ = next(iter(data.batches(resizer, 3).as_numpy_iterator()))
    return x


def unmarked():
    canvas = np.full((3, 75, 90, 3), 77, "uint8")
    for padded, image in zip(canvas, images(), strict=True):
        padded[: image.shape[0], : image.shape[1]] = image
    return {schema.IMAGES: canvas, schema.TRUE_IMAGE_SHAPES: np.array([(*size, 3) for size in SIZES], "int32")}


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("build", tiny.TINY_MODELS)
def test_the_network_sees_the_same(build, resizer):
    model = tiny.TINY_MODELS[build](resizer=RESIZERS[resizer])
    x = batch_of(model)
    assert isinstance(x, dict) == (resizer != "stretched")
    if isinstance(x, dict):
        assert set(x) == {schema.IMAGES, schema.RESIZED_IMAGE_SHAPES} and x[schema.IMAGES].dtype == np.uint8
    marked, wanted = (model._preprocess_data((x, None, None))[0] for x in (x, unmarked()))
    for key in marked:
        marked[key], wanted[key] = ops.convert_to_numpy(marked[key]), ops.convert_to_numpy(wanted[key])
    shapes = wanted[schema.TRUE_IMAGE_SHAPES]
    np.testing.assert_array_equal(marked[schema.TRUE_IMAGE_SHAPES], shapes)
    levels = [model.feature_extractor.preprocess(ops.full((1, 1, 1, 3), value)) for value in (0.0, 1.0)]
    level = np.abs(ops.convert_to_numpy(levels[1] - levels[0])).max()
    for index, (height, width, _) in enumerate(shapes):
        found, expected = marked[schema.IMAGES][index], wanted[schema.IMAGES][index]
        np.testing.assert_allclose(found[:height, :width], expected[:height, :width], rtol=0, atol=0.51 * level)
        np.testing.assert_array_equal(found[height:], expected[height:])
        np.testing.assert_array_equal(found[:, width:], expected[:, width:])


def test_marked_batches_are_not_resampled(monkeypatch):
    """Predicted, they give what the same pixels give as an unmarked batch whose true shapes have their size."""
    model = tiny.tiny_faster_rcnn(resizer=RESIZERS["padded"])
    x = batch_of(model)
    again = {schema.IMAGES: x[schema.IMAGES], schema.TRUE_IMAGE_SHAPES: x[schema.RESIZED_IMAGE_SHAPES]}
    wanted = model.predict_on_batch(again)

    def fail(*args):
        raise AssertionError("resampled")

    monkeypatch.setattr("keras_detect.kernels.resize.resize_each", fail)
    monkeypatch.setattr("keras_detect.kernels.resize.resize_batch", fail)
    model.make_predict_function(force=True)
    found = model.predict_on_batch(x)
    keras.tree.map_structure(np.testing.assert_array_equal, found, wanted)


def test_a_preprocess_of_two_arguments_takes_unmarked_batches():
    class Plain(type(tiny.tiny_ssd())):
        def preprocess(self, images, true_image_shapes=None):
            return super().preprocess(images, true_image_shapes)

    keras.utils.set_random_seed(0)
    model = Plain.from_backbone("tests_tiny", num_classes=3, resizer=RESIZERS["padded"])
    x = unmarked()
    shapes = model._preprocess_data((x, None, None))[0][schema.TRUE_IMAGE_SHAPES]
    # factors min(48/40, 64/90), min(48/31, 64/75) and min(48/64, 64/64)
    assert ops.convert_to_numpy(shapes).tolist() == [[28, 64, 3], [64, 26, 3], [48, 48, 3]]
    with pytest.raises(ValueError, match="Received both"):
        model._preprocess_data(({**x, schema.RESIZED_IMAGE_SHAPES: x[schema.TRUE_IMAGE_SHAPES]}, None, None))
