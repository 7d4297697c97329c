"""`feature_extractor` of an `ssd` message -> a backbone and a neck."""

import dataclasses

from keras_detect.backbones.backbone import get_backbone
from keras_detect.backbones.efficientnet import EfficientNet
from keras_detect.backbones.inception_v2 import MIDDLE_LEVEL as INCEPTION_V2_MIDDLE
from keras_detect.backbones.mobilenet_v2 import HEAD_FILTERS, divisible
from keras_detect.messages import shown
from keras_detect.necks.bifpn import BiFPN
from keras_detect.necks.fpn import FeaturePyramid
from keras_detect.necks.pooling_pyramid import PoolingPyramid
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.necks.ssd_feature_maps import SsdFeatureMaps
from keras_detect.registry import unknown_name
from keras_detect.text_proto.node import located
from keras_detect.tf_od_api import build_parts, slim
from keras_detect.transforms.resizers import FixedShapeResizer


@dataclasses.dataclass(frozen=True)
class Extractor:
    """What an extractor type of upstream is made of.

    Attributes:
        backbone, neck: registered names.
        levels: of the backbone, for the neck.
        depths: of the extra maps of SSD; `kernel_sizes` are those of its strided convolutions.
        scope: `slim.ArgScope` of an extractor of TensorFlow 1; None for TensorFlow 2.
    """

    backbone: str
    neck: str
    levels: tuple = ("C3", "C4", "C5")
    scope: slim.ArgScope | None = None
    depths: tuple = (512, 256, 256, 128)
    kernel_sizes: tuple = ()


EXTRACTORS = {
    "ssd_mobilenet_v1_keras": Extractor("mobilenet_v1", "ssd", ("C4", "C5")),
    "ssd_mobilenet_v1_fpn_keras": Extractor("mobilenet_v1", "fpn"),
    "ssd_mobilenet_v2_keras": Extractor("mobilenet_v2", "ssd", ("C4_expansion", "C5")),
    "ssd_mobilenet_v2_fpn_keras": Extractor("mobilenet_v2", "fpn"),
    "ssd_resnet50_v1_fpn_keras": Extractor("resnet_v1_50", "fpn"),
    "ssd_resnet101_v1_fpn_keras": Extractor("resnet_v1_101", "fpn"),
    "ssd_resnet152_v1_fpn_keras": Extractor("resnet_v1_152", "fpn"),
    **{f"ssd_efficientnet-b{size}_bifpn_keras": Extractor(f"b{size}", "bifpn") for size in range(8)},
    "ssd_mobilenet_v1": Extractor("mobilenet_v1", "ssd", ("C4", "C5"), slim.MOBILENET_V1),
    "ssd_mobilenet_v1_fpn": Extractor("mobilenet_v1", "fpn", scope=slim.MOBILENET_V1),
    "ssd_inception_v2": Extractor("inception_v2", "ssd", (INCEPTION_V2_MIDDLE, "C5"), slim.INCEPTION),
    "ssd_inception_v3": Extractor("inception_v3", "ssd", ("C3", "C4", "C5"), slim.INCEPTION, depths=(512, 256, 128)),
    **{
        f"ssd_resnet{layers}_v1_fpn": Extractor(f"resnet_v1_{layers}", "fpn", scope=slim.RESNET_V1)
        for layers in (50, 101, 152)
    },
    **{
        f"ssd_resnet{layers}_v1_ppn": Extractor(
            f"resnet_v1_{layers}", "ppn", ("C4",), slim.RESNET_V1_PPN, depths=(1024,)
        )
        for layers in (50, 101, 152)
    },
    "ssd_mobilenet_v1_ppn": Extractor("mobilenet_v1", "ppn", ("C4",), slim.MOBILENET_V1, depths=(0,)),
    "embedded_ssd_mobilenet_v1": Extractor(
        "mobilenet_v1", "ssd", ("C4", "C5"), slim.MOBILENET_V1_EMBEDDED, depths=(512, 256, 256), kernel_sizes=(3, 3, 2)
    ),
    "ssd_mobilenet_v2": Extractor("mobilenet_v2", "ssd", ("C4_expansion", "C5"), slim.MOBILENET_V2),
    "ssd_mobilenet_v2_fpn": Extractor("mobilenet_v2", "fpn", scope=slim.MOBILENET_V2),
}

#: channels of MobileNet V2's last layer below a depthwise pyramid of TensorFlow 1
LITE_HEAD_FILTERS = 256


def is_tf1(kind):
    """Whether an extractor type is one of TensorFlow 1."""
    return kind in EXTRACTORS and EXTRACTORS[kind].scope is not None


@located
def feature_extractor(node, num_maps, resizer):
    """`feature_extractor` of an `ssd` message with `num_maps` maps behind `resizer` -> `SSDFeatureExtractor`."""
    kind = node.scalar("type", str, "")
    build_parts.refuse_not_built(node, kind)
    if kind not in EXTRACTORS:
        raise node.error("type", unknown_name("feature extractor", kind, EXTRACTORS))
    row = EXTRACTORS[kind]
    _check_multiple(node, resizer)
    build_parts.refuse_values(node, batch_norm_trainable=True)
    hyperparams, force_bias = build_parts.conv_hyperparams(node.message("conv_hyperparams", required=True))
    overrides = node.scalar("override_base_feature_extractor_hyperparams", bool, False)
    if row.scope is not None:
        hyperparams = dataclasses.replace(hyperparams, whole_separable=True)
    overriding = hyperparams if overrides or row.scope is slim.INCEPTION else None
    if row.scope is not None:
        overriding = slim.backbone_hyperparams(row.scope, overriding)
    settings = {"name": "backbone"} | ({} if overriding is None else {"hyperparams": overriding})
    if row.neck == "bifpn":
        build_parts.refuse_values(node, use_explicit_padding=False)
        backbone = EfficientNet(variant=row.backbone, taps="b0", **settings)
        return _joined(backbone, _bifpn(node, hyperparams, force_bias))
    scaling = {
        "width_multiplier": node.scalar("depth_multiplier", float, 1.0),
        "min_depth": node.scalar("min_depth", int, 16),
    }
    build_neck = {"fpn": _fpn, "ppn": _pooling_pyramid, "ssd": _extra_maps}[row.neck]
    neck = build_neck(node, row, hyperparams, scaling, num_maps)
    return _joined(_scaled_backbone(node, row, scaling, settings), neck)


