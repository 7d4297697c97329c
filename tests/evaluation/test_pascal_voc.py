"""Pascal VOC's and Open Images' mean AP against upstream's goldens and hand-worked cases."""

import numpy as np
import pytest

from keras_detect.evaluation import OpenImagesEvaluator, PascalVOCEvaluator
from tests.goldens import golden_cases

NAMES = ["c1", "c2", "c3"]


def add_golden_images(evaluator, case, flag):
    """The cases' images are 200 x 200 and their classes start at 1; `flag` is what the evaluator was told."""
    for i in range(8):
        given = {key.split("/")[1]: value for key, value in case.inputs.items() if key.startswith(f"im{i}/")}
        ground_truth = {"boxes": given["gt_boxes"][None] / 200, "labels": given["gt_classes"][None] - 1}
        ground_truth[f"is_{flag}"] = given[f"gt_{flag}"][None]
        boxes, labels = given["det_boxes"][None] / 200, given["det_classes"][None] - 1
        evaluator.update(ground_truth, {"boxes": boxes, "scores": given["det_scores"][None], "labels": labels})


@golden_cases("eval/pascal", "eval/weighted_pascal", "eval/openimages")
def test_upstreams_numbers(case):
    name, flag, evaluator, prefix = {
        "eval/pascal": ("voc_map", "difficult", PascalVOCEvaluator(NAMES), "PascalBoxes"),
        "eval/weighted_pascal": (
            "weighted_voc_map",
            "difficult",
            PascalVOCEvaluator(NAMES, weighted=True),
            "WeightedPascalBoxes",
        ),
        "eval/openimages": ("open_images_map", "group_of", OpenImagesEvaluator(NAMES), "OpenImagesV2"),
    }[case.name]
    add_golden_images(evaluator, case, flag)
    result = evaluator.result()
    assert result[name] == pytest.approx(float(case.outputs[f"{prefix}_Precision|mAP@0.5IOU"]), abs=1e-9)
    for kind in NAMES:
        golden = float(case.outputs[f"{prefix}_PerformanceByCategory|AP@0.5IOU|{kind}"])
        assert result[f"{name}_per_class"][kind] == pytest.approx(golden, abs=1e-9), kind


def image(boxes, labels, scores=None, **more):
    """A batch of one image."""
    rows = {"boxes": [np.reshape(boxes, (-1, 4))], "labels": [labels]} | (
        {} if scores is None else {"scores": [scores]}
    )
    return {key: np.asarray(value) for key, value in rows.items()} | {key: np.array([v]) for key, v in more.items()}


LEFT, RIGHT, FAR = [0.0, 0.0, 0.4, 0.4], [0.0, 0.5, 0.4, 0.9], [0.6, 0.6, 0.9, 0.9]


def test_a_duplicate_a_difficult_object_and_a_miss():
    """By score: right, duplicate (wrong), of a difficult object (ignored), right; three objects to find.

    precision 1, 1/2, 2/3; recall 1/3, 1/3, 2/3: area = 1/3 * 1 + 1/3 * 2/3 = 5/9.
    """
    third = [0.5, 0.0, 0.9, 0.4]
    evaluator = PascalVOCEvaluator(["a", "b"])
    ground_truth = image([LEFT, RIGHT, FAR, third], [0, 0, 0, 0], is_difficult=[False, False, True, False])
    evaluator.update(ground_truth, image([LEFT, LEFT, FAR, RIGHT], [0, 0, 0, 0], [0.9, 0.8, 0.7, 0.6]))
    assert evaluator.result() == {
        "voc_map": pytest.approx(5 / 9),
        "voc_map_per_class": {"a": pytest.approx(5 / 9), "b": -1.0},
    }


def test_a_detection_belongs_to_its_best_object_only():
    """The second detection overlaps the taken object more than the free one: wrong, as VOC has it.

    Boxes of height 1: ground truth [0, 0.40] and [0.08, 0.48], detections [0, 0.40] and [0.03, 0.43]: IoU of the second
    0.37/0.43 with the first and 0.35/0.45 with the second.
    """
    rows = [[0, 0, 1, 0.40], [0, 0.08, 1, 0.48]]
    evaluator = PascalVOCEvaluator(["a"])
    evaluator.update(image(rows, [0, 0]), image([rows[0], [0, 0.03, 1, 0.43]], [0, 0], [0.9, 0.8]))
    assert evaluator.result()["voc_map"] == pytest.approx(0.5)


