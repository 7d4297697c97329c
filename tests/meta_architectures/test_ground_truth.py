"""What a detector is fed: every batch of every input type is checked, and every field reaches `compute_losses`."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.meta_architectures.batch_checks import BatchCheck
from keras_detect.meta_architectures.ground_truth import clean_ground_truth, in_padded_frame, split_images
from tests import tiny

IMAGES, TRUTH = tiny.tiny_batch()  # 4 images, which the sources below give in batches of 2


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, weights):
        super().__init__()
        self.arrays = (x, y, weights)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return keras.tree.map_structure(lambda value: value[2 * index : 2 * index + 2], self.arrays)


def arrays(x, y, weights):
    return {"x": x, "y": y, "sample_weight": weights, "batch_size": 2, "shuffle": False}


def tf_data(x, y, weights):
    tf = pytest.importorskip("tensorflow")
    return {"x": tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(2)}


def py_dataset(x, y, weights):
    return {"x": Batches(x, y, weights), "shuffle": False}


def generator(x, y, weights):
    batches = Batches(x, y, weights)
    return {"x": (batches[index] for index in range(2))}


def data_loader(x, y, weights):
    torch = pytest.importorskip("torch")

    class Examples(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return keras.tree.map_structure(lambda value: value[index], (x, y, weights))

    return {"x": torch.utils.data.DataLoader(Examples(), batch_size=2)}


SOURCES = (arrays, tf_data, py_dataset, generator, data_loader)


@pytest.fixture(scope="module")
def model():
    model = tiny.tiny_ssd()
    model.compile(keras.optimizers.SGD(0.0))
    return model


def spoiled(defect):
    """Images, ground truth and weights with a defect in the last image, which is in batch 1."""
    x, y = IMAGES, {**{key: value.copy() for key, value in TRUTH.items()}, schema.WEIGHTS: np.ones((4, 4), "float32")}
    weights = np.ones(4, "float32")
    y[schema.LABELS][3, 0], y[schema.BOXES][3, 0] = 1, [0.1, 0.2, 0.3, 0.4]
    if defect in ("NaN pixels", "infinite pixels"):
        x = x.astype("float32")
        x[3, 5, 5, 0] = np.nan if defect == "NaN pixels" else np.inf
    elif defect == "label":
        y[schema.LABELS][3, 0] = 7
    elif defect == "pixel boxes":
        y[schema.BOXES][3, 0] *= 64
    elif defect == "reversed":
        y[schema.BOXES][3, 0] = [0.3, 0.2, 0.1, 0.4]
    elif defect == "NaN box":
        y[schema.BOXES][3, 0, 2] = np.nan
    elif defect == "negative weight":
        y[schema.WEIGHTS][3, 0] = -1.0
    elif defect == "NaN sample weight":
        weights[3] = np.nan
    return x, y, weights


DEFECTS = {
    "NaN pixels": "Pixels are numbers.*NaN or infinite pixels in {}",
    "infinite pixels": "Pixels are numbers.*NaN or infinite pixels in {}",
    "label": r"Labels must be in \[0, 3\).*Received a label 7 in {}",
    "pixel boxes": "normalized to 0...1. Received values up to 25.6 in {}: divide",
    "reversed": r"ymin <= ymax.*\[0.3, 0.2, 0.1, 0.4\] in {}",
    "NaN box": "Boxes are finite.*in {}",
    "negative weight": r"y\['weights'\].*in {}",
    "NaN sample weight": "sample_weight.*in {}",
}


#: the rules are numpy's on every backend; how an error of theirs ends `fit` depends on it
RULES = [pytest.param(name, marks=() if name == "pixel boxes" else pytest.mark.backend_free) for name in DEFECTS]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("defect", RULES)
def test_every_batch_of_every_input_type_is_checked(model, source, defect):
    with pytest.raises(ValueError, match=DEFECTS[defect].format("batch 1")):
        model.fit(**source(*spoiled(defect)), verbose=0)


@pytest.mark.parametrize("source", SOURCES)
def test_so_are_evaluation_and_validation_data(model, source):
    bad = source(*spoiled("pixel boxes"))
    bad.pop("shuffle", None)
    with pytest.raises(ValueError, match="in batch 1: divide"):
        model.evaluate(**bad, verbose=0)
    held_out = source(*spoiled("label"))
    held_out = tuple(held_out[key] for key in ("x", "y", "sample_weight")) if source is arrays else held_out["x"]
    with pytest.raises(ValueError, match="label 7 in validation batch 1"):
        model.fit(**source(*spoiled(None)), validation_data=held_out, validation_batch_size=2, verbose=0)


@pytest.mark.parametrize("source", SOURCES)
def test_checked_data_train_as_the_arrays_do(model, source):
    expected = model.evaluate(IMAGES, spoiled(None)[1], batch_size=2, verbose=0, return_dict=True)
    given = source(*spoiled(None))
    given.pop("shuffle", None)
    assert model.evaluate(**given, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_so_is_a_single_batch(model, method):
    x, y, weights = spoiled("label")
    with pytest.raises(ValueError, match="label 7 in this batch"):
        getattr(model, method)(x, y)
    with pytest.raises(ValueError, match="sample_weight"):
        getattr(model, method)(IMAGES, TRUTH, -weights)


def test_steps_per_execution_validation_split_and_padded_batches_are_checked_too():
    model = tiny.tiny_ssd()
    if keras.backend.backend() != "torch":
        model.compile(keras.optimizers.SGD(0.0), steps_per_execution=2)
    else:
        model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(ValueError, match="label 7 in batch 1"):
        model.fit(**tf_data(*spoiled("label")), verbose=0)
    model = tiny.tiny_ssd()  # on JAX, an error between the steps of one execution takes the variables with it
    model.compile(keras.optimizers.SGD(0.0))
    x, y, weights = spoiled("label")
    with pytest.raises(ValueError, match="label 7 in batch 1"):
        model.fit(x, y, validation_split=0.5, batch_size=2, verbose=0)
    shapes = np.tile([64, 64, 3], (4, 1)).astype("int32")
    padded = {schema.IMAGES: x, schema.TRUE_IMAGE_SHAPES: shapes}
    with pytest.raises(ValueError, match="label 7 in batch 1"):
        model.fit(**tf_data(padded, y, weights), verbose=0)
    model.fit(**tf_data(padded, {**y, schema.LABELS: TRUTH[schema.LABELS]}, weights), verbose=0)


@pytest.mark.parametrize("source", SOURCES)
def test_shapes_that_do_not_lie_on_the_canvas_are_refused(model, source):
    """A resizer would read rows of the next image of the batch."""
    shapes = np.tile([64, 64, 3], (4, 1)).astype("int32")
    shapes[3] = [65, 64, 3]
    x = {schema.IMAGES: IMAGES, schema.TRUE_IMAGE_SHAPES: shapes}
    with pytest.raises(ValueError, match="larger than the canvas, or a negative one, in batch 1"):
        model.fit(**source(x, *spoiled(None)[1:]), verbose=0)


@pytest.mark.parametrize("size", [(65, 64), (64, 65), (-1, 64)])
def test_so_are_they_in_prediction(model, size):
    x = {schema.IMAGES: IMAGES, schema.TRUE_IMAGE_SHAPES: np.tile([*size, 3], (4, 1)).astype("int32")}
    calls = [lambda: model.predict_on_batch(x), lambda: model.predict(x, verbose=0)]
    if keras.backend.backend() == "tensorflow":
        calls.append(lambda: model.predict(**tf_data(x, {}, np.ones(4)), verbose=0))
    resized = {schema.IMAGES: IMAGES, schema.RESIZED_IMAGE_SHAPES: x[schema.TRUE_IMAGE_SHAPES]}
    calls.append(lambda: BatchCheck(None)(None, (resized,)))
    for call in calls:
        with pytest.raises(ValueError, match="larger than the canvas"):
            call()
    x[schema.TRUE_IMAGE_SHAPES][:] = [64, 0, 3]  # an empty image is padding of a batch
    assert np.isfinite(model.predict_on_batch(x)[schema.SCORES]).all()


def test_pixels_between_0_and_1_warn(model):
    scaled = IMAGES.astype("float32") / 255
    for call in (
        lambda: model.fit(scaled, TRUTH, verbose=0),
        lambda: model.fit(**tf_data(scaled, TRUTH, np.ones(4)), verbose=0),
        lambda: model.predict(scaled, verbose=0),
        lambda: model.predict_on_batch(scaled),
    ):
        with pytest.warns(UserWarning) as caught:
            call()
        said = [str(warning.message) for warning in caught if "0...255" in str(warning.message)]
        assert len(said) == 1 and re.search("Received floats up to 1 in .*multiply by 255", said[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Images are uint8")
        model.predict(np.zeros_like(scaled), verbose=0)
        model.predict(IMAGES.astype("float32"), verbose=0)
        model.predict(IMAGES // 255, verbose=0)


def test_arguments_by_position_are_those_of_keras(model):
    by_name = model.predict(IMAGES, batch_size=2, verbose=0)
    keras.tree.map_structure(np.testing.assert_array_equal, model.predict(IMAGES, 2, 0), by_name)
    trained = model.train_on_batch(IMAGES, TRUTH, None, None, True)
    tested = model.test_on_batch(IMAGES, TRUTH, None, True)
    assert set(trained) == set(tested) > {"loss", "num_positives"}


def test_a_list_of_images_is_refused_with_the_way_out(model):
    for call in (model.predict, model.predict_on_batch, lambda x: model.fit(x, TRUTH, verbose=0)):
        with pytest.raises(ValueError, match=r"Received: a list of 4. Stack images .*`detect` takes a list"):
            call(list(IMAGES))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (IMAGES[0], r"Images are a batch \[B, H, W, 3\]. Received shape \(64, 64, 3\). For one image"),
        ({schema.IMAGES: IMAGES[0]}, "Images are a batch"),
        (
            {schema.IMAGES: IMAGES, "true_shapes": np.ones((4, 3))},
            "Unknown entry 'true_shapes' of x. Did you mean true_im",
        ),
        ({schema.IMAGES: IMAGES, schema.TRUE_IMAGE_SHAPES: np.ones((4, 2))}, r"\[B, 3\]: .* Received shape \(4, 2\)"),
        ({schema.IMAGES: IMAGES, schema.RESIZED_IMAGE_SHAPES: np.ones(3)}, r"Received shape \(3,\)"),
        ({"image": IMAGES}, "dict with 'images'"),
    ],
)
def test_what_x_must_be(x, message):
    with pytest.raises(ValueError, match=message):
        split_images(x)


def test_x_may_hold_what_the_table_of_images_knows():
    images, shapes, resized = split_images({schema.IMAGES: IMAGES, "image_id": np.arange(4)})
    assert images is IMAGES and shapes is None and not resized


def test_no_images_are_refused(model):
    for call in (lambda x, y: model.fit(x, y, verbose=0), lambda x, y: model.predict(x, verbose=0)):
        with pytest.raises(ValueError, match="x contains no images"):
            call(IMAGES[:0], {key: value[:0] for key, value in TRUTH.items()})


def test_nan_pixels_are_refused_in_prediction_too(model):
    x, _, _ = spoiled("NaN pixels")
    with pytest.raises(ValueError, match="NaN or infinite pixels in batch 1"):
        model.predict(x, batch_size=2, verbose=0)
    with pytest.raises(ValueError, match="NaN or infinite pixels in this batch"):
        model.predict_on_batch(x)


def test_what_is_no_array_is_left_to_keras(model):
    y = {key: value.tolist() for key, value in TRUTH.items()}
    with pytest.raises(ValueError, match="Unrecognized data type"):
        model.fit(IMAGES, y, verbose=0)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        (schema.WEIGHTS, (4,), r"y\['weights'\] is \[B, M\].*Received shape \(4,\) beside labels of shape \(4, 4\)"),
        (schema.WEIGHTS, (4, 1), r"y\['weights'\] is \[B, M\].*Received shape \(4, 1\)"),
        (schema.IS_CROWD, (4,), r"y\['is_crowd'\] is \[B, M\]"),
        (schema.KEYPOINTS, (4, 4, 5, 3), r"y\['keypoints'\] is \[B, M, N, 2\].*\(4, 4, 5, 3\)"),
        (schema.MASKS, (4, 3, 8, 8), r"y\['masks'\] is \[B, M, H, W\].*\(4, 3, 8, 8\)"),
    ],
)
def test_a_field_has_one_row_per_object(key, shape, message):
    """With as many rows as images, `[B]` would be broadcast over the wrong axis."""
    with pytest.raises(ValueError, match=message):
        clean_ground_truth({**TRUTH, key: np.ones(shape, "float32")})


def test_a_sample_weight_is_one_number_per_image(model):
    weights = np.array([0.0, 1.0, 2.0, 3.0], "float32")
    cleaned = ops.convert_to_numpy(clean_ground_truth(TRUTH, list(weights))[schema.WEIGHTS])
    expected = np.where(TRUTH[schema.LABELS] >= 0, weights[:, None], 0.0)
    np.testing.assert_array_equal(cleaned[:, :4], expected)
    with pytest.raises(ValueError, match=r"y\['weights'\] is \[B, M\]"):
        model.train_on_batch(IMAGES, {**TRUTH, schema.WEIGHTS: weights})
    with pytest.raises(ValueError, match=r"one number per image, \[B\]. Received shape \(4, 4\). Weights of objects"):
        model.train_on_batch(IMAGES, TRUTH, np.ones((4, 4), "float32"))


def test_a_data_set_of_single_images_points_to_its_batches(model):
    class Dataset:
        def batches(self, model, batch_size):
            raise AssertionError

    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(TypeError, match=r"Received: a Dataset.*dataset.batches\(model, batch_size=8\)"):
            call(Dataset())


def test_ragged_ground_truth_is_refused(model):
    tf = pytest.importorskip("tensorflow")
    labels = tf.ragged.constant([[0], [1, 2]])
    boxes = tf.ragged.constant([[[0.0, 0, 1, 1]], [[0.0, 0, 1, 1]] * 2], ragged_rank=1)
    data = tf.data.Dataset.from_tensors((IMAGES[:2], {schema.BOXES: boxes, schema.LABELS: labels}))
    with pytest.raises(ValueError, match=r"dense batches. Received: a RaggedTensor"):
        model.fit(data, verbose=0)


def test_what_only_padding_rows_hold_is_not_looked_at():
    labels = np.array([[0, -1]])
    boxes = np.array([[[0.0, 0, 1, 1], [np.nan, 5, 4, 700]]], "float32")
    weights = np.array([[1.0, np.nan]])
    y = {schema.BOXES: boxes, schema.LABELS: labels, schema.WEIGHTS: weights}
    BatchCheck(1)(0, (IMAGES[:1], y))
    with pytest.raises(ValueError):
        BatchCheck(1)(0, (IMAGES[:1], {**y, schema.LABELS: np.array([[0, 0]])}))


@pytest.mark.parametrize("labels", [[[0.5]], [[np.nan]]])
def test_labels_are_whole_numbers(labels):
    y = {schema.BOXES: np.array([[[0.0, 0, 1, 1]]]), schema.LABELS: np.array(labels)}
    with pytest.raises(ValueError, match="integers"):
        BatchCheck(3)(0, (IMAGES[:1], y))


def test_every_field_of_the_table_reaches_the_losses():
    """One object, one row of padding whose values are nonsense, and the row that `clean_ground_truth` adds."""
    y = {
        schema.BOXES: np.array([[[0.1, 0.2, 0.3, 0.4], [9.0, 9, 9, 9]]], "float32"),
        schema.CLASSES: np.array([[2, -1]]),
        schema.MASKS: np.ones((1, 2, 4, 4), "uint8"),
        schema.KEYPOINTS: np.full((1, 2, 3, 2), 0.5, "float32"),
        schema.KEYPOINT_VISIBILITY: np.full((1, 2, 3), 2, "int32"),
        schema.IS_CROWD: np.array([[False, True]]),
        schema.VERIFIED_LABELS: np.array([[1, 2]]),
    }
    cleaned = {key: ops.convert_to_numpy(value) for key, value in clean_ground_truth(y).items()}
    np.testing.assert_array_equal(cleaned[schema.LABELS], [[2, -1, -1]])
    np.testing.assert_array_equal(cleaned["valid"], [[True, False, False]])
    np.testing.assert_array_equal(cleaned[schema.WEIGHTS], [[1, 0, 0]])
    np.testing.assert_allclose(cleaned[schema.BOXES], [[[0.1, 0.2, 0.3, 0.4], [0] * 4, [0] * 4]])
    np.testing.assert_array_equal(cleaned[schema.MASKS][0].mean(axis=(1, 2)), [1, 0, 0])
    np.testing.assert_array_equal(cleaned[schema.KEYPOINTS][0].mean(axis=(1, 2)), [0.5, 0, 0])
    np.testing.assert_array_equal(cleaned[schema.KEYPOINT_VISIBILITY][0], [[2] * 3, [0] * 3, [0] * 3])
    np.testing.assert_array_equal(cleaned[schema.IS_CROWD], [[False, False, False]])
    np.testing.assert_array_equal(cleaned[schema.VERIFIED_LABELS], [[1, 2]])
    assert cleaned[schema.MASKS].dtype == np.uint8


def test_boxes_and_points_move_into_the_padded_frame_together():
    """A true image of 30 x 60 pixels on a canvas of 60 x 80: y shrinks by 1/2, x by 3/4."""
    y = clean_ground_truth(
        {
            schema.BOXES: np.array([[[0.0, 0.2, 1.0, 0.4]]], "float32"),
            schema.LABELS: np.array([[0]]),
            schema.KEYPOINTS: np.array([[[[0.5, 0.8]]]], "float32"),
        }
    )
    moved = in_padded_frame(y, ops.array([[30, 60, 3]]), ops.array([60.0, 80.0]))
    np.testing.assert_allclose(moved[schema.BOXES][0, 0], [0.0, 0.15, 0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(moved[schema.KEYPOINTS][0, 0, 0], [0.25, 0.6], rtol=1e-6)
