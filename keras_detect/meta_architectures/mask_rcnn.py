"""Faster R-CNN with a third stage: a mask for each detection."""

import functools
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_detect import schema
from keras_detect.boxes.postprocessing import FinalStage
from keras_detect.heads.mask_predictor import MaskPredictor
from keras_detect.kernels.gather import gather_rows
from keras_detect.kernels.rasters import crop_rasters
from keras_detect.kernels.top_k import top_k
from keras_detect.layers.region_cropper import RegionCropper
from keras_detect.losses.classification import SigmoidCrossEntropyLoss
from keras_detect.meta_architectures import faster_rcnn_defaults as defaults
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.meta_architectures.raster_windows import in_rasters, with_raster_windows
from keras_detect.meta_architectures.two_stage import leading
from keras_detect.registry import part, serializable
from keras_detect.transforms.resizing import true_window

_OWN = ("mask_predictor", "mask_stage")


@part
class MaskStage:
    """Third stage: where the features of the masks come from, and their loss.

    The loss is the mean over all cells of the masks of all positives of the batch.

    Args:
        cropper: part, feature maps and boxes -> RoI features for the masks; `RegionCropper`. `None`: the masks are
            predicted from what the box classifier sees (upstream).
        loss: part `(logits, targets, weights) -> [B, A, K]`.
        loss_weight: factor of the loss.
    """

    cropper: Any = None
    loss: Any = SigmoidCrossEntropyLoss()
    loss_weight: float = 1.0

    def losses(self, logits: Any, targets: Any, weights: Any) -> Any:
        """The loss, a float32 scalar, of masks `[B, P, h, w]`, by weights `[B, P]`."""
        batch, number, height, width = ops.shape(targets)
        cells = (batch, number, height * width)
        losses = self.loss(ops.reshape(logits, cells), ops.reshape(targets, cells), weights[..., None])
        return self.loss_weight * ops.sum(losses) / ops.maximum(ops.sum(weights) * float(height * width), 1.0)