def test_weighting_pools_the_classes():
    """Class a: 3 objects, 3 found (AP 1). Class b: 1 object, one wrong at 0.95 and none right (AP 0): plain mean 0.5.

    Pooled: wrong, right, right, right of 4: precision envelope 3/4 up to recall 3/4: 9/16.
    """
    ground_truth = image([LEFT, RIGHT, FAR, LEFT], [0, 0, 0, 1])
    found = image([FAR, LEFT, RIGHT, FAR], [1, 0, 0, 0], [0.95, 0.9, 0.8, 0.7])
    plain = PascalVOCEvaluator(["a", "b", "unseen"])
    pooled = PascalVOCEvaluator(["a", "b", "unseen"], weighted=True, collected=plain.collected)
    plain.update(ground_truth, found)
    assert plain.result()["voc_map"] == pytest.approx(0.5)
    assert pooled.result()["weighted_voc_map"] == pytest.approx(9 / 16)
    assert pooled.result()["weighted_voc_map_per_class"] == {"a": 1.0, "b": 0.0, "unseen": -1.0}


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 1.0), (1.0, 2 / 3 * 1.0 + 1 / 3 * 0.0)])
def test_a_group_counts_as_its_weight_says(weight, expected):
    """One object, found at 0.9; one group whose three detections lie inside it; a second group without detections.

    Weight 0: the group's detections are skipped: AP 1. Weight 1: three to find, of which the object (0.9) and the
    first group (best of its three: 0.8) are found: precision 1 up to recall 2/3.
    """
    group, other = [0.5, 0.5, 1.0, 1.0], [0.5, 0.0, 1.0, 0.45]
    inside = [[0.5, 0.5, 0.6, 0.6], [0.6, 0.6, 0.7, 0.7], [0.9, 0.9, 1.0, 1.0]]
    evaluator = OpenImagesEvaluator(["a"], group_of_weight=weight)
    ground_truth = image([LEFT, group, other], [0, 0, 0], is_group_of=[False, True, True])
    evaluator.update(ground_truth, image([LEFT, *inside], [0] * 4, [0.9, 0.7, 0.8, 0.6]))
    assert evaluator.result()["open_images_map"] == pytest.approx(expected)


def test_unverified_classes_do_not_count():
    """A detection of b is before the right one of b elsewhere: wrong where b is verified, else left out.

    wrong, right of 1 object: AP 1/2; left out: 1.
    """
    for verified, expected in (([1, -1], 0.5), ([-1, -1], 1.0)):
        evaluator = OpenImagesEvaluator(["a", "b"])
        evaluator.update(image([LEFT], [0], verified_labels=verified), image([FAR], [1], [0.9]))
        evaluator.update(image([RIGHT], [1], verified_labels=[-1, -1]), image([RIGHT], [1], [0.8]))
        assert evaluator.result()["open_images_map_per_class"] == {"a": 0.0, "b": expected}


def test_degenerate_inputs_are_defined():
    for kind in (PascalVOCEvaluator, OpenImagesEvaluator):
        evaluator = kind(["a", "b"])
        name = f"{kind.name}_map"
        assert evaluator.result() == {name: -1.0, f"{name}_per_class": {"a": -1.0, "b": -1.0}}
        evaluator.update(image([], []), image([LEFT], [0], [0.5]))
        assert evaluator.result()[name] == -1.0
        evaluator.update(image([LEFT], [0]), image([], [], []))
        assert evaluator.result()[name] == 0.0
        evaluator.reset()
        # a box without an area is no detection
        evaluator.update(image([LEFT], [0]), image([[0.4, 0.4, 0.4, 0.9], LEFT], [0, 0], [0.9, 0.8]))
        assert evaluator.result()[name] == 1.0
        evaluator.reset()
        evaluator.update(image([LEFT], [0], is_crowd=[True]), image([LEFT], [0], [0.9]))
        assert evaluator.result()[name] == -1.0


def test_errors_say_what_is_wanted():
    with pytest.raises(ValueError, match="iou_threshold"):
        PascalVOCEvaluator(["a"], iou_threshold=0)
    with pytest.raises(ValueError, match="group_of_weight"):
        OpenImagesEvaluator(["a"], group_of_weight=-1)
    with pytest.raises(ValueError, match="same class names"):
        PascalVOCEvaluator(["a"], collected=OpenImagesEvaluator(["b"]).collected)
