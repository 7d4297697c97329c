"""CenterNet: tasks learn and find the same points, several beside each other; `tests/contracts` has the rest."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.heads.point_heads import PointHead
from keras_detect.losses.localization import IouLoss
from keras_detect.meta_architectures.center_net_keypoints import KeypointCandidates, KeypointTask
from keras_detect.meta_architectures.center_net_tasks import ObjectTask
from keras_detect.meta_architectures.ground_truth import clean_ground_truth
from tests import tiny

SMALL = PointHead(filters=(16,))
FACE = {"class_id": 0, "indices": (0, 2, 4), "name": "face", "heads": SMALL}
HANDS = {"class_id": 1, "indices": (1, 3), "name": "hands", "heads": SMALL}
SIDE = tiny.IMAGE_SIZE


def two_sets(**options):
    return [KeypointTask(**{**FACE, **options}), KeypointTask(**{**HANDS, **options})]


def with_keypoints(y, number=5, seed=0):
    """The same ground truth with `number` keypoints inside every box."""
    share = np.random.default_rng(seed).uniform(0.1, 0.9, (*y[schema.LABELS].shape, number, 2))
    low, high = y[schema.BOXES][:, :, None, :2], y[schema.BOXES][:, :, None, 2:]
    return {**y, schema.KEYPOINTS: (low + share * (high - low)).astype("float32")}


def scene():
    """`(images, y)` of two images of 64 x 64: three objects far from each other, the last image with padding."""
    boxes = np.array([[[4, 4, 28, 24], [36, 30, 60, 58]], [[10, 20, 50, 40], [0, 0, 0, 0]]], "float32") / SIDE
    y = with_keypoints({schema.BOXES: boxes, schema.LABELS: np.array([[0, 1], [0, -1]], "int32")})
    return np.zeros((2, SIDE, SIDE, 3), "uint8"), y


def perfect(model, images, y):
    """Predictions of a network that has learned `y` by heart: each task's own targets, written at their cells."""
    inputs = model.preprocess(images)
    predictions = model(inputs, training=False)
    frame = model._frame(predictions, inputs[schema.TRUE_IMAGE_SHAPES])
    size = tuple(predictions["objects/center"][0].shape[1:3])
    cleaned = clean_ground_truth({key: ops.convert_to_tensor(value) for key, value in y.items()})
    found = {
        key: [np.full(tuple(m.shape), -4.0 if key.endswith("heatmap") else 0.0, "float32") for m in maps]
        for key, maps in predictions.items()
        if "/" in key
    }
    objects = model.object_task.targets(cleaned, frame, size)
    heat = np.clip(ops.convert_to_numpy(objects.heatmap), 1e-6, 0.99)
    found["objects/center"][-1][:] = np.log(heat / (1 - heat))
    for image, row in np.argwhere(ops.convert_to_numpy(cleaned["valid"])):
        y_cell, x_cell = np.asarray(objects.cells)[image, row]
        found["objects/size"][-1][image, y_cell, x_cell] = np.asarray(objects.sizes)[image, row]
        found["objects/offset"][-1][image, y_cell, x_cell] = np.asarray(objects.offsets)[image, row]
        for task in model.tasks[1:]:
            targets = task.targets(cleaned, frame, size)
            points, weights = np.asarray(targets.points)[image, row], np.asarray(targets.weights)[image, row]
            vectors = (points - [y_cell, x_cell]).reshape(-1)
            if weights.any():
                found[f"{task.name}/regression"][-1][image, y_cell, x_cell] = vectors
            if task.candidates is not None:
                for index in np.flatnonzero(weights):
                    cell = np.floor(points[index]).astype(int)
                    found[f"{task.name}/heatmap"][-1][image, cell[0], cell[1], index] = 3.0
                    offset = found[f"{task.name}/offset"][-1][image, cell[0], cell[1]]
                    part = slice(2 * index, 2 * index + 2) if task.per_keypoint_offset else slice(0, 2)
                    offset[part] = points[index] - cell
    return {
        **{key: [ops.convert_to_tensor(m) for m in maps] for key, maps in found.items()},
        schema.IMAGE_SHAPE: predictions[schema.IMAGE_SHAPE],
    }, inputs


