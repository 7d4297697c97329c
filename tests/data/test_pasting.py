"""Masks of detections on the image: upstream's numbers, cases worked by hand, encodings."""

import tracemalloc

import numpy as np
import pytest

import keras_detect as kd
from tests.goldens import golden_cases


@golden_cases("ops/reframe_box_masks_*")
def test_pasting_matches_upstream(case):
    method = "bilinear" if case.name.endswith("True") else "nearest"
    masks, boxes = case.inputs["masks"], case.inputs["boxes"]
    ours = kd.masks.paste(masks, boxes, case.info["image"], threshold=None, method=method)
    np.testing.assert_allclose(ours, case.outputs["y"], atol=1e-5)


def test_by_hand():
    """An image of 5 x 9 pixels, a box over rows 1 to 3 and columns 2 to 6, a mask of 2 x 3 cells.

    Cells are two pixels apart along the columns and along the rows; the pixels between them are their means.
    """
    mask = np.array([[[0.0, 0.4, 1.0], [1.0, 0.8, 0.0]]])
    box = np.array([[0.25, 0.25, 0.75, 0.75]])
    values = np.zeros((5, 9))
    values[1, 2:7] = [0.0, 0.2, 0.4, 0.7, 1.0]
    values[3, 2:7] = [1.0, 0.9, 0.8, 0.4, 0.0]
    values[2] = (values[1] + values[3]) / 2
    np.testing.assert_allclose(kd.masks.paste(mask, box, (5, 9), threshold=None)[0], values, atol=1e-6)
    pasted = kd.masks.paste(mask, box, (5, 9), threshold=0.75)
    assert pasted.dtype == np.uint8
    np.testing.assert_array_equal(pasted[0], values >= 0.75)


def random_masks(count, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.uniform(-0.2, 1.2, (count, 2, 2)), axis=1).reshape(count, 4)
    return rng.uniform(size=(count, 7, 6)), boxes


def test_run_lengths_are_those_of_the_pixels():
    masks, boxes = random_masks(40)
    pasted = kd.masks.paste(masks, boxes, (50, 70))
    runs = kd.masks.to_rle(masks, boxes, (50, 70))
    assert runs == [kd.masks.encode(plane) for plane in pasted]
    np.testing.assert_array_equal([kd.masks.decode(run, (50, 70)) for run in runs], pasted)


@pytest.mark.parametrize("kind", ["values", "pixels"])
@pytest.mark.parametrize("size", [(40, 60), (1, 1), (200, 3)])
def test_runs_are_where_the_values_reach_the_threshold(kind, size):
    """Masks of one cell too, and of zeros and ones, whose values are the threshold itself half-way."""
    rng = np.random.default_rng(3)
    for cells in ((7, 6), (1, 5), (4, 1), (1, 1)):
        _, boxes = random_masks(20, seed=1)
        masks = rng.uniform(size=(20, *cells))
        masks = masks if kind == "values" else np.round(masks)
        values = kd.masks.paste(masks, boxes, size, threshold=None)
        pasted = kd.masks.paste(masks, boxes, size)
        clear = np.abs(values - 0.5) > 1e-6
        np.testing.assert_array_equal(pasted[clear], values[clear] >= 0.5)
        np.testing.assert_array_equal(kd.masks.paste(masks, boxes, size, threshold=2.0), 0)


