"""Masks of a CenterNet: for each class one mask of the whole image, from which the boxes of objects are cut."""

from typing import Any, NamedTuple

from keras import ops

from keras_detect import schema
from keras_detect.boxes import heatmaps
from keras_detect.heads.box_predictor import checked_num_classes
from keras_detect.kernels.rasters import crop_planes, crop_rasters
from keras_detect.losses.classification import SigmoidCrossEntropyLoss
from keras_detect.meta_architectures.center_net_tasks import Task
from keras_detect.meta_architectures.raster_windows import in_rasters
from keras_detect.registry import serializable
from keras_detect.transforms.resizers import two_sides


@serializable
class MaskTask(Task):
    """Instance masks from masks of classes (upstream's `mask_estimation_task`).

    The mask of a class is the union of its objects' masks, so that objects of one class that overlap share their
    pixels: each has what of the class's mask is in its box. An object without a mask teaches nothing within its box.

    Args:
        num_classes: K.
        mask_loss: part `(logits, targets, weights)`, `[B, A, K]` -> `[B, A, K]` or `[B, A]`.
        loss_weight: factor of the loss.
        mask_size: `(height, width)`, or one side, of the masks of detections.
        threshold: probability from which on a cell belongs to the object.
        mask_bias: start of the head's bias; -2.19 is the probability 0.1.
        name: of the task.
        **kwargs: `heads` as in `Task`; Keras' own `dtype`, `trainable`. The head is "mask".

    Raises:
        ValueError: no class, a size below 1, or a threshold outside (0, 1).
    """

    checkpoint_family = "center_net_masks"
    settings = ("num_classes", "mask_loss", "loss_weight", "mask_size", "threshold", "mask_bias")
    ground_truth_keys = (schema.MASKS,)
    needs_boxes = True

    def __init__(
        self,
        *,
        num_classes: int,
        mask_loss: Any = None,
        loss_weight: float = 1.0,
        mask_size: Any = 64,
        threshold: float = 0.5,
        mask_bias: float = -2.19,
        name: str = "masks",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.num_classes = checked_num_classes(num_classes)
        self.mask_loss, self.loss_weight = mask_loss or SigmoidCrossEntropyLoss(), loss_weight
        self.mask_size, self.threshold, self.mask_bias = two_sides(mask_size), threshold, mask_bias
        self.loss_names = (f"{name}_loss",)
        if min(self.mask_size) < 1:
            raise ValueError(f"mask_size must be at least 1. Received: mask_size={mask_size!r}")
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"threshold must be in (0, 1). Received: threshold={threshold!r}")

    def check_classes(self, num_classes: int) -> None:
        if self.num_classes != num_classes:
            raise ValueError(
                f"The task '{self.name}' has the classes of the model, {num_classes}. Received: "
                f"num_classes={self.num_classes}."
            )

    def channels(self) -> dict[str, tuple[int, float]]:
        return {"mask": (self.num_classes, self.mask_bias)}

    def targets(self, y: Any, frame: Any, size: tuple[int, int]) -> Any:
        """`MaskTargets` of a batch; `size` is `(height, width)` of the maps in cells."""
        if schema.MASKS not in y:
            raise ValueError(
                f"The task '{self.name}' learns y['{schema.MASKS}'] [B, M, H, W], 1 on the object. Received y with: "
                f"{', '.join(sorted(y))}. Batches of a data set with masks have them."
            )
        rasters, valid = ops.convert_to_tensor(y[schema.MASKS]), y["valid"]
        masks = _at_cells(rasters, frame, size) * ops.cast(valid, "float32")[..., None, None]
        batch, number = ops.shape(valid)
        segments = ops.expand_dims(ops.arange(batch, dtype="int32"), -1) * self.num_classes
        segments = segments + ops.clip(y[schema.LABELS], 0, self.num_classes - 1)
        planes = ops.reshape(masks, (batch * number, size[0] * size[1]))
        union = ops.segment_max(planes, ops.reshape(segments, (batch * number,)), num_segments=batch * self.num_classes)
        union = ops.reshape(ops.clip(union, 0.0, 1.0), (batch, self.num_classes, *size))
        return MaskTargets(
            masks=ops.stop_gradient(ops.transpose(union, (0, 2, 3, 1))),
            weights=_cell_weights(y, rasters, frame, size),
        )

    def compute_losses(self, y: Any, predictions: dict[str, Any], frame: Any) -> dict[str, Any]:
        maps = self.maps(predictions, "mask")
        size = tuple(ops.shape(maps[0])[1:3])
        targets = self.targets(y, frame, size)
        flat = (-1, size[0] * size[1], self.num_classes)
        weights = ops.reshape(targets.weights, (-1, size[0] * size[1], 1))
        wanted = ops.reshape(targets.masks, flat)
        total = sum(ops.sum(self.mask_loss(ops.reshape(logits, flat), wanted, weights)) for logits in maps)
        count = len(maps) * ops.maximum(ops.sum(weights), 1.0)
        return {self.loss_names[0]: self.loss_weight * total / count}

    def decode(self, predictions: dict[str, Any], centers: Any, frame: Any) -> dict[str, Any]:
        """Masks over the boxes, float32 in 0...1, from 0.5 on where the probability reaches `threshold`."""
        maps = self.maps(predictions, "mask")[-1]
        planes = ops.transpose(ops.sigmoid(maps), (0, 3, 1, 2))
        canvas = ops.cast(ops.stack(ops.shape(maps)[1:3]), "float32") * float(frame.stride)
        share = ops.cast(frame.true_image_shapes[:, :2], "float32") / canvas
        boxes = ops.clip(frame.normalized(centers.boxes), 0.0, 1.0) * ops.tile(share[:, None], (1, 1, 2))
        masks = crop_planes(planes, centers.peaks.labels, boxes, self.mask_size)
        if self.threshold != 0.5:
            above = 0.5 + (masks - self.threshold) * (0.5 / (1.0 - self.threshold))
            masks = ops.where(masks < self.threshold, masks * (0.5 / self.threshold), above)
        return {schema.MASKS: masks}


