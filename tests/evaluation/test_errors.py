"""The kinds of error and their costs: hand-worked, and the numbers of TIDE's published program."""

import numpy as np
import pytest

from keras_detect.evaluation import ERROR_KINDS, COCOEvaluator, ErrorBreakdown
from tests.evaluation.test_coco import random_images
from tests.evaluation.test_pascal_voc import FAR, LEFT, RIGHT, image


def breakdown(ground_truth, found, names=("a", "b")):
    evaluator = ErrorBreakdown(names)
    evaluator.update(ground_truth, found)
    return evaluator.result()


# LEFT is [0, 0, 0.4, 0.4]; boxes as wide of height h inside it have IoU h / 0.4 with it
THIRD, NEAR_NOTHING = [0.0, 0.0, 0.12, 0.4], [0.0, 0.0, 0.02, 0.4]


@pytest.mark.parametrize(
    ("kind", "box", "label"),
    [
        ("right", LEFT, 0),
        ("localization", THIRD, 0),  # IoU 0.3 with an object of its class
        ("classification", LEFT, 1),
        ("both", THIRD, 1),
        ("background", NEAR_NOTHING, 0),  # IoU 0.05
        ("background", FAR, 1),
    ],
)
def test_one_detection_of_one_object(kind, box, label):
    """Mended, classification and localization make AP 1; the others leave the object missed, which then costs.

    Missed alone: a class without objects to find and without false detections left is whole (AP 1); with a false one
    of class a left it is 0.
    """
    result = breakdown(image([LEFT], [0]), image([box], [label], [0.9]))
    covered = kind in ("right", "localization", "classification")
    expected = dict.fromkeys(ERROR_KINDS, 0) | ({} if kind == "right" else {kind: 1})
    assert result["error_counts"] == expected | {"missed": 0 if covered else 1}
    assert result["right_detections"] == (kind == "right")
    assert result["error_ap"] == (1.0 if kind == "right" else 0.0)
    costs = dict.fromkeys(ERROR_KINDS, 0.0)
    if kind in ("localization", "classification"):
        costs[kind] = 1.0
    elif kind != "right":
        costs["missed"] = 1.0 if label == 1 else 0.0
    assert result["error_costs"] == costs


def test_a_duplicate_before_the_second_right_one():
    """Right, duplicate, right, of two objects: AP from the envelope 1 up to recall 1/2, 2/3 up to 1.

    101 points: 51 (0.00 ... 0.50) at 1, 50 at 2/3: (51 + 100 / 3) / 101. Without the duplicate: 1.
    """
    result = breakdown(image([LEFT, RIGHT], [0, 0]), image([LEFT, LEFT, RIGHT], [0] * 3, [0.9, 0.8, 0.7]))
    ap = (51 + 100 / 3) / 101
    assert result["error_ap"] == pytest.approx(ap)
    assert result["error_counts"] == dict.fromkeys(ERROR_KINDS, 0) | {"duplicate": 1}
    assert result["error_costs"] == pytest.approx(dict.fromkeys(ERROR_KINDS, 0.0) | {"duplicate": 1 - ap})
    assert result["error_counts_per_class"]["a"]["duplicate"] == 1


def test_the_best_scored_of_two_errors_is_mended():
    """Two poor boxes of one object, at 0.9 and 0.8: mended, the first is right and the second is gone: AP 1."""
    result = breakdown(image([LEFT], [0]), image([THIRD, THIRD], [0, 0], [0.8, 0.9]))
    assert result["error_counts"]["localization"] == 2
    assert result["error_costs"]["localization"] == 1.0


# What tidecv 1.0.1 gives for these images (`TIDE().evaluate(..., mode=TIDE.BOX)`), recorded once: AP, counts, costs
# in the order of ERROR_KINDS. It reads the curve at i / 100 where COCO has linspace, which differ in the last bit for
# some i; for these seeds no recall falls between.
BY_TIDE = {
    1: (
        0.5772041514686265,
        (47, 39, 8, 161, 7, 0),
        (0.09599121, 0.109246546, 0.00509794, 0.11406506, 0.003571202, 0.0),
    ),
    3: (
        0.5505596036459122,
        (34, 73, 11, 124, 8, 2),
        (0.048813429, 0.160700585, 0.008862446, 0.074525298, 0.005456093, 0.007026751),
    ),
}


def ordered(detections):
    boxes = detections["boxes"]
    low, high = np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])
    return detections | {"boxes": np.concatenate([low, high], axis=-1)}


@pytest.mark.parametrize("seed", BY_TIDE)
def test_equals_tide_on_random_images(seed):
    evaluator = ErrorBreakdown(["0", "1", "2"])
    for ground_truth, detections in random_images(np.random.default_rng(seed), 40, crowds=False):
        evaluator.update(ground_truth, ordered(detections))
    result = evaluator.result()
    ap, counts, costs = BY_TIDE[seed]
    assert result["error_ap"] == pytest.approx(ap, abs=1e-9)
    assert result["error_counts"] == dict(zip(ERROR_KINDS, counts, strict=True))
    assert result["error_costs"] == pytest.approx(dict(zip(ERROR_KINDS, costs, strict=True)), abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_the_ap_is_cocos_with_crowds(seed):
    coco = COCOEvaluator(["0", "1", "2", "unseen"])
    errors = ErrorBreakdown(coco.class_names, collected=coco.collected)
    for ground_truth, detections in random_images(np.random.default_rng(seed)):
        coco.update(ground_truth, ordered(detections))
    assert errors.result()["error_ap"] == pytest.approx(coco.result()["map_50"], abs=1e-12)


def test_only_the_strongest_of_an_image_take_part():
    evaluator = ErrorBreakdown(["a"], max_detections=1)
    evaluator.update(image([LEFT], [0]), image([FAR, LEFT], [0, 0], [0.8, 0.9]))
    evaluator.update(image([LEFT], [0]), image([FAR, LEFT], [0, 0], [0.9, 0.8]))
    result = evaluator.result()
    assert (result["right_detections"], result["error_counts"]["background"]) == (1, 1)


def test_degenerate_inputs_are_defined():
    evaluator = ErrorBreakdown(["a", "unseen"])
    assert evaluator.result()["error_ap"] == -1.0
    assert set(evaluator.result()["error_costs"].values()) == {0.0}
    evaluator.update(image([], []), image([LEFT], [0], [0.5]))
    assert evaluator.result()["error_counts"]["background"] == 1
    assert evaluator.result()["error_ap"] == -1.0
    evaluator.reset()
    evaluator.update(image([LEFT], [0]), image([], [], []))
    result = evaluator.result()
    assert (result["error_ap"], result["error_counts"]["missed"], result["error_costs"]["missed"]) == (0.0, 1, 1.0)
    with pytest.raises(ValueError, match="background < foreground"):
        ErrorBreakdown(["a"], foreground=0.1)
