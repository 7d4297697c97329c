"""State dicts of torch: torchvision's and timm's classifiers into backbones, torchvision's detectors into models."""

import os
import pathlib
import re
from collections.abc import Callable

import numpy as np

from keras_detect.backbones import efficientnet
from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES
from keras_detect.backbones.resnet_v1 import VARIANTS as RESNET_V1_VARIANTS
from keras_detect.weights import torch_detectors, torch_layout
from keras_detect.weights.folded_batch_norm import batch_norms
from keras_detect.weights.keras_file import existing_file
from keras_detect.weights.safetensors_file import SafetensorsFile
from keras_detect.weights.sources import BACKBONE_ALONE, OTHER_PARTS, Plan, is_path, register_reader

VARIABLES = {"kernel": "weight", "bias": "bias"}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
EPSILON = 1e-5  # of torch's batch norm
#: of the frozen batch norm in torchvision's detectors of the first version, whose state dicts count no batches: the
#: published weights were trained with none
FROZEN_EPSILON = 0.0
IGNORED = (
    (r".*num_batches_tracked", "counts the training steps"),
    (r"(fc|classifier(\.\d+)?)\.(weight|bias)", "the classifier, which no detector reads"),
    (r"(features\.8\.\d|conv_head|bn2)\..*", "behind the last feature level"),
)
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")


class TorchFileError(ValueError):
    """A file of torch that holds no state dict or cannot be read. One line that names the file."""


def _resnet(backbone, state):
    rows = {"stem_conv": "conv1", "stem_bn": "bn1"}
    parts = (("reduce", "1"), ("middle", "2"), ("expand", "3"))
    for number, blocks in enumerate(RESNET_V1_VARIANTS[backbone.variant].blocks):
        for index in range(blocks):
            ours, theirs = f"stage_{number + 2}_block_{index}", f"layer{number + 1}.{index}"
            for part, digit in parts:
                rows |= {f"{ours}_{part}_conv": f"{theirs}.conv{digit}", f"{ours}_{part}_bn": f"{theirs}.bn{digit}"}
            if index == 0:
                rows[f"{ours}_shortcut_conv"] = f"{theirs}.downsample.0"
                rows[f"{ours}_shortcut_bn"] = f"{theirs}.downsample.1"
    return rows


def _inverted(ours, expanded, theirs, names):
    """Rows of an inverted residual: `names` are theirs of expansion, depthwise and projection, (conv, bn) each."""
    parts = (("expand_conv", "expand_bn"), ("depthwise", "bn"), ("project_conv", "project_bn"))
    rows = {}
    for (conv, norm), (their_conv, their_norm) in zip(parts[0 if expanded else 1 :], names, strict=True):
        rows |= {f"{ours}_{conv}": f"{theirs}.{their_conv}", f"{ours}_{norm}": f"{theirs}.{their_norm}"}
    return rows