class MaskTargets(NamedTuple):
    """What `MaskTask` learns.

    Attributes:
        masks: `[B, h, w, K]` in 0...1, the union of the masks of each class.
        weights: `[B, h, w]`, 0 outside of the true image and in the boxes of objects without a mask, elsewhere in boxes
            the largest `"mask_weights"` of an object there, where y has them, else 1.
    """

    masks: Any
    weights: Any


def _at_cells(rasters, frame, size):
    """`[B, M, h, w]` float32: the masks, resized bilinearly to the cells as upstream does (no smoothing)."""
    batch, number = ops.shape(rasters)[:2]
    sides = ops.cast(ops.stack(ops.shape(rasters)[2:4]), "float32")
    first = float(frame.stride) / 2.0
    last = ops.cast(ops.stack(size), "float32") * float(frame.stride) - first
    centers = ops.concatenate([ops.full((2,), first), last]) / ops.tile(frame.image_shape, (2,))
    boxes = ops.broadcast_to(centers, (batch, 1, 4))
    boxes = in_rasters(boxes, frame.window(), frame.raster_windows)
    # from shares of the raster's sides to shares of the way between its outermost pixels' centers
    edges = ops.tile(sides, (2,))
    boxes = (boxes * edges - 0.5) / ops.maximum(edges - 1.0, 1.0)
    rows = ops.broadcast_to(ops.arange(number, dtype="int32"), (batch, number))
    return crop_rasters(rasters, rows, ops.broadcast_to(boxes, (batch, number, 4)), size)


def _cell_weights(y, rasters, frame, size):
    boxes, valid = frame.cells(y[schema.BOXES]), y["valid"]
    whole = heatmaps.true_cells(frame.true_image_shapes, frame.stride, size)
    masked = ops.max(ops.cast(rasters > 0, "float32"), axis=(2, 3)) > 0.0
    given = y.get("mask_weights")
    if given is not None:
        masked = ops.logical_and(masked, given > 0.0)
        whole = whole * _largest_in_boxes(boxes, ops.where(ops.logical_and(valid, masked), given, 0.0), size)
    ignored = heatmaps.inside_boxes(boxes, ops.logical_and(valid, ops.logical_not(masked)), size)
    return ops.where(ignored, 0.0, whole)


def _largest_in_boxes(boxes, weights, size):
    """`[B, h, w]`: in each cell the largest of the positive `weights [B, R]` of the boxes that hold it, else 1."""
    rows, columns = ops.arange(size[0], dtype="float32"), ops.arange(size[1], dtype="float32")
    in_rows = ops.logical_and(rows >= boxes[..., 0:1], rows < boxes[..., 2:3])
    in_columns = ops.logical_and(columns >= boxes[..., 1:2], columns < boxes[..., 3:4])
    inside = ops.logical_and(in_rows[..., :, None], in_columns[..., None, :])
    largest = ops.max(ops.where(inside, weights[..., None, None], 0.0), axis=1)
    return ops.where(largest > 0.0, largest, 1.0)
