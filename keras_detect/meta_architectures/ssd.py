"""The single-shot detector: SSD, RetinaNet and EfficientDet are settings of it."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_detect import schema
from keras_detect.boxes.postprocessing import FinalStage, as_detections
from keras_detect.meta_architectures import ssd_defaults, starting_weights
from keras_detect.meta_architectures.class_prior import set_class_prior
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.ground_truth import (
    NUM_POSITIVES,
    in_padded_frame,
    positives_per_image,
    split_inputs,
)
from keras_detect.registry import serializable
from keras_detect.transforms.resizing import true_window


@serializable
class SSD(DetectionModel):
    """Anchors on several feature maps, one box code and one row of class logits for each (Liu et al. 2016).

    `SSD.from_backbone` builds one with sensible parts; this constructor takes every part.

    Args:
        resizer: image resizer; runs after the pixel scaling, so padding is 0 in network units.
        feature_extractor: `SSDFeatureExtractor`, pixels -> list of feature maps.
        box_predictor: layer, feature maps -> box codes and class logits.
        anchor_generator: part, feature map sizes -> anchors `[A, 4]`.
        target_assigner: part that matches anchors with ground truth; holds similarity, matcher and box coder.
        detection_loss: `OneStageLoss`.
        postprocessor: `Postprocessor`; holds score conversion and non-maximum suppression.
        class_names: sequence of K strings or `None`.
        freeze_batchnorm: batch norm runs in inference mode and does not train, for small batches: True, False, or
            "backbone", there alone.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: parts that do not fit each other (numbers of feature maps, background columns, class names).
    """

    checkpoint_family = "ssd"

    parts = (
        "resizer",
        "feature_extractor",
        "box_predictor",
        "anchor_generator",
        "target_assigner",
        "detection_loss",
        "postprocessor",
    )
    settings = ("freeze_batchnorm",)
    loss_names = ("localization_loss", "classification_loss")
    reported_names = (NUM_POSITIVES,)

    def __init__(
        self,
        *,
        resizer: Any,
        feature_extractor: Any,
        box_predictor: Any,
        anchor_generator: Any,
        target_assigner: Any,
        detection_loss: Any,
        postprocessor: Any,
        class_names: Sequence[str] | None = None,
        freeze_batchnorm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(resizer=resizer, class_names=class_names, **kwargs)
        self.feature_extractor = feature_extractor
        self.box_predictor = box_predictor
        self.anchor_generator = anchor_generator
        self.target_assigner = target_assigner
        self.detection_loss = detection_loss
        self.postprocessor = postprocessor
        if postprocessor.has_background != box_predictor.background:
            raise ValueError(
                "The predictor and the post-processor must agree on a background column. Received: "
                f"box_predictor.background={box_predictor.background}, "
                f"postprocessor.has_background={postprocessor.has_background}."
            )
        if tuple(anchor_generator.num_anchors_per_location()) != tuple(box_predictor.num_anchors_per_location):
            raise ValueError(
                "The predictor and the anchor generator must agree on the anchors per location. Received: "
                f"{tuple(box_predictor.num_anchors_per_location)} in the predictor, "
                f"{tuple(anchor_generator.num_anchors_per_location())} in the generator. Build the predictor with "
                "anchor_generator.num_anchors_per_location()."
            )
        if not box_predictor.built:
            box_predictor.build([tensor.shape for tensor in feature_extractor.outputs])
        self.freeze_batch_norm(freeze_batchnorm)
        self.finish_init()

    @property
    def num_classes(self) -> int:
        return self.box_predictor.num_classes

    @property
    def num_detections(self) -> int:
        return self.final_suppression.max_total_detections

    @property
    def final_suppression(self) -> Any:
        """The suppression that the detections come from."""
        return self.postprocessor.nms

    @property
    def box_coder(self) -> Any:
        """The target assigner's box coder: encoding and decoding cannot drift apart."""
        return self.target_assigner.box_coder

    @classmethod
    def from_backbone(
        cls,
        backbone: Any = None,
        *,
        num_classes: int | None = None,
        image_size: int | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        neck: Any = None,
        weights: Any = starting_weights.AUTO,
        **parts: Any,
    ) -> Self:
        """An SSD with default parts around a backbone.

        The anchors follow the neck's levels and the predictor follows the anchors, so that any backbone fits.

        Args:
            backbone: a registered name ("mobilenet_v2"), a `Backbone`, the name of a network in `keras.applications`
                ("MobileNetV3Small"), of a class or preset of KerasCV ("keras_cv/resnet50", fetched by
                KerasCV from Kaggle), or a functional Keras model of keras.applications, KerasCV,
                KerasHub or your own, which `backbones.keras_models.from_keras_model` wraps.
            num_classes: K; may be omitted when `class_names` or a finished `box_predictor` is given.
            image_size: int or `(height, width)` to which images are resized; default: 320.
            class_names: sequence of K strings.
            neck: a registered name or a neck part; default: "ssd" (C3 to C5 and coarser maps, a head on each). "fpn"
                is a feature pyramid P3 to P7 with shared heads (RetinaNet), "bifpn" EfficientDet's.
            weights: what the backbone starts from: "packaged", weights that ship with the package (of "mobilenet_v2":
                the detector `ssd_mobilenet_v2_oidv4`'s, of "inception_v100": `frcnn_inception_v100`'s); "imagenet",
                those of keras.applications, fetched once; the path of anything that `restore` reads with
                `kind="classification"`; or `None`, random. Default: "packaged" for a name whose weights the package
                holds, else random, with a line in the log that says so; a backbone object stays as it is. The model
                notes it as `started_from`.
            **parts: any argument of the constructor, instead of the default part; `anchor_generator` and
                `box_predictor` may be registered names. Further: `preprocess`, pixel scaling of a wrapped Keras model
                as in `from_keras_model`; `matcher`, `classification_loss` and `localization_loss`, a part or a
                registered name each, for the default `target_assigner` and `detection_loss`.

        Raises:
            TypeError: an unknown argument; similar names are listed.
            ValueError: an unknown name of a part, an argument that another one leaves without effect, neither
                `num_classes` nor `class_names`, a Keras model that cannot be a backbone, weights that the
                package does not hold or that do not fit.
            OSError: ImageNet weights that are not cached and cannot be fetched.
        """
        starting_weights.check_imagenet(weights)
        built = starting_weights.prepared(backbone, weights)
        own = {"backbone": built, "num_classes": num_classes, "image_size": image_size, "neck": neck}
        model = cls(**ssd_defaults.complete(cls, {**own, "class_names": class_names, **parts}))
        if not isinstance(parts.get("box_predictor"), keras.layers.Layer):
            set_class_prior(model)
        return starting_weights.load(model, backbone, weights)

    def preprocess(self, images: Any, true_image_shapes: Any = None, resized: bool = False) -> dict[str, Any]:
        """Scales the pixels, then resizes and pads: padding is 0 in network units.

        Args:
            images: `[B, H, W, 3]` uint8 or float in 0...255.
            true_image_shapes: `[B, 3]` int32, or `None` where no image is padded.
            resized: whether the resizer has resized them already: padding is set to 0, nothing is resampled.

        Returns:
            `{"images" [B, h, w, 3] float32, "true_image_shapes" [B, 3] int32}`.
        """
        images = self.feature_extractor.preprocess(ops.cast(images, "float32"))
        images, true_image_shapes = self.resizer(images, true_image_shapes, resized=resized)
        if resized:  # padded before the scaling
            images = self.resizer.filled(images, true_image_shapes)
        return {schema.IMAGES: images, schema.TRUE_IMAGE_SHAPES: true_image_shapes}

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Raw predictions `{"box_encodings" [B, A, code], "class_logits" [B, A, C], "anchors" [A, 4], "image_shape"}`.

        `inputs` is what `preprocess` returned; a bare image tensor means that nothing is padded. Anchors are
        normalized to the preprocessed image, whose `[height, width]` is `"image_shape"`.
        """
        images, _ = split_inputs(inputs)
        feature_maps = self.feature_extractor(images, training=training)
        predictions = self.box_predictor(feature_maps, training=training)
        image_shape = tuple(ops.shape(images)[1:3])
        shapes = [tuple(ops.shape(feature_map)[1:3]) for feature_map in feature_maps]
        predictions[schema.ANCHORS] = ops.convert_to_tensor(self.anchor_generator(shapes, image_shape), "float32")
        predictions[schema.IMAGE_SHAPE] = ops.cast(ops.stack(image_shape), "float32")
        if self.postprocessor.needs_levels:
            predictions[schema.ANCHOR_LEVELS] = ops.convert_to_tensor(self.anchor_generator.level_numbers(shapes))
        return predictions

    def compute_losses(
        self, y: Any, predictions: dict[str, Any], inputs: Any, training: bool | None = True
    ) -> dict[str, Any]:
        """`{"localization_loss", "classification_loss", "num_positives"}`, float32 scalars.

        `y` is what `clean_ground_truth` returned; positives are the anchors that learn a box, per image.
        """
        anchors = predictions[schema.ANCHORS]
        targets = self.assign_targets(y, predictions, inputs)
        localization, classification = self.detection_loss(
            predictions[schema.BOX_ENCODINGS],
            predictions[schema.CLASS_LOGITS],
            targets,
            decode=lambda codes: self.box_coder.decode(codes, anchors),
        )
        return {
            "localization_loss": localization,
            "classification_loss": classification,
            NUM_POSITIVES: positives_per_image(targets.box_weights),
        }

    def assign_targets(self, y: Any, predictions: dict[str, Any], inputs: Any) -> Any:
        """`Targets` of a batch: class targets `[B, A, C]`, box codes `[B, A, code]`, their weights and the match."""
        y = in_padded_frame(y, inputs[schema.TRUE_IMAGE_SHAPES], predictions[schema.IMAGE_SHAPE])
        background = int(self.box_predictor.background)
        columns = self.box_predictor.num_columns
        class_targets = ops.one_hot(y[schema.LABELS] + background, columns, dtype="float32")
        class_targets = ops.where(y["valid"][..., None], class_targets, 0.0)
        unmatched = ops.zeros((columns,))
        if background and not self.detection_loss.background_as_zeros:
            unmatched = ops.one_hot(0, columns, dtype="float32")
        return self.target_assigner(
            predictions[schema.ANCHORS], y[schema.BOXES], class_targets, unmatched, y[schema.WEIGHTS], y["valid"]
        )

    def final_stage(self, predictions: dict[str, Any], true_image_shapes: Any) -> FinalStage:
        """`FinalStage`: what `postprocess` selects the detections from; export reads the raw boxes and scores here."""
        return FinalStage(
            self.postprocessor,
            predictions[schema.BOX_ENCODINGS],
            predictions[schema.CLASS_LOGITS],
            predictions[schema.ANCHORS],
            self.box_coder,
            true_window(true_image_shapes, predictions[schema.IMAGE_SHAPE]),
            levels=self.postprocessor.levels(predictions, self.anchor_generator),
        )

    def postprocess(self, predictions: dict[str, Any], true_image_shapes: Any) -> dict[str, Any]:
        """Detections (`schema`), normalized to the true image."""
        return as_detections(self.final_stage(predictions, true_image_shapes).select())
