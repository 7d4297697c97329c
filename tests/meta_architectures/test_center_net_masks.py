"""The masks of a CenterNet: targets as upstream's assigner makes them, the loss, and masks cut out for each object."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.data.pasting import paste
from keras_detect.heads.point_heads import PointHead
from keras_detect.kernels.rasters import crop_planes
from keras_detect.losses.classification import SoftmaxCrossEntropyLoss
from keras_detect.meta_architectures.center_net_keypoints import KeypointTask
from keras_detect.meta_architectures.center_net_masks import MaskTask
from keras_detect.meta_architectures.center_net_tasks import Centers, Frame, ObjectTask
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests import tiny

SIDE = tiny.IMAGE_SIZE
CELLS = SIDE // 4
HEADS = PointHead(filters=(16,))


def mask_task(**options):
    return MaskTask(num_classes=3, heads=HEADS, **{"mask_size": 32, **options})


def frame(height=SIDE, width=SIDE, true=None, raster_windows=None):
    shapes = np.array([[*(true or (height, width)), 3]], "int32")
    return Frame(4, ops.convert_to_tensor([float(height), float(width)]), ops.convert_to_tensor(shapes), raster_windows)


def cleaned(y):
    return clean_ground_truth({key: ops.convert_to_tensor(value) for key, value in y.items()})


def three_objects():
    """Two overlapping objects of class 0 and one of class 2, with random masks that fill whole image rows."""
    rng = np.random.default_rng(0)
    boxes = np.array([[[0, 0, 32, 32], [16, 16, 48, 48], [40, 8, 64, 60], [0, 0, 0, 0]]], "float32") / SIDE
    masks = (rng.uniform(size=(1, 4, SIDE, SIDE)) < 0.5).astype("uint8")
    return {schema.BOXES: boxes, schema.LABELS: np.array([[0, 0, 2, -1]], "int32"), schema.MASKS: masks}


def test_targets_are_the_union_of_a_classes_masks_at_the_cells():
    """A cell at stride 4 has the mean of its four middle pixels: bilinear interpolation without smoothing."""
    y = three_objects()
    targets = mask_task().targets(cleaned(y), frame(), (CELLS, CELLS))
    blocks = y[schema.MASKS][0].reshape(4, CELLS, 4, CELLS, 4)[:, :, 1:3, :, 1:3].mean(axis=(2, 4))
    found = ops.convert_to_numpy(targets.masks)[0]
    np.testing.assert_allclose(found[..., 0], np.maximum(blocks[0], blocks[1]), atol=1e-4)
    np.testing.assert_allclose(found[..., 2], blocks[2], atol=1e-4)
    assert not found[..., 1].any()
    np.testing.assert_array_equal(ops.convert_to_numpy(targets.weights), 1.0)


def test_weights_as_upstream_gives_them():
    """The example of its own documentation: the largest weight where boxes meet, 1 outside, 0 wins in the last row."""
    boxes = np.array([[[0, 0, 2, 2], [0, 0, 4, 2], [3, 0, 4, 4]]], "float32") / 4
    y = {schema.BOXES: boxes, schema.LABELS: np.zeros((1, 3), "int32")}
    y |= {schema.MASKS: np.ones((1, 3, 16, 16), "uint8"), "mask_weights": np.array([[4.0, 3.0, 0.0]], "float32")}
    expected = [[4, 4, 1, 1], [4, 4, 1, 1], [3, 3, 1, 1], [0, 0, 0, 0]]
    weights = mask_task().targets(cleaned(y), frame(16, 16), (4, 4)).weights
    np.testing.assert_array_equal(ops.convert_to_numpy(weights)[0], expected)
    y[schema.MASKS][0, 2], y["mask_weights"] = 0, np.ones((1, 3), "float32")  # no mask: its box teaches nothing
    weights = mask_task().targets(cleaned(y), frame(16, 16, true=(16, 9)), (4, 4)).weights
    np.testing.assert_array_equal(ops.convert_to_numpy(weights)[0], [[1, 1, 1, 0]] * 3 + [[0] * 4])


@pytest.mark.parametrize("resizer", [FixedShapeResizer, KeepAspectRatioResizer])
def test_rasters_of_any_size_are_the_same_targets(resizer):
    """Images of 32 x 48 come as they are, and the model resizes them: the middle of the image is the object."""
    options = {"height": SIDE, "width": SIDE} if resizer is FixedShapeResizer else None
    options = options or {"min_dimension": SIDE, "max_dimension": SIDE, "pad_to_max_dimension": True}
    model = tiny.tiny_center_net(tasks=[mask_task()], resizer=resizer(**options))
    images = np.zeros((1, 32, 48, 3), "uint8")
    mask = np.zeros((1, 1, 32, 48), "uint8")
    mask[..., 8:24, 12:36] = 1
    y = {schema.BOXES: np.array([[[0.25, 0.25, 0.75, 0.75]]], "float32"), schema.LABELS: np.zeros((1, 1), "int32")}
    y[schema.MASKS] = mask
    inputs, y, _ = model._preprocess_data((images, {k: ops.convert_to_tensor(v) for k, v in y.items()}))
    given = frame(SIDE, SIDE)._replace(
        true_image_shapes=inputs[schema.TRUE_IMAGE_SHAPES], raster_windows=inputs[schema.RASTER_WINDOWS]
    )
    found = ops.convert_to_numpy(model.tasks[1].targets(cleaned(y), given, (CELLS, CELLS)).masks)[0, ..., 0]
    height = int(ops.convert_to_numpy(inputs[schema.TRUE_IMAGE_SHAPES])[0, 0]) / 4
    rows, columns = np.mgrid[0:CELLS, 0:CELLS] + 0.5
    inside = (rows > height / 4) & (rows < height * 3 / 4) & (columns > CELLS / 4) & (columns < CELLS * 3 / 4)
    assert np.mean(np.abs(found - inside)) < 0.06 and np.mean((found >= 0.5) != inside) < 0.03


def test_the_loss_is_a_mean_over_cells():
    """Logits of 0 against any mask: log 2 for each class in each cell that counts, by every feature map alike."""
    task = mask_task(loss_weight=3.0)
    predictions = {"masks/mask": [ops.zeros((1, CELLS, CELLS, 3))] * 2}
    y = cleaned(three_objects())
    loss = task.compute_losses(y, predictions, frame(true=(32, SIDE)))["masks_loss"]
    assert float(loss) == pytest.approx(3.0 * 3 * np.log(2.0), rel=1e-5)
    softmax = mask_task(mask_loss=SoftmaxCrossEntropyLoss())
    y = cleaned({**three_objects(), schema.MASKS: np.ones((1, 4, SIDE, SIDE), "uint8")})
    loss = softmax.compute_losses(y, predictions, frame())["masks_loss"]
    assert float(loss) == pytest.approx(2 * np.log(3.0), rel=1e-5)  # two classes in each cell


def test_crops_are_tensorflows():
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(2, 3, 9, 14)).astype("float32")
    corner = rng.uniform(0, 0.5, (2, 5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.5, (2, 5, 2))], axis=-1).astype("float32")
    labels = rng.integers(0, 3, (2, 5)).astype("int32")
    for size in ((7, 5), (1, 4)):
        found = ops.convert_to_numpy(crop_planes(ops.convert_to_tensor(planes), labels, boxes, size))
        for image in range(2):
            cut = tf.image.crop_and_resize(planes[image][..., None], boxes[image], labels[image], size)
            np.testing.assert_allclose(found[image], cut.numpy()[..., 0], atol=1e-5)


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_what_is_above_the_threshold_is_pasted(threshold):
    """Two objects in an image padded at the right; each mask pastes to the part of its class's mask in its box."""
    task = mask_task(threshold=threshold)
    true, boxes = (SIDE, 40), np.array([[[2.0, 1.0, 14.0, 9.0], [4.0, 2.0, 12.0, 8.0]]], "float32")
    rows, columns = np.mgrid[0:CELLS, 0:CELLS]
    probability = np.where(rows + columns < 12, 0.3, 0.1)
    heat = np.full((1, CELLS, CELLS, 3), -9.0, "float32")
    heat[0, ..., 1] = np.log(probability / (1 - probability))
    peaks = type("Peaks", (), {"labels": ops.convert_to_tensor(np.array([[1, 1]], "int32"))})
    found = task.decode({"masks/mask": [heat]}, Centers(peaks, None, ops.convert_to_tensor(boxes)), frame(true=true))
    masks = ops.convert_to_numpy(found[schema.MASKS])[0]
    assert masks.shape == (2, 32, 32) and masks.min() >= 0.0 and masks.max() <= 1.0
    pasted = paste(masks, boxes[0] * 4 / np.array([*true, *true]), true)
    if threshold == 0.5:
        assert not pasted.any()
        return
    y, x = np.mgrid[0 : true[0], 0 : true[1]] / 4
    wanted = (y + x < 11.5) & (y >= 2) & (y < 14) & (x >= 1) & (x < 9)
    assert np.mean(pasted[0] == wanted) > 0.93


