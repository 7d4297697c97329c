"""R-FCN: a two-stage detector whose second stage runs on the whole image, not on each proposal."""

from collections.abc import Sequence
from typing import Any, Self

from keras_detect.heads.position_sensitive import PositionSensitiveBoxPredictor
from keras_detect.meta_architectures import faster_rcnn_defaults as defaults
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.faster_rcnn import FasterRCNN
from keras_detect.registry import serializable

_ABSENT = ("cropper", "number_of_stages")


@serializable
class RFCN(FasterRCNN):
    """R-FCN (Dai et al. 2016, arXiv:1605.06409).

    `RFCN.from_backbone` builds one with sensible parts; this constructor takes every part. Proposals come from one
    level of the backbone, the rest of which runs on the whole map; position-sensitive heads classify the proposals on
    its result, so that a proposal costs hardly anything.

    Args:
        resizer: as in `FasterRCNN`.
        feature_extractor: as in `FasterRCNN`, with one map.
        region_predictor: as in `FasterRCNN`.
        proposal_stage: as in `FasterRCNN`.
        box_predictor: layer, feature map and boxes -> box codes and class logits; `PositionSensitiveBoxPredictor`.
        box_stage: as in `FasterRCNN`.
        class_names: sequence of K strings or `None`.
        freeze_batchnorm: as in `FasterRCNN`.
        seed: of the samplers.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: parts that do not fit each other; a feature extractor with several maps.
    """

    parts = tuple(part for part in FasterRCNN.parts if part not in _ABSENT)
    settings = ("freeze_batchnorm", "seed")

    def __init__(
        self,
        *,
        resizer: Any,
        feature_extractor: Any,
        region_predictor: Any,
        proposal_stage: Any,
        box_predictor: Any,
        box_stage: Any,
        class_names: Sequence[str] | None = None,
        freeze_batchnorm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        DetectionModel.__init__(self, resizer=resizer, class_names=class_names, **kwargs)
        self.set_parts(
            feature_extractor=feature_extractor,
            region_predictor=region_predictor,
            proposal_stage=proposal_stage,
            box_predictor=box_predictor,
            box_stage=box_stage,
            number_of_stages=2,
            seed=seed,
        )
        self.freeze_batch_norm(freeze_batchnorm)
        self.finish_init()

    def _second_stage(self):
        return {"box_predictor": self.box_predictor, "box_stage": self.box_stage}

    def _check_parts(self):
        super()._check_parts()
        if len(self.feature_extractor.strides) != 1:
            raise ValueError(
                "R-FCN takes proposals and classes from one map. Received a feature extractor with "
                f"{len(self.feature_extractor.strides)} maps. Leave out the neck, or use FasterRCNN."
            )

    def _box_classifier_shape(self, maps):
        return self.feature_extractor.extract_box_classifier_features(maps[0]).shape

    @classmethod
    def from_backbone(cls, backbone: Any = None, **arguments: Any) -> Self:
        """An R-FCN with default parts around a backbone.

        The paper's backbone keeps stride 16 to the end: `ResNetV1(stage_strides=(1, 2, 2, 1))`.

        Args:
            backbone: as in `FasterRCNN.from_backbone`.
            **arguments: as there, without `neck`, `cropper` and `number_of_stages`.

        Raises:
            TypeError, ValueError, OSError: as `FasterRCNN.from_backbone`.
        """
        return super().from_backbone(backbone, **arguments)

    @classmethod
    def from_torchvision(cls, *_: Any, **__: Any) -> Any:
        """Not supported: raises `ValueError`. `FasterRCNN.from_torchvision` reads torchvision's Faster R-CNNs."""
        raise ValueError("torchvision has no R-FCN. Received: RFCN.from_torchvision. Use FasterRCNN.from_torchvision.")

    @classmethod
    def with_defaults(cls, given: dict[str, Any]) -> dict[str, Any]:
        """The constructor's arguments of what `from_backbone` was given."""
        received = [name for name in (*_ABSENT, "neck") if given.get(name) is not None]
        if received:
            raise TypeError(
                "R-FCN classifies proposals on one map of the whole image, without RoI features. Received: "
                f"{', '.join(received)}. Leave it out, or use FasterRCNN."
            )
        predictor = given.get("box_predictor") or PositionSensitiveBoxPredictor
        complete = defaults.complete(cls, {**given, "box_predictor": predictor})
        complete.pop("cropper")
        return complete

    def classify(
        self, feature_maps: Any, proposals: Any, image_shape: Any, training: bool | None = None
    ) -> dict[str, Any]:
        """The second stage on `proposals [B, P, 4]`: `{"box_encodings", "class_logits"}` as in `call`."""
        features = self.feature_extractor.extract_box_classifier_features(feature_maps[0], training=training)
        return self.box_predictor(features, proposals, training=training)
