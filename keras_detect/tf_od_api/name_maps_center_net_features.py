"""Our weight names of CenterNet's feature extractors -> checkpoint keys of upstream: one row per layer."""

import re

from keras_detect.backbones.hourglass import VARIANTS as HOURGLASS_VARIANTS
from keras_detect.tf_od_api.name_maps_layers import (
    declared,
    mobilenet_v2_layers,
    numbered,
    resnet_v1_layers,
    resnet_v2_layers,
)

EXTRACTOR = "model/_feature_extractor"
BASE = f"{EXTRACTOR}/_base_model"
DECODER = f"{EXTRACTOR}/_feature_extractor_model"
NETWORK = f"{EXTRACTOR}/_network"

#: `checkpoint_family` of a backbone -> its layers, as upstream numbers them
LAYERS = {
    "mobilenet_v2": lambda backbone: mobilenet_v2_layers(),
    "resnet_v1": resnet_v1_layers,
    "resnet_v1_basic": resnet_v2_layers,
    "resnet_v2": resnet_v2_layers,
}

#: (`checkpoint_family` of the backbone, of the neck) -> keys of both, where they are not BASE and DECODER
PREFIXES = {("mobilenet_v2", "center_net_deconvolution"): (f"{NETWORK}/layer_with_weights-0", NETWORK)}


def _numbered_backbone(extractor):
    return numbered(declared(LAYERS, extractor.backbone)(extractor.backbone), _prefixes(extractor)[0])


def _prefixes(extractor):
    families = tuple(getattr(part, "checkpoint_family", None) for part in (extractor.backbone, extractor.neck))
    return PREFIXES.get(families, (BASE, DECODER))


def _hourglass(extractor):
    row = HOURGLASS_VARIANTS[extractor.backbone.variant]
    rows = _conv_block("stem", f"{NETWORK}/downsample_input/conv_block")
    rows |= _residual("stem_residual", f"{NETWORK}/downsample_input/residual_block")
    for index in range(row.stacks):
        name = f"stack_{index}"
        rows |= _stages(name, f"{NETWORK}/hourglass_network/{index}", row.blocks)
        rows |= _conv_block(f"{name}_output", f"{NETWORK}/output_conv/{index}")
        if index:
            rows |= _conv_block(f"{name}_input_before", f"{NETWORK}/intermediate_conv1/{index - 1}")
            rows |= _conv_block(f"{name}_input_behind", f"{NETWORK}/intermediate_conv2/{index - 1}")
            rows |= _residual(f"{name}_input", f"{NETWORK}/intermediate_residual/{index - 1}")
    return rows


def _stages(name, prefix, blocks, stage=0):
    """Upstream nests the stages in each other; the last one has blocks in the place of another stage."""
    rows = {}
    for part, group in (("keep", "encoder_block1"), ("down", "encoder_block2"), ("up", "decoder_block")):
        for index in range(blocks[0]):
            rows |= _residual(f"{name}_stage_{stage}_{part}_{index}", f"{prefix}/{group}/{index}")
    if len(blocks) > 2:
        return rows | _stages(name, f"{prefix}/inner_block/0", blocks[1:], stage + 1)
    for index in range(blocks[1]):
        rows |= _residual(f"{name}_bottom_{index}", f"{prefix}/inner_block/{index}")
    return rows


def _residual(name, prefix):
    return {
        **_conv_block(f"{name}_first", f"{prefix}/conv_block"),
        **_conv_block(f"{name}_second", prefix),
        **_conv_block(f"{name}_skip", f"{prefix}/skip"),
    }


def _conv_block(name, prefix):
    return {f"{name}_conv": f"{prefix}/conv", f"{name}_bn": f"{prefix}/norm"}


def _pyramid_layers(neck):
    kind = "separable" if neck.separable else "conv"
    layers = ["top_project"]
    for level in neck.levels[-2::-1]:
        layers += [f"{level}_project", f"{level}_smooth_{kind}", f"{level}_smooth_bn"]
    return layers


def _deconvolution_layers(neck):
    names = [f"P{number}" for number in range(len(neck.filters) + 1, 1, -1)]
    parts = ("before_conv", "before_bn", "conv_transpose", "bn")
    return [f"{name}_{part}" for name in names for part in parts]


#: `checkpoint_family` of a neck -> its layers, as upstream numbers them behind the backbone
NECKS = {"center_net_pyramid": _pyramid_layers, "center_net_deconvolution": _deconvolution_layers}


def tables(extractor):
    """`{group: {layer: key}}` of a `CenterNetFeatureExtractor`, groups as in its `weight_groups`.

    Raises `ValueError` for a part that has no row.
    """
    groups = {"backbone": backbone_table(extractor)}
    if extractor.neck is not None:
        layers = declared(NECKS, extractor.neck)(extractor.neck)
        groups["neck"] = numbered(layers, _prefixes(extractor)[1], first=1)
    return groups


def backbone_table(extractor):
    """`{layer: key}` of the backbone, in the network's order."""
    return (_hourglass if extractor.backbone.checkpoint_family == "hourglass" else _numbered_backbone)(extractor)


def backbone_keys(extractor):
    """Regex of the checkpoint keys that belong to the backbone."""
    prefix = NETWORK if extractor.backbone.checkpoint_family == "hourglass" else _prefixes(extractor)[0]
    return rf"{re.escape(prefix)}/.*"
