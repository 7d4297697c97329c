"""Our layers -> variable scopes of upstream's TensorFlow 1 graphs, as tf_slim made them; for all architectures."""

import re

from keras_detect.backbones import inception_resnet_v2, inception_v2
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


def inception_v2_rows(backbone):
    root = "InceptionV2"
    rows = block_rows("stem", f"{root}/Conv2d_1a_7x7", "separable")
    rows |= block_rows("stem_2_0", f"{root}/Conv2d_2b_1x1") | block_rows("stem_2_1", f"{root}/Conv2d_2c_3x3")
    for modules in inception_v2.STAGES.values():
        for module in modules:
            rows |= _mixed_rows(module, root)
    return rows


def inception_resnet_v2_rows(backbone):
    root, rows = "InceptionResnetV2", {}
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    layers = [f"stem_{n}_{i}" for n, row in enumerate(inception_resnet_v2.STEM, start=1) for i in range(len(row))]
    for layer, name in zip(layers, stem, strict=True):
        rows |= block_rows(layer, f"{root}/{name}")
    scopes = {"block35": "Repeat/block35_{}", "block17": "Repeat_1/block17_{}", "block8": "Repeat_2/block8_{}"}
    for module in (module for modules in inception_resnet_v2.STAGES.values() for module in modules):
        if isinstance(module, inception_resnet_v2.Mixed):
            rows |= _mixed_rows(module, root, alone="Conv2d_1x1")
            continue
        for index in range(module.repeats):
            name, scope = f"{module.name}_{index}", scopes.get(module.name, "Block8").format(index + 1)
            rows |= _branch_rows(name, module.branches, f"{root}/{scope}", alone="Conv2d_1x1")
            rows[f"{name}_up_conv"] = f"{root}/{scope}/Conv2d_1x1"
    return rows | block_rows("head", f"{root}/Conv2d_7b_1x1")


def _mixed_rows(module, root, alone=None):
    """Rows of a `Mixed`; its last branch begins with a pooling, which takes the first letter."""
    return _branch_rows(module.name, module.branches, f"{root}/{module.name.capitalize()}", alone, pooled=True)


def _branch_rows(name, branches, scope, alone=None, pooled=False):
    """Rows of branches side by side, the first letter of the last one taken where it is `pooled`.

    tf_slim letters the convolutions of a branch ("Conv2d_0b_3x3"); one at stride 2 is "1a". `alone` is the name of a
    1x1 convolution that has its branch for itself.
    """
    rows = {}
    for number, convolutions in enumerate(branches):
        shift = int(pooled and number == len(branches) - 1)
        for index, row in enumerate(convolutions):
            sides = "x".join(map(str, (row.kernel, row.kernel) if isinstance(row.kernel, int) else row.kernel))
            place = "1a" if row.strides > 1 else f"0{'abcd'[index + shift]}"
            single = alone and len(convolutions) == 1 and row.strides == 1 and not shift
            theirs = alone if single else f"Conv2d_{place}_{sides}"
            rows |= block_rows(f"{name}_branch_{number}_{index}", f"{scope}/Branch_{number}/{theirs}")
    return rows


#: `checkpoint_family` of a backbone -> its rows, relative to the scope that holds the network
BACKBONES = {
    "inception_resnet_v2": inception_resnet_v2_rows,
    "inception_v2": inception_v2_rows,
    "mobilenet_v1": mobilenet_v1_rows,
    "mobilenet_v2": mobilenet_v2_rows,
    "resnet_v1": resnet_v1_rows,
}


def below(scope, rows):
    """`rows` below a scope: "FeatureExtractor" and so on."""
    return {layer: f"{scope}/{key}" for layer, key in rows.items()}