def detections_of(model, predictions, inputs):
    found = model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES])
    return {key: ops.convert_to_numpy(value) for key, value in found.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"candidates": KeypointCandidates()},
        {"candidates": KeypointCandidates(ranking="score_distance_ratio"), "per_keypoint_offset": True, "radius": 2},
        {"candidates": KeypointCandidates(ranking="score_scaled_distance_ratio"), "per_keypoint_offset": True},
        {"candidates": KeypointCandidates(ranking="gaussian_weighted"), "per_keypoint_offset": True},
    ],
)
def test_what_was_learned_by_heart_is_found_again(options):
    images, y = scene()
    model = tiny.tiny_center_net(tasks=two_sets(**options))
    found = detections_of(model, *perfect(model, images, y))
    assert found[schema.KEYPOINTS].shape == (2, 20, 5, 2)
    for image, row in ((0, 0), (0, 1), (1, 0)):
        index = int(np.argmin(np.abs(found[schema.BOXES][image] - y[schema.BOXES][image, row]).max(-1)))
        np.testing.assert_allclose(found[schema.BOXES][image, index], y[schema.BOXES][image, row], atol=1e-5)
        label = y[schema.LABELS][image, row]
        assert found[schema.LABELS][image, index] == label
        own = [FACE, HANDS][label]["indices"]
        points = found[schema.KEYPOINTS][image, index]
        np.testing.assert_allclose(points[list(own)], y[schema.KEYPOINTS][image, row][list(own)], atol=1e-4)
        others = [point for point in range(5) if point not in own]
        assert not points[others].any() and not found[schema.KEYPOINT_SCORES][image, index][others].any()
        assert (found[schema.KEYPOINT_SCORES][image, index][list(own)] > 0.3).all()


def test_boxes_without_sizes_enclose_the_keypoints():
    images, y = scene()
    objects = ObjectTask(num_classes=1, boxes=False, heads=SMALL, max_detections=4)
    face = KeypointTask(**{**FACE, "indices": (0, 1, 2)}, candidates=KeypointCandidates())
    model = tiny.tiny_center_net().with_parts(tasks=[objects, face])
    assert [name for name in model.loss_names if "size" in name] == []
    model.compile("sgd")
    y[schema.LABELS] = np.minimum(y[schema.LABELS], 0)
    assert np.isfinite(model.train_on_batch(images, y)).all()
    found = model.predict(images, verbose=0)
    points = found[schema.KEYPOINTS]
    expected = np.clip(np.concatenate([points.min(2), points.max(2)], axis=-1), 0, 1)
    np.testing.assert_allclose(found[schema.BOXES], expected, atol=1e-6)
    with pytest.raises(ValueError, match="needs keypoints"):
        tiny.tiny_center_net().with_parts(tasks=[objects])


def test_the_losses_of_what_was_learned_by_heart_are_small():
    images, y = scene()
    model = tiny.tiny_center_net(tasks=two_sets(candidates=KeypointCandidates(), per_keypoint_offset=True))
    predictions, inputs = perfect(model, images, y)
    cleaned = clean_ground_truth({key: ops.convert_to_tensor(value) for key, value in y.items()})
    losses = model.compute_losses(cleaned, predictions, inputs)
    assert set(losses) == {*model.loss_names, *model.reported_names}
    for name, loss in losses.items():
        if "localization" in name:
            assert float(loss) < 1e-5, name
    assert float(losses["num_positives"]) == 1.5


def test_unannotated_keypoints_teach_nothing():
    images, y = scene()
    model = tiny.tiny_center_net(tasks=[KeypointTask(**FACE, candidates=KeypointCandidates())])
    model.compile("sgd")
    y[schema.KEYPOINTS][:, :, 2:] = np.nan
    visible = {**y, schema.KEYPOINTS: np.nan_to_num(y[schema.KEYPOINTS], nan=0.3)}
    visible[schema.KEYPOINT_VISIBILITY] = np.where(np.isnan(y[schema.KEYPOINTS][..., 0]), 0, 2).astype("int32")
    first = model.test_on_batch(images, y, return_dict=True)
    model.reset_metrics()
    assert first == model.test_on_batch(images, visible, return_dict=True)
    assert np.isfinite(list(first.values())).all()
    model.reset_metrics()
    nothing = {**y, schema.KEYPOINTS: np.full_like(y[schema.KEYPOINTS], np.nan)}
    logs = model.test_on_batch(images, nothing, return_dict=True)
    assert logs["face_offset_localization_loss"] == logs["face_regression_localization_loss"] == 0.0


def test_every_map_learns_and_the_last_one_detects():
    images, y = tiny.tiny_batch()
    model = tiny.tiny_center_net(maps=("stack_0", "stack_1"))
    model.compile(keras.optimizers.SGD(0.1))
    before = tiny.weights_of(model)
    model.train_on_batch(images, y)
    after = tiny.weights_of(model)
    assert not [name for name in before if "objects/" in name and np.array_equal(before[name], after[name])]
    expected = model.predict(images, verbose=0)
    for layer in model.object_task.towers()["center", 0]:
        for weight in layer.weights:
            weight.assign(ops.zeros(weight.shape))
    for key, value in model.predict(images, verbose=0).items():
        np.testing.assert_array_equal(value, expected[key])
    assert model.test_on_batch(images, y) != 0


