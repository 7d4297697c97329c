"""COCO's ten metrics of keypoints: upstream's case, pycocotools' numbers, objects without keypoints."""

import numpy as np
import pytest

from keras_detect.evaluation import COCO_KEYPOINT_METRICS, COCOEvaluator, Collected, keypoints, write_report
from keras_detect.evaluation.keypoints import DEFAULT_SIGMA, PERSON_SIGMAS
from tests.goldens import golden_cases

# upstream names the places of COCO's twelve numbers of boxes, of keypoints too
GOLDEN_NAMES = {
    "map": "Precision|mAP",
    "map_50": "Precision|mAP@.50IOU",
    "map_75": "Precision|mAP@.75IOU",
    "map_medium": "Precision|mAP (medium)",
    "map_large": "Precision|mAP (large)",
    "mar": "Recall|AR@1",
    "mar_50": "Recall|AR@10",
    "mar_75": "Recall|AR@100",
    "mar_medium": "Recall|AR@100 (medium)",
    "mar_large": "Recall|AR@100 (large)",
}


@golden_cases("eval/coco_keypoints")
def test_upstreams_ten_numbers(case, monkeypatch):
    """Upstream takes the area of a detection from its box, pycocotools from its keypoints."""
    entries = keypoints.found_entries

    def by_boxes(found, sizes, number):
        return entries(found, sizes, number)[0], np.prod((found.boxes[:, 2:] - found.boxes[:, :2]) * 1024, axis=1)

    monkeypatch.setattr(keypoints, "found_entries", by_boxes)
    evaluator = COCOEvaluator(["person"], Collected(["person"], case.info["sigmas"]), compare="keypoints")
    for image in sorted({key.split("/")[0] for key in case.inputs}):
        rows = {key.split("/")[1]: value[None] for key, value in case.inputs.items() if key.startswith(f"{image}/")}
        count, found = rows["gt_boxes"].shape[1], rows["det_boxes"].shape[1]
        evaluator.update(
            {
                "boxes": rows["gt_boxes"] / 1024,
                "labels": np.zeros((1, count), int),
                "areas": rows["gt_area"],
                "keypoints": rows["gt_keypoints"] / 1024,
                "keypoint_visibility": rows["gt_vis"],
            },
            {
                "boxes": rows["det_boxes"] / 1024,
                "labels": np.zeros((1, found), int),
                "scores": rows["det_scores"],
                "keypoints": rows["det_keypoints"] / 1024,
            },
            image_sizes=[[1024, 1024]],
        )
    result = evaluator.result()
    for name, golden in GOLDEN_NAMES.items():
        expected = float(case.outputs[f"Keypoints_{golden} ByCategory|person"])
        assert result[f"keypoint_{name}"] == pytest.approx(expected, abs=1e-6), name


def random_images(rng, number, images=25, classes=2):
    """Objects of every size with keypoints, some not annotated, some crowds; detections near them, some far away."""
    for _ in range(images):
        size = rng.integers(100, 600, 2)
        count = int(rng.integers(1, 6))
        corner = rng.uniform(0, 0.6, (count, 2))
        sides = rng.uniform(0.03, 0.4, (count, 2))
        boxes = np.concatenate([corner, corner + sides], axis=1)
        points = corner[:, None] + sides[:, None] * rng.uniform(size=(count, number, 2))
        visibility = rng.integers(0, 3, (count, number)) * (rng.uniform(size=(count, 1)) < 0.85)
        near = rng.integers(0, count, int(rng.integers(1, 25)))
        error = rng.choice([0.005, 0.03, 0.2], (len(near), 1, 1))
        ground_truth = {
            "boxes": boxes,
            "labels": rng.integers(0, classes, count),
            "is_crowd": rng.uniform(size=count) < 0.1,
            "areas": np.prod(sides * size, axis=1) * rng.uniform(0.4, 1.0, count),
            "keypoints": np.where(visibility[..., None] > 0, points, np.nan),
            "keypoint_visibility": visibility,
        }
        detections = {
            "boxes": boxes[near],
            "labels": ground_truth["labels"][near],
            "scores": rng.uniform(size=len(near)),
            "keypoints": points[near] + rng.normal(0, 1, (len(near), number, 2)) * error * sides[near][:, None],
        }
        yield size, *({key: value[None] for key, value in rows.items()} for rows in (ground_truth, detections))


