"""Reads the kernels and biases of LiteRT files (`.tflite`): names, shapes and values, without running the model.

A LiteRT file holds operators and constants, not variables. A convolution is known by its scope, the name that its
filter had in the graph which was converted ("FeatureExtractor/MobilenetV2/Conv"). Constants are float32, float16 or
integers with scales and zero points per tensor or per channel, which are de-quantized: `scale * (q - zero_point)`.
The layout of the file is the schema of TensorFlow Lite, version 3.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable

import numpy as np

from keras_detect.weights.flatbuffer import FlatBufferError, Table, root

IDENTIFIER = b"TFL3"
_LARGEST = 2**31  # FlatBuffers hold no more
_CONV_2D, _DEPTHWISE_CONV_2D, _DEQUANTIZE = 3, 4, 6
#: number of a tensor's type in the schema -> numpy's; what is not in it (strings, 4 bits, complex) holds no weights
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1", 10: "<f8", 16: "<u4"}
_OTHER = "no kernel or bias of a convolution"
# what is behind the scope in the name of a filter
_TAIL = re.compile(
    r"/(Conv2D|depthwise|separable_conv2d|convolution|BiasAdd|BatchNorm/[^/]+|Relu6?|(depthwise_)?weights(_quant/.*)?|"
    r"(depthwise_)?kernel|FusedBatchNormV3)(/ReadVariableOp)?(/resource)?(_dequantize)?\d*$"
)


class LiteRTError(ValueError):
    """A LiteRT file that is damaged, truncated or of another kind. One line that names the file."""


@dataclasses.dataclass(frozen=True)
class _Constant:
    """A tensor with content: its shape, the content's type and place, how it is de-quantized and laid out."""

    shape: tuple
    dtype: np.dtype
    content: memoryview
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int
    depthwise: int = 0  # channels of the input, for the filter of a depthwise convolution


class LiteRTReader:
    """Kernels and biases of the convolutions of one LiteRT file.

    Args:
        path: of the file.
        canonical: scope in the file -> scope as a name table has it.

    Attributes:
        source: the path, for messages.
        shapes: `{"scope/kernel" or "scope/bias": shape}`, kernels `[h, w, in, out]`, of depthwise convolutions
            `[h, w, in, multiplier]`, as Keras has them.
        ignored: `{name: reason}` of the other constants.

    Raises:
        FileNotFoundError: no such file.
        LiteRTError: not a LiteRT file, a damaged one, one without convolutions, or two convolutions of one scope.
    """

    advice = "Build the model that the file was converted from: the same backbone, anchors and number of classes."

    def __init__(self, path: str | os.PathLike, canonical: Callable[[str], str] = str):
        self.source, self._canonical = os.fspath(path), canonical
        path = pathlib.Path(path).expanduser()
        if path.stat().st_size >= _LARGEST:
            raise LiteRTError(f"{self.source}: a LiteRT file is smaller than 2 GiB")
        buffer = path.read_bytes()
        if buffer[4:8] != IDENTIFIER:
            raise LiteRTError(f"{self.source}: not a LiteRT file (bytes 4 to 8 are not {IDENTIFIER.decode()!r})")
        self._constants: dict[str, _Constant] = {}
        self.ignored: dict[str, str] = {}
        try:
            self._read_graph(root(buffer))
        except (FlatBufferError, IndexError, OverflowError, MemoryError) as error:
            raise LiteRTError(f"{self.source}: damaged or truncated ({error})") from error
        if not self._constants:
            raise LiteRTError(f"{self.source}: holds no convolution with constant weights")
        self.shapes = {key: _keras_shape(constant) for key, constant in self._constants.items()}

    def read(self, key: str) -> np.ndarray:
        """The value under `key`, float32. Raises `LiteRTError` for a value that is not finite."""
        constant = self._constants[key]
        values = np.frombuffer(constant.content, constant.dtype).reshape(constant.shape).astype(np.float64)
        if constant.scales.size:
            spread = [1] * len(constant.shape)
            if constant.scales.size > 1:
                spread[constant.axis] = -1
            values = (values - constant.zero_points.reshape(spread)) * constant.scales.reshape(spread)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise LiteRTError(f"{self.source}: {key!r} holds NaN or infinite values")
        if constant.depthwise:
            return values.reshape(_keras_shape(constant))
        return values.transpose(1, 2, 3, 0) if values.ndim == 4 else values

    def scopes(self) -> set[str]:
        """The scopes of the file's convolutions."""
        return {key.rpartition("/")[0] for key in self.shapes}

    def rename(self, canonical: Callable[[str], str]) -> None:
        """Calls each scope what `canonical` makes of it. Raises `LiteRTError` where two would be called the same."""
        names = {scope: canonical(scope) for scope in self.scopes()}
        if len(set(names.values())) < len(names):
            twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
            raise LiteRTError(f"{self.source}: two convolutions are called {twice!r}")

        def renamed(table):
            parts = ((*key.rpartition("/")[::2], value) for key, value in table.items())
            return {f"{names[scope]}/{variable}": value for scope, variable, value in parts}

        self._constants, self.shapes = renamed(self._constants), renamed(self.shapes)

    def _read_graph(self, model: Table):
        subgraphs, buffers = model.tables(2), model.tables(4)
        if not subgraphs:
            raise FlatBufferError("no subgraph")
        # the code of a built-in operator is in field 3, in older files in field 0
        codes = [max(code.scalar(0, "<b"), code.scalar(3, "<i")) for code in model.tables(1)]
        tensors, operators = subgraphs[0].tables(0), subgraphs[0].tables(3)
        wired = [(codes[op.scalar(0, "<I")], op.numbers(1, "i"), op.numbers(2, "i"), op) for op in operators]
        stored = {out[0]: into[0] for code, into, out, _ in wired if code == _DEQUANTIZE and into and out}
        used = set()
        for code, into, _, operator in wired:
            if code not in (_CONV_2D, _DEPTHWISE_CONV_2D) or len(into) < 2:
                continue
            sources = [stored.get(index, index) for index in into[1:3]]
            used.update(sources)
            scope = self._canonical(scope_of(_at(tensors, into[1]).string(3)))
            multiplier = 0
            if code == _DEPTHWISE_CONV_2D:
                options = operator.table(4)
                multiplier = 1 if options is None else options.scalar(3, "<i", 0)
            for variable, index in zip(("kernel", "bias"), sources, strict=False):
                if index >= 0:
                    channels = multiplier if variable == "kernel" else 0
                    self._add(f"{scope}/{variable}", _at(tensors, index), buffers, channels)
        for index, tensor in enumerate(tensors):
            if index not in used and _content(tensor, buffers) is not None:
                self.ignored[tensor.string(3) or f"tensor {index}"] = _OTHER

    def _add(self, key, tensor, buffers, multiplier):
        content = _content(tensor, buffers)
        if content is None:
            raise LiteRTError(f"{self.source}: {key!r} is computed by the graph, not a constant")
        if key in self._constants:
            raise LiteRTError(f"{self.source}: two convolutions are called {key.rpartition('/')[0]!r}")
        kind = tensor.scalar(1, "<b")
        if kind not in _DTYPES:
            raise LiteRTError(f"{self.source}: {key!r} has type {kind} of the schema, which holds no weights")
        constant = _constant(tensor, content, np.dtype(_DTYPES[kind]), multiplier)
        if math.prod(constant.shape) * constant.dtype.itemsize != len(content):
            raise FlatBufferError(f"{key!r} has shape {constant.shape} and {len(content)} bytes")
        if len(constant.shape) != (4 if key.endswith("/kernel") else 1):
            raise FlatBufferError(f"{key!r} has shape {constant.shape}")
        self._constants[key] = constant