def test_a_pixel_at_the_threshold_belongs_to_the_object():
    """Cells four pixels apart, zeros above ones and the other way round: the pixel half-way has the value 0.5."""
    masks = np.array([[[0.0], [1.0]], [[1.0], [0.0]]])
    pasted = kd.masks.paste(masks, [[0.0, 0.0, 1.0, 1.0]] * 2, (5, 2))
    np.testing.assert_array_equal(pasted[..., 1], [[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_values_that_are_no_numbers():
    masks = np.full((2, 4, 4), np.nan)
    masks[1, :2], masks[1, 2:] = np.inf, -np.inf
    pasted = kd.masks.paste(masks, [[0.0, 0.0, 1.0, 1.0]] * 2, (8, 8))
    assert not pasted[0].any()
    assert pasted[1, :3].all() and not pasted[1, 5:].any()


def test_more_masks_than_are_looked_at_at_once(monkeypatch):
    masks, boxes = random_masks(10)
    together = kd.masks.to_rle(masks, boxes, (50, 70))
    monkeypatch.setattr("keras_detect.data.pasting.GROUP", 3)
    assert kd.masks.to_rle(masks, boxes, (50, 70)) == together


def test_run_lengths_hold_no_plane():
    """A hundred masks of an image of 4000 x 4000 pixels, 16 MB each, in less memory than two of them."""
    masks, boxes = random_masks(100)
    tracemalloc.start()
    runs = kd.masks.to_rle(masks, np.clip(boxes * 0.02, 0.0, 1.0), (4000, 4000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(runs) == 100 and peak < 32e6


def test_polygons_enclose_the_pixels():
    """Where a mask has no holes, the polygons drawn again are its pixels, but for some on the contour."""
    cells = np.linspace(-1.0, 1.0, 14)
    disc = np.clip(1.5 - 1.2 * np.hypot(cells[:, None], cells), 0.0, 1.0)
    boxes = np.array([[0.1, 0.2, 0.8, 0.7], [0.5, 0.5, 1.3, 1.4], [-0.4, 0.1, 0.3, 0.9]])
    masks = np.stack([disc] * 3)
    pasted = kd.masks.paste(masks, boxes, (60, 90)).astype(bool)
    for plane, polygons in zip(pasted, kd.masks.to_polygons(masks, boxes, (60, 90)), strict=True):
        assert len(polygons) == 1
        drawn = kd.masks.decode(polygons, (60, 90)).astype(bool)
        assert (plane & drawn).sum() / (plane | drawn).sum() > 0.95
        corners = np.reshape(polygons[0], (-1, 2))
        assert corners.min() >= 0 and (corners <= [90, 60]).all()


def test_parts_and_holes():
    """Two parts are two polygons; of a ring the outline alone remains."""
    two = np.zeros((9, 9))
    two[1:3, 1:3] = two[6:8, 6:8] = 1.0
    ring = np.ones((9, 9))
    ring[3:6, 3:6] = 0.0
    boxes = np.array([[0.1, 0.1, 0.9, 0.9]] * 2)
    of_two, of_ring = kd.masks.to_polygons(np.stack([two, ring]), boxes, (100, 100))
    assert (len(of_two), len(of_ring)) == (2, 1)


def test_masks_without_pixels():
    masks = np.stack([np.zeros((4, 4)), *[np.ones((4, 4))] * 3])
    boxes = [[0.1, 0.1, 0.6, 0.6], [0.5, 0.5, 0.5, 0.9], [1.2, 1.2, 1.5, 1.6], [np.nan, 0.0, 1.0, 1.0]]
    assert not kd.masks.paste(masks, boxes, (20, 30)).any()
    assert kd.masks.to_polygons(masks, boxes, (20, 30)) == [[]] * 4
    assert all(not kd.masks.decode(runs, (20, 30)).any() for runs in kd.masks.to_rle(masks, boxes, (20, 30)))
    assert kd.masks.paste(np.zeros((0, 4, 4)), np.zeros((0, 4)), (20, 30)).shape == (0, 20, 30)
    assert kd.masks.to_rle(np.zeros((0, 4, 4)), np.zeros((0, 4)), (20, 30)) == []


def test_masks_at_the_border_reach_the_outermost_pixels():
    masks, boxes = np.ones((1, 5, 5)), [[0.0, 0.0, 1.0, 1.0]]
    assert kd.masks.paste(masks, boxes, (33, 47)).all()
    assert kd.masks.paste(masks, [[-0.5, -0.5, 1.5, 1.5]], (33, 47)).all()
    assert kd.masks.paste(masks, boxes, (1, 1)).all()


def test_pixels_decode_to_themselves():
    """An array of the image's size is no list of polygons."""
    pixels = np.zeros((12, 20), np.uint8)
    pixels[3:6, 4:9] = 7
    np.testing.assert_array_equal(kd.masks.decode(pixels, (12, 20)), pixels > 0)
    polygons = np.array([[4.0, 3.0, 9.0, 3.0, 9.0, 6.0, 4.0, 6.0]])
    np.testing.assert_array_equal(kd.masks.decode(polygons, (12, 20)), pixels > 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"\[n, h, w\] over boxes"):
        kd.masks.paste(np.zeros((2, 4, 4)), np.zeros((1, 4)), (10, 10))
    with pytest.raises(ValueError, match="method"):
        kd.masks.paste(np.zeros((1, 4, 4)), np.zeros((1, 4)), (10, 10), method="cubic")
