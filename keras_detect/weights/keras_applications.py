"""ImageNet weights of keras.applications into our backbones: which network fits which row, as tables of layer names.

Equal to keras.applications are the `resnet_v1_*_keras` and `resnet_v2_*` rows at any size, and MobileNetV1, MobileNetV2
and EfficientNet for images whose sides are multiples of 32: a network of keras.applications that was built without a
size pads maps of odd sides another way. The zoo's `resnet_v1_*` rows have another arithmetic and are refused.
"""

import dataclasses
import warnings
from collections.abc import Callable

import h5py
import keras
import numpy as np

from keras_detect.backbones import efficientnet, torch_arithmetic
from keras_detect.backbones.mobilenet_v1 import BLOCKS as MOBILENET_V1_BLOCKS
from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES
from keras_detect.backbones.resnet_v1 import KERAS_APPLICATIONS
from keras_detect.backbones.resnet_v1 import VARIANTS as RESNET_V1_VARIANTS
from keras_detect.backbones.resnet_v2 import VARIANTS as RESNET_V2_VARIANTS
from keras_detect.weights.keras_file import existing_file, reason
from keras_detect.weights.keras_model import NetworkWeights, is_dense, network_with, source_name

ODD_SIDES = (
    "equal to keras.applications for images whose sides are multiples of 32; maps of odd sides are padded otherwise"
)


def _mobilenet_v1(backbone):
    rows = {"stem_conv": "conv1", "stem_bn": "conv1_bn"}
    for index in range(len(MOBILENET_V1_BLOCKS)):
        ours, theirs = f"block_{index}", index + 1
        rows |= {f"{ours}_depthwise": f"conv_dw_{theirs}", f"{ours}_bn": f"conv_dw_{theirs}_bn"}
        rows |= {f"{ours}_project_conv": f"conv_pw_{theirs}", f"{ours}_project_bn": f"conv_pw_{theirs}_bn"}
    return rows


MOBILENET_V2_PARTS = {
    "expand_conv": "expand",
    "expand_bn": "expand_BN",
    "depthwise": "depthwise",
    "bn": "depthwise_BN",
    "project_conv": "project",
    "project_bn": "project_BN",
}


def _mobilenet_v2(backbone):
    rows = {"stem_conv": "Conv1", "stem_bn": "bn_Conv1", "head_conv": "Conv_1", "head_bn": "Conv_1_bn"}
    for index in range(sum(stage.repeats for stage in MOBILENET_V2_STAGES)):
        theirs = f"block_{index}" if index else "expanded_conv"
        rows |= {f"block_{index}_{part}": f"{theirs}_{name}" for part, name in MOBILENET_V2_PARTS.items()}
    return rows


RESNET_V1_PARTS = {"shortcut": 0, "reduce": 1, "middle": 2, "expand": 3}


