"""RetinaNet (Lin et al. 2017, arXiv:1708.02002): an SSD with the settings of the paper."""

import functools
import os
from collections.abc import Sequence
from typing import Any, Self

from keras_detect.boxes.anchor_generators import MultiscaleGridAnchorGenerator
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.losses.one_stage import OneStageLoss
from keras_detect.meta_architectures import arguments, ssd_defaults, starting_weights
from keras_detect.meta_architectures.pretrained import from_torchvision
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.registry import CLASSIFICATION_LOSSES, LOCALIZATION_LOSSES, serializable

IMAGE_SIZE = 640
_NORMAL = initializer("random_normal", stddev=0.01)


@serializable
class RetinaNet(SSD):
    """An SSD whose `from_backbone` has RetinaNet's settings where the caller gives none.

    P3 to P7 with 256 channels, nine anchors per location (three scales per octave), towers of four convolutions
    without batch norm, focal loss, IoU of at least 0.5 as object and below 0.4 as background, suppression at IoU 0.5.
    """

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
        """A RetinaNet around a backbone.

        Args:
            backbone, num_classes, class_names, neck, weights: as in `SSD.from_backbone`; the default neck is the
                paper's.
            image_size: side of the square into which images are fitted, aspect ratio kept and padded; default: 640.
                (The paper trains with a shorter side of 400 to 800 pixels: pass a resizer.) Or `(height, width)`.
            **parts: as in `SSD.from_backbone`.

        Raises:
            TypeError, ValueError: as `SSD.from_backbone`.
        """
        own = {"backbone": backbone, "num_classes": num_classes, "image_size": image_size, "neck": neck}
        given = {**own, "class_names": class_names, **parts}
        arguments.refuse_ignored(given, ssd_defaults.IGNORED)
        given = arguments.with_settings(given, settings(), ssd_defaults.IGNORED)
        if "detection_loss" not in given:
            given["detection_loss"] = OneStageLoss(
                classification=CLASSIFICATION_LOSSES.resolve(given.pop("classification_loss", "sigmoid_focal")),
                localization=LOCALIZATION_LOSSES.resolve(given.pop("localization_loss", "smooth_l1")),
            )
        if "resizer" not in given:
            given["resizer"] = ssd_defaults.square_resizer(given.pop("image_size", IMAGE_SIZE))
        return super().from_backbone(given.pop("backbone", None), weights=weights, **given)

    @classmethod
    def from_torchvision(
        cls,
        name: str = "retinanet_resnet50_fpn",
        *,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        weights: Any = None,
        **parts: Any,
    ) -> Any:
        """A detector that computes what torchvision's does, pixels to detections.

        Args:
            name: "retinanet_resnet50_fpn" or "retinanet_resnet50_fpn_v2".
            num_classes: K; default: torchvision's 91 outputs for COCO, whose first one is never trained.
            class_names: sequence of K strings; default: COCO's, for 91 classes.
            weights: path of a state dict (`.pth` where torch is installed, `.safetensors`), which `restore` reads;
                default: a random start.
            **parts: any argument of `from_backbone`, instead of torchvision's.

        Raises:
            ValueError: an unknown name; weights that do not fit.
            TypeError, FileNotFoundError, ImportError: as `from_backbone` and `restore`.
        """
        return from_torchvision(cls, "RetinaNet", name, num_classes, class_names, weights, parts)

    @classmethod
    def from_preset(cls, name: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """`SSD.from_preset`: the published RetinaNets are SSDs."""
        return SSD.from_preset(name, *args, **kwargs)


def settings():
    """What the paper says of each argument of `SSD.from_backbone`."""
    return {
        "neck": functools.partial(FeaturePyramid, hyperparams=ConvHyperparams(activation=None, batch_norm=False)),
        "anchor_generator": functools.partial(MultiscaleGridAnchorGenerator, anchor_scale=4.0, scales_per_octave=3),
        "box_predictor": functools.partial(
            WeightSharedConvolutionalBoxPredictor,
            background=False,
            hyperparams=ConvHyperparams(activation="relu", batch_norm=False, kernel_initializer=_NORMAL),
        ),
        "matcher": ArgMaxMatcher(matched_threshold=0.5, unmatched_threshold=0.4),
        "postprocessor": Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=0.05, iou_threshold=0.5, max_detections_per_class=100, max_total_detections=100
            ),
            score_converter="sigmoid",
            has_background=False,
        ),
    }
