"""COCO's metrics against upstream's goldens, pycocotools and hand-worked cases."""

import contextlib
import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from keras_detect.evaluation import COCO_METRICS, COCOEvaluator
from tests.goldens import golden_cases

NAMES = ["a", "b", "c"]
GOLDEN_NAMES = {
    "map": "Precision|mAP",
    "map_50": "Precision|mAP@.50IOU",
    "map_75": "Precision|mAP@.75IOU",
    "map_small": "Precision|mAP (small)",
    "map_medium": "Precision|mAP (medium)",
    "map_large": "Precision|mAP (large)",
    "mar_1": "Recall|AR@1",
    "mar_10": "Recall|AR@10",
    "mar_100": "Recall|AR@100",
    "mar_small": "Recall|AR@100 (small)",
    "mar_medium": "Recall|AR@100 (medium)",
    "mar_large": "Recall|AR@100 (large)",
}


@golden_cases("eval/coco", "eval/coco_crowd")
def test_upstreams_twelve_numbers(case):
    """The case's images are 200 x 200 and its classes start at 1."""
    evaluator = COCOEvaluator(NAMES)
    for i in range(8):
        given = {key: case.inputs[f"im{i}/{key}"] for key in ("gt_boxes", "gt_classes", "gt_group_of")}
        ground_truth = {"boxes": given["gt_boxes"][None] / 200, "labels": given["gt_classes"][None] - 1}
        if case.name == "eval/coco_crowd":
            ground_truth["is_crowd"] = given["gt_group_of"][None]
        detections = {
            "boxes": case.inputs[f"im{i}/det_boxes"][None] / 200,
            "scores": case.inputs[f"im{i}/det_scores"][None],
            "labels": case.inputs[f"im{i}/det_classes"][None] - 1,
        }
        evaluator.update(ground_truth, detections, image_sizes=[[200, 200]])
    result = evaluator.result()
    for name, golden in GOLDEN_NAMES.items():
        assert result[name] == pytest.approx(float(case.outputs[f"DetectionBoxes_{golden}"]), abs=1e-6), name


def random_images(rng, images=25, classes=3, crowds=True):
    """Ground truth and jittered, missed and invented detections of images of different size, in the house's form."""
    for _ in range(images):
        height, width = rng.integers(100, 700, 2)
        count = rng.integers(0, 9)
        corner = rng.uniform(0, 0.7, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.02, 0.3, (count, 2))], axis=1)
        labels = rng.integers(0, classes, count)
        crowd = rng.uniform(size=count) < (0.15 if crowds else 0)
        jittered = np.concatenate([boxes, boxes, boxes[:3]]) + rng.normal(0, 0.015, (2 * count + min(count, 3), 4))
        wrong = rng.uniform(size=len(jittered)) < 0.2
        guesses = np.concatenate([labels, labels, labels[:3]])
        guesses = np.where(wrong, rng.integers(0, classes, len(guesses)), guesses)
        ground_truth = {
            "boxes": boxes[None].astype(np.float32),
            "labels": labels[None],
            "is_crowd": crowd[None],
            "image_size": np.array([[height, width]]),
        }
        scores = rng.uniform(size=(1, len(guesses))).astype(np.float32)
        yield ground_truth, {"boxes": jittered[None].astype(np.float32), "scores": scores, "labels": guesses[None]}


