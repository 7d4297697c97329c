"""Heatmaps, peaks and boxes at points, against upstream's unit cases and by hand."""

import numpy as np
import pytest
from keras import ops

from keras_detect import schema
from keras_detect.boxes import heatmaps
from keras_detect.meta_architectures.center_net_tasks import Frame, ObjectTask
from tests import goldens


def frame_of(stride, height, width, true_shapes):
    return Frame(stride, ops.convert_to_tensor([height, width], "float32"), ops.convert_to_tensor(true_shapes, "int32"))


def padded(arrays, fill):
    """Arrays of several lengths as one, filled up with rows of `fill`."""
    rows = max(map(len, arrays))
    return np.stack([np.pad(a, [(0, rows - len(a)), *[(0, 0)] * (a.ndim - 1)], constant_values=fill) for a in arrays])


@goldens.golden_cases("centernet/targets")
def test_targets(case):
    info, inputs, outputs = case.info, case.inputs, case.outputs
    counts = [len(inputs[f"boxes{image}"]) for image in range(2)]
    boxes, onehot, weights = (
        padded([inputs[f"{name}{image}"] for image in range(2)], 0) for name in ("boxes", "onehot", "weights")
    )
    y = {schema.BOXES: boxes, schema.LABELS: onehot.argmax(-1).astype("int32"), schema.WEIGHTS: weights}
    y["valid"] = onehot.any(-1)
    y = {key: ops.convert_to_tensor(value) for key, value in y.items()}
    height, width = info["height"], info["width"]
    frame = frame_of(info["stride"], height, width, [[height, width, 3]] * 2)
    task = ObjectTask(num_classes=onehot.shape[-1], min_overlap=info["min_overlap"])
    size = (height // info["stride"], width // info["stride"])
    targets = task.targets(y, frame, size)
    rows = np.concatenate([np.arange(count) + image * boxes.shape[1] for image, count in enumerate(counts)])

    def listed(values):
        return ops.convert_to_numpy(values).reshape(-1, *values.shape[2:])[rows]

    goldens.assert_close(listed(targets.sizes), outputs["height_width"], 1e-6)
    goldens.assert_close(listed(targets.offsets), outputs["offsets"], 1e-5)
    goldens.assert_close(listed(targets.weights), outputs["box_weights"], 1e-6)
    np.testing.assert_array_equal(listed(targets.cells), outputs["indices"][:, 1:])
    # upstream multiplies each Gaussian by its object's weight; the task leaves that to the loss
    centers = ops.cast(targets.cells, "float32")
    sigma = heatmaps.gaussian_deviations(targets.sizes[..., 0], targets.sizes[..., 1], info["min_overlap"])
    heat = heatmaps.gaussian_heatmap(
        centers, sigma, y[schema.LABELS], y[schema.WEIGHTS], num_channels=onehot.shape[-1], size=size
    )
    goldens.assert_close(heat, outputs["heatmap"], 1e-6)


@goldens.golden_cases("centernet/decode")
def test_decode(case):
    heat, outputs, k = ops.convert_to_tensor(case.inputs["heatmap"]), case.outputs, case.info["k"]
    best = heatmaps.peaks(heat, k)
    goldens.assert_close(best.scores, outputs["topk_scores"], 1e-6)
    for ours, name in ((best.rows, "y"), (best.columns, "x"), (best.labels, "c")):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), outputs[f"topk_{name}"])
    heatmap = np.clip(case.inputs["heatmap"], 1e-6, 1 - 1e-6)
    task = ObjectTask(num_classes=heat.shape[-1], max_detections=k)
    predictions = {
        "objects/center": [ops.convert_to_tensor(np.log(heatmap / (1 - heatmap)))],
        "objects/size": [ops.convert_to_tensor(case.inputs["height_width"])],
        "objects/offset": [ops.convert_to_tensor(case.inputs["offsets"])],
    }
    stride = case.info["stride"]
    frame = frame_of(stride, heat.shape[1] * stride, heat.shape[2] * stride, case.inputs["true_shapes"])
    centers = task.find(predictions, frame)
    goldens.assert_close(centers.boxes, outputs["boxes_strided"], 1e-4)
    goldens.assert_close(task.decode(predictions, centers, frame)[schema.BOXES], outputs["boxes_normalized"], 1e-4)


