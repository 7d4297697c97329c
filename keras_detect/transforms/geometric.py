"""Augmentations that move the image, and its boxes with it."""

import dataclasses
from typing import Any

from absl import logging

from keras_detect import schema
from keras_detect.registry import part
from keras_detect.transforms.augmentation import (
    check_probability,
    draw,
    keep_rows,
    move_objects,
    sometimes,
)


@part
class RandomHorizontalFlip:
    """Mirrors left and right.

    Args:
        probability: how often.
        keypoint_permutation: the new order of the keypoints, so that a left ear stays a left ear; () keeps the order;
            default: that of the data set's `flip_pairs`, in `DetectionDataset.batches`.

    Raises:
        ValueError: a setting outside its range.
    """

    probability: float = 0.5
    keypoint_permutation: tuple | None = None

    def __post_init__(self):
        check_probability(self.probability)
        _check_permutation(self.keypoint_permutation)

    def fitted_to(self, dataset: Any) -> "RandomHorizontalFlip":
        """The operation with the keypoints' order of a `DetectionDataset`, unless it has one of its own."""
        return _with_permutation(self, dataset)

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        mirror = lambda example: _reorder(_mirror_columns(example), self.keypoint_permutation)  # noqa: E731
        return sometimes(self.probability, seed, mirror, example)


@part
class RandomVerticalFlip:
    """Mirrors top and bottom: for images without a fixed up direction, such as microscope or aerial images.

    Args:
        probability: how often.
        keypoint_permutation: see `RandomHorizontalFlip`: a mirror image of a left hand is a right hand here, too.

    Raises:
        ValueError: a setting outside its range.
    """

    probability: float = 0.5
    keypoint_permutation: tuple | None = None

    def __post_init__(self):
        check_probability(self.probability)
        _check_permutation(self.keypoint_permutation)

    def fitted_to(self, dataset: Any) -> "RandomVerticalFlip":
        """The operation with the keypoints' order of a `DetectionDataset`, unless it has one of its own."""
        return _with_permutation(self, dataset)

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        mirror = lambda example: _reorder(_mirror_rows(example), self.keypoint_permutation)  # noqa: E731
        return sometimes(self.probability, seed, mirror, example)


@part
class RandomRotation90:
    """Rotates by 90 degrees counterclockwise; with both flips, all eight orientations of an image.

    Args:
        probability: how often.
        keypoint_permutation: the new order of the keypoints, for points that are called after their side of the image;
            () keeps the order.

    Raises:
        ValueError: a setting outside its range.
    """

    probability: float = 0.5
    keypoint_permutation: tuple = ()
    swaps_sides = True  # no annotation: a fact for the pipeline, not a setting

    def __post_init__(self):
        check_probability(self.probability)
        _check_permutation(self.keypoint_permutation)

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        turn = lambda example: _reorder(_quarter_turn(example), self.keypoint_permutation)  # noqa: E731
        return sometimes(self.probability, seed, turn, example)


