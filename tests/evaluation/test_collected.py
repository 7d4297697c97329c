"""What the evaluators take in: padding out, flags kept, bad input refused without a trace."""

import keras
import numpy as np
import pytest

from keras_detect.data import masks
from keras_detect.evaluation import Collected, Evaluator, PascalVOCEvaluator
from tests.evaluation.test_pascal_voc import FAR, LEFT, RIGHT, image


def test_rows_and_flags_are_kept_in_the_order_of_the_images():
    collected = Collected(["a", "b"])
    ground_truth = {
        "boxes": np.array([[LEFT, RIGHT], [FAR, FAR]]),
        "labels": np.array([[1, -1], [0, 1]]),
        "is_difficult": np.array([[True, True], [False, True]]),
        "areas": np.array([[5.0, 0.0], [6.0, 7.0]]),
    }
    found = {
        "boxes": np.array([[LEFT, RIGHT], [FAR, RIGHT]]),
        "labels": np.array([[0, 1], [1, -1]]),
        "scores": np.array([[0.5, np.nan], [0.25, np.nan]]),
        "num_detections": np.array([1, 2]),
    }
    collected.update(ground_truth, {key: keras.ops.convert_to_tensor(value) for key, value in found.items()})
    collected.update(image([LEFT], [0]), image([RIGHT], [1], [0.75]), image_sizes=[[30, 40]])
    rows = collected.ground_truth()
    assert rows.image.tolist() == [0, 1, 1, 2]
    assert rows.labels.tolist() == [1, 0, 1, 0]
    assert rows.is_difficult.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(rows.areas, [5, 6, 7, np.nan])
    detections = collected.found()
    assert (detections.image.tolist(), detections.labels.tolist()) == ([0, 1, 2], [0, 1, 1])
    assert detections.scores.tolist() == [0.5, 0.25, 0.75]
    np.testing.assert_array_equal(collected.image_sizes(), [[0, 0], [0, 0], [30, 40]])


def test_masks_keypoints_and_further_fields_are_collected():
    """Two batches of one image: the first has masks and 1 keypoint per object, the second 2 keypoints and no masks."""
    ground_truth, found = image([LEFT, RIGHT], [0, 0]), image([LEFT], [0], [0.5])
    ground_truth["masks"] = np.zeros((1, 2, 4, 6), np.uint8)
    ground_truth["masks"][0, 0, 1:3, 2:5] = 1
    ground_truth["keypoints"] = np.array([[[[0.25, 0.5]], [[0.0, 0.0]]]])
    ground_truth["keypoint_visibility"] = np.array([[[2], [0]]])
    ground_truth["track_ids"] = np.array([[7, 8]])
    ground_truth["pixels"] = np.zeros((1, 4, 6, 3))  # no row of the table
    found["masks"] = np.full((1, 1, 3, 3), 0.6, np.float32)  # over its box, up to 0.4 of either side
    found["keypoint_scores"] = np.array([[[0.75]]])
    collected = Collected(["a"])
    collected.update(ground_truth, found)
    more = image([FAR], [0]) | {"keypoints": np.array([[[[0.1, 0.2], [0.3, 0.4]]]])}
    collected.update(more, image([], [], []))
    rows, detections = collected.ground_truth(), collected.found()
    planes = [np.zeros((4, 6), np.uint8) if runs is None else masks.decode(runs, (4, 6)) for runs in rows["masks"]]
    np.testing.assert_array_equal(planes[:2], ground_truth["masks"][0])
    assert [runs is None for runs in rows["masks"]] == [False, True, True]
    assert [plane.sum() for plane in planes] == [6, 0, 0]
    np.testing.assert_array_equal(
        masks.decode(detections["masks"][0], (4, 6)), [[1, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2
    )
    nan = np.nan
    expected = np.array([[[0.25, 0.5], [nan, nan]], [[0, 0], [nan, nan]], [[0.1, 0.2], [0.3, 0.4]]], np.float32)
    np.testing.assert_array_equal(rows["keypoints"], expected)
    np.testing.assert_array_equal(rows["keypoint_visibility"], [[2], [0], [0]])
    assert rows["track_ids"].tolist() == [7, 8, -1]
    assert detections["keypoint_scores"].tolist() == [[0.75]]
    assert "pixels" not in rows
    assert len(rows.where(np.array([True, False, True]))["masks"]) == 2
    with pytest.raises(ValueError, match=r"track_ids need one row per object: \[1, 2, ...\]. Received: \[1, 3\]"):
        collected.update(ground_truth | {"track_ids": np.zeros((1, 3))}, found)


def test_kerascvs_name_for_labels_is_taken():
    collected = Collected(["a"])
    ground_truth = image([LEFT], [0])
    ground_truth["classes"] = ground_truth.pop("labels")
    collected.update(ground_truth, image([], [], []))
    assert len(collected.ground_truth()) == 1


@pytest.mark.parametrize(
    ("ground_truth", "found", "message"),
    [
        (
            image([LEFT], [0]),
            image([LEFT, FAR], [0, 0], [0.5, np.nan]),
            r"score in the detections .* nan in image",
        ),
        (image([LEFT], [0]), image([LEFT], [0], [np.inf]), "score in the detections must be finite"),
        (image([LEFT], [0]), image([[0, 0, 1, np.nan]], [0], [0.5]), "box in the detections .* diverged"),
        (
            image([[0, 0, 1, np.nan]], [0]),
            image([LEFT], [0], [0.5]),
            "box in the ground truth .* Correct the annotation",
        ),
        (image([LEFT], [1]), image([LEFT], [0], [0.5]), r"\[0, 1\).* label 1 in the ground truth"),
        (image([LEFT], [0]), image([LEFT], [9], [0.5]), r"\[0, 1\).* label 9 in the detections"),
        (image([LEFT], [0]), image([LEFT, FAR], [0], [0.5]), r"boxes \[1, 2, 4\], labels \[1, 1\]"),
        (image([LEFT], [0]), image([LEFT], [0], [0.5, 0.6]), r"scores \[1, 2\]"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing_behind(ground_truth, found, message):
    collected = Collected(["a"])
    with pytest.raises(ValueError, match=message):
        collected.update(ground_truth, found)
    assert (collected.count, len(collected.ground_truth()), len(collected.found())) == (0, 0, 0)


def test_an_evaluator_of_ones_own():
    class MeanScore(Evaluator):
        def result(self):
            return {"mean_score": float(self.collected.found().scores.mean())}

    voc = PascalVOCEvaluator(["a"])
    own = MeanScore(["a"], collected=voc.collected)
    own.update(image([LEFT], [0]), image([LEFT, FAR], [0, 0], [0.25, 0.75]))
    assert own.result() == {"mean_score": 0.5}
    assert voc.result()["voc_map"] == 0.5  # wrong, right
    with pytest.raises(ValueError, match="class names"):
        Collected([])