def by_pycocotools(batches, classes):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, annotations, found = [], [], []
    for number, (ground_truth, detections) in enumerate(batches, start=1):
        height, width = ground_truth["image_size"][0].tolist()
        images.append({"id": number, "height": height, "width": width})
        for rows, target in ((ground_truth, annotations), (detections, found)):
            sides = np.array([height, width] * 2)
            for j, (y0, x0, y1, x1) in enumerate((rows["boxes"][0].astype(np.float64) * sides).tolist()):
                entry = {"id": len(target) + 1, "image_id": number, "category_id": int(rows["labels"][0, j]) + 1}
                entry |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                entry |= {"iscrowd": int(rows["is_crowd"][0, j])} if rows is ground_truth else {}
                entry |= {"score": float(rows["scores"][0, j])} if rows is detections else {}
                target.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        categories = [{"id": k + 1, "name": str(k)} for k in range(classes)]
        ground_truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
        ground_truth.createIndex()
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_on_random_images(seed):
    batches = list(random_images(np.random.default_rng(seed)))
    evaluator = COCOEvaluator([str(k) for k in range(4)])  # class 3 never occurs
    for ground_truth, detections in batches:
        evaluator.update(ground_truth, detections)
    result = evaluator.result()
    expected = by_pycocotools(batches, classes=4)
    np.testing.assert_allclose([result[name] for name in COCO_METRICS], expected.stats, atol=1e-9)
    precision = expected.eval["precision"][:, :, :, 0, -1]
    for k in range(3):
        assert result["map_per_class"][str(k)] == pytest.approx(precision[:, :, k].mean(), abs=1e-9)
    assert result["map_per_class"]["3"] == -1.0


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
@hypothesis.given(data=strategies.data())
def test_equals_pycocotools_for_any_images(data):
    """Boxes on a coarse grid (overlaps hit thresholds and tie), equal scores, crowds, images without either."""
    batches, classes = [], 3
    for _ in range(data.draw(strategies.integers(1, 4))):
        rows = {}
        for what, most in (("ground_truth", 6), ("detections", 12)):
            count = data.draw(strategies.integers(0, most))
            draw = lambda low, high, n=count: np.array(  # noqa: E731
                data.draw(strategies.lists(strategies.integers(low, high), min_size=n, max_size=n)), int
            ).reshape(n)
            corner, sides = np.stack([draw(0, 4), draw(0, 4)], 1), np.stack([draw(1, 4), draw(1, 4)], 1)
            boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32) / 8
            rows[what] = {"boxes": boxes[None], "labels": draw(0, classes - 1)[None]}
            extra = "is_crowd" if what == "ground_truth" else "scores"
            rows[what][extra] = (
                draw(0, 4)[None] == 0 if what == "ground_truth" else draw(1, 4)[None].astype(np.float32) / 4
            )
        side = data.draw(strategies.sampled_from([64, 256, 1024]))
        rows["ground_truth"]["image_size"] = np.array([[side, side]])
        batches.append((rows["ground_truth"], rows["detections"]))
    hypothesis.assume(
        any(rows["labels"].size for rows, _ in batches) and any(rows["labels"].size for _, rows in batches)
    )
    evaluator = COCOEvaluator([str(k) for k in range(classes)])
    for ground_truth, detections in batches:
        evaluator.update(ground_truth, detections)
    expected = by_pycocotools(batches, classes)
    result = evaluator.result()
    np.testing.assert_allclose([result[name] for name in COCO_METRICS], expected.stats, atol=1e-9)


def test_every_number_of_each_class_is_pycocotools(seed=7):
    batches = list(random_images(np.random.default_rng(seed)))
    evaluator = COCOEvaluator(["0", "1", "2", "unseen"])
    for ground_truth, detections in batches:
        evaluator.update(ground_truth, detections)
    per_class, expected = evaluator.result_per_class(), by_pycocotools(batches, classes=4).eval
    areas = {"": 0, "_small": 1, "_medium": 2, "_large": 3}
    for k, name in enumerate(evaluator.class_names):
        for area, a in areas.items():
            precision, recall = expected["precision"][:, :, k, a, 2], expected["recall"][:, k, a, 2]
            for metric, values in ((f"map{area}", precision), (f"mar{area or '_100'}", recall)):
                known = values[values > -1]
                assert per_class[name][metric] == pytest.approx(known.mean() if known.size else -1.0, abs=1e-9)
        assert per_class[name]["map_50"] == pytest.approx(expected["precision"][0, :, k, 0, 2].mean(), abs=1e-9)
        of_class = [ground_truth["is_crowd"][ground_truth["labels"] == k] for ground_truth, _ in batches]
        assert per_class[name]["objects"] == sum(int(np.sum(~crowd)) for crowd in of_class)
        assert per_class[name]["crowds"] == sum(int(np.sum(crowd)) for crowd in of_class)
    curves = evaluator.curves()
    np.testing.assert_allclose(curves["precision"], expected["precision"][:, :, :, 0, 2], atol=1e-9)
    np.testing.assert_allclose(curves["iou"], np.arange(50, 100, 5) / 100)
    assert curves["recall"].shape == (101,)


def test_results_follow_the_images_added():
    """The tables are kept between calls: another batch, and a reset with as many images, make them anew."""
    box, other = one_image([[0.1, 0.1, 0.3, 0.3]], [0]), one_image([[0.6, 0.6, 0.9, 0.9]], [0])
    evaluator = COCOEvaluator(["a"])
    evaluator.update(box, box | {"scores": np.ones((1, 1))}, [(50, 50)])
    assert evaluator.result()["map"] == pytest.approx(1.0)
    evaluator.reset()
    evaluator.update(box, other | {"scores": np.ones((1, 1))}, [(50, 50)])
    assert evaluator.result()["map"] == 0.0
    evaluator.update(box, box | {"scores": np.ones((1, 1))}, [(50, 50)])
    assert 0.0 < evaluator.result()["map"] < 1.0


def one_image(boxes, labels, scores=None, **more):
    rows = {"boxes": np.reshape(boxes, (1, -1, 4)), "labels": np.reshape(labels, (1, -1))}
    return rows | ({} if scores is None else {"scores": np.reshape(scores, (1, -1))}) | more


