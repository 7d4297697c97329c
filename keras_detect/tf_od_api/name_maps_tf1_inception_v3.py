"""Our layers of Inception V3 -> variable scopes of tf_slim's, relative to the scope that holds the network."""

from keras_detect.backbones import inception_v3
from keras_detect.tf_od_api.name_maps_tf1_layers import block_rows

ROOT = "InceptionV3"
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")

#: where tf_slim's letters and sizes are not those of the rule: (module, branch, place) -> its name
IRREGULAR = {
    ("mixed_5c", 1, 0): "Conv2d_0b_1x1",
    ("mixed_5c", 1, 1): "Conv_1_0c_5x5",
    ("mixed_6a", 0, 0): "Conv2d_1a_1x1",
    ("mixed_6a", 1, 2): "Conv2d_1a_1x1",
}
#: (module, branch) of an `Expanded` -> names of its 1x3 and its 3x1 convolution
SIDES = {
    ("mixed_7b", 1): ("Conv2d_0b_1x3", "Conv2d_0b_3x1"),
    ("mixed_7b", 2): ("Conv2d_0c_1x3", "Conv2d_0d_3x1"),
    ("mixed_7c", 1): ("Conv2d_0b_1x3", "Conv2d_0c_3x1"),
    ("mixed_7c", 2): ("Conv2d_0c_1x3", "Conv2d_0d_3x1"),
}


def inception_v3_rows(backbone):
    layers = [f"stem_{n}_{i}" for n, row in enumerate(inception_v3.STEM, start=1) for i in range(len(row))]
    rows = {}
    for layer, name in zip(layers, STEM, strict=True):
        rows |= block_rows(layer, f"{ROOT}/{name}")
    for module in (module for modules in inception_v3.STAGES.values() for module in modules):
        expanded = isinstance(module, inception_v3.Expanded)
        branches = (*module.branches, (inception_v3.Conv(module.projected, 1),)) if expanded else module.branches
        for number, convolutions in enumerate(branches):
            rows |= _branch_rows(module.name, number, convolutions, after_pool=number == len(branches) - 1)
    return rows


def _branch_rows(name, number, convolutions, after_pool):
    """tf_slim letters the layers of a branch, of which a pooling is one; what makes the map smaller is "1a"."""
    rows, scope = {}, f"{ROOT}/{name.capitalize()}/Branch_{number}"
    for index, row in enumerate(convolutions):
        sides = "x".join(map(str, (row.kernel, row.kernel) if isinstance(row.kernel, int) else row.kernel))
        place = "1a" if row.strides > 1 else f"0{'abcdef'[index + after_pool]}"
        theirs = IRREGULAR.get((name, number, index), f"Conv2d_{place}_{sides}")
        rows |= block_rows(f"{name}_branch_{number}_{index}", f"{scope}/{theirs}")
    for side, theirs in zip(inception_v3.SIDES, SIDES.get((name, number), ()), strict=False):
        rows |= block_rows(f"{name}_branch_{number}_{side}", f"{scope}/{theirs}")
    return rows
