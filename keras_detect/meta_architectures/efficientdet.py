"""EfficientDet (Tan et al. 2020, arXiv:1911.09070): an SSD with the settings of one compound size."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, Self

from keras_detect import registry
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.boxes.anchor_generators import MultiscaleGridAnchorGenerator
from keras_detect.boxes.matchers import ArgMaxMatcher
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.postprocessing import Postprocessor
from keras_detect.heads.weight_shared import WeightSharedConvolutionalBoxPredictor
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.losses.classification import SigmoidFocalLoss
from keras_detect.meta_architectures import arguments, ssd_defaults, starting_weights
from keras_detect.meta_architectures.ssd import SSD
from keras_detect.necks.bifpn import SIZES as BIFPN_SIZES
from keras_detect.necks.bifpn import BiFPN


@dataclasses.dataclass(frozen=True)
class Size:
    """What a compound size adds to its BiFPN (table 1): backbone, image size, layers of each head."""

    variant: str
    image_size: int
    head_layers: int


#: D6 and D7 as upstream's configs have them: 1408 pixels, and D6 on larger images
SIZES = {
    "d0": Size("b0", 512, 3),
    "d1": Size("b1", 640, 3),
    "d2": Size("b2", 768, 3),
    "d3": Size("b3", 896, 4),
    "d4": Size("b4", 1024, 4),
    "d5": Size("b5", 1280, 4),
    "d6": Size("b6", 1408, 5),
    "d7": Size("b6", 1536, 5),
}


@registry.serializable
class EfficientDet(SSD):
    """An SSD whose `from_backbone` has EfficientDet's settings where the caller gives none."""

    @classmethod
    def from_backbone(
        cls,
        backbone: Any = None,
        *,
        size: str = "d0",
        num_classes: int | None = None,
        image_size: int | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        neck: Any = None,
        weights: Any = starting_weights.AUTO,
        **parts: Any,
    ) -> Self:
        """An EfficientDet of a compound size.

        Args:
            backbone: as in `SSD.from_backbone`; default: the EfficientNet of the size.
            size: "d0" to "d7": width and depth of BiFPN and heads, and the defaults of backbone and image size.
            num_classes, class_names, neck, weights: as in `SSD.from_backbone`; the default neck is the size's BiFPN.
            image_size: side of the square into which images are fitted, aspect ratio kept and padded; or
                `(height, width)`. Multiples of 128 have whole maps.
            **parts: as in `SSD.from_backbone`.

        Raises:
            TypeError, ValueError: as `SSD.from_backbone`; an unknown size.
        """
        if size not in SIZES:
            raise ValueError(registry.unknown_name("EfficientDet size", size, SIZES))
        own = {"backbone": backbone, "num_classes": num_classes, "image_size": image_size, "neck": neck}
        given = {**own, "class_names": class_names, **parts}
        arguments.refuse_ignored(given, ssd_defaults.IGNORED)
        given = arguments.with_settings(given, settings(size), ssd_defaults.IGNORED)
        starting_weights.check_imagenet(weights)
        own_backbone = "backbone" not in given and "feature_extractor" not in given
        if own_backbone:
            given["backbone"] = EfficientNet(variant=SIZES[size].variant, taps="b0", name="backbone")
        if "resizer" not in given:
            given["resizer"] = ssd_defaults.square_resizer(given.pop("image_size", SIZES[size].image_size))
        backbone = given.pop("backbone", None)
        if not own_backbone:
            return super().from_backbone(backbone, weights=weights, **given)
        model = super().from_backbone(backbone, weights=None, **given)
        return starting_weights.load(model, f"EfficientNet {backbone.variant.upper()}", weights)

    @classmethod
    def from_preset(cls, name: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """`SSD.from_preset`: the published EfficientDets are SSDs."""
        return SSD.from_preset(name, *args, **kwargs)


def settings(size):
    """What upstream's config of `size` says of each argument of `SSD.from_backbone`."""
    bifpn = BIFPN_SIZES[size]
    head = ConvHyperparams(
        activation="swish", kernel_initializer=initializer("random_normal", stddev=0.01), l2_weight=4e-5
    )
    return {
        "neck": functools.partial(BiFPN, **dataclasses.asdict(bifpn)),
        "anchor_generator": functools.partial(MultiscaleGridAnchorGenerator, anchor_scale=4.0, scales_per_octave=3),
        "box_predictor": functools.partial(
            WeightSharedConvolutionalBoxPredictor,
            num_layers_before_predictor=SIZES[size].head_layers,
            depth=bifpn.num_filters,
            background=False,
            separable=True,
            tower_bias=True,
            hyperparams=head,
        ),
        "matcher": ArgMaxMatcher(matched_threshold=0.5, unmatched_threshold=0.5, force_match_for_each_row=True),
        "classification_loss": SigmoidFocalLoss(gamma=1.5, alpha=0.25),
        "postprocessor": Postprocessor(
            nms=MulticlassNonMaxSuppression(
                score_threshold=1e-8, iou_threshold=0.5, max_detections_per_class=100, max_total_detections=100
            ),
            score_converter="sigmoid",
            has_background=False,
        ),
    }