@serializable
class MaskRCNN(FasterRCNN):
    """Mask R-CNN (He et al. 2017, arXiv:1703.06870), with or without a feature pyramid.

    `MaskRCNN.from_backbone` builds one with sensible parts; this constructor takes every part. Detections have
    `"masks"` `[B, D, h, w]` in the frame of their boxes; `keras_detect.masks` brings them onto the image.

    In training the masks of the positive proposals of the sample are learned, each as its class. At inference the final
    detections are cropped again, and of each the mask of its class alone is computed. `y` has `"masks"`
    `[B, M, H, W]` over the images of `x`; an object whose mask is empty teaches its box and its class only, and so does
    one with a `"mask_weights"` of 0.

    Args:
        resizer: as in `FasterRCNN`.
        feature_extractor: as in `FasterRCNN`.
        region_predictor: as in `FasterRCNN`.
        proposal_stage: as in `FasterRCNN`.
        cropper: as in `FasterRCNN`.
        box_predictor: as in `FasterRCNN`.
        box_stage: as in `FasterRCNN`.
        mask_predictor: layer, features of regions and their classes -> logits of masks; `MaskPredictor`.
        mask_stage: `MaskStage`.
        class_names: sequence of K strings or `None`.
        freeze_batchnorm: as in `FasterRCNN`.
        seed: of the samplers.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: parts that do not fit each other.
    """

    parts = (*FasterRCNN.parts, *_OWN)
    settings = ("freeze_batchnorm", "seed")
    class_head = rf"{FasterRCNN.class_head}|mask_predictor/mask_head/.*"
    ground_truth_keys = (schema.MASKS,)
    crops_detections = True

    def __init__(
        self,
        *,
        resizer: Any,
        feature_extractor: Any,
        region_predictor: Any,
        proposal_stage: Any,
        cropper: Any,
        box_predictor: Any,
        box_stage: Any,
        mask_predictor: Any,
        mask_stage: Any,
        class_names: Sequence[str] | None = None,
        freeze_batchnorm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        DetectionModel.__init__(self, resizer=resizer, class_names=class_names, **kwargs)
        self.mask_predictor, self.mask_stage = mask_predictor, mask_stage
        self.set_parts(
            feature_extractor=feature_extractor,
            region_predictor=region_predictor,
            proposal_stage=proposal_stage,
            cropper=cropper,
            box_predictor=box_predictor,
            box_stage=box_stage,
            number_of_stages=2,
            seed=seed,
        )
        if not mask_predictor.built:
            mask_predictor.build(self._mask_features_shape())
        self.freeze_batch_norm(freeze_batchnorm)
        self.finish_init()

    def _check_parts(self):
        super()._check_parts()
        if self.mask_predictor.num_classes != self.box_predictor.num_classes:
            raise ValueError(
                "Boxes and masks must be of the same classes. Received: a box_predictor for "
                f"{self.box_predictor.num_classes} and a mask_predictor for {self.mask_predictor.num_classes}. Build "
                "both with the same num_classes."
            )

    def _mask_features_shape(self):
        maps = self.feature_extractor.extract_proposal_features(keras.Input((None, None, 3)))
        if self.mask_stage.cropper is None:
            return self._box_classifier_shape(maps)
        return (None, *self.mask_stage.cropper.output_size, maps[0].shape[-1])

    @property
    def loss_names(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant of a class elsewhere
        return (*super().loss_names, "mask_loss")

    @classmethod
    def from_backbone(cls, backbone: Any = None, **arguments: Any) -> Self:
        """A Mask R-CNN with default parts around a backbone.

        Args:
            backbone: as in `FasterRCNN.from_backbone`.
            **arguments: as there, without `number_of_stages`; and `mask_predictor` and `mask_stage`, by default masks
                of 28 x 28 cells for each class, from 14 x 14 samples of each region.

        Raises:
            TypeError, ValueError, OSError: as `FasterRCNN.from_backbone`.
        """
        return super().from_backbone(backbone, **arguments)

    @classmethod
    def from_torchvision(cls, *_: Any, **__: Any) -> Any:
        """Not supported: raises `ValueError`. `FasterRCNN.from_torchvision` reads torchvision's Faster R-CNNs."""
        raise ValueError(
            "torchvision's Mask R-CNN is not supported. Received: MaskRCNN.from_torchvision. For boxes use "
            "FasterRCNN.from_torchvision, for masks MaskRCNN.from_backbone('resnet_v1_50', neck='fpn')."
        )

    @classmethod
    def with_defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The constructor's arguments of what `from_backbone` was given."""
        if "number_of_stages" in given:
            raise TypeError(
                "A Mask R-CNN has three stages; it takes no number_of_stages. Received: number_of_stages="
                f"{given['number_of_stages']!r}. For boxes or proposals alone use FasterRCNN."
            )
        complete = defaults.complete(cls, given)
        classes = complete["box_predictor"].num_classes
        complete.setdefault("mask_stage", MaskStage(cropper=mask_cropper()))
        if "mask_predictor" not in complete:
            complete["mask_predictor"] = MaskPredictor(num_classes=classes, name="mask_predictor")
        return complete

    def classify(
        self, feature_maps: Any, proposals: Any, image_shape: Any, training: bool | None = None
    ) -> dict[str, Any]:
        """As in `FasterRCNN`; in training with `"roi_features"` where the masks are predicted from them."""
        features = self.roi_features(feature_maps, proposals, image_shape, training)
        found = self.box_predictor(features, training=training)
        if training and self.mask_stage.cropper is None:
            found = {**found, schema.ROI_FEATURES: features}
        return found

    def mask_logits(
        self, feature_maps: Any, boxes: Any, labels: Any, image_shape: Any, training: bool | None = None
    ) -> Any:
        """`[B, P, h, w]` float32: the mask of each of `boxes [B, P, 4]` (preprocessed image) as class `[B, P]`."""
        if self.mask_stage.cropper is None:
            features = self.roi_features(feature_maps, boxes, image_shape, training)
        else:
            features = self.mask_stage.cropper(feature_maps, boxes, image_shape)
        return self._logits(features, labels, training)

    def _logits(self, features, labels, training):
        batch, number = ops.shape(labels)
        flat = ops.reshape(features, (-1, *features.shape[2:]))
        logits = self.mask_predictor(flat, labels=ops.reshape(labels, (-1,)), training=training)
        return ops.reshape(logits, (batch, number, *self.mask_predictor.mask_size))

    def final_stage(self, predictions: dict[str, Any], true_image_shapes: Any) -> FinalStage:
        stage = super().final_stage(predictions, true_image_shapes)
        return stage._replace(further=functools.partial(self._masks, predictions, stage.window))

    def _feature_maps(self, predictions):
        """The feature maps that `call` returned, in training as a list, else each by its level."""
        levels = range(len(self.feature_extractor.strides))
        inference = (predictions[f"{schema.FEATURES_TO_CROP}_{level}"] for level in levels)
        return predictions.get(schema.FEATURES_TO_CROP) or list(inference)

    def _masks(self, predictions, window, found):
        """`{"masks" [B, D, h, w]}` of detections; zeros in padding rows."""
        maps, image_shape = self._feature_maps(predictions), predictions[schema.IMAGE_SHAPE]
        labels = ops.maximum(found.labels, 0)
        logits = self.mask_logits(maps, _on_canvas(found.boxes, window), labels, image_shape, training=False)
        exists = leading(found.num_detections, found.boxes.shape[1])
        return {schema.MASKS: ops.where(exists[..., None, None], ops.sigmoid(logits), 0.0)}

    def further_losses(
        self, y: Any, predictions: dict[str, Any], inputs: Any, ground_truth: Any, training: bool | None
    ) -> list[Any]:
        """The loss of the masks: of the positive proposals in training, else of the detections that match an object."""
        if schema.MASKS not in y:
            raise ValueError(
                f"A Mask R-CNN learns from y['{schema.MASKS}'] [B, M, H, W], 1 on the object. Received y with: "
                f"{', '.join(sorted(y))}. Batches of a data set with masks have them; for boxes alone use FasterRCNN."
            )
        window = true_window(inputs[schema.TRUE_IMAGE_SHAPES], predictions[schema.IMAGE_SHAPE])
        if training:
            boxes, number = predictions[schema.PROPOSALS], predictions[schema.NUM_PROPOSALS]
            count = min(self.box_stage.most_positives, boxes.shape[1])
        else:
            found = self.final_stage(predictions, inputs[schema.TRUE_IMAGE_SHAPES]).select()
            boxes, number = _on_canvas(found.boxes, window), found.num_detections
            count = boxes.shape[1]
        targets = self.box_stage.assign(boxes, ground_truth)
        weights = targets.box_weights * ops.cast(leading(number, boxes.shape[1]), "float32")
        weights = weights * gather_rows(_mask_weights(y), targets.match.matched_row)
        _, chosen = top_k(ops.cast(weights > 0.0, "float32"), count)
        weights, rows = gather_rows(weights, chosen), gather_rows(targets.match.matched_row, chosen)
        labels = gather_rows(ops.maximum(ops.cast(ops.argmax(targets.class_targets, axis=-1), "int32") - 1, 0), chosen)
        boxes = gather_rows(boxes, chosen)
        if schema.ROI_FEATURES in predictions:
            logits = self._logits(gather_rows(predictions[schema.ROI_FEATURES], chosen), labels, training)
        else:
            maps, image_shape = self._feature_maps(predictions), predictions[schema.IMAGE_SHAPE]
            logits = self.mask_logits(maps, boxes, labels, image_shape, training)
        frames = in_rasters(boxes, window, inputs.get(schema.RASTER_WINDOWS))
        wanted = crop_rasters(y[schema.MASKS], rows, frames, self.mask_predictor.mask_size)
        return [self.mask_stage.losses(logits, ops.stop_gradient(wanted), ops.stop_gradient(weights))]

    def _preprocess_data(self, data):
        """Adds where the true image lies in the images of `x`, which the masks of `y` have the frame of."""
        inputs, y, sample_weight = super()._preprocess_data(data)
        return with_raster_windows(inputs, data), y, sample_weight


def mask_cropper():
    """14 x 14 samples of each region."""
    return RegionCropper(crop_size=14, pool_size=1, pool_stride=1)


def _on_canvas(boxes, window):
    """`boxes [B, D, 4]` of the true image, normalized to the preprocessed one; `window [B, 4]` begins at 0."""
    return boxes * ops.tile(window[:, None, 2:], (1, 1, 2))


def _mask_weights(y):
    """`[B, M]`: 0 for an object without a mask."""
    masked = ops.cast(ops.max(y[schema.MASKS], axis=(2, 3)) > 0, "float32")
    return masked * y["mask_weights"] if "mask_weights" in y else masked
