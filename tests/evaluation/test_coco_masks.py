"""COCO's metrics of masks: upstream's case, pycocotools' numbers, crowds, borders, objects without a mask."""

import numpy as np
import pytest

from keras_detect.data import masks as instance_masks
from keras_detect.data.pasting import to_rle
from keras_detect.evaluation import COCO_METRICS, COCOEvaluator, Collected, ErrorBreakdown, write_report
from tests.evaluation.test_coco import GOLDEN_NAMES
from tests.goldens import golden_cases

SIZE = (40, 60)


def encode_each(masks, boxes, size):
    return [instance_masks.encode(mask) for mask in masks]


@golden_cases("eval/coco_masks")
def test_upstreams_twelve_numbers(case, monkeypatch):
    """Upstream evaluates masks of the whole image."""
    monkeypatch.setattr("keras_detect.data.pasting.to_rle", encode_each)
    evaluator = COCOEvaluator(["1", "2", "3"], compare="masks")
    images = sorted({key.split("/")[0] for key in case.inputs})
    for image in images:
        rows = {key.split("/")[1]: value[None] for key, value in case.inputs.items() if key.startswith(f"{image}/")}
        sides = np.tile(rows["gt_masks"].shape[2:], 2)
        areas = np.prod(rows["gt_boxes"][..., 2:] - rows["gt_boxes"][..., :2], axis=-1)  # upstream's are the boxes'
        ground_truth = {"boxes": rows["gt_boxes"] / sides, "labels": rows["gt_classes"] - 1, "areas": areas}
        evaluator.update(
            ground_truth | {"masks": rows["gt_masks"]},
            {
                "boxes": rows["det_boxes"] / sides,
                "labels": rows["det_classes"] - 1,
                "scores": rows["det_scores"],
                "masks": rows["det_masks"],
            },
            image_sizes=[rows["gt_masks"].shape[2:]],
        )
    result = evaluator.result()
    for name, golden in GOLDEN_NAMES.items():
        expected = float(case.outputs[f"DetectionMasks_{golden}"])
        assert result[f"mask_{name}"] == pytest.approx(expected, abs=1e-6), name


def random_images(rng, images=12, classes=3):
    """Annotated polygons and run lengths, some at the border, some crowds; detections near them."""
    for _ in range(images):
        count, found = rng.integers(1, 5), rng.integers(1, 8)
        corner, side = rng.uniform(-0.2, 0.8, (count, 2)), rng.uniform(0.1, 0.7, (count, 2))
        boxes = np.clip(np.concatenate([corner, corner + side], axis=1), 0.0, 1.0)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.02)
        labels, crowds = rng.integers(0, classes, count), rng.uniform(size=count) < 0.2
        annotated = np.empty(count, object)
        for row, (ymin, xmin, ymax, xmax) in enumerate(boxes * np.tile(SIZE, 2)):
            polygon = [xmin, ymin, xmax, ymin, xmax, ymax, (xmin + xmax) / 2, ymax, xmin, (ymin + ymax) / 2]
            annotated[row] = (np.asarray(polygon),)
            if crowds[row] or rng.uniform() < 0.3:
                annotated[row] = instance_masks.run_lengths(annotated[row], SIZE)
        near = rng.integers(0, count, found)
        moved = np.clip(boxes[near] + rng.normal(0, 0.04, (found, 4)), 0.0, 1.0)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 0.02)
        scores, classes_found = rng.uniform(size=found), np.where(rng.uniform(size=found) < 0.8, labels[near], 0)
        shapes = (rng.uniform(size=(found, 7, 7)) < 0.85).astype(np.float32)
        ground_truth = {"boxes": boxes, "labels": labels, "is_crowd": crowds, "masks": annotated}
        detections = {"boxes": moved, "labels": classes_found, "scores": scores, "masks": shapes}
        yield ({key: value[None] for key, value in rows.items()} for rows in (ground_truth, detections))


