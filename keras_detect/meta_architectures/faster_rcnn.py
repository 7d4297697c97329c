"""The two-stage detector: proposals first, then a class and a better box for each of them."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_detect import schema
from keras_detect.boxes.postprocessing import FinalStage
from keras_detect.meta_architectures import faster_rcnn_defaults as defaults
from keras_detect.meta_architectures import starting_weights
from keras_detect.meta_architectures.class_prior import set_class_prior
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.ground_truth import NUM_POSITIVES, in_padded_frame, split_inputs
from keras_detect.meta_architectures.pretrained import from_torchvision
from keras_detect.meta_architectures.resize_first import ResizeFirst
from keras_detect.meta_architectures.two_stage import GroundTruth
from keras_detect.registry import serializable
from keras_detect.transforms.resizing import true_window

VALIDATION_SEED = 0  # validation losses use the same sample every time


@serializable
class FasterRCNN(ResizeFirst, DetectionModel):
    """Faster R-CNN (Ren et al. 2015, arXiv:1506.01497), with or without a feature pyramid.

    `FasterRCNN.from_backbone` builds one with sensible parts; this constructor takes every part.

    `call(training=True)` stops behind the proposals; `compute_losses` samples them against the ground truth and runs
    the second stage on the sample. With `training=False` the second stage runs in `call`, on all proposals.

    Args:
        resizer: image resizer; runs before the pixel scaling, so padding is a scaled black pixel.
        feature_extractor: `FasterRCNNFeatureExtractor`: feature maps of an image, and the network on RoI features.
        region_predictor: layer, feature maps -> box codes and objectness of the anchors.
        proposal_stage: `ProposalStage`.
        cropper: part, feature maps and boxes -> RoI features; `RegionCropper`. `None` with one stage.
        box_predictor: layer, box classifier features -> box codes and class logits. `None` with one stage.
        box_stage: `BoxStage`. `None` with one stage.
        number_of_stages: 2, or 1 for the proposals alone: detections of one class, "object".
        class_names: sequence of K strings or `None`.
        freeze_batchnorm: batch norm runs in inference mode and does not train, for small batches: True, False, or
            "backbone", there alone.
        seed: of the samplers.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: parts that do not fit each other or the number of stages.
    """

    checkpoint_family = "faster_rcnn"
    parts: tuple[str, ...] = (
        "resizer",
        "feature_extractor",
        "region_predictor",
        "proposal_stage",
        "cropper",
        "box_predictor",
        "box_stage",
    )
    settings: tuple[str, ...] = ("number_of_stages", "freeze_batchnorm", "seed")
    reported_names = (NUM_POSITIVES,)
    crops_detections = False  # whether a third stage needs the feature maps at inference

    def __init__(
        self,
        *,
        resizer: Any,
        feature_extractor: Any,
        region_predictor: Any,
        proposal_stage: Any,
        cropper: Any = None,
        box_predictor: Any = None,
        box_stage: Any = None,
        number_of_stages: int = 2,
        class_names: Sequence[str] | None = None,
        freeze_batchnorm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(resizer=resizer, class_names=class_names, **kwargs)
        self.set_parts(
            feature_extractor=feature_extractor,
            region_predictor=region_predictor,
            proposal_stage=proposal_stage,
            cropper=cropper,
            box_predictor=box_predictor,
            box_stage=box_stage,
            number_of_stages=number_of_stages,
            seed=seed,
        )
        self.freeze_batch_norm(freeze_batchnorm)
        self.finish_init()

    def set_parts(self, *, number_of_stages: int, seed: int | None, **parts: Any) -> None:
        """Takes the parts of both stages, checks that they fit and builds the predictors."""
        for name, part in parts.items():
            setattr(self, name, part)
        self.number_of_stages, self.seed = number_of_stages, seed
        self.sample_seed = keras.random.SeedGenerator(seed)
        self._check_parts()
        maps = self.feature_extractor.extract_proposal_features(keras.Input((None, None, 3)))
        if not self.region_predictor.built:
            self.region_predictor.build([tensor.shape for tensor in maps])
        if number_of_stages == 2 and not self.box_predictor.built:
            self.box_predictor.build(self._box_classifier_shape(maps))

    def _box_classifier_shape(self, maps):
        """Shape of the box classifier's features of proposals on such maps."""
        crops = keras.Input((*self.cropper.output_size, maps[0].shape[-1]))
        return self.feature_extractor.extract_box_classifier_features(crops).shape

    def _second_stage(self):
        """The parts of the second stage by name."""
        return {"cropper": self.cropper, "box_predictor": self.box_predictor, "box_stage": self.box_stage}

    def _check_parts(self):
        anchors = tuple(self.proposal_stage.anchor_generator.num_anchors_per_location())
        if anchors != tuple(self.region_predictor.num_anchors_per_location):
            raise ValueError(
                "The region predictor and the anchor generator must agree on the anchors per location. Received: "
                f"{tuple(self.region_predictor.num_anchors_per_location)} in the predictor, {anchors} in the "
                "generator. Build the predictor with anchor_generator.num_anchors_per_location()."
            )
        second = self._second_stage()
        missing = [name for name, part in second.items() if part is None]
        if self.number_of_stages not in (1, 2) or (self.number_of_stages == 2 and missing):
            raise ValueError(
                f"number_of_stages is 1 (proposals) or 2 (detections, which needs {', '.join(second)}). "
                f"Received: number_of_stages={self.number_of_stages!r}, without {missing}."
            )
        if self.number_of_stages == 1 and len(missing) < len(second):
            given = [name for name in second if name not in missing]
            raise ValueError(
                f"A one-stage model has no second stage. Received: number_of_stages=1 and {given}. Remove them."
            )

    @property
    def loss_names(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant of a class elsewhere
        first = ("rpn_localization_loss", "rpn_objectness_loss")
        return first if self.number_of_stages == 1 else (*first, "localization_loss", "classification_loss")

    @property
    def num_classes(self) -> int:
        return 1 if self.number_of_stages == 1 else self.box_predictor.num_classes

    @property
    def num_detections(self) -> int:
        return self.final_suppression.max_total_detections

    @property
    def final_suppression(self) -> Any:
        """The suppression that the detections come from."""
        stage = self.proposal_stage if self.number_of_stages == 1 else self.box_stage
        return stage.postprocessor.nms

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
        """A Faster R-CNN with default parts around a backbone.

        Args:
            backbone: a registered name ("resnet_v1_50"), a `Backbone`, the name of a network in
                `keras.applications` or KerasCV, or a functional Keras model, as in `SSD.from_backbone`.
            num_classes: K; may be omitted when `class_names` or a finished `box_predictor` is given.
            image_size: int, the side of the square into which images are fitted, aspect ratio kept and padded; or
                `(height, width)` to which they are stretched; default: 640.
            class_names: sequence of K strings.
            neck: `None` takes proposals and RoI features from one level of the backbone and runs the rest of the
                backbone on the RoI features. A registered name ("fpn", "bifpn") or a neck part takes both from a
                pyramid, from P2 on where the backbone has C2, else from P3, with two dense layers on the RoI features.
            weights: what the backbone starts from, as in `SSD.from_backbone`.
            **parts: any argument of the constructor, instead of the default part; `box_predictor` may be a registered
                name. Further: `split`, the level of a backbone without neck (default: the backbone's `split_level`);
                `preprocess`, pixel scaling of a wrapped Keras model; `anchor_generator`, a part or a registered name,
                for the default `proposal_stage`; `classification_loss` and `localization_loss`, likewise, for the
                default `box_stage`.

        Raises:
            TypeError: an unknown argument; similar names are listed.
            ValueError: an unknown name of a part, an argument that another one leaves without effect, neither
                `num_classes` nor `class_names`, a backbone without the split level.
            OSError: ImageNet weights that are not cached and cannot be fetched.
        """
        starting_weights.check_imagenet(weights)
        built = starting_weights.prepared(backbone, weights)
        own = {"backbone": built, "num_classes": num_classes, "image_size": image_size, "neck": neck}
        model = cls(**cls.with_defaults({**own, "class_names": class_names, **parts}))
        if not isinstance(parts.get("box_predictor"), keras.layers.Layer):
            set_class_prior(model)
        return starting_weights.load(model, backbone, weights)

    @classmethod
    def with_defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The constructor's arguments of what `from_backbone` was given."""
        return defaults.complete(cls, given)

    @classmethod
    def from_torchvision(
        cls,
        name: str = "fasterrcnn_resnet50_fpn",
        *,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        weights: Any = None,
        **parts: Any,
    ) -> Any:
        """A detector that computes what torchvision's does, pixels to detections.

        Args:
            name: "fasterrcnn_resnet50_fpn" or "fasterrcnn_resnet50_fpn_v2".
            num_classes: K, the background not counted (torchvision counts it); default: COCO's 90 ids.
            class_names: sequence of K strings; default: COCO's, for 90 classes.
            weights: path of a state dict (`.pth` where torch is installed, `.safetensors`), which `restore` reads;
                default: a random start.
            **parts: any argument of `from_backbone`, instead of torchvision's.

        Raises:
            ValueError: an unknown name; weights that do not fit.
            TypeError, FileNotFoundError, ImportError: as `from_backbone` and `restore`.
        """
        return from_torchvision(cls, "FasterRCNN", name, num_classes, class_names, weights, parts)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Raw predictions.

        `inputs` is what `preprocess` returned; a bare image tensor means that nothing is padded.

        Returns:
            Dict of `"rpn_box_encodings"` `[B, A, code]`, `"rpn_objectness"` `[B, A, 2]`, `"anchors"` `[A, 4]`,
            `"image_shape"` `[2]`, `"proposals"` `[B, P, 4]`, `"num_proposals"` `[B]`; then, with two stages, in
            training the feature maps `"features_to_crop"`, else `"box_encodings"` `[B, P, 1 or K, code]` and
            `"class_logits"` `[B, P, K + 1]`. Boxes are normalized to the preprocessed image.
        """
        images, true_image_shapes = split_inputs(inputs)
        maps = self.feature_extractor.extract_proposal_features(images, training=training)
        predictions = self.region_predictor(maps, training=training)
        image_shape = tuple(ops.shape(images)[1:3])
        shapes = [tuple(ops.shape(feature_map)[1:3]) for feature_map in maps]
        anchors = self.proposal_stage.anchors(shapes, image_shape, training)
        predictions[schema.ANCHORS] = ops.convert_to_tensor(anchors, "float32")
        predictions[schema.IMAGE_SHAPE] = ops.cast(ops.stack(image_shape), "float32")
        if self.proposal_stage.postprocessor.needs_levels:
            numbers = self.proposal_stage.anchor_generator.level_numbers(shapes)
            predictions[schema.ANCHOR_LEVELS] = ops.convert_to_tensor(numbers)
        if true_image_shapes is None:
            window = ops.broadcast_to(ops.array([0.0, 0.0, 1.0, 1.0], "float32"), (ops.shape(images)[0], 4))
        else:
            window = true_window(true_image_shapes, predictions[schema.IMAGE_SHAPE])
        proposals, number = self.proposal_stage.propose(predictions, window)
        predictions[schema.PROPOSALS], predictions[schema.NUM_PROPOSALS] = proposals, number
        if self.number_of_stages == 2:
            if training:
                predictions[schema.FEATURES_TO_CROP] = maps
            else:
                if self.crops_detections:  # tensors by name, as exporters take them
                    predictions.update({f"{schema.FEATURES_TO_CROP}_{level}": map_ for level, map_ in enumerate(maps)})
                predictions.update(self.classify(maps, proposals, image_shape, training=False))
        return predictions

    def classify(
        self, feature_maps: Any, proposals: Any, image_shape: Any, training: bool | None = None
    ) -> dict[str, Any]:
        """The second stage on `proposals [B, P, 4]`: `{"box_encodings", "class_logits"}` as in `call`."""
        return self.box_predictor(self.roi_features(feature_maps, proposals, image_shape, training), training=training)

    def roi_features(self, feature_maps: Any, boxes: Any, image_shape: Any, training: bool | None = None) -> Any:
        """`[B, P, h, w, D]`, what the box classifier sees of each of `boxes [B, P, 4]`."""
        crops = self.cropper(feature_maps, boxes, image_shape)
        batch, number = ops.shape(crops)[:2]
        flat = ops.reshape(crops, (-1, *crops.shape[2:]))
        features = self.feature_extractor.extract_box_classifier_features(flat, training=training)
        return ops.reshape(features, (batch, number, *ops.shape(features)[1:]))

    def compute_losses(
        self, y: Any, predictions: dict[str, Any], inputs: Any, training: bool | None = True
    ) -> dict[str, Any]:
        """One float32 scalar for each of `loss_names`, and `"num_positives"`; `y` comes from `clean_ground_truth`.

        Positives are the sampled proposals that learn a box, per image; with one stage, the sampled anchors.
        In training, the second stage runs here, on a sample of the proposals.
        """
        ground_truth = self._ground_truth(y, predictions, inputs)
        seed = self.sample_seed if training else VALIDATION_SEED
        *losses, positives = self.proposal_stage.losses(predictions, ground_truth, seed)
        if self.number_of_stages == 2:
            proposals, number = predictions[schema.PROPOSALS], predictions[schema.NUM_PROPOSALS]
            if training:
                proposals, number = self.box_stage.sample(proposals, number, ground_truth, seed)
                proposals = ops.stop_gradient(proposals)
                image_shape = tuple(ops.shape(inputs[schema.IMAGES])[1:3])
                maps = predictions[schema.FEATURES_TO_CROP]
                predictions = predictions | self.classify(maps, proposals, image_shape, training)
                predictions |= {schema.PROPOSALS: proposals, schema.NUM_PROPOSALS: number}
            *second, positives = self.box_stage.losses(predictions, proposals, number, ground_truth)
            losses += [*second, *self.further_losses(y, predictions, inputs, ground_truth, training)]
        return {**dict(zip(self.loss_names, losses, strict=True)), NUM_POSITIVES: positives}

    def further_losses(
        self, y: Any, predictions: dict[str, Any], inputs: Any, ground_truth: Any, training: bool | None
    ) -> list[Any]:
        """Losses of a third stage, in the order of `loss_names`.

        Args:
            y, inputs, training: as in `compute_losses`.
            predictions: what `call` returned; in training with the sampled proposals, and the second stage on them.
            ground_truth: `GroundTruth`, in the frame of the preprocessed image.
        """
        return []

    def _ground_truth(self, y, predictions, inputs):
        """Ground truth in the frame of the preprocessed image."""
        y = in_padded_frame(y, inputs[schema.TRUE_IMAGE_SHAPES], predictions[schema.IMAGE_SHAPE])
        labels = ops.zeros_like(y[schema.LABELS]) if self.number_of_stages == 1 else y[schema.LABELS]
        targets = ops.one_hot(labels + 1, self.num_classes + 1, dtype="float32")
        targets = ops.where(y["valid"][..., None], targets, 0.0)
        return GroundTruth(boxes=y[schema.BOXES], class_targets=targets, weights=y[schema.WEIGHTS], valid=y["valid"])

    def final_stage(self, predictions: dict[str, Any], true_image_shapes: Any) -> FinalStage:
        """`FinalStage`: what `postprocess` selects the detections from; export reads the raw boxes and scores here."""
        window = true_window(true_image_shapes, predictions[schema.IMAGE_SHAPE])
        if self.number_of_stages == 1:
            return self.proposal_stage.final_stage(predictions, window)
        return FinalStage(
            self.box_stage.postprocessor,
            predictions[schema.BOX_ENCODINGS],
            predictions[schema.CLASS_LOGITS],
            predictions[schema.PROPOSALS],
            self.box_stage.target_assigner.box_coder,
            window,
            predictions[schema.NUM_PROPOSALS],
            raw_boxes_clipped=True,
        )

    def postprocess(self, predictions: dict[str, Any], true_image_shapes: Any) -> dict[str, Any]:
        """Detections (`schema`), normalized to the true image. One stage finds objects of class 0."""
        stage = self.final_stage(predictions, true_image_shapes)
        return stage.detections(stage.select())

    def save_own_variables(self, store: Any) -> None:
        """Keeps the samplers' state, which Keras leaves out, so that training continues as if it had not stopped."""
        store["sample_seed"] = ops.convert_to_numpy(self.sample_seed.state)

    def load_own_variables(self, store: Any) -> None:
        if "sample_seed" in store.keys():  # noqa: SIM118 (Keras' store has no `in` of its own)
            self.sample_seed.state.assign(store["sample_seed"])