def test_one_object_found_beside_a_false_alarm():
    """IoU of the second detection: 0.2 x 0.1801 of 0.2 x 0.2 = 0.9005: right at 0.5...0.9, nine thresholds of ten.

    It is outscored by a false alarm, so precision is 1/2 at every recall: AP = 0.9 x 0.5 = 0.45, AP50 = 0.5;
    recall 1 at nine thresholds of ten: AR100 = 0.9; the best detection alone is wrong: AR1 = 0.
    The box has 20 x 20 = 400 pixels: small.
    """
    evaluator = COCOEvaluator(["a"])
    ground_truth = one_image([[0.1, 0.1, 0.3, 0.3]], [0])
    detections = one_image([[0.6, 0.6, 0.9, 0.9], [0.1, 0.1, 0.3, 0.2801]], [0, 0], [0.9, 0.8])
    evaluator.update(ground_truth, detections, image_sizes=[(100, 100)])
    result = evaluator.result()
    assert result["map"] == pytest.approx(0.45)
    assert result["map_50"] == pytest.approx(0.5)
    assert result["mar_100"] == pytest.approx(0.9)
    assert result["mar_1"] == 0.0
    assert result["map_small"] == pytest.approx(0.45)
    assert result["map_medium"] == result["map_large"] == -1.0


def test_annotated_area_goes_before_the_boxs():
    """The same box, with a mask of 2000 pixels: medium (32 x 32 = 1024 < 2000 < 9216)."""
    evaluator = COCOEvaluator(["a"])
    ground_truth = one_image([[0.1, 0.1, 0.3, 0.3]], [0], areas=np.array([[2000.0]]))
    evaluator.update(ground_truth, one_image([[0.1, 0.1, 0.3, 0.3]], [0], [0.9]), image_sizes=[(100, 100)])
    result = evaluator.result()
    assert (result["map_small"], result["map_medium"]) == (-1.0, pytest.approx(1.0))


def test_padding_on_both_sides_changes_nothing():
    rng = np.random.default_rng(5)
    plain, padded = COCOEvaluator(NAMES), COCOEvaluator(NAMES)
    for ground_truth, detections in random_images(rng, images=6):
        plain.update(ground_truth, detections)
        count = detections["scores"].shape[1]
        more = {"num_detections": np.array([count])}
        for key, value in detections.items():
            junk = np.full((1, 3, *value.shape[2:]), 0.7 if key != "labels" else 1)
            more[key] = np.concatenate([value, junk], axis=1)
        for key in ("boxes", "labels", "is_crowd"):
            fill = -1 if key == "labels" else 0
            rows = np.full((1, 2, *ground_truth[key].shape[2:]), fill, ground_truth[key].dtype)
            ground_truth = ground_truth | {key: np.concatenate([ground_truth[key], rows], axis=1)}
        padded.update(ground_truth, more)
    assert plain.result() == padded.result()


def test_degenerate_inputs_are_defined():
    nothing = one_image(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    box = one_image([[0.1, 0.1, 0.3, 0.3]], [0])
    evaluator = COCOEvaluator(["a", "b"])
    assert set(evaluator.result().pop("map_per_class").values()) == {-1.0}
    assert all(evaluator.result()[name] == -1.0 for name in COCO_METRICS)
    evaluator.update(one_image(np.zeros((0, 4)), np.zeros(0, int)), box | {"scores": np.ones((1, 1))}, [(50, 50)])
    assert all(evaluator.result()[name] == -1.0 for name in COCO_METRICS)
    evaluator.update(box, nothing, [(50, 50)])
    result = evaluator.result()
    assert result["map"] == result["mar_100"] == 0.0
    assert result["map_per_class"] == {"a": 0.0, "b": -1.0}
    evaluator.reset()
    assert evaluator.result()["map"] == -1.0


def test_errors_say_what_is_wanted():
    box = one_image([[0.1, 0.1, 0.3, 0.3]], [2], [0.5])
    with pytest.raises(ValueError, match=r"label 2 in the ground truth"):
        COCOEvaluator(["a", "b"]).update(box, box, [(50, 50)])
    with pytest.raises(ValueError, match="image_sizes"):
        COCOEvaluator(NAMES).update(box, box)
    with pytest.raises(ValueError, match="same images"):
        COCOEvaluator(NAMES).update(box, box, [(50, 50), (50, 50)])
    with pytest.raises(ValueError, match="class names"):
        COCOEvaluator([])


def test_nothing_is_printed(capfd):
    evaluator = COCOEvaluator(NAMES)
    for ground_truth, detections in random_images(np.random.default_rng(0), images=3):
        evaluator.update(ground_truth, detections)
    evaluator.result()
    assert capfd.readouterr() == ("", "")
