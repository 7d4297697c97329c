"""State dicts of torchvision's and timm's classifiers into backbones with torch's arithmetic, as tables of names."""

import os
import pathlib
import re
from collections.abc import Callable

import numpy as np

from keras_detect.backbones import efficientnet
from keras_detect.backbones.mobilenet_v2 import STAGES as MOBILENET_V2_STAGES
from keras_detect.backbones.resnet_v1 import VARIANTS as RESNET_V1_VARIANTS
from keras_detect.weights.keras_model import existing_file
from keras_detect.weights.safetensors_file import SafetensorsFile
from keras_detect.weights.sources import BACKBONE_ALONE, Plan, is_path, register_reader

VARIABLES = {"kernel": "weight", "bias": "bias"}
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
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
        backbone: the `Backbone` that the weights are for, with torch's arithmetic.
        path: of a safetensors file, or of one of torch, which is read with `weights_only=True`.

    Attributes:
        shapes: `{"module/variable": shape}`, kernels as Keras has them.

    Raises:
        FileNotFoundError: no such file.
        ImportError: a file of torch, without torch.
        ValueError: another backbone, or a damaged file.
    """

    advice = "Pass the state dict of the network that the backbone is, of the same depth and width."

    def __init__(self, backbone, path: str | os.PathLike):
        if backbone.checkpoint_family not in FAMILIES:
            raise ValueError(
                "State dicts of torch restore into backbones with torch's padding, pixel scaling and batch norm: "
                "resnet_v1_50_torch, resnet_v1_101_torch, resnet_v1_152_torch, mobilenet_v2_torch, "
                f"efficientnet_b0_torch. Received: '{type(backbone).__name__}' of another arithmetic, in which the "
                "weights would give other features."
            )
        self.source = os.fspath(path)
        self._state = _opened(existing_file(path), self.source)
        shapes = {name.removeprefix("module."): (name, tuple(shape)) for name, shape in self._state.shapes.items()}
        self.rows = FAMILIES[backbone.checkpoint_family](backbone, shapes)
        ours = {theirs: layer for layer, theirs in self.rows.items()}
        self._names, self.shapes, self.ignored = {}, {}, {}
        for name, (key, shape) in shapes.items():
            module, _, variable = name.rpartition(".")
            layer = ours.get(module)
            table = BATCH_NORM if layer is not None and layer.endswith("bn") else VARIABLES
            mine = next((mine for mine, theirs in table.items() if theirs == variable), None)
            reason = next((reason for pattern, reason in IGNORED if re.fullmatch(pattern, name)), None)
            if layer is not None and mine is not None:
                depthwise = layer.endswith("depthwise")
                self._names[f"{module}/{mine}"] = (key, depthwise)
                self.shapes[f"{module}/{mine}"] = _keras_shape(shape, depthwise)
            elif reason is not None:
                self.ignored[name] = reason
            else:
                self._names[name], self.shapes[name] = (key, False), shape

    def key(self, weight: str) -> str | None:
        """`"backbone/stem_conv/kernel"` -> `"conv1/kernel"`; `None` for a weight that the table has not."""
        layer, _, variable = weight.removeprefix("backbone/").rpartition("/")
        return f"{self.rows[layer]}/{variable}" if layer in self.rows else None

    def read(self, key: str) -> np.ndarray:
        """The value under `key`, laid out as Keras has it."""
        name, depthwise = self._names[key]
        value = self._state.read(name)
        if value.ndim != 4:
            return value
        return value.transpose(2, 3, 0, 1) if depthwise else value.transpose(2, 3, 1, 0)


def _keras_shape(shape, depthwise):
    if len(shape) != 4:
        return shape
    outputs, inputs, height, width = shape
    return (height, width, outputs, inputs) if depthwise else (height, width, inputs, outputs)


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
    what="a state dict (.safetensors, or .pth where torch is installed) of torchvision's or timm's ResNet-50, -101, "
    "-152, MobileNetV2 or EfficientNet-B0 (with kind='classification')",
    opens=lambda source: is_path(source, ".safetensors", ".pth", ".pt"),
)
def state_dict(model, source, kind):
    """The plan for a state dict of a classifier."""
    if kind != "classification":
        raise ValueError(
            f"A state dict of a classifier restores into the backbone alone: pass kind='classification'. Received: "
            f"kind={kind!r}."
        )
    (backbone,) = model._weight_groups()["backbone"]
    reader = TorchWeights(backbone, source)
    return Plan(reader=reader, name_map=reader.key, skip=BACKBONE_ALONE)
