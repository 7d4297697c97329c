"""The layers with weights of our backbones and feature pyramids, as upstream numbers them."""

from keras_detect.backbones import efficientnet, inception_resnet_v2
from keras_detect.backbones.mobilenet_v1 import BLOCKS as MOBILENET_V1_BLOCKS
from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES
from keras_detect.backbones.resnet_v1 import VARIANTS as RESNET_V1_VARIANTS
from keras_detect.backbones.resnet_v2 import VARIANTS as RESNET_V2_VARIANTS


def ssd_tables(model, backbone, necks, predictors):
    """`{group: {layer: key}}` of an SSD from its backbone's table and the rows that neck and predictor declare."""
    extractor, predictor = model.feature_extractor, model.box_predictor
    return {
        "backbone": backbone,
        "neck": declared(necks, extractor.neck)(extractor.neck, extractor.backbone),
        "box_predictor": declared(predictors, predictor)(predictor),
    }


def declared(tables, part):
    """The entry of `tables` under the `checkpoint_family` that `part` declares; its class' name does not count.

    Raises `ValueError` for a part that declares none, or one that the tables do not have.
    """
    family = getattr(part, "checkpoint_family", None)
    if family in tables:
        return tables[family]
    received = f"'{type(part).__name__}', which declares " + (
        "no checkpoint_family" if family is None else f"checkpoint_family={family!r}"
    )
    raise ValueError(
        f"Checkpoints of the TensorFlow Object Detection API restore into parts of the families "
        f"{', '.join(sorted(tables))}. Received: {received}. "
        "With kind='classification', a backbone that upstream has is restored alone, and any other one from a "
        "Keras model around it; load_weights reads what save_weights wrote."
    )


def numbered(layers, prefix, first=0):
    """`{layer: key}` of layers that upstream numbers in graph order, from `first` on."""
    return {layer: f"{prefix}/layer_with_weights-{index}" for index, layer in enumerate(layers, first)}


def feature_pyramid_rows(neck, pyramid, coarse):
    """`{layer: key}` of a `FeaturePyramid`: projections and smoothing convolutions, numbered from the coarsest down.

    Args:
        neck: the `FeaturePyramid`.
        pyramid: key of the levels that come from the backbone.
        coarse: key of the coarser ones behind them.
    """
    kind = "separable" if neck.separable else "conv"
    *finer, top = neck.map_names[: len(neck.levels)]
    rows = {f"{top}_project": f"{pyramid}/top_layers/0"}
    for index, name in enumerate(reversed(finer)):
        rows[f"{name}_project"] = f"{pyramid}/residual_blocks/{index}/0"
        rows[f"{name}_smooth_{kind}"] = f"{pyramid}/conv_layers/{index}/0"
        rows[f"{name}_smooth_bn"] = f"{pyramid}/conv_layers/{index}/1"
    for index, name in enumerate(neck.map_names[len(neck.levels) :]):
        rows[f"{name}_{kind}"] = f"{coarse}/{index}/0"
        rows[f"{name}_bn"] = f"{coarse}/{index}/1"
    return rows


def mobilenet_v2_layers():
    layers = ["stem_conv", "stem_bn"]
    expansions = [stage.expansion for stage in MOBILENET_V2_STAGES for _ in range(stage.repeats)]
    for index, expansion in enumerate(expansions):
        block = f"block_{index}"
        layers += [f"{block}_expand_conv", f"{block}_expand_bn"] if expansion > 1 else []
        layers += [f"{block}_depthwise", f"{block}_bn", f"{block}_project_conv", f"{block}_project_bn"]
    return [*layers, "head_conv", "head_bn"]


def mobilenet_v1_layers():
    layers = ["stem_conv", "stem_bn"]
    for index in range(len(MOBILENET_V1_BLOCKS)):
        block = f"block_{index}"
        layers += [f"{block}_depthwise", f"{block}_bn", f"{block}_project_conv", f"{block}_project_bn"]
    return layers


def efficientnet_layers(backbone, taps):
    """Layers up to the last block that a level is taken from with `taps`."""
    row, layers = efficientnet.VARIANTS[backbone.variant], ["stem_conv", "stem_bn"]
    for number, stage in enumerate(efficientnet.STAGES):
        for index in range(efficientnet.blocks_built(row, number, taps)):
            block = f"stage_{number}_block_{index}"
            layers += [f"{block}_expand_conv", f"{block}_expand_bn"] if stage.expansion > 1 else []
            layers += [f"{block}_depthwise", f"{block}_bn", f"{block}_se_reduce_conv", f"{block}_se_expand_conv"]
            layers += [f"{block}_project_conv", f"{block}_project_bn"]
    return layers


def resnet_v1_layers(backbone):
    layers = ["stem_conv", "stem_bn"]
    for stage, blocks in enumerate(RESNET_V1_VARIANTS[backbone.variant].blocks, start=2):
        for index in range(blocks):
            # graph order counts from the output: the shortcut is beside the last convolution
            ends = ("shortcut", "expand") if index == 0 else ("expand",)
            parts = [f"{part}_{kind}" for part in ("reduce", "middle") for kind in ("conv", "bn")]
            parts += [f"{part}_{kind}" for kind in ("conv", "bn") for part in ends]
            layers += [f"stage_{stage}_block_{index}_{part}" for part in parts]
    return layers


def resnet_v2_layers(backbone):
    variant, layers = RESNET_V2_VARIANTS[backbone.variant], ["stem_conv"]
    convolutions = ("first", "second") if variant.basic else ("reduce", "middle")
    for stage, blocks in enumerate(variant.blocks, start=2):
        for index in range(blocks):
            parts = ["preact_bn", *(f"{part}_{kind}" for part in convolutions for kind in ("conv", "bn"))]
            # graph order counts from the output: the shortcut is beside the last layer before the sum
            parts += ["shortcut_conv"] if index == 0 else []
            parts += [] if variant.basic else ["expand_conv"]
            layers += [f"stage_{stage}_block_{index}_{part}" for part in parts]
    return [*layers, "head_bn"]


def inception_resnet_v2_layers(backbone):
    layers = []
    for level, convolutions in enumerate(inception_resnet_v2.STEM, start=1):
        layers += _side_by_side(f"stem_{level}", (convolutions,), "{name}_{index}")
    for modules in inception_resnet_v2.STAGES.values():
        for module in modules:
            if isinstance(module, inception_resnet_v2.Mixed):
                layers += _side_by_side(module.name, module.branches)
                continue
            for block in range(module.repeats):
                name = f"{module.name}_{block}"
                layers += [*_side_by_side(name, module.branches), f"{name}_up_conv"]
    return [*layers, "head_conv", "head_bn"]


def _side_by_side(name, branches, layer="{name}_branch_{branch}_{index}"):
    """Graph order counts from where the branches meet: the first of the longest branch comes first."""
    layers = []
    for left in range(max(map(len, branches)), 0, -1):
        ends = [(branch, len(row) - left) for branch, row in enumerate(branches) if len(row) >= left]
        names = [layer.format(name=name, branch=branch, index=index) for branch, index in ends]
        layers += [f"{found}_{kind}" for kind in ("conv", "bn") for found in names]
    return layers