def _resnet_v1(backbone):
    rows = {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn"}
    for stage, blocks in enumerate(RESNET_V1_VARIANTS[backbone.variant].blocks, start=2):
        for index in range(blocks):
            for part, number in RESNET_V1_PARTS.items():
                for kind in ("conv", "bn"):
                    ours = f"stage_{stage}_block_{index}_{part}_{kind}"
                    rows[ours] = f"conv{stage}_block{index + 1}_{number}_{kind}"
    return rows


#: the shortcut and the last convolution have no batch norm of their own, which is the next block's first
RESNET_V2_PARTS = {
    "preact_bn": "preact_bn",
    "shortcut_conv": "0_conv",
    "reduce_conv": "1_conv",
    "reduce_bn": "1_bn",
    "middle_conv": "2_conv",
    "middle_bn": "2_bn",
    "expand_conv": "3_conv",
}


def _resnet_v2(backbone):
    rows = {"stem_conv": "conv1_conv", "head_bn": "post_bn"}
    for stage, blocks in enumerate(RESNET_V2_VARIANTS[backbone.variant].blocks, start=2):
        for index in range(blocks):
            ours, theirs = f"stage_{stage}_block_{index}", f"conv{stage}_block{index + 1}"
            parts = {part: name for part, name in RESNET_V2_PARTS.items() if index == 0 or part != "shortcut_conv"}
            rows |= {f"{ours}_{part}": f"{theirs}_{name}" for part, name in parts.items()}
    return rows


EFFICIENTNET_PARTS = {
    "expand_conv": "expand_conv",
    "expand_bn": "expand_bn",
    "depthwise": "dwconv",
    "bn": "bn",
    "se_reduce_conv": "se_reduce",
    "se_expand_conv": "se_expand",
    "project_conv": "project_conv",
    "project_bn": "project_bn",
}


def _efficientnet(backbone):
    rows = {"stem_conv": "stem_conv", "stem_bn": "stem_bn"}
    variant = efficientnet.VARIANTS[backbone.variant]
    for number, stage in enumerate(efficientnet.STAGES):
        for index in range(variant.repeats(stage)):
            ours, theirs = f"stage_{number}_block_{index}", f"block{number + 1}{chr(ord('a') + index)}"
            rows |= {f"{ours}_{part}": f"{theirs}_{name}" for part, name in EFFICIENTNET_PARTS.items()}
    return rows


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family of keras.applications maps to ours.

    Args:
        application: backbone -> (name in `keras.applications`, its settings).
        layers: backbone -> `{our layer: their layer}`.
        stem_bn: their first batch norm, whose epsilon is compared.
        ignore: `((regex of "layer/variable", reason), ...)` of weights that no detector reads.
        note: backbone -> what differs although the weights fit, or `None`.
    """

    application: Callable
    layers: Callable
    stem_bn: str
    ignore: tuple = ()
    note: Callable = lambda backbone: ODD_SIDES


CLASSIFIER = "the end of the ImageNet classifier, which no detector reads"
TOP = ((r"(predictions|conv_preds)/.*", CLASSIFIER),)

#: `checkpoint_family` of a backbone -> its network in keras.applications
FAMILIES = {
    "mobilenet_v1": Family(
        application=lambda backbone: ("MobileNet", {"alpha": backbone.width_multiplier}),
        layers=_mobilenet_v1,
        stem_bn="conv1_bn",
        ignore=TOP,
    ),
    "mobilenet_v2": Family(
        application=lambda backbone: ("MobileNetV2", {"alpha": backbone.width_multiplier}),
        layers=_mobilenet_v2,
        stem_bn="bn_Conv1",
        ignore=TOP,
    ),
    "resnet_v1": Family(
        application=lambda backbone: (f"ResNet{backbone.variant.split('_')[2]}", {}),
        layers=_resnet_v1,
        stem_bn="conv1_bn",
        ignore=TOP,
        note=lambda backbone: None,
    ),
    "resnet_v2": Family(
        application=lambda backbone: (f"ResNet{backbone.variant.split('_')[2]}V2", {}),
        layers=_resnet_v2,
        stem_bn="conv2_block1_preact_bn",
        ignore=TOP,
        note=lambda backbone: None,
    ),
    "efficientnet": Family(
        application=lambda backbone: (f"EfficientNet{backbone.variant.upper()}", {}),
        layers=_efficientnet,
        stem_bn="stem_bn",
        ignore=(*TOP, (r"top_(conv|bn)/.*", CLASSIFIER), (r"normalization(_\d+)?/.*", "the model's pixel scaling")),
        note=lambda backbone: (
            ODD_SIDES if backbone.taps == "stages" else f"{ODD_SIDES}; levels are tapped from the blocks that end B0's"
        ),
    ),
}


class KerasWeights(NetworkWeights):
    """Weights of a classification network of keras.applications, as a source that the strict restore reads.

    Args:
        backbone: the `Backbone` that the weights are for.
        source: a Keras model that is, or contains, the matching network; or the path of a `.weights.h5` file, of the
            `.h5` that keras.applications downloads, or of the `.h5` of a whole model. No file is fetched.
        name: what messages call a model.

    Attributes:
        shapes: `{"layer/variable": shape}` of the network.
        ignored: `{"layer/variable": reason}`: dense layers, which no backbone has.
        ignore: rules for the rest of the classifier.
        notes: what differs although the weights fit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a backbone whose arithmetic is not that of keras.applications, or another network.
    """

    def __init__(self, backbone, source, name=None):
        family = family_of(backbone)
        self.rows = family.layers(backbone)
        self.application, settings = family.application(backbone)
        self.ignore = tail_rules(backbone, self.rows, family)
        self.source = source_name(source, name)
        wanted = (next(iter(self.rows.values())), family.stem_bn)
        if not isinstance(source, keras.Model) and self.take_named(existing_file(source), wanted, _is_classifier):
            told = _told_by_file(self._file, family.stem_bn, self._file.network(wanted))
        else:
            network = self._network(source, settings, wanted)
            self._take(network)
            told = _told_by_network(network, family.stem_bn)
        self.notes = tuple(_notes(backbone, family, *told))

    def _take(self, network):
        self._variables, self.ignored = {}, {}
        for layer in network.layers:
            for variable in layer.weights:
                name = f"{layer.name}/{variable.name}"
                if isinstance(layer, keras.layers.Dense):
                    self.ignored[name] = CLASSIFIER
                else:
                    self._variables[name] = variable
        self.shapes = {name: tuple(variable.shape) for name, variable in self._variables.items()}

    def _network(self, source, settings, wanted):
        if not isinstance(source, keras.Model):
            return _load_h5(self.application, settings, existing_file(source))
        network = network_with(source, wanted)
        if network is not None:
            return network
        raise ValueError(
            f"{self.source} is not keras.applications' {self.application}: it has no layers {wanted[0]!r} "
            f"and {wanted[1]!r}. Pass keras.applications.{self.application}(include_top=False), or a model around it."
        )


def family_of(backbone):
    """The row of `FAMILIES` for a backbone.

    Raises `ValueError` for a backbone that has none, and for a zoo row whose arithmetic is not keras.applications'.
    """
    family = backbone.checkpoint_family
    if family not in FAMILIES:
        raise ValueError(
            f"Weights of keras.applications restore into backbones of the families {', '.join(FAMILIES)}. Received the "
            f"backbone '{type(backbone).__name__}', which declares checkpoint_family={family!r}. A wrapped Keras model "
            "brings its weights: load them before it is wrapped."
        )
    if family == "resnet_v1" and RESNET_V1_VARIANTS[backbone.variant].arithmetic != KERAS_APPLICATIONS:
        raise ValueError(
            f"'{backbone.variant}' has the arithmetic of upstream's zoo (no biases, other padding of the first "
            "pooling, RGB): weights of keras.applications would give other features in it. Build the model with "
            f"'{backbone.variant}_keras', or restore a checkpoint of upstream."
        )
    return FAMILIES[family]


def tail_rules(backbone, rows, family):
    """`family.ignore`, and a rule for each of their layers whose counterpart our backbone has no use for."""
    built = {layer.name for layer in backbone.layers}
    unused = "|".join(theirs for ours, theirs in rows.items() if ours not in built)
    return family.ignore + (((rf"({unused})/.*", "behind the last feature level"),) if unused else ())


def _load_h5(application, settings, path):
    """A network of keras.applications with the weights of a file that holds no architecture."""
    # a Keras 3 file with a classifier loads into the network without one, the older format does not
    tops = ({"include_top": False, "input_shape": (None, None, 3)}, {"include_top": True})
    problem = "not an HDF5 file, or truncated"
    for top in tops[:1] if _is_keras_3(path) else tops:
        if not _is_hdf5(path):
            break
        network = getattr(keras.applications, application)(weights=None, **top, **settings)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras warns of containers that hold no layer
                network.load_weights(path)
            _check_leftovers(path, network)
            return network
        except Exception as error:  # Keras and HDF5 raise many kinds for a damaged file
            problem = reason(error)
    raise ValueError(
        f"{path} does not hold the weights of keras.applications' {application} ({problem}). Pass the weights of the "
        "network that the backbone is, or the Keras model itself."
    )


def _is_hdf5(path):
    """Whether the whole file can be opened; HDF5's own test reads its first bytes only."""
    try:
        h5py.File(path, "r").close()
    except OSError:
        return False
    return True


def _is_keras_3(path):
    if not _is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "layers" in file


def _check_leftovers(path, network):
    """A deeper network's file would fill a shallower one and be cut: only a classifier may be left over."""
    if not _is_keras_3(path):
        return
    with h5py.File(path, "r") as file:
        layers = [group["vars"] for name, group in file["layers"].items() if "vars" in group and name != "dense"]
        found = sum(len(variables) for variables in layers)
    wanted = sum(len(layer.weights) for layer in network.layers)
    if not 0 <= found - wanted <= 2:  # kernel and bias of MobileNetV1's classifier, a convolution
        raise ValueError(f"{found} variables in the file, {wanted} in the network")


def _is_classifier(layer, variables):
    """Why the weights of a layer of a file are skipped: those of a dense layer; `None` for every other one."""
    return CLASSIFIER if is_dense(variables) else None


def _told_by_network(network, stem_bn):
    """`(epsilon of the first batch norm, [weights of each layer that scales pixels])` of a Keras model."""
    scalings = [layer for layer in network.layers if isinstance(layer, keras.layers.Normalization)]
    return network.get_layer(stem_bn).epsilon, [layer.get_weights()[:2] for layer in scalings]


def _told_by_file(file, stem_bn, layers):
    """As `_told_by_network`, of a file; `None` for an epsilon that it does not tell."""
    scalings = [found for found in layers.values() if {"mean", "variance"} <= found.keys()]
    values = [[file.read(found[name][0]) for name in ("mean", "variance")] for found in scalings]
    return file.setting(stem_bn, "epsilon"), values


def _notes(backbone, family, epsilon, scalings):
    if family.note(backbone):
        yield family.note(backbone)
    first = next(ours for ours, theirs in family.layers(backbone).items() if theirs == family.stem_bn)
    ours = backbone.get_layer(first).epsilon
    if epsilon not in (None, ours):
        yield f"batch norm's epsilon is {epsilon:g} in the source and {ours:g} here, so features differ a little"
    if not all(_is_imagenet_scaling(*values) for values in scalings):
        yield "the source scales its pixels by other means and deviations than ImageNet's, which are used here"


def _is_imagenet_scaling(mean, variance):
    """keras.applications keeps the deviations where the variances belong, and divides by their root once more."""
    mean, variance = (np.ravel(keras.ops.convert_to_numpy(value)) for value in (mean, variance))
    deviations = np.asarray(torch_arithmetic.STD)
    return np.allclose(mean, torch_arithmetic.MEAN, atol=1e-3) and any(
        np.allclose(variance, expected, atol=1e-3) for expected in (deviations, deviations**2)
    )
