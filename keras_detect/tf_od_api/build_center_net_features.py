"""`center_net.feature_extractor` of a `pipeline.config` -> `CenterNetFeatureExtractor`."""

import dataclasses
from typing import Any

from keras_detect.backbones.backbone import get_backbone
from keras_detect.backbones.hourglass import VARIANTS as HOURGLASS_VARIANTS
from keras_detect.backbones.keras_models import PixelScaling
from keras_detect.layers.conv_blocks import ConvHyperparams, initializer
from keras_detect.messages import shown
from keras_detect.necks.center_net import INTERPOLATIONS, CenterNetDeconvolution, CenterNetPyramid
from keras_detect.necks.center_net_feature_extractor import MOBILENET_PYRAMID, CenterNetFeatureExtractor
from keras_detect.registry import unknown_name
from keras_detect.text_proto.node import located
from keras_detect.tf_od_api import build_parts

#: of MobileNetV2, which no config changes; its layers have penalties upstream, which no CenterNet adds to its loss
MOBILENET = ConvHyperparams(
    batch_norm_momentum=0.9997, kernel_initializer=initializer("truncated_normal", stddev=0.09), l2_weight=0.0
)


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What an extractor type of upstream is made of.

    Args:
        backbone: registered name.
        neck: the neck, `None` for none.
    """

    backbone: str
    neck: Any = None


EXTRACTORS = {
    **{name: Extractor(name) for name in HOURGLASS_VARIANTS},
    "mobilenet_v2": Extractor("mobilenet_v2", CenterNetDeconvolution(kernel_size=1)),
    "mobilenet_v2_fpn": Extractor("mobilenet_v2", MOBILENET_PYRAMID),
    "mobilenet_v2_fpn_sep_conv": Extractor("mobilenet_v2", dataclasses.replace(MOBILENET_PYRAMID, separable=True)),
    "resnet_v1_18_fpn": Extractor("resnet_v1_18", CenterNetPyramid(levels=("C2", "C3", "C4", "C5_sum"))),
    "resnet_v1_34_fpn": Extractor("resnet_v1_34", CenterNetPyramid(levels=("C2", "C3", "C4", "C5_sum"))),
    "resnet_v1_50_fpn": Extractor("resnet_v1_50_keras", CenterNetPyramid()),
    "resnet_v1_101_fpn": Extractor("resnet_v1_101_keras", CenterNetPyramid()),
    "resnet_v2_50": Extractor("resnet_v2_50", CenterNetDeconvolution(level="C5_sum")),
    "resnet_v2_101": Extractor("resnet_v2_101", CenterNetDeconvolution(level="C5_sum")),
}


@located
def center_net_feature_extractor(node):
    """`feature_extractor` of a `center_net` message -> `CenterNetFeatureExtractor`, with new weights.

    Raises:
        PipelineConfigError: an unknown type, or a field that has no meaning for the type.
    """
    kind = node.scalar("type", str, "")
    if kind not in EXTRACTORS:
        raise node.error("type", unknown_name("CenterNet feature extractor", kind, EXTRACTORS))
    row = EXTRACTORS[kind]
    build_parts.refuse_values(node, use_depthwise=False)
    neck, scaling, settings = _neck(node, row), _scaling(node), {"name": "backbone"}
    if row.backbone == "mobilenet_v2":
        width = build_parts.mobilenet_v2_width(node.scalar("depth_multiplier", float, 1.0))
        settings |= {"hyperparams": MOBILENET, **width}
    else:
        build_parts.refuse_values(node, depth_multiplier=1.0)
    if row.neck is None:  # the backbone itself scales as the config says
        settings, scaling = settings | {"scaling": scaling or PixelScaling()}, None
    return CenterNetFeatureExtractor(
        backbone=get_backbone(row.backbone)(**settings),
        neck=neck,
        scaling=scaling,
        name="feature_extractor",
    )


def _neck(node, row):
    if row.backbone != "mobilenet_v2" or not isinstance(row.neck, CenterNetPyramid):
        build_parts.refuse_values(node, use_separable_conv=False, upsampling_interpolation="nearest")
        return row.neck
    # a type that says so has separable convolutions, as in the zoo's checkpoint, where the field says otherwise
    separable = node.scalar("use_separable_conv", bool, False) or row.neck.separable
    interpolation = node.scalar("upsampling_interpolation", str, "nearest")
    if interpolation not in INTERPOLATIONS:
        supported = ", ".join(INTERPOLATIONS)
        raise node.error("upsampling_interpolation", f"found {shown(interpolation)!r}; supported: {supported}")
    return dataclasses.replace(row.neck, separable=separable, interpolation=interpolation)


def _scaling(node):
    """What is done to the pixels before the network's own scaling; `None` where nothing is."""
    bgr = node.scalar("bgr_ordering", bool, False)
    means, deviations = (node.repeated(name, float) for name in ("channel_means", "channel_stds"))
    for name, values in (("channel_means", means), ("channel_stds", deviations)):
        if len(values) not in (0, 3):
            raise node.error(name, f"found {len(values)} numbers; supported: 3, or none")
    if 0.0 in deviations:
        raise node.error("channel_stds", "found 0; supported: other numbers, by which pixels are divided")
    if not (bgr or means or deviations):
        return None
    means, deviations = means or (0.0,) * 3, deviations or (1.0,) * 3
    return PixelScaling(
        scale=tuple(1.0 / deviation for deviation in deviations),
        offset=tuple(-mean / deviation for mean, deviation in zip(means, deviations, strict=True)),
        bgr=bgr,
    )
