"""Non-maximum suppression of sorted boxes: what greedy suppression keeps, and TensorFlow's kernels.

Classes, thresholds and windows belong to `boxes.nms`.
"""

import numpy as np
from keras import ops

_SMALL_PRODUCT = 512


def earlier_columns(count):
    """`[count, count]` float32 numpy array: 1 where the column comes before the row, else 0."""
    return np.tril(np.ones((count, count), "float32"), -1)


def greedy_keep(suppression, candidate):
    """What greedy suppression keeps of boxes that stand by falling score.

    Keeping box i depends on the boxes before it only, so `keep = candidate and no kept earlier box suppresses` has one
    solution, and iterating it settles at least one more box per round: as many rounds as the longest chain of boxes
    that release one another, a handful in practice.

    Args:
        suppression: `[B, N, N]` float32, 1 where the column's box suppresses the row's; 0 on and above the diagonal.
        candidate: `[B, N]` bool.

    Returns:
        `[B, N]` bool.
    """
    start = ops.cast(candidate, "float32")

    def round_(keep):
        return ops.where(times_column(suppression, keep) > 0.0, 0.0, start)

    def changing(keep, before):
        return ops.any(keep != before)

    def body(keep, before):
        keep = round_(keep)
        return round_(keep), keep

    return ops.while_loop(changing, body, (round_(start), start))[0] > 0.0


def times_column(matrix, column):
    """`[B, N, N]` times `[B, N]`: `[B, N]`. TensorFlow's product takes 70 us for a single pool of 256, the sum 25."""
    if matrix.shape[-1] <= _SMALL_PRODUCT:
        return ops.sum(matrix * column[:, None, :], axis=-1)
    return ops.matmul(matrix, column[:, :, None])[:, :, 0]


# --------------------------------------------------------------------------------------------------------- native forms


def tf_nms(boxes, scores, max_detections, iou_threshold, score_threshold, soft_nms_sigma=0.0):
    """TensorFlow's non-maximum suppression, once per image and class.

    Args:
        boxes: `[B, A, q, 4]` float32; q is 1, or K for boxes per class.
        scores: `[B, A, K]` float32; `-inf` is never selected.
        max_detections: how many each class may keep.
        iou_threshold: a box is suppressed by a better one if their IoU is greater.
        score_threshold: selected scores are greater.
        soft_nms_sigma: above 0 for soft suppression, which XLA cannot compile.

    Returns:
        `(anchors [B, K, max_detections] int32, scores [B, K, max_detections])` by falling score, -inf in padding.
    """
    import tensorflow as tf

    num_anchors, num_classes = tf.shape(scores)[1], scores.shape[2]
    scores = tf.reshape(tf.transpose(scores, [0, 2, 1]), [-1, num_anchors])
    boxes = tf.transpose(boxes, [0, 2, 1, 3])
    settings = {"max_output_size": max_detections, "iou_threshold": iou_threshold, "score_threshold": score_threshold}

    def one(row):
        image, group = row // num_classes, row % num_classes
        row_boxes, row_scores = boxes[image, group if boxes.shape[1] > 1 else 0], scores[row]
        if soft_nms_sigma > 0.0:
            anchors, selected, count = tf.raw_ops.NonMaxSuppressionV5(
                boxes=row_boxes,
                scores=row_scores,
                soft_nms_sigma=soft_nms_sigma,
                pad_to_max_output_size=True,
                **settings,
            )
        else:
            anchors, count = tf.raw_ops.NonMaxSuppressionV4(
                boxes=row_boxes, scores=row_scores, pad_to_max_output_size=True, **settings
            )
            selected = tf.gather(row_scores, anchors)
        return anchors, tf.where(tf.range(max_detections) < count, selected, float("-inf"))

    anchors, selected = tf.map_fn(one, tf.range(tf.shape(scores)[0]), fn_output_signature=(tf.int32, tf.float32))
    shape = [-1, num_classes, max_detections]
    return tf.reshape(anchors, shape), tf.reshape(selected, shape)