@part
class RandomIoUCrop:
    """SSD's crop (Liu et al. 2016, section 2.2): a random patch that overlaps an object enough.

    The options are: the whole image, any patch, or a patch whose IoU with at least one object reaches one of
    `min_overlaps`. `trials` patches are drawn, with `min_area` to 1 of the image's area and its aspect ratio changed
    by at most `max_aspect_ratio`; an option is possible if one of them fits it and keeps an object. One possible
    option is chosen, each as likely as the others, and its first patch taken. Objects whose center is outside are
    dropped, the others clipped. Where all objects are small, high overlaps are never reached and do not count.

    Args:
        min_overlaps: the IoU thresholds to choose from, besides "whole" and "any".
        min_area: smallest patch area, as a part of the image's.
        max_aspect_ratio: largest change of the aspect ratio, in both directions.
        trials: patches drawn.
        probability: how often a crop is tried at all.

    Raises:
        ValueError: a setting outside its range.
    """

    min_overlaps: tuple = (0.1, 0.3, 0.5, 0.7, 0.9)
    min_area: float = 0.1
    max_aspect_ratio: float = 2.0
    trials: int = 50
    probability: float = 1.0

    def __post_init__(self):
        check_probability(self.probability)
        if not 0.0 < self.min_area <= 1.0:
            raise ValueError(f"min_area must be in (0, 1]. Received: min_area={self.min_area}")
        if self.max_aspect_ratio < 1.0:
            raise ValueError(f"max_aspect_ratio must be at least 1. Received: max_aspect_ratio={self.max_aspect_ratio}")
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1. Received: trials={self.trials}")

    def __call__(self, example: dict[str, Any], seed: Any) -> dict[str, Any]:
        """The changed example, a dict of tensors as a `DetectionDataset` has; `seed`: int64 [2], of its randomness."""
        return sometimes(self.probability, seed, lambda example: self._crop(example, seed), example)

    def _crop(self, example, seed):
        import tensorflow as tf

        boxes, crowd = example[schema.BOXES], example.get(schema.IS_CROWD)
        shape = tf.shape(example["image"])[:2]
        patches = self._patches(seed, shape)
        windows = tf.cast(patches, tf.float32) / tf.cast(tf.concat([shape, shape], 0), tf.float32)
        inside = _center_inside(boxes, windows)
        overlap = tf.where(inside, _iou(windows, boxes), -1.0)
        if crowd is not None:
            overlap = tf.where(crowd[None, :], -1.0, overlap)
        best = tf.reduce_max(tf.concat([overlap, tf.fill([self.trials, 1], -1.0)], axis=1), axis=1)
        # An image without objects has none to keep: any patch of it will do.
        best = tf.cond(tf.shape(boxes)[0] > 0, lambda: best, lambda: tf.zeros_like(best))
        # One row per option; threshold 0 admits any patch that keeps an object.
        accepted = best[None] >= tf.constant([0.0, *self.min_overlaps], tf.float32)[:, None]
        possible = tf.concat([[True], tf.reduce_any(accepted, axis=1)], axis=0)
        option = tf.argmax(tf.where(possible, draw(seed, 1, (len(self.min_overlaps) + 2,)), -1.0), output_type=tf.int32)
        whole = lambda: dict(example)  # noqa: E731
        first = lambda: patches[tf.argmax(accepted[option - 1], output_type=tf.int32)]  # noqa: E731
        return tf.cond(option == 0, whole, lambda: cut_out(example, first()))

    def _patches(self, seed, shape):
        """[trials, 4] int32 windows (y0, x0, y1, x1) in pixels, each at least one pixel."""
        import tensorflow as tf

        area = draw(seed, 2, (self.trials,), self.min_area, 1.0)
        limit = float(self.max_aspect_ratio)
        log_limit = tf.math.log(limit)
        aspect = tf.exp(draw(seed, 3, (self.trials,), -1.0, 1.0) * log_limit)
        # Sides relative to the image's; a patch that would stick out gets the whole side.
        sides = tf.minimum(tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=1), 1.0)
        whole = tf.cast(shape, tf.float32)
        sizes = tf.clip_by_value(tf.cast(tf.round(sides * whole), tf.int32), 1, shape)
        room = tf.cast(shape - sizes + 1, tf.float32)
        corner = tf.cast(draw(seed, 4, (self.trials, 2)) * room, tf.int32)
        corner = tf.minimum(corner, shape - sizes)
        return tf.concat([corner, corner + sizes], axis=1)


def cut_out(example, patch):
    """The example cropped to `patch` [4] int32 (y0, x0, y1, x1) in pixels.

    Objects whose center is outside are dropped, the boxes of the others clipped to the patch.
    """
    import tensorflow as tf

    image = example["image"]
    shape = tf.shape(image)[:2]
    window = tf.cast(patch, tf.float32) / tf.cast(tf.concat([shape, shape], 0), tf.float32)
    keep = _center_inside(example[schema.BOXES], window[None])[0]
    corner, size = window[:2], window[2:] - window[:2]
    cropped = tf.ensure_shape(image[patch[0] : patch[2], patch[1] : patch[3]], [None, None, image.shape[2]])

    def point(y, x):
        return (y - corner[0]) / size[0], (x - corner[1]) / size[1]

    def box(ymin, xmin, ymax, xmax):
        return [tf.clip_by_value(side, 0.0, 1.0) for side in (*point(ymin, xmin), *point(ymax, xmax))]

    raster = lambda raster: raster[:, patch[0] : patch[2], patch[1] : patch[3]]  # noqa: E731
    return keep_rows(move_objects(example, box, point, raster) | {"image": cropped}, keep)