def scope_of(name: str) -> str:
    """The scope of a convolution by its filter's name: "a/Conv2D;b/Conv2D" -> "a"."""
    first = name.split(";")[0]
    found = _TAIL.search(first)
    return first[: found.start()] if found else first


def _at(tensors, index):
    if not 0 <= index < len(tensors):
        raise FlatBufferError(f"an operator names tensor {index} of {len(tensors)}")
    return tensors[index]


def _content(tensor, buffers):
    """The bytes of a constant; `None` for a tensor that is computed."""
    index = tensor.scalar(2, "<I")
    if not 0 <= index < len(buffers):
        raise FlatBufferError(f"a tensor names buffer {index} of {len(buffers)}")
    content = buffers[index].bytes(0)
    return content if content is not None and len(content) else None


def _constant(tensor, content, dtype, multiplier):
    shape = tuple(tensor.numbers(0, "i"))
    if any(side < 1 for side in shape):
        raise FlatBufferError(f"a constant has shape {shape}")
    scales, zero_points, axis = np.zeros(0), np.zeros(0), 0
    quantization = tensor.table(4)
    if quantization is not None and dtype.kind in "iu":
        scales = np.asarray(quantization.numbers(2, "f"), np.float64)
        zero_points = np.asarray(quantization.numbers(3, "q"), np.float64)
        axis = quantization.scalar(6, "<i")
    if dtype.kind in "iu":
        _check_quantization(shape, scales, zero_points, axis)
        zero_points = zero_points if zero_points.size else np.zeros_like(scales)
    inputs = 0
    if multiplier:
        inputs, rest = divmod(shape[-1], multiplier) if multiplier > 0 and len(shape) == 4 else (0, 1)
        if rest or shape[0] != 1:
            raise FlatBufferError(f"a depthwise filter has shape {shape} and multiplier {multiplier}")
    return _Constant(shape, dtype, content, scales, zero_points, axis, inputs)


def _check_quantization(shape, scales, zero_points, axis):
    if not scales.size:
        raise FlatBufferError(f"an integer constant of shape {shape} has no scale")
    if scales.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scales.size):
        raise FlatBufferError(f"{scales.size} scales along axis {axis} of a constant of shape {shape}")
    if zero_points.size not in (0, scales.size):
        raise FlatBufferError(f"{zero_points.size} zero points and {scales.size} scales")


def _keras_shape(constant):
    """The shape as Keras has it: LiteRT has the output channels of a kernel first, of a depthwise one last."""
    if constant.depthwise:
        _, height, width, channels = constant.shape
        return (height, width, constant.depthwise, channels // constant.depthwise)
    if len(constant.shape) == 4:
        outputs, height, width, inputs = constant.shape
        return (height, width, inputs, outputs)
    return constant.shape