def _check_multiple(node, resizer):
    """Padding to a multiple does nothing where the images have such a size, and is not built otherwise."""
    multiple = node.scalar("pad_to_multiple", int, 1)
    sides = (resizer.height, resizer.width) if isinstance(resizer, FixedShapeResizer) else ()
    fits = sides and multiple > 0 and not any(side % multiple for side in sides)
    if multiple != 1 and not fits:
        raise node.error("pad_to_multiple", f"found {multiple}; supported: 1, or what divides a fixed image size")


def _joined(backbone, neck):
    return SSDFeatureExtractor(backbone=backbone, neck=neck, name="feature_extractor")


def _scaled_backbone(node, row, scaling, settings):
    multiplier = scaling["width_multiplier"]
    if row.backbone.startswith(("mobilenet", "inception")):
        settings |= scaling
    elif multiplier != 1.0:
        raise node.error("depth_multiplier", f"found {multiplier}; supported: 1.0")
    if row.scope is slim.RESNET_V1:
        settings |= {"sum_activation": "relu"}
    if row.backbone == "mobilenet_v2":
        lite = row.neck == "fpn" and node.scalar("use_depthwise", bool, False)
        head = LITE_HEAD_FILTERS if lite else HEAD_FILTERS
        tf1 = {"head_filters": divisible(head * multiplier, scaling["min_depth"])}
        settings |= build_parts.mobilenet_v2_width(multiplier) if row.scope is None else tf1
    if row.backbone == "inception_v3":
        settings |= {"padding": "valid"}
    if row.scope is None or row.neck != "ssd":
        build_parts.refuse_values(node, use_explicit_padding=False)
    elif node.scalar("use_explicit_padding", bool, False) and row.backbone.startswith("mobilenet"):
        settings |= {"explicit_padding": True}  # tf_slim's Inception networks have no such setting
    return get_backbone(row.backbone)(**settings)


@located
def _extra_maps(node, row, hyperparams, scaling, num_layers):
    found = min(node.scalar("num_layers", int, 6), len(row.levels) + len(row.depths))
    if found != num_layers:
        raise node.error("num_layers", f"found {found}; supported: {num_layers}, the anchor generator's")
    extra = num_layers - len(row.levels)
    if extra < 0:
        raise node.error("num_layers", f"found {found}; supported: at least {len(row.levels)}")
    lite, explicit = (node.scalar(name, bool, False) for name in ("use_depthwise", "use_explicit_padding"))
    if lite and row.scope is None:
        raise node.error("use_depthwise", "found true; supported: false with this extractor")
    return SsdFeatureMaps(
        levels=row.levels,
        extra_depths=row.depths[:extra],
        kernel_sizes=row.kernel_sizes[:extra],
        min_depth=scaling["min_depth"],
        depth_multiplier=scaling["width_multiplier"],
        separable=lite,
        explicit_padding=explicit,
        hyperparams=hyperparams,
    )


@located
def _pooling_pyramid(node, row, hyperparams, scaling, num_maps):
    if num_maps != 6:
        raise node.error("type", f"has 6 maps, the anchor generator {num_maps}; supported: 6")
    build_parts.refuse_values(node, use_depthwise=False)
    return PoolingPyramid(level=row.levels[0], num_layers=num_maps, depth=row.depths[0], hyperparams=hyperparams)


@located
def _fpn(node, row, hyperparams, scaling, num_maps):
    fpn = node.message("fpn")
    first, last = fpn.scalar("min_level", int, 3), fpn.scalar("max_level", int, 7)
    depth = fpn.scalar("additional_layer_depth", int, 256)
    if not 2 <= first <= 5 <= last:
        raise fpn.error("min_level", f"found levels {first} to {last}; supported: from 2...5 to at least 5")
    return FeaturePyramid(
        levels=tuple(f"C{level}" for level in range(first, 6)),
        coarse_levels=last - 5,
        depth=max(int(depth * scaling["width_multiplier"]), scaling["min_depth"]),
        separable=node.scalar("use_depthwise", bool, False),
        pass_sums=row.scope is not None,
        hyperparams=hyperparams,
    )


@located
def _bifpn(node, hyperparams, force_bias):
    bifpn = node.message("bifpn", required=True)
    first = bifpn.scalar("min_level", int, 3)
    methods = ("fast_attention", "attention", "sum")
    method = bifpn.scalar("combine_method", str, "fast_attention")
    if method not in methods:
        raise bifpn.error("combine_method", f"found {shown(method)!r}; supported: {', '.join(methods)}")
    return BiFPN(
        levels=tuple(f"C{level}" for level in range(first, 6)),
        max_level=bifpn.scalar("max_level", int, 7),
        num_iterations=bifpn.scalar("num_iterations", int),
        num_filters=bifpn.scalar("num_filters", int),
        combine_method=method,
        use_bias=force_bias,
        hyperparams=hyperparams,
    )
