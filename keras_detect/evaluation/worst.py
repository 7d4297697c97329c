"""The images with the most errors, with the ground truth beside the detections."""

import numpy as np

from keras_detect import schema
from keras_detect.visualization import draw_side_by_side, save_image

_WIDTH = 1200  # of a drawn pair, in pixels


def worst_images(errors, dataset, count=8):
    """The images with the most errors, most first; of equal ones the earlier.

    Args:
        errors: `{kind: [N] int}`, the errors in each image: see `ConfusionMatrix.errors_per_image`.
        dataset: the data set of the N images, in this order.
        count: how many images, at most.

    Returns:
        list of `{"index", "file_name", "errors", kind: number, ...}`; images without an error are skipped.
    """
    total = sum(errors.values())
    order = np.argsort(-total, kind="stable")[:count]
    return [
        {
            "index": int(index),
            "file_name": dataset.records[index].file_name,
            "errors": int(total[index]),
            **{kind: int(numbers[index]) for kind, numbers in errors.items()},
        }
        for index in order
        if total[index]
    ]


def draw_worst_image(entry, dataset, found, score_threshold, path):
    """Draws one of `worst_images` into a file.

    Args:
        entry: a row of `worst_images`.
        dataset: see `worst_images`.
        found: every detection, as `Collected.found` returns them.
        score_threshold: detections below it are skipped.
        path: the image to write.
    """
    example = dataset[entry["index"]]
    rows = found.where(found.image == entry["index"])
    drawn_fields = (schema.BOXES, schema.LABELS, schema.SCORES, schema.KEYPOINTS, schema.KEYPOINT_SCORES)
    detections = {key: rows[key] for key in drawn_fields if key in rows}
    drawn_fields = (schema.BOXES, schema.LABELS, schema.KEYPOINTS, schema.KEYPOINT_VISIBILITY)
    ground_truth = {key: example[key] for key in drawn_fields if key in example}
    drawn = draw_side_by_side(
        example["image"], ground_truth, detections, dataset.class_names, score_threshold, dataset.skeleton
    )
    drawn.thumbnail((_WIDTH, _WIDTH))
    save_image(drawn.convert("RGB"), path, quality=85)
