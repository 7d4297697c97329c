"""CenterNet: objects as the peaks of a heatmap, and what tasks predict at them."""

import math
from collections.abc import Sequence
from typing import Any, Self

from keras import ops

from keras_detect import schema
from keras_detect.kernels.gather import gather_rows
from keras_detect.meta_architectures import center_net_defaults, starting_weights
from keras_detect.meta_architectures.center_net_keypoints import KeypointTask
from keras_detect.meta_architectures.center_net_tasks import Frame, ObjectTask
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.ground_truth import (
    NUM_POSITIVES,
    in_padded_frame,
    positives_per_image,
    split_inputs,
)
from keras_detect.meta_architectures.raster_windows import with_raster_windows
from keras_detect.meta_architectures.resize_first import ResizeFirst
from keras_detect.registry import serializable

PROBE = 512  # side of the image whose map sizes tell the stride


@serializable
class CenterNet(ResizeFirst, DetectionModel):
    """Objects as points (Zhou et al. 2019, arXiv:1904.07850): no anchors, and no suppression unless one is given.

    `CenterNet.from_backbone` builds one with sensible parts; this constructor takes every part.

    Args:
        resizer: image resizer; runs before the pixel scaling, so padding is a scaled black pixel.
        feature_extractor: model with `preprocess`, pixels -> dict of feature maps of one stride. All of them learn,
            each with heads of its own, and the last one detects.
        tasks: sequence of tasks (`keras_detect.tasks`) of different names, one of them an `ObjectTask`.
        nms: `MulticlassNonMaxSuppression` over the detections, or `None`.
        class_names: sequence of K strings or `None`.
        freeze_batchnorm: batch norm runs in inference mode and does not train, for small batches: True, False, or
            "backbone", there alone.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: not exactly one `ObjectTask`, two tasks of one name, feature maps of several strides.
    """

    checkpoint_family = "center_net"
    class_head = r".*/(center|mask)_\d+_out/.*"
    parts = ("resizer", "feature_extractor", "tasks", "nms")
    settings = ("freeze_batchnorm",)
    reported_names = (NUM_POSITIVES,)

    def __init__(
        self,
        *,
        resizer: Any,
        feature_extractor: Any,
        tasks: Sequence[Any],
        nms: Any = None,
        class_names: Sequence[str] | None = None,
        freeze_batchnorm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(resizer=resizer, class_names=class_names, **kwargs)
        self.feature_extractor, self.nms = feature_extractor, nms
        self.tasks = list(tasks)
        self._check_tasks()
        self.stride = _stride(feature_extractor)
        shapes = [tensor.shape for tensor in feature_extractor.output.values()]
        for task in self.tasks:
            if not task.built:
                task.build(shapes)
        self.freeze_batch_norm(freeze_batchnorm)
        self.finish_init()

    def _check_tasks(self):
        objects = [task for task in self.tasks if isinstance(task, ObjectTask)]
        if len(objects) != 1:
            raise ValueError(
                "A CenterNet has one ObjectTask, which finds the objects, and any number of other tasks. Received "
                f"tasks: {', '.join(type(task).__name__ for task in self.tasks) or 'none'}."
            )
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"The tasks of a CenterNet have different names. Received: {', '.join(names)}.")
        if not objects[0].boxes and not any(isinstance(task, KeypointTask) for task in self.tasks):
            raise ValueError("An ObjectTask with boxes=False needs keypoints, which its boxes enclose. Received none.")
        self.loss_names = tuple(name for task in self.tasks for name in task.loss_names)
        for task in self.tasks:
            task.check_classes(self.object_task.num_classes)
            if task.needs_boxes and not objects[0].boxes:
                raise ValueError(f"The task '{task.name}' needs boxes. Received: an ObjectTask with boxes=False.")

    @property
    def object_task(self) -> ObjectTask:
        """The task that finds the objects."""
        return next(task for task in self.tasks if isinstance(task, ObjectTask))

    @property
    def ground_truth_keys(self) -> tuple[str, ...]:
        """Keys of y that the tasks learn, beside boxes and labels."""
        return tuple(dict.fromkeys(key for task in self.tasks for key in task.ground_truth_keys))

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]  # a constant of a class elsewhere
        """Pairs of keypoints, counted from 0, that a line joins in drawings: those of all tasks."""
        return tuple(dict.fromkeys(pair for task in self.tasks for pair in task.skeleton))

    @property
    def num_classes(self) -> int:
        return self.object_task.num_classes

    @property
    def num_detections(self) -> int:
        return self.object_task.max_detections if self.nms is None else self.nms.max_total_detections

    @property
    def final_suppression(self) -> Any:
        """The suppression that the detections come from; `None` where there is none."""
        return self.nms

    @classmethod
    def from_backbone(
        cls,
        backbone: Any = None,
        *,
        num_classes: int | None = None,
        image_size: int | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        tasks: Any = ("boxes",),
        neck: Any = None,
        weights: Any = starting_weights.AUTO,
        **parts: Any,
    ) -> Self:
        """A CenterNet with default parts around a backbone.

        Args:
            backbone: a registered name ("mobilenet_v2", "hourglass_104"), a `Backbone`, or a Keras model or its name,
                as in `SSD.from_backbone`; with levels from stride 4 on, or with maps of stride 4 alone.
            num_classes: K; may be omitted when `class_names` or a finished `ObjectTask` is given.
            image_size: side of the square that images are fitted into and padded, or `(height, width)` to which they
                are stretched; default: 512. Multiples of 32 suit every backbone, and of 128 the hourglasses.
            class_names: sequence of K strings.
            tasks: names out of "boxes", "keypoints" and "masks", or task parts (`keras_detect.tasks`); objects are
                always found. "keypoints" are those of the classes `keypoint_classes`.
            neck: a registered name or a neck part with a map of stride 4, "P2"; default: a feature pyramid from C2 on
                ("center_net_pyramid"), nothing over an hourglass.
            weights: what the backbone starts from, as in `SSD.from_backbone`.
            **parts: any argument of the constructor, instead of the default part. Further: `preprocess`, pixel scaling
                of a wrapped Keras model; of the task "keypoints", `num_keypoints`, N (default: COCO's 17 of a person),
                `keypoint_classes`, labels of the objects that have them (default: the first class alone), and
                `skeleton`, pairs of keypoints that a line joins in drawings; `heads`, a `PointHead` for all heads that
                are made here (default: upstream's, with separable convolutions over MobileNet).

        Raises:
            TypeError: an unknown argument; similar names are listed.
            ValueError: an unknown name of a part or a task, an argument that another one leaves without effect, neither
                `num_classes` nor `class_names`, a backbone without a level of stride 4.
            OSError: ImageNet weights that are not cached and cannot be fetched.
        """
        starting_weights.check_imagenet(weights)
        built = starting_weights.prepared(backbone, weights)
        own = {"backbone": built, "num_classes": num_classes, "image_size": image_size, "neck": neck, "tasks": tasks}
        model = cls(**center_net_defaults.complete(cls, {**own, "class_names": class_names, **parts}))
        return starting_weights.load(model, backbone, weights)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Raw predictions: `"task/head"`, a list of `[B, h, w, c]` with one entry per feature map, and `"image_shape"`.

        `inputs` is what `preprocess` returned; a bare image tensor means that nothing is padded.
        """
        images, _ = split_inputs(inputs)
        feature_maps = list(self.feature_extractor(images, training=training).values())
        predictions: dict[str, Any] = {}
        for task in self.tasks:
            predictions |= task(feature_maps, training=training)
        predictions[schema.IMAGE_SHAPE] = ops.cast(ops.stack(ops.shape(images)[1:3]), "float32")
        return predictions

    def compute_losses(
        self, y: Any, predictions: dict[str, Any], inputs: Any, training: bool | None = True
    ) -> dict[str, Any]:
        """One float32 scalar for each of `loss_names`, and `"num_positives"`, the objects per image that count."""
        frame = self._frame(predictions, inputs[schema.TRUE_IMAGE_SHAPES])
        frame = frame._replace(raster_windows=inputs.get(schema.RASTER_WINDOWS))
        y = in_padded_frame(y, frame.true_image_shapes, frame.image_shape)
        losses = {NUM_POSITIVES: positives_per_image(y[schema.WEIGHTS])}
        for task in self.tasks:
            losses |= task.compute_losses(y, predictions, frame)
        return losses

    def postprocess(self, predictions: dict[str, Any], true_image_shapes: Any) -> dict[str, Any]:
        """Detections (`schema`), normalized to the true image, with what the tasks say of each."""
        frame = self._frame(predictions, true_image_shapes)
        centers = self.object_task.find(predictions, frame)
        detections: dict[str, Any] = {}
        for task in self.tasks:
            for key, value in task.decode(predictions, centers, frame).items():
                detections[key] = _together(detections[key], value) if key in detections else value
        if schema.BOXES not in detections:
            detections[schema.BOXES] = _enclosing(detections[schema.KEYPOINTS])
        if self.nms is None:
            return _padded(detections, centers.found)
        return self._suppressed(detections, centers.found)

    def _preprocess_data(self, data):
        """Adds where the true image lies in the images of `x`, which the masks of `y` have the frame of."""
        inputs, y, sample_weight = super()._preprocess_data(data)
        if schema.MASKS in self.ground_truth_keys:
            inputs = with_raster_windows(inputs, data)
        return inputs, y, sample_weight

    def _suppressed(self, detections, found):
        scores = ops.where(found, detections[schema.SCORES], float("-inf"))
        labels = ops.one_hot(detections[schema.LABELS], self.num_classes, dtype="bool")
        per_class = ops.where(labels, ops.expand_dims(scores, -1), float("-inf"))
        kept = self.nms(detections[schema.BOXES], per_class)
        rows = {key: gather_rows(value, kept.indices) for key, value in detections.items()}
        rows |= {schema.BOXES: kept.boxes, schema.SCORES: kept.scores, schema.LABELS: kept.labels}
        return _padded(rows, ops.arange(kept.scores.shape[1], dtype="int32") < kept.num_detections[:, None])

    def _frame(self, predictions, true_image_shapes):
        return Frame(self.stride, predictions[schema.IMAGE_SHAPE], true_image_shapes)


def _enclosing(points):
    """The smallest boxes around `points [B, D, N, 2]`, those of all tasks, within the image."""
    corners = [ops.min(points, axis=2), ops.max(points, axis=2)]
    return ops.clip(ops.concatenate(corners, axis=-1), 0.0, 1.0)


def _together(first, second):
    """Two tasks' values of one field: each has zeros where the other one speaks. The longer axis 2 decides."""
    length = max(first.shape[2], second.shape[2])
    first, second = (
        ops.pad(value, [[0, 0], [0, 0], [0, length - value.shape[2]], *([[0, 0]] * (len(value.shape) - 3))])
        for value in (first, second)
    )
    return first + second


def _padded(detections, found):
    """`detections` with each field's padding in the rows that are not `found [B, D]`, and their number."""
    paddings = {field.key: field.padding for field in schema.object_fields(schema.DETECTIONS)}
    rows = {}
    for key, value in detections.items():
        mask = ops.reshape(found, (*ops.shape(found), *(1,) * (len(value.shape) - 2)))
        rows[key] = ops.where(mask, value, ops.cast(paddings[key], value.dtype))
    return {**rows, schema.NUM_DETECTIONS: ops.sum(ops.cast(found, "int32"), axis=1)}


def _stride(extractor):
    """The one stride of all feature maps."""
    shapes = extractor.compute_output_shape((1, PROBE, PROBE, 3))
    shapes = shapes.values() if isinstance(shapes, dict) else shapes
    strides = {2 ** round(math.log2(PROBE / max(shape[1], 1))) for shape in shapes}
    if len(strides) != 1:
        raise ValueError(
            "The feature maps of a CenterNet have one stride. Received a feature extractor with the strides "
            f"{sorted(strides)}. Choose one map, or maps of one size."
        )
    return strides.pop()
