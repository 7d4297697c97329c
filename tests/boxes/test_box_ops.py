import keras
import numpy as np
import pytest

from keras_detect.boxes import box_ops
from tests.boxes.gradients import gradient
from tests.goldens import assert_close, both_modes, golden_cases

host = keras.ops.convert_to_numpy
INF = np.inf

# zero-sized in y, in x, a point, reversed in y, in x, in both, infinite, half infinite, no size at infinity
DEGENERATE = np.array(
    [
        [0.2, 0.1, 0.2, 0.5],
        [0.2, 0.1, 0.4, 0.1],
        [0.3, 0.3, 0.3, 0.3],
        [0.6, 0.1, 0.2, 0.5],
        [0.2, 0.5, 0.4, 0.1],
        [0.6, 0.5, 0.2, 0.1],
        [-INF, -INF, INF, INF],
        [0.0, 0.0, INF, 0.0],
        [INF, INF, INF, INF],
        [INF, INF, -INF, -INF],
    ],
    "float32",
)
ORDINARY = np.array([[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.5, 0.75]], "float32")


def random_boxes(*shape, seed=0):
    rng = np.random.default_rng(seed)
    centers, sizes = rng.uniform(size=(*shape, 2)), rng.uniform(0.05, 0.6, size=(*shape, 2))
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=-1).astype("float32")


@golden_cases("similarity")
def test_pairwise_measures_equal_upstream(case):
    boxes1, boxes2 = case.inputs["boxes1"], case.inputs["boxes2"]
    for name in ("iou", "ioa", "intersection", "giou"):
        for function in both_modes(getattr(box_ops, name)):
            assert_close(function(boxes1, boxes2), case.outputs[name], err_msg=name)
    for function in both_modes(box_ops.l1_distance):
        assert_close(function(boxes1, boxes2), case.outputs["l1"])
    for function in both_modes(box_ops.area):
        assert_close(function(boxes1), case.outputs["area1"])
    for function in both_modes(box_ops.matched_iou):
        assert_close(function(boxes1, boxes2[: len(boxes1)]), case.outputs["matched_iou"])


@golden_cases("box_ops/window")
def test_window_functions_equal_upstream(case):
    boxes, window = case.inputs["boxes"], case.inputs["window"]

    def all_four(boxes, window):
        return (
            box_ops.clip_to_window(boxes, window),
            box_ops.inside_window(boxes, window),
            box_ops.overlaps_window(boxes, window),
            box_ops.change_coordinate_frame(boxes, window),
        )

    for function in both_modes(all_four):
        clipped, inside, overlapping, changed = (host(value) for value in function(boxes, window))
        assert_close(clipped, case.outputs["clip_nofilter"])
        assert_close(clipped[host(box_ops.area(clipped)) > 0], case.outputs["clip"])  # upstream's filter
        np.testing.assert_array_equal(np.flatnonzero(inside), case.outputs["prune_outside_idx"])
        assert_close(boxes[inside], case.outputs["prune_outside"])
        np.testing.assert_array_equal(np.flatnonzero(overlapping), case.outputs["prune_completely_idx"])
        assert_close(boxes[overlapping], case.outputs["prune_completely"])
        assert_close(changed, case.outputs["change_frame"])


@golden_cases("ops/normalized_to_image")
def test_to_absolute_equals_upstream(case):
    _, height, width, _ = case.inputs["shape"].tolist()
    for function in both_modes(lambda boxes: box_ops.to_absolute(boxes, height, width)):
        assert_close(function(case.inputs["boxes"]), case.outputs["y"])


def test_iou_ioa_giou_by_hand():
    # 2 x 2 squares, shifted by (1, 1): shared 1, union 4 + 4 - 1 = 7, hull 3 x 3 = 9.
    # 2 x 2 and 1 x 4 strip far away at y 4..5: shared 0, union 8, hull 5 x 4 = 20.
    first = [[0.0, 0.0, 2.0, 2.0]]
    second = [[1.0, 1.0, 3.0, 3.0], [4.0, 0.0, 5.0, 4.0]]
    assert_close(box_ops.intersection(first, second), [[1.0, 0.0]])
    assert_close(box_ops.iou(first, second), [[1 / 7, 0.0]])
    assert_close(box_ops.ioa(first, second), [[1 / 4, 0.0]])
    assert_close(box_ops.giou(first, second), [[1 / 7 - 2 / 9, -12 / 20]])
    assert_close(box_ops.matched_giou(first * 2, second), [1 / 7 - 2 / 9, -12 / 20])
    assert_close(box_ops.squared_distance(first, second), [[4.0, 16.0 + 0.0 + 9.0 + 4.0]])
    # centers (1, 1) and (4.5, 2), sizes (2, 2) and (1, 4): 3.5 + 1 + 1 + 2
    assert_close(box_ops.l1_distance(first, second), [[2.0, 7.5]])


def test_pairwise_broadcasts_leading_axes_and_matched_is_its_diagonal():
    boxes1, boxes2 = random_boxes(3, 5), random_boxes(4, seed=1)
    for pairwise in (box_ops.iou, box_ops.giou, box_ops.ioa, box_ops.intersection, box_ops.squared_distance):
        together = host(pairwise(boxes1, boxes2))
        assert together.shape == (3, 5, 4)
        for image in range(3):
            np.testing.assert_array_equal(together[image], host(pairwise(boxes1[image], boxes2)))
    pairs = random_boxes(3, 5, seed=2)
    for pairwise, matched in ((box_ops.iou, box_ops.matched_iou), (box_ops.giou, box_ops.matched_giou)):
        assert_close(matched(boxes1, pairs), np.einsum("bii->bi", host(pairwise(boxes1, pairs))), 1e-6)


