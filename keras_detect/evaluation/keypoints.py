"""Keypoints of true objects and of detections as COCO's annotations have them, and the deviations of its similarity."""

from collections.abc import Sequence

import numpy as np

from keras_detect import schema

#: COCO's deviations of the 17 keypoints of a person, as shares of the square root of an object's area
PERSON_SIGMAS = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
#: of keypoints for which no deviations are known: between those of COCO's noses and shoulders
DEFAULT_SIGMA = 0.05


def checked_sigmas(sigmas: Sequence[float] | None) -> tuple[float, ...] | None:
    """`sigmas` as floats. Raises `ValueError` unless they are positive numbers, or `None`."""
    if sigmas is None:
        return None
    values = np.asarray(sigmas, np.float64).reshape(-1)
    if not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"keypoint_sigmas are positive numbers, one per keypoint. Received: {sigmas!r}")
    return tuple(values.tolist())


def sigmas_of(ground_truth, given):
    """The N deviations: those given, COCO's where N is 17, else `DEFAULT_SIGMA` for each.

    Raises:
        ValueError: another number is given than the true objects have keypoints.
    """
    number = ground_truth[schema.KEYPOINTS].shape[1]
    if given is None:
        return [s / 1000.0 for s in PERSON_SIGMAS] if number == len(PERSON_SIGMAS) else [DEFAULT_SIGMA] * number
    if len(given) != number:
        raise ValueError(
            f"keypoint_sigmas has one number per keypoint of the ground truth, {number}. Received: {len(given)}"
        )
    return list(given)


def has_keypoints(collected):
    """Whether detections have keypoints, and ground truth some that are annotated."""
    ground_truth, found = collected.ground_truth(), collected.found()
    both = schema.KEYPOINTS in ground_truth and schema.KEYPOINTS in found
    return both and bool(_visibility(ground_truth).any())


def _visibility(rows):
    """[n, N] int, 0 where a keypoint is not annotated; 2 where nothing is said of one that is."""
    finite = np.isfinite(rows[schema.KEYPOINTS]).all(axis=-1)
    if schema.KEYPOINT_VISIBILITY not in rows:
        return np.where(finite, 2, 0)
    return np.where(finite, rows[schema.KEYPOINT_VISIBILITY], 0)


def _pixels(rows, sizes):
    """[n, N, 2] x and y in pixels, float64; 0 for what is not a number."""
    points = rows[schema.KEYPOINTS].astype(np.float64) * sizes[rows.image][:, None, :]
    return np.nan_to_num(points[..., ::-1], posinf=0.0, neginf=0.0)


def true_entries(ground_truth, sizes):
    """What COCO's annotation of each true object says of its keypoints, a dict each."""
    seen = _visibility(ground_truth)
    points = np.where(seen[..., None] > 0, _pixels(ground_truth, sizes), 0.0)
    table = np.concatenate([points, seen[..., None]], axis=-1).reshape(len(seen), -1)
    counts = (seen > 0).sum(axis=1)
    return [
        {"keypoints": row, "num_keypoints": count} for row, count in zip(table.tolist(), counts.tolist(), strict=True)
    ]


def found_entries(found, sizes, number):
    """`(entries, areas)` of the detections: a dict each with `number` keypoints, and the areas that these span."""
    points = _pixels(found, sizes)[:, :number]
    points = np.pad(points, [(0, 0), (0, number - points.shape[1]), (0, 0)])
    table = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1).reshape(len(points), -1)
    spans = np.ptp(points, axis=1) if points.size else np.zeros((len(points), 2))
    return [{"keypoints": row} for row in table.tolist()], spans.prod(axis=1)