def by_pycocotools(images, classes, sigmas):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for number, (size, ground_truth, detections) in enumerate(images, start=1):
        for row, label in enumerate(ground_truth["labels"][0]):
            ymin, xmin, ymax, xmax = ground_truth["boxes"][0, row].astype("float32") * np.tile(size, 2)
            visibility = ground_truth["keypoint_visibility"][0, row]
            places = np.nan_to_num(ground_truth["keypoints"][0, row].astype("float32") * size)[:, ::-1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "iscrowd": int(ground_truth["is_crowd"][0, row]),
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "area": float(np.float32(ground_truth["areas"][0, row])),
                    "keypoints": np.concatenate([places, visibility[:, None]], axis=1).reshape(-1).tolist(),
                    "num_keypoints": int((visibility > 0).sum()),
                }
            )
        for row, label in enumerate(detections["labels"][0]):
            places = (detections["keypoints"][0, row].astype("float32") * size)[:, ::-1]
            results.append(
                {
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "score": float(np.float32(detections["scores"][0, row])),
                    "keypoints": np.concatenate([places, np.ones((len(places), 1))], axis=1).reshape(-1).tolist(),
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1} for i in range(len(images))],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": annotations,
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize(
    ("number", "given", "sigmas"),
    [
        (17, None, np.asarray(PERSON_SIGMAS) / 1000),
        (5, None, [DEFAULT_SIGMA] * 5),
        (3, (0.02, 0.1, 0.3), (0.02, 0.1, 0.3)),
    ],
)
def test_equals_pycocotools(number, given, sigmas):
    images = list(random_images(np.random.default_rng(number), number))
    collected = Collected(["0", "1"], given)
    evaluator = COCOEvaluator(["0", "1"], collected, compare="keypoints")
    for size, ground_truth, detections in images:
        evaluator.update(ground_truth, detections, image_sizes=[size])
    result, expected = evaluator.result(), by_pycocotools(images, 2, sigmas)
    assert 0.05 < expected[0] < 0.95
    np.testing.assert_allclose([result[f"keypoint_{name}"] for name in COCO_KEYPOINT_METRICS], expected, atol=1e-6)
    per_class = evaluator.result_per_class()
    assert np.mean([values["map"] for values in per_class.values()]) == pytest.approx(expected[0], abs=1e-6)
    assert evaluator.curves()["precision"].shape == (10, 101, 2)


def test_pycocotools_own_deviations_are_ours():
    from pycocotools.cocoeval import Params

    np.testing.assert_allclose(Params(iouType="keypoints").kpt_oks_sigmas, np.asarray(PERSON_SIGMAS) / 1000)


def one(**fields):
    return {key: np.asarray(value)[None] for key, value in fields.items()}


TRUE = {"boxes": [[0.2, 0.2, 0.8, 0.8], [0, 0, 0.1, 0.1]], "labels": [0, 1]}
FOUND = {"boxes": [[0.2, 0.2, 0.8, 0.8], [0, 0, 0.1, 0.1]], "labels": [0, 1], "scores": [0.8, 0.9]}
POINTS = [[[0.25, 0.25], [0.75, 0.75]], [[np.nan, np.nan]] * 2]


def test_a_class_without_keypoints_does_not_count(tmp_path):
    """The second class has none: its AP is undefined, and the mean is that of the first."""
    collected = Collected(["a", "b"])
    found = [[[0.25, 0.25], [0.75, 0.75], [0.9, 0.9]], [[0.0, 0.0]] * 3]  # a model of more keypoints than the data
    collected.update(one(**TRUE, keypoints=POINTS), one(**FOUND, keypoints=found), image_sizes=[(100, 200)])
    result = COCOEvaluator(["a", "b"], collected, compare="keypoints").result()
    assert result["keypoint_map"] == 1.0
    assert result["keypoint_map_per_class"] == {"a": 1.0, "b": -1.0}
    report = write_report(collected, tmp_path / "report")
    assert report["coco_keypoints"]["keypoint_map"] == 1.0
    assert "keypoint_mar_large" in (tmp_path / "report" / "index.html").read_text()


def test_nothing_annotated_is_nothing_to_compare(tmp_path):
    collected = Collected(["a", "b"])
    nothing = np.full((2, 2, 2), np.nan)
    collected.update(one(**TRUE, keypoints=nothing), one(**FOUND, keypoints=nothing), image_sizes=[(100, 200)])
    assert "coco_keypoints" not in write_report(collected, tmp_path / "report")
    assert COCOEvaluator(["a", "b"], collected, compare="keypoints").result()["keypoint_map"] == -1.0


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"positive numbers, one per keypoint\. Received: \(0.1, 0\)"):
        Collected(["a"], (0.1, 0))
    collected = Collected(["a", "b"], (0.1, 0.2, 0.3))
    collected.update(one(**TRUE, keypoints=POINTS), one(**FOUND, keypoints=POINTS), image_sizes=[(100, 200)])
    with pytest.raises(ValueError, match=r"one number per keypoint of the ground truth, 2\. Received: 3"):
        COCOEvaluator(["a", "b"], collected, compare="keypoints").result()