@pytest.mark.parametrize("name", ["iou", "ioa", "giou", "intersection", "squared_distance", "l1_distance"])
def test_degenerate_boxes_give_finite_measures(name):
    boxes = np.concatenate([DEGENERATE, ORDINARY])
    for function in both_modes(getattr(box_ops, name)):
        values = host(function(boxes, boxes))
        assert np.isfinite(values).all()
        if name in ("iou", "ioa"):
            assert (values >= 0).all() and (values <= 1).all()
        if name == "giou":
            assert (values >= -1).all() and (values <= 1).all()


def test_degenerate_boxes_are_defined():
    areas = host(box_ops.area(DEGENERATE))
    np.testing.assert_array_equal(areas[[0, 1, 2, 3, 4, 5, 7, 8, 9]], 0)
    assert areas[6] > 1e36
    overlap = host(box_ops.iou(DEGENERATE, np.concatenate([ORDINARY, DEGENERATE])))
    np.testing.assert_array_equal(overlap[[0, 1, 2, 3, 4, 5, 7, 8, 9]], 0)  # they meet nothing, not even themselves
    assert overlap[6, 2 + 6] == 1
    # A point on itself fills its hull (0); two points at opposite corners of a unit hull leave it empty (-1).
    assert_close(box_ops.matched_giou([[0.3] * 4, [0.0] * 4], [[0.3] * 4, [1.0] * 4]), [0.0, -1.0])


@pytest.mark.parametrize("name", ["matched_iou", "matched_giou"])
def test_gradients_of_degenerate_boxes_are_finite(name):
    function = getattr(box_ops, name)
    other = np.broadcast_to(ORDINARY[1], DEGENERATE.shape)
    assert np.isfinite(gradient(lambda x: keras.ops.sum(function(x, other)), DEGENERATE)).all()
    assert np.isfinite(gradient(lambda x: keras.ops.sum(function(x, DEGENERATE)), DEGENERATE)).all()


def test_gradient_of_iou_by_hand():
    # [0, 0, 2, 2] with [0, 0, 1, 2]: iou = 2 y / (4 + 2 y - 2 y) with the second's bottom y = 1, so d iou / d y = 1/2.
    slope = gradient(lambda x: keras.ops.sum(box_ops.matched_iou([[0.0, 0.0, 2.0, 2.0]], x)), [[0.0, 0.0, 1.0, 2.0]])
    assert_close(slope[0, 2], 0.5)


def test_windows_per_image():
    boxes = random_boxes(2, 3)
    windows = np.array([[0.0, 0.0, 0.5, 1.0], [0.25, 0.5, 0.75, 1.0]], "float32")
    for function in (
        box_ops.clip_to_window,
        box_ops.change_coordinate_frame,
        box_ops.inside_window,
        box_ops.overlaps_window,
    ):
        for mode in both_modes(function):
            together = host(mode(boxes, windows))
            for image in range(2):
                np.testing.assert_array_equal(together[image], host(function(boxes[image], windows[image])))


def test_change_of_frame_by_hand():
    # window 0.5 high from 0.25 and 0.25 wide from 0.5: y -> (y - 0.25) / 0.5, x -> (x - 0.5) / 0.25
    window = [0.25, 0.5, 0.75, 0.75]
    boxes = [window, [0.5, 0.5, 1.0, 1.0]]
    assert_close(box_ops.change_coordinate_frame(boxes, window), [[0, 0, 1, 1], [0.5, 0, 1.5, 2]])
    flat = host(box_ops.change_coordinate_frame(boxes, [0.25, 0.5, 0.25, 0.75]))  # no height: y is 0
    assert_close(flat, [[0, 0, 0, 1], [0, 0, 0, 2]])


def test_pixels_and_fractions_are_inverse_with_a_size_per_image():
    boxes = random_boxes(2, 4)
    heights, widths = np.array([100.0, 240.0], "float32"), np.array([200.0, 320.0], "float32")
    pixels = host(box_ops.to_absolute(boxes, heights, widths))
    assert_close(pixels[1], boxes[1] * [240, 320, 240, 320])
    assert_close(box_ops.normalize(pixels, heights, widths), boxes)
    np.testing.assert_array_equal(host(box_ops.normalize(pixels[0], 0, 200))[:, 0], 0)


def test_center_size_and_corners_are_inverse():
    boxes = random_boxes(7)
    for function in both_modes(lambda b: box_ops.to_corners(box_ops.to_center_size(b))):
        assert_close(function(boxes), boxes, 1e-6)
    assert_close(box_ops.to_center_size([[0.0, 2.0, 4.0, 8.0]]), [[2.0, 5.0, 4.0, 6.0]])
    assert np.isfinite(host(box_ops.to_center_size(DEGENERATE))).all()


def test_no_boxes():
    none = np.zeros((2, 0, 4), "float32")
    assert host(box_ops.iou(none, random_boxes(2, 3))).shape == (2, 0, 3)
    assert host(box_ops.clip_to_window(none, [0.0, 0.0, 1.0, 1.0])).shape == (2, 0, 4)
