"""Weights out of a graph of TensorFlow 1: a frozen graph, whose constants have the variables' names, or a SavedModel.

The file is parsed as a message and nothing else: no graph is built and no operation runs. TensorFlow gives the message
classes alone.
"""

import math
import os
import pathlib
import re

import numpy as np

from keras_detect.weights.checkpoint_file import MAX_RANK, NUMPY_TYPES, CheckpointError, quoted
from keras_detect.weights.tf2_object_checkpoint import IGNORED_NAMES, CheckpointReader, ignored_as, ranges_of

MAX_BYTES = 2**31 - 1  # the most that a protobuf message can have

#: last component of the name that tf_slim gives a variable
VARIABLE = re.compile(
    r"(.+/)?(weights|biases|depthwise_weights|pointwise_weights|gamma|beta|moving_mean|moving_variance|\w*quant(_\d+)?/.*)"
)
SAVED_MODEL = "saved_model.pb"
FROZEN = "frozen_inference_graph.pb"
_VALUES = {  # dtype -> field of a TensorProto that has the numbers where they are not packed as bytes
    np.dtype("float32"): "float_val",
    np.dtype("float64"): "double_val",
    np.dtype("int64"): "int64_val",
    np.dtype("bool"): "bool_val",
}


class FrozenGraph:
    """The constants of a graph that are variables of a model, by name.

    Args:
        path: a `.pb` file: a frozen graph, or the `saved_model.pb` of a SavedModel whose variables are constants.
        source: what messages call it; default: the path.

    Attributes:
        source: as passed.
        tf1: True: the names are those of a graph of TensorFlow 1.
        shapes: `{name: shape tuple}` of the model's variables.
        ignored: `{name: reason}` of what else looks like a variable.

    Raises:
        CheckpointError: no such graph, a damaged one, one without variables or one whose variables are elsewhere.
    """

    tf1 = True

    def __init__(self, path: str | os.PathLike, source: str | os.PathLike | None = None):
        path = pathlib.Path(path)
        self.source = str(source or path)
        nodes = self._nodes(path)
        self._tensors = {
            node.name: node.attr["value"].tensor
            for node in nodes
            if node.op == "Const" and VARIABLE.fullmatch(node.name)
        }
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.ignored: dict[str, str] = {}
        for name in sorted(self._tensors):
            reason = ignored_as(name, IGNORED_NAMES)
            if reason is None:
                self.shapes[name] = self._shape(name)
            else:
                self.ignored[name] = reason
        if not self.shapes:
            raise CheckpointError(
                f"{self.source}: holds no variable as a constant; supported: frozen graphs of TensorFlow 1 "
                "(frozen_inference_graph.pb). Pass the checkpoint that it was exported from"
            )

    def _nodes(self, path):
        from google.protobuf.message import DecodeError
        from tensorflow.core.framework import graph_pb2
        from tensorflow.core.protobuf import saved_model_pb2

        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{self.source}: has {size} bytes; supported: up to {MAX_BYTES}")
        content = path.read_bytes()
        try:
            if path.name == SAVED_MODEL:
                graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
                return [node for graph in graphs[:1] for node in graph.graph_def.node]
            return graph_pb2.GraphDef.FromString(content).node
        except DecodeError as error:
            raise CheckpointError(f"{self.source}: no graph of TensorFlow, or a damaged one") from error

    def __contains__(self, key):
        return key in self.shapes

    def read(self, key: str) -> np.ndarray:
        """The values of one variable. Raises `KeyError` for another name, `CheckpointError` for damaged values."""
        if key not in self.shapes:
            raise KeyError(f"{self.source} has no variable {key!r}")
        return self.read_any(key)

    def read_any(self, key: str) -> np.ndarray:
        """As `read`, also for a name that is in `ignored`."""
        tensor, shape = self._tensors[key], self._shape(key)
        dtype = NUMPY_TYPES.get(tensor.dtype)
        if dtype is None:
            raise CheckpointError(f"{self.source}: {quoted(key)} has a type of number that is not supported")
        wanted = math.prod(shape)
        if tensor.tensor_content:
            content = tensor.tensor_content
            if len(content) != wanted * dtype.itemsize:
                raise CheckpointError(f"{self.source}: {quoted(key)} has {len(content)} bytes for the shape {shape}")
            return np.frombuffer(content, dtype).reshape(shape)
        values = np.array(getattr(tensor, _VALUES.get(dtype, "int_val")), dtype)
        if not 0 < len(values) <= wanted:
            raise CheckpointError(f"{self.source}: {quoted(key)} has {len(values)} numbers for the shape {shape}")
        # the last number stands for all that follow
        return np.concatenate([values, np.full(wanted - len(values), values[-1])]).reshape(shape)

    def averaged(self) -> "FrozenGraph":
        """The graph itself: what froze it has put the averages in the variables' place where it was to."""
        return self

    def quantization_ranges(self) -> dict[str, tuple[float, float]]:
        """As `CheckpointReader.quantization_ranges`."""
        return ranges_of(self)

    def _shape(self, name):
        shape = self._tensors[name].tensor_shape
        sizes = tuple(dimension.size for dimension in shape.dim)
        if shape.unknown_rank or len(sizes) > MAX_RANK or any(size < 0 for size in sizes):
            raise CheckpointError(f"{self.source}: {quoted(name)} has no known shape")
        return sizes


def graph_file(path: pathlib.Path) -> pathlib.Path | None:
    """The graph at `path`: the file itself, or the one in a folder (or in its `saved_model`) that has no checkpoint."""
    if path.is_file():
        return path if path.suffix == ".pb" else None
    if not path.is_dir() or any(path.glob("*.index")):
        return None
    places = (path / FROZEN, path / SAVED_MODEL, path / "saved_model" / SAVED_MODEL)
    return next((place for place in places if place.is_file()), None)


def open_graph(path: pathlib.Path, source: str | os.PathLike | None = None) -> "FrozenGraph | CheckpointReader":
    """The variables of the graph `path`: its constants, or for a SavedModel that has them, its `variables`."""
    variables = path.parent / "variables" / "variables"
    if path.name == SAVED_MODEL and variables.with_name("variables.index").is_file():
        return CheckpointReader(variables, source=source or path)
    return FrozenGraph(path, source)