#: names of a block in timm, without and with expansion
_TIMM = {
    False: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    True: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


def _mobilenet_v2(backbone, state):
    timm, index = _is_timm(state), 0
    rows = _ends(timm, "18")
    for number, stage in enumerate(MOBILENET_V2_STAGES):
        for repeat in range(stage.repeats):
            expanded = stage.expansion > 1
            if timm:
                theirs, names = f"blocks.{number}.{repeat}", _TIMM[expanded]
            else:
                theirs = f"features.{index + 1}.conv"
                count = 2 if expanded else 1
                names = [(f"{place}.0", f"{place}.1") for place in range(count)] + [(f"{count}", f"{count + 1}")]
            rows |= _inverted(f"block_{index}", expanded, theirs, names)
            index += 1
    return rows


def _efficientnet(backbone, state):
    timm = _is_timm(state)
    rows = {ours: theirs for ours, theirs in _ends(timm, "8").items() if ours.startswith("stem")}
    row = efficientnet.VARIANTS[backbone.variant]
    for number, stage in enumerate(efficientnet.STAGES):
        for index in range(row.repeats(stage)):
            ours, expanded = f"stage_{number}_block_{index}", stage.expansion > 1
            squeeze = {"reduce": "se.conv_reduce", "expand": "se.conv_expand"}
            theirs, names = f"blocks.{number}.{index}", _TIMM[expanded]
            if not timm:
                theirs, first = f"features.{number + 1}.{index}.block", int(expanded)
                places = [*range(first + 1), first + 2]
                names = [(f"{place}.0", f"{place}.1") for place in places]
                squeeze = {"reduce": f"{first + 1}.fc1", "expand": f"{first + 1}.fc2"}
            rows |= _inverted(ours, expanded, theirs, names)
            rows |= {f"{ours}_se_{part}_conv": f"{theirs}.{name}" for part, name in squeeze.items()}
    return rows


def _ends(timm, last):
    """Rows of the first and the last convolution."""
    if timm:
        return {"stem_conv": "conv_stem", "stem_bn": "bn1", "head_conv": "conv_head", "head_bn": "bn2"}
    head = f"features.{last}"
    return {
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "head_conv": f"{head}.0",
        "head_bn": f"{head}.1",
    }


def _is_timm(state):
    return "conv_stem.weight" in state


#: `checkpoint_family` of a backbone -> function of it and the state's names -> `{our layer: their module}`
FAMILIES: dict[str, Callable] = {
    "mobilenet_v2_torch": _mobilenet_v2,
    "resnet_v1_torch": _resnet,
    "efficientnet_torch": _efficientnet,
}


class TorchWeights:
    """A state dict as a source that the strict restore reads.

    Args:
        model: the detector that the weights are for, with a backbone of torch's arithmetic.
        path: of a safetensors file, or of one of torch, which is read with `weights_only=True`.
        alone: whether the backbone alone is asked for.

    Attributes:
        shapes: `{"module/variable": shape}`, kernels as Keras has them.

    Raises:
        FileNotFoundError: no such file.
        ImportError: a file of torch, without torch.
        ValueError: another backbone, another kind of file, or a damaged one.
    """

    advice = "Pass the state dict of the network that the model is, of the same depth and width."

    def __init__(self, model, path: str | os.PathLike, alone: bool):
        (backbone,) = model._weight_groups()["backbone"]
        if backbone.checkpoint_family not in FAMILIES:
            raise ValueError(
                "State dicts of torch restore into backbones with torch's padding, pixel scaling and batch norm: "
                "resnet_v1_50_torch, resnet_v1_101_torch, resnet_v1_152_torch, mobilenet_v2_torch, "
                f"efficientnet_b0_torch. Received: '{type(backbone).__name__}' of another arithmetic, in which the "
                "weights would give other features."
            )
        self.source = os.fspath(path)
        self._state = _opened(existing_file(path), self.source)
        names = {torch_detectors.newer_name(name.removeprefix("module.")): name for name in self._state.shapes}
        whole = torch_detectors.is_detector(names)
        if not alone and not whole:
            raise ValueError(
                f"{self.source}: the state dict of a classifier restores into the backbone alone: pass "
                "kind='classification'. Received: kind='detection'."
            )
        self._tracked = {name.rpartition(".")[0] for name in names if name.endswith(".num_batches_tracked")}
        prefix = f"{torch_detectors.BODY}." if whole else ""
        rows = FAMILIES[backbone.checkpoint_family](backbone, {name.removeprefix(prefix) for name in names})
        self.rows = {f"backbone/{layer}": f"{prefix}{module}" for layer, module in rows.items()}
        self._changes: dict[str, Callable] = {}
        if not alone:
            others = torch_detectors.rows(model)
            self.rows, self._changes = self.rows | others.layers, others.changes
        self._epsilons = {layer.name: layer.epsilon for layer in batch_norms(model)}
        self._sort(names, tuple(IGNORED) + (((rf"(?!{re.escape(prefix)}).*", OTHER_PARTS),) if whole and alone else ()))

    def _sort(self, names, ignored):
        """Fills `_names`, `shapes` and `ignored` from `{name: key in the file}`."""
        layers = {module: layer for layer, module in self.rows.items()}
        self._names, self.shapes, self.ignored = {}, {}, {}
        for name, key in names.items():
            module, _, variable = name.rpartition(".")
            layer, shape = layers.get(module), tuple(self._state.shapes[key])
            table = NORM if layer is not None and layer.endswith(("bn", "gn")) else VARIABLES
            mine = next((mine for mine, theirs in table.items() if theirs == variable), None)
            reason = next((reason for pattern, reason in ignored if re.fullmatch(pattern, name)), None)
            if layer is not None and mine is not None:
                self._names[f"{module}/{mine}"] = (key, layer)
                self.shapes[f"{module}/{mine}"] = torch_layout.shape_after(lambda x, to=layer: self._laid(x, to), shape)
            elif reason is not None:
                self.ignored[name] = reason
            else:
                self._names[name], self.shapes[name] = (key, None), shape

    def _laid(self, value, layer):
        value = self._changes[layer](value) if layer in self._changes else value
        return torch_layout.in_keras(value, layer.endswith("depthwise"))

    def key(self, weight: str) -> str | None:
        """`"backbone/stem_conv/kernel"` -> `"conv1/kernel"`; `None` for a weight that the table has not."""
        layer, _, variable = weight.rpartition("/")
        return f"{self.rows[layer]}/{variable}" if layer in self.rows else None

    def read(self, key: str) -> np.ndarray:
        """The value under `key`, laid out as Keras has it."""
        name, layer = self._names[key]
        value = self._state.read(name)
        if layer is None:
            return value
        module, _, variable = key.rpartition("/")
        if variable == "gamma" and layer.endswith("bn"):
            variance, _ = self._names[f"{module}/moving_variance"]
            value = self._rescaled(value, self._state.read(variance), module, layer.rpartition("/")[2])
        return self._laid(value, layer)

    def _rescaled(self, gamma, variance, module, layer):
        """`gamma` for our layer's epsilon, where theirs is another: the outputs stay what they are."""
        ours = self._epsilons[layer]
        theirs = EPSILON if module in self._tracked else FROZEN_EPSILON
        if ours == theirs:
            return gamma
        variance = variance.astype("float64")
        factor = np.where(variance + theirs > 0, (variance + ours) / np.maximum(variance + theirs, 1e-300), 1.0)
        return (gamma * np.sqrt(factor)).astype("float32")


class _TorchFile:
    """A file of `torch.save`, without running what is in it."""

    def __init__(self, path, source):
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                f"{source}: a file of torch is read by torch: pip install torch, or save the weights as safetensors, "
                "which needs nothing."
            ) from error
        self.source = source
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and torch each have errors of their own
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TorchFileError(
                f"{source}: no state dict that torch reads with weights_only=True ({reason})"
            ) from error
        for wrapper in _WRAPPERS:
            if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
                state = state[wrapper]
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise TorchFileError(f"{source}: holds no state dict: a dict of tensors")
        self._state = {str(name): value for name, value in state.items()}
        self.shapes = {name: tuple(value.shape) for name, value in self._state.items()}

    def read(self, name):
        value = self._state[name].float().numpy()
        if not np.isfinite(value).all():
            raise TorchFileError(f"{self.source}: {name!r} holds NaN or infinite values")
        return value


def _opened(path: pathlib.Path, source):
    return SafetensorsFile(path) if path.suffix == ".safetensors" else _TorchFile(path, source)


@register_reader(
    "torch",
    what="a state dict (.safetensors, or .pth where torch is installed) of torchvision's retinanet_resnet50_fpn or "
    "fasterrcnn_resnet50_fpn, or their _v2, and of torchvision's or timm's ResNet-50, -101, -152, MobileNetV2 or "
    "EfficientNet-B0 (with kind='classification')",
    opens=lambda source: is_path(source, ".safetensors", ".pth", ".pt"),
)
def state_dict(model, source, kind):
    """The plan for a state dict of a detector or a classifier."""
    alone = kind == "classification"
    reader = TorchWeights(model, source, alone)
    if alone:
        return Plan(reader=reader, name_map=reader.key, skip=BACKBONE_ALONE)
    may_differ = ((model.class_head, "class head for another number of classes"),)
    return Plan(reader=reader, name_map=reader.key, may_differ=may_differ)