def _check_permutation(permutation):
    if permutation is not None and sorted(permutation) != list(range(len(permutation))):
        raise ValueError(
            f"keypoint_permutation must contain each of 0...N-1 once. Received: keypoint_permutation={permutation}"
        )


def _with_permutation(flip, dataset):
    """The flip with the keypoints' order of a data set, unless it has one; warns where nothing says which is left."""
    if flip.keypoint_permutation is not None or not dataset.num_keypoints:
        return flip
    if not dataset.flip_pairs and not dataset.keypoint_names:
        logging.warning(
            "%s keeps the order of keypoints: the data set has neither flip_pairs nor keypoint_names. Where some are "
            "left and right, pass flip_pairs to the data set.",
            type(flip).__name__,
        )
    return dataclasses.replace(flip, keypoint_permutation=dataset.keypoint_permutation)


def _reorder(example, permutation):
    """The example whose keypoints, and what belongs to them, have the order `permutation`; () and None keep it."""
    import tensorflow as tf

    keys = [field.key for field in schema.object_fields() if field.shape[:1] == ("N",) and field.key in example]
    if not permutation or not keys:
        return example
    count = example[keys[0]].shape[1]
    if count not in (None, len(permutation)):
        raise ValueError(
            f"keypoint_permutation orders all keypoints of an object. Received {len(permutation)} places for "
            f"{count} keypoints."
        )
    return example | {key: tf.gather(example[key], list(permutation), axis=1) for key in keys}


def _mirror_columns(example):
    import tensorflow as tf

    example = example | {"image": tf.reverse(example["image"], [1])}
    return move_objects(
        example,
        box=lambda ymin, xmin, ymax, xmax: (ymin, 1.0 - xmax, ymax, 1.0 - xmin),
        point=lambda y, x: (y, 1.0 - x),
        raster=lambda raster: tf.reverse(raster, [2]),
    )


def _mirror_rows(example):
    import tensorflow as tf

    example = example | {"image": tf.reverse(example["image"], [0])}
    return move_objects(
        example,
        box=lambda ymin, xmin, ymax, xmax: (1.0 - ymax, xmin, 1.0 - ymin, xmax),
        point=lambda y, x: (1.0 - y, x),
        raster=lambda raster: tf.reverse(raster, [1]),
    )


def _quarter_turn(example):
    """To the left: the right edge becomes the top."""
    import tensorflow as tf

    example = example | {"image": tf.reverse(tf.transpose(example["image"], (1, 0, 2)), [0])}
    return move_objects(
        example,
        box=lambda ymin, xmin, ymax, xmax: (1.0 - xmax, ymin, 1.0 - xmin, ymax),
        point=lambda y, x: (1.0 - x, y),
        raster=lambda raster: tf.reverse(tf.transpose(raster, (0, 2, 1)), [1]),
    )


def _center_inside(boxes, windows):
    """[windows, boxes] bool: whether a box's center is strictly inside a window."""
    import tensorflow as tf

    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    after = centers[None] > windows[:, None, :2]
    before = centers[None] < windows[:, None, 2:]
    return tf.reduce_all(after & before, axis=-1)


def _iou(windows, boxes):
    """[windows, boxes] intersection over union."""
    import tensorflow as tf

    low = tf.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = tf.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    intersection = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
    union = _area(windows)[:, None] + _area(boxes)[None] - intersection
    return tf.math.divide_no_nan(intersection, union)


def _area(boxes):
    import tensorflow as tf

    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