def test_one_gaussian_by_hand_and_the_larger_of_two():
    points, sigma = np.array([[[2.7, 3.2], [2.1, 5.9], [0.0, 0.0]]], "float32"), np.array([[1.0, 2.0, 1.0]], "float32")
    heat = heatmaps.gaussian_heatmap(
        points, sigma, np.array([[1, 1, 0]]), np.array([[1.0, 1.0, 0.0]], "float32"), num_channels=2, size=(6, 8)
    )
    y, x = np.mgrid[0:6, 0:8]
    first, second = (np.exp(-((y - 2) ** 2 + (x - c) ** 2) / (2 * s**2)) for c, s in ((3, 1), (5, 2)))
    goldens.assert_close(heat[0, :, :, 1], np.maximum(first, second), 1e-6)
    assert not ops.convert_to_numpy(heat[..., 0]).any()
    assert ops.convert_to_numpy(heat[0, 2, 3, 1]) == ops.convert_to_numpy(heat[0, 2, 5, 1]) == 1.0
    single = heatmaps.largest_gaussian(points, sigma, np.array([[1.0, 1.0, 0.0]], "float32"), (6, 8))
    goldens.assert_close(single, heat[..., 1], 1e-7)


def test_gaussian_deviations_grow_with_the_box_and_are_defined_for_none():
    sides = np.array([0.0, 1.0, 10.0, 40.0, 1000.0], "float32")
    sigma = ops.convert_to_numpy(heatmaps.gaussian_deviations(sides, sides))
    assert sigma[0] == np.float32(1 / 6)
    assert (np.diff(sigma) >= 0).all()
    assert np.isfinite(sigma).all()


def test_a_map_of_fewer_cells_than_peaks_is_filled_with_nothing():
    heat = np.zeros((1, 2, 2, 1), "float32")
    heat[0, 0, 1, 0] = 0.5
    best = heatmaps.peaks(ops.convert_to_tensor(heat), 6)
    np.testing.assert_allclose(best.scores, [[0.5, 0, 0, 0, 0, 0]])
    assert (int(best.rows[0, 0]), int(best.columns[0, 0])) == (0, 1)


@pytest.mark.parametrize("pool, found", [(3, [0.9, 0.0]), (1, [0.9, 0.8])])
def test_a_peak_is_the_largest_of_its_window(pool, found):
    heat = np.zeros((1, 4, 4, 1), "float32")
    heat[0, 1, 1:3, 0] = [0.9, 0.8]
    best = heatmaps.peaks(ops.convert_to_tensor(heat), 2, pool)
    np.testing.assert_allclose(ops.convert_to_numpy(best.scores)[0], found)


@pytest.mark.parametrize("steps", [4, 1000])  # so few values that most are equal, and nearly none
@pytest.mark.parametrize("number", [1, 7, 60])
def test_the_best_are_those_of_a_sorted_list(steps, number):
    """Of equal ones the first by row, column and class; several peaks of one cell, and cells without any."""
    heat = np.floor(np.random.default_rng(0).uniform(size=(3, 9, 8, 5)) * steps).astype("float32") / steps
    best = heatmaps.peaks(ops.convert_to_tensor(heat), number, pool_size=1)
    flat = heat.reshape(3, -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :number]
    np.testing.assert_array_equal(best.scores, np.take_along_axis(flat, order, axis=1))
    places = np.unravel_index(order, heat.shape[1:])
    for ours, expected in zip((best.rows, best.columns, best.labels), places, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_cells_inside_boxes_and_of_the_true_image():
    boxes = np.array([[[1.0, 1.0, 3.0, 2.5], [0.0, 0.0, 4.0, 4.0]]], "float32")
    inside = ops.convert_to_numpy(heatmaps.inside_boxes(boxes, np.array([[True, False]]), (4, 4)))[0]
    expected = np.zeros((4, 4), bool)
    expected[1:3, 1:3] = True
    np.testing.assert_array_equal(inside, expected)
    true = ops.convert_to_numpy(heatmaps.true_cells(np.array([[9, 16, 3]]), 4, (4, 4)))[0]
    np.testing.assert_array_equal(true, np.repeat([[1.0], [1.0], [1.0], [0.0]], 4, axis=1))