def test_masks_are_learned_saved_and_detected(tmp_path):
    keras.utils.set_random_seed(0)
    model = tiny.tiny_center_net_with_masks()
    assert model.ground_truth_keys == (schema.MASKS,)
    images, y = tiny.tiny_batch(seed=1)
    model.compile(keras.optimizers.Adam(1e-2))
    losses = model.fit(images, y, epochs=6, verbose=0).history["masks_loss"]
    assert losses[-1] < 0.8 * losses[0]
    found = model.predict(images, verbose=0)
    assert found[schema.MASKS].shape == (4, 20, 16, 16)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras").predict(images, verbose=0)
    np.testing.assert_array_equal(found[schema.MASKS], again[schema.MASKS])


def test_what_is_refused():
    with pytest.raises(ValueError, match="has the classes of the model, 3"):
        tiny.tiny_center_net(tasks=[MaskTask(num_classes=2, heads=HEADS)])
    with pytest.raises(ValueError, match="threshold must be in"):
        mask_task(threshold=1.0)
    with pytest.raises(ValueError, match="mask_size must be at least 1"):
        mask_task(mask_size=(0, 3))
    model = tiny.tiny_center_net(tasks=[mask_task()])
    with pytest.raises(ValueError, match="'masks' needs boxes"):
        points = KeypointTask(class_id=0, indices=(0, 1), heads=HEADS)
        model.with_parts(tasks=[ObjectTask(num_classes=3, boxes=False, heads=HEADS), points, mask_task()])
    images, y = tiny.tiny_batch()
    model.compile("sgd")
    with pytest.raises(ValueError, match="'masks' learns y"):
        model.train_on_batch(images, {key: y[key] for key in (schema.BOXES, schema.LABELS)})
