"""Our layers -> variable scopes of upstream's TensorFlow 1 graphs, as tf_slim made them; for all architectures."""

import re

from keras_detect.backbones.mobilenet_v1 import BLOCKS as MOBILENET_V1_BLOCKS
from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES
from keras_detect.backbones.resnet_v1 import VARIANTS as RESNET_V1_VARIANTS

# the last component of a name: layer-name suffix, our variable, tf_slim's; the first match counts
VARIABLE_NAMES = {
    ("_depthwise", "kernel"): "depthwise_weights",
    ("", "kernel"): "weights",
    ("", "bias"): "biases",
    ("", "depthwise_kernel"): "depthwise_weights",
    ("", "pointwise_kernel"): "pointwise_weights",
}

#: the scopes of a detector that hold the network of a classifier
DETECTOR_SCOPES = ("FeatureExtractor", "FirstStageFeatureExtractor", "SecondStageFeatureExtractor")


def block_rows(name, scope, kind="conv"):
    """Rows of one block of `layers.conv_blocks`: its convolution ("conv", "depthwise", "separable") and batch norm."""
    return {f"{name}_{kind}": scope, f"{name}_bn": f"{scope}/BatchNorm"}


def mobilenet_v1_rows(backbone):
    rows = block_rows("stem", "MobilenetV1/Conv2d_0")
    for index in range(len(MOBILENET_V1_BLOCKS)):
        rows |= block_rows(f"block_{index}", f"MobilenetV1/Conv2d_{index + 1}_depthwise", "depthwise")
        rows |= block_rows(f"block_{index}_project", f"MobilenetV1/Conv2d_{index + 1}_pointwise")
    return rows


def mobilenet_v2_rows(backbone):
    rows = block_rows("stem", "MobilenetV2/Conv")
    expansions = [stage.expansion for stage in MOBILENET_V2_STAGES for _ in range(stage.repeats)]
    for index, expansion in enumerate(expansions):
        block, scope = f"block_{index}", "MobilenetV2/expanded_conv" + (f"_{index}" if index else "")
        rows |= block_rows(f"{block}_expand", f"{scope}/expand") if expansion > 1 else {}
        rows |= block_rows(block, f"{scope}/depthwise", "depthwise")
        rows |= block_rows(f"{block}_project", f"{scope}/project")
    return rows | block_rows("head", "MobilenetV2/Conv_1")


def resnet_v1_root(backbone):
    """The network's scope: "resnet_v1_50"."""
    return re.match(r"resnet_v1_\d+", backbone.variant)[0]


def resnet_v1_rows(backbone):
    root = resnet_v1_root(backbone)
    rows = block_rows("stem", f"{root}/conv1")
    for stage, blocks in enumerate(RESNET_V1_VARIANTS[backbone.variant].blocks, start=2):
        for index in range(blocks):
            scope = f"{root}/block{stage - 1}/unit_{index + 1}/bottleneck_v1"
            parts = {"reduce": "conv1", "middle": "conv2", "expand": "conv3"}
            for part, theirs in (parts | ({"shortcut": "shortcut"} if index == 0 else {})).items():
                rows |= block_rows(f"stage_{stage}_block_{index}_{part}", f"{scope}/{theirs}")
    return rows


#: `checkpoint_family` of a backbone -> its rows, relative to the scope that holds the network
BACKBONES = {
    "mobilenet_v1": mobilenet_v1_rows,
    "mobilenet_v2": mobilenet_v2_rows,
    "resnet_v1": resnet_v1_rows,
}


def below(scope, rows):
    """`rows` below a scope: "FeatureExtractor" and so on."""
    return {layer: f"{scope}/{key}" for layer, key in rows.items()}