def test_suppression_removes_the_second_peak_of_an_object_and_keeps_its_keypoints():
    images, y = scene()
    nms = MulticlassNonMaxSuppression(score_threshold=0.5, iou_threshold=0.3, max_total_detections=7)
    plain, suppressing = (tiny.tiny_center_net(tasks=[KeypointTask(**FACE)], nms=part) for part in (None, nms))
    predictions, inputs = perfect(plain, images, y)
    center = np.array(predictions["objects/center"][-1])
    cell = np.argwhere(center[0, :, :, 0] == center[0, :, :, 0].max())[0]
    other = cell + np.array([0, 2])
    maps = {key: np.array(predictions[f"objects/{key}"][-1]) for key in ("size", "offset")}
    center[0, other[0], other[1], 0] = 2.0
    for values in maps.values():
        values[0, other[0], other[1]] = values[0, cell[0], cell[1]]
    predictions |= {"objects/center": [ops.convert_to_tensor(center)]}
    predictions |= {f"objects/{key}": [ops.convert_to_tensor(value)] for key, value in maps.items()}
    both, one = (detections_of(model, predictions, inputs) for model in (plain, suppressing))
    assert ((both[schema.SCORES][0] > 0.8) & (both[schema.LABELS][0] == 0)).sum() == 2
    assert one[schema.NUM_DETECTIONS][0] == 2  # one of each class
    assert suppressing.num_detections == one[schema.BOXES].shape[1] == 7
    row = list(one[schema.LABELS][0]).index(0)
    expected = y[schema.KEYPOINTS][0, 0, [0, 2, 4]]
    np.testing.assert_allclose(one[schema.KEYPOINTS][0, row, [0, 2, 4]], expected, atol=1e-4)


def test_cells_inside_a_crowd_are_no_background():
    images, y = scene()
    model = tiny.tiny_center_net()
    inputs = model.preprocess(images)
    frame = model._frame(model(inputs, training=False), inputs[schema.TRUE_IMAGE_SHAPES])
    crowd = {**y, schema.IS_CROWD: np.array([[False, True], [False, False]])}
    cleaned = clean_ground_truth({key: ops.convert_to_tensor(value) for key, value in crowd.items()})
    weights = ops.convert_to_numpy(model.object_task.targets(cleaned, frame, (16, 16)).heatmap_weights)
    assert not weights[0, 9:15, 8:14].any()
    assert (weights[0, :7] == 1).all() and (weights[1] == 1).all()


def test_a_weight_below_one_keeps_the_object_a_positive():
    images, y = scene()
    model = tiny.tiny_center_net()
    inputs = model.preprocess(images)
    frame = model._frame(model(inputs, training=False), inputs[schema.TRUE_IMAGE_SHAPES])
    weighted = {**y, schema.WEIGHTS: np.array([[0.25, 1.0], [1.0, 0.0]], "float32")}
    cleaned = clean_ground_truth({key: ops.convert_to_tensor(value) for key, value in weighted.items()})
    targets = model.object_task.targets(cleaned, frame, (16, 16))
    heat, weights = ops.convert_to_numpy(targets.heatmap), ops.convert_to_numpy(targets.heatmap_weights)
    assert (heat == 1.0).sum() == 3
    assert sorted(weights[heat == 1.0]) == [0.25, 1.0, 1.0]


@pytest.mark.parametrize(
    "tasks, message",
    [
        ([ObjectTask(num_classes=2, name="more")], "has one ObjectTask"),
        ([KeypointTask(**FACE), KeypointTask(**FACE)], "different names"),
        ([KeypointTask(**{**FACE, "class_id": 3})], "one of the 3 classes"),
    ],
)
@pytest.mark.backend_free
def test_tasks_that_do_not_fit_each_other_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        tiny.tiny_center_net(tasks=tasks)


@pytest.mark.backend_free
def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="compare sizes and offsets"):
        ObjectTask(num_classes=2, localization_loss=IouLoss())
    with pytest.raises(ValueError, match="max_detections=0"):
        ObjectTask(num_classes=2, max_detections=0)
    with pytest.raises(ValueError, match="each once"):
        KeypointTask(class_id=0, indices=(1, 1))
    with pytest.raises(ValueError, match="min_distance"):
        KeypointCandidates(ranking="min_distanc")
    with pytest.raises(ValueError, match="kernel size for each"):
        PointHead(filters=(8, 8), kernel_sizes=(3,))
    task = ObjectTask(num_classes=2, heads={"centers": SMALL})
    with pytest.raises(ValueError, match="centers"):
        task.build([(None, 8, 8, 4)])


def test_ground_truth_without_keypoints_is_refused_where_they_are_learned():
    images, y = tiny.tiny_batch()
    model = tiny.tiny_center_net(tasks=[KeypointTask(**FACE)])
    model.compile("sgd")
    with pytest.raises(ValueError, match="learns y\\['keypoints'\\]"):
        model.train_on_batch(images, y)
    with pytest.raises(ValueError, match="keypoint 4"):
        model.train_on_batch(images, with_keypoints(y, number=3))


def test_re_heading_keeps_the_keypoints():
    model = tiny.tiny_center_net(tasks=two_sets())
    new = model.re_head(class_names=["a", "b", "c", "d"])
    ours, theirs = tiny.weights_of(model), tiny.weights_of(new)
    changed = [name for name in ours if ours[name].shape != theirs[name].shape]
    assert changed == ["objects/center_0_out/kernel", "objects/center_0_out/bias"]
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours if name not in changed)
    with pytest.raises(ValueError, match="class_id=1"):
        model.re_head(num_classes=1)
