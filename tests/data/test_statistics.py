"""Statistics of a data set and proposed anchors, by hand."""

import numpy as np
import pytest

from keras_detect.data import DetectionDataset, dataset_statistics, shapes_dataset, statistics
from keras_detect.data.statistics import propose_anchors, shape_iou, statistics_table
from keras_detect.visualization import draw_dataset, draw_statistics
from tests.data.test_check import OneAnchor


def three_objects():
    """An image of 100 x 200 (height x width): objects of 10 x 20, 50 x 100, 100 x 200, and a crowd of 20 x 20."""
    boxes = [[[0, 0, 0.1, 0.1], [0, 0, 0.5, 0.5], [0, 0, 1, 1], [0, 0, 0.2, 0.1]]]
    crowd = [[False, False, False, True]]
    image = np.zeros((100, 200, 3), np.uint8)
    return DetectionDataset.from_arrays([image], boxes, [[0, 1, 1, 0]], ["a", "b", "c"], is_crowd=crowd)


def test_shape_iou():
    """2 x 4 with 4 x 2: 4 / (8 + 8 - 4) = 1/3; with 2 x 2: 4 / 8."""
    shapes = np.array([[2.0, 4.0]])
    np.testing.assert_allclose(shape_iou(shapes, np.array([[4.0, 2.0], [2.0, 2.0]])), [[1 / 3, 0.5]])


def test_counts():
    """Areas 200, 5000 and 20000: small (below 32^2), medium, large (from 96^2); all twice as wide as high."""
    found = dataset_statistics(three_objects(), num_anchors=3)
    assert (found["images"], found["boxes"], found["crowds"], found["empty_images"]) == (1, 3, 1, 0)
    assert found["boxes_per_class"] == {"a": 2, "b": 2, "c": 0}
    assert found["sizes"] == {"small": 1, "medium": 1, "large": 1}
    assert found["aspect_ratios"] == dict.fromkeys(("0%", "5%", "25%", "50%", "75%", "95%", "100%"), 2.0)
    assert found["proposed_anchors"] == [[10, 20], [50, 100], [100, 200]]
    assert found["matched_by_proposed"] == 1.0
    assert found["object_sides"]["50%"] == pytest.approx(np.sqrt(5000), abs=1e-3)
    table = statistics_table(found)
    assert "boxes of c" in table
    assert "10 x 20, 50 x 100, 100 x 200" in table
    # Stretched to 50 x 50 the first object is 5 x 5.
    assert dataset_statistics(three_objects(), num_anchors=3, image_size=50)["proposed_anchors"][0] == [5, 5]


def test_todays_anchors():
    """On 16 x 16 the anchor is 16 x 8, area 128. The objects are 1.6 x 1.6 (2.56 / 128), 8 x 8 (64 / 128 = 0.5 by
    shape and, at the left, also where it stands) and 16 x 16 (128 / 256 = 0.5): two of three."""
    found = dataset_statistics(three_objects(), model=OneAnchor())
    assert found["matched_by_model_shapes"] == pytest.approx(2 / 3)
    assert found["matched_by_model"] == pytest.approx(2 / 3)
    assert (found["model_anchor_shapes"], found["model_threshold"]) == (1, 0.5)
    assert "the model's current anchors: 66.7%" in statistics_table(found)


def test_anchors_find_clusters_and_repeat():
    rng = np.random.default_rng(1)
    centers = np.array([[8.0, 8.0], [20.0, 60.0], [100.0, 90.0]])
    shapes = np.concatenate([center * rng.uniform(0.9, 1.1, (50, 2)) for center in centers])
    proposed = propose_anchors(shapes, 3, seed=4)
    assert (shape_iou(proposed, centers).diagonal() > 0.93).all()
    np.testing.assert_array_equal(proposed, propose_anchors(shapes, 3, seed=4))
    more = [shape_iou(shapes, propose_anchors(shapes, count)).max(axis=1).mean() for count in (1, 2, 3, 6)]
    assert more == sorted(more)


def test_fewer_shapes_than_anchors():
    assert propose_anchors(np.array([[3.0, 4.0]] * 5), 9).tolist() == [[3, 4]]


def test_errors():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="at least one object"):
        dataset_statistics(DetectionDataset.from_arrays([image], [[]], [[]], ["a"]))
    with pytest.raises(ValueError, match="num_anchors=0"):
        dataset_statistics(three_objects(), num_anchors=0)


def test_images(tmp_path):
    data = shapes_dataset(5, image_size=(40, 60))
    draw_statistics(dataset_statistics(data), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert draw_dataset(data, count=3, cell_size=(80, 80)).size[0] > 160


def test_two_stages_match_by_the_first_ones_threshold():
    """By hand as above, at 0.7: no object is overlapped so much; the shapes are compared at 0.5 as before."""

    class Matcher:
        matched_threshold = 0.7

    class Stage:
        target_assigner = type("Assigner", (), {"matcher": Matcher()})()

    class TwoStages(OneAnchor):
        proposal_stage = Stage()

    found = dataset_statistics(three_objects(), model=TwoStages())
    assert (found["matched_by_model"], found["model_threshold"]) == (0.0, 0.7)
    assert found["matched_by_model_shapes"] == pytest.approx(2 / 3)


def test_shapes_are_compared_in_parts(monkeypatch):
    shapes = np.random.default_rng(0).uniform(1, 50, (7, 2))
    monkeypatch.setattr(statistics, "_PAIRS", 8)  # two shapes of three at a time
    parts = statistics._best_shape_iou(shapes, shapes[:3])
    np.testing.assert_array_equal(parts, shape_iou(shapes, shapes[:3]).max(axis=1))