def by_pycocotools(batches, classes):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for image, (ground_truth, detections) in enumerate(batches, start=1):
        for row, mask in enumerate(ground_truth["masks"][0]):
            runs = instance_masks.run_lengths(mask, SIZE)
            ymin, xmin, ymax, xmax = ground_truth["boxes"][0, row] * np.tile(SIZE, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(ground_truth["labels"][0, row]) + 1,
                    "iscrowd": int(ground_truth["is_crowd"][0, row]),
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "segmentation": runs if isinstance(mask, dict) else [polygon.tolist() for polygon in mask],
                    "area": float(instance_masks.decode(runs, SIZE).sum()),
                }
            )
        for row, runs in enumerate(to_rle(detections["masks"][0], detections["boxes"][0], SIZE)):
            results.append(
                {
                    "image_id": image,
                    "category_id": int(detections["labels"][0, row]) + 1,
                    "score": float(detections["scores"][0, row]),
                    "segmentation": runs,
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(len(batches))],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": annotations,
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_pycocotools(seed):
    batches = [tuple(rows) for rows in random_images(np.random.default_rng(seed))]
    evaluator = COCOEvaluator(["0", "1", "2"], compare="masks")
    for ground_truth, detections in batches:
        evaluator.update(ground_truth, detections, image_sizes=[SIZE])
    result, expected = evaluator.result(), by_pycocotools(batches, 3)
    assert 0.0 < expected[1] < 1.0
    np.testing.assert_allclose([result[f"mask_{name}"] for name in COCO_METRICS], expected, atol=1e-6)


def one(**fields):
    return {key: np.asarray(value)[None] for key, value in fields.items()}


def test_an_object_without_a_mask_is_a_crowd_that_fills_its_box():
    """It need not be found, and a detection in it is no false alarm; one beside it is.

    The other object is found with the second score: alone it has AP 1, behind a false alarm 1/2.
    """
    mask = np.zeros(SIZE, np.uint8)
    mask[:20, :30] = 1
    for first, expected in (([0.5, 0.5, 1.0, 1.0], 1.0), ([0.5, 0.0, 1.0, 0.45], 0.5)):
        evaluator = COCOEvaluator(["a"], compare="masks")
        masks = np.array([instance_masks.encode(mask), None], object)
        ground_truth = one(boxes=[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], labels=[0, 0], masks=masks)
        found = one(boxes=[first, [0, 0, 0.5, 0.5]], labels=[0, 0], scores=[0.9, 0.8], masks=np.ones((2, 3, 3)))
        evaluator.update(ground_truth, found, image_sizes=[SIZE])
        assert evaluator.result()["mask_map_50"] == pytest.approx(expected)


def test_masks_that_touch_the_border_are_compared_to_their_last_pixel():
    """The right half of an image of 40 x 61 pixels, found as a box that begins at its middle: every pixel is right."""
    mask = np.zeros((40, 61), np.uint8)
    mask[:, 30:] = 1
    evaluator = COCOEvaluator(["a"], compare="masks")
    ground_truth = one(boxes=[[0, 0.5, 1, 1]], labels=[0], masks=[mask])
    found = one(boxes=[[0, 0.5, 1, 1]], labels=[0], scores=[0.9], masks=np.ones((1, 5, 5)))
    evaluator.update(ground_truth, found, image_sizes=[(40, 61)])
    result = evaluator.result()
    assert result["mask_map"] == 1.0
    assert result["mask_map_medium"] == 1.0  # 40 x 31 pixels: the mask's area


def test_what_is_refused():
    with pytest.raises(ValueError, match="compare must be one of boxes, masks"):
        COCOEvaluator(["a"], compare="mask")
    found = one(boxes=[[0, 0, 1, 1]], labels=[0], scores=[0.9], masks=np.ones((1, 5, 5)))
    with pytest.raises(ValueError, match="masks of detections need the images' sizes"):
        COCOEvaluator(["a"], compare="masks").collected.update(one(boxes=[[0, 0, 1, 1]], labels=[0]), found)


def test_kinds_of_error_follow_the_masks():
    """The left half of the image, found twice: as a whole box whose mask is right, and whose mask is its upper third.

    By their boxes one is right and the other a duplicate. By their masks the second, with the larger score, overlaps by
    a third: localization; a third detection lies on an object without a mask and does not count.
    """
    mask = np.zeros((41, 61), np.uint8)
    mask[:, :31] = 1
    masks = np.array([instance_masks.encode(mask), None], object)
    ground_truth = one(boxes=[[0, 0, 1, 0.5], [0, 0.6, 1, 1]], labels=[0, 0], masks=masks)
    third = np.zeros((7, 7))
    third[:2] = 1.0
    found = one(
        boxes=[[0, 0, 1, 0.5], [0, 0, 1, 0.5], [0.2, 0.7, 0.6, 0.9]],
        labels=[0, 0, 0],
        scores=[0.8, 0.9, 0.7],
        masks=np.stack([np.ones((7, 7)), third, np.ones((7, 7))]),
    )
    results = []
    for compare in ("boxes", "masks"):
        breakdown = ErrorBreakdown(["a"], compare=compare)
        breakdown.update(ground_truth, found, image_sizes=[(41, 61)])
        results.append(breakdown.result())
    boxes, of_masks = results
    assert (boxes["right_detections"], boxes["error_counts"]["duplicate"]) == (1, 1)
    assert (of_masks["mask_right_detections"], of_masks["mask_error_counts"]["localization"]) == (1, 1)
    assert sum(of_masks["mask_error_counts"].values()) == 1
    assert of_masks["mask_error_ap"] == pytest.approx(0.5)


SHAPES = {  # rows of 10, which with the object's upper half of 5 overlap by ...
    "half": slice(0, 5),  # 1
    "third": slice(3, 6),  # 2 / 6
    "next": slice(5, 9),  # 0
}


@pytest.mark.parametrize(
    ("kind", "shape", "label"),
    [
        ("right", "half", 0),
        ("localization", "third", 0),
        ("classification", "half", 1),
        ("both", "third", 1),
        ("background", "next", 0),
        ("background", "next", 1),
    ],
)
def test_every_kind_of_error_of_masks(kind, shape, label):
    """All boxes are the whole image, and by them every detection has its place right: the masks alone decide."""
    mask, found = np.zeros((10, 10), np.uint8), np.zeros((1, 10, 10))
    mask[SHAPES["half"]], found[0, SHAPES[shape]] = 1, 1.0
    breakdown = ErrorBreakdown(["a", "b"], compare="masks")
    whole = [[0, 0, 1, 1]]
    breakdown.update(
        one(boxes=whole, labels=[0], masks=[mask]),
        one(boxes=whole, labels=[label], scores=[0.9], masks=found),
        image_sizes=[(10, 10)],
    )
    result = breakdown.result()
    counts = {name: count for name, count in result["mask_error_counts"].items() if count}
    missed = {} if kind in ("right", "localization", "classification") else {"missed": 1}
    assert counts == missed | ({} if kind == "right" else {kind: 1})
    assert result["mask_error_ap"] == (kind == "right")


def test_a_second_mask_of_an_object_is_a_duplicate():
    mask = np.zeros((10, 10), np.uint8)
    mask[SHAPES["half"]] = 1
    breakdown = ErrorBreakdown(["a"], compare="masks")
    found = one(boxes=[[0, 0, 1, 1]] * 2, labels=[0, 0], scores=[0.9, 0.8], masks=np.stack([mask, mask]).astype(float))
    breakdown.update(one(boxes=[[0, 0, 1, 1]], labels=[0], masks=[mask]), found, image_sizes=[(10, 10)])
    assert breakdown.result()["mask_error_counts"]["duplicate"] == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_the_ap_of_the_errors_is_cocos(seed):
    """With crowds, masks at the border, and objects without a mask."""
    rng = np.random.default_rng(seed)
    coco = COCOEvaluator(["0", "1", "2"], compare="masks")
    errors = ErrorBreakdown(coco.class_names, collected=coco.collected, compare="masks")
    for ground_truth, detections in random_images(rng):
        ground_truth["masks"][rng.uniform(size=ground_truth["masks"].shape) < 0.2] = None
        coco.update(ground_truth, detections, image_sizes=[SIZE])
    result = coco.result()
    assert 0.0 < result["mask_map_50"] < 1.0
    assert errors.result()["mask_error_ap"] == pytest.approx(result["mask_map_50"], abs=1e-12)


def test_the_report_has_the_numbers_of_masks(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[:20, :30] = 1
    collected = Collected(["a"])
    ground_truth = one(boxes=[[0, 0, 0.5, 0.5]], labels=[0], masks=[mask])
    found = one(boxes=[[0, 0, 0.5, 0.5]], labels=[0], scores=[0.8], masks=np.ones((1, 3, 3)))
    collected.update(ground_truth, found, image_sizes=[SIZE])
    report = write_report(collected, tmp_path / "report")
    assert report["coco_masks"]["mask_map"] == 1.0
    assert report["errors_of_masks"]["mask_right_detections"] == 1
    assert "mask_map_50" in (tmp_path / "report" / "index.html").read_text()
