"""LiteRT files (`.tflite`) put together from converted pieces: a network that is quantized, and what stays float32.

The converter quantizes everything it can, anchors and overlaps included. So pixel scaling, network and post-processing
are converted by themselves and joined here: one file, one graph.
"""

from typing import Any

import numpy as np

IDENTIFIER = b"TFL3"
FLOAT32 = 0  # number of the type in the schema
SIGNATURE = "serving_default"
_ALIGNMENT = 16  # of the content of buffers, as the schema of LiteRT expects it
_MIN_RUNTIME = b"min_runtime_version"
_SUBGRAPHS = (
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
    "subgraph",
)


class LiteRTGraph:
    """One LiteRT file that is being put together.

    Args:
        content: of a `.tflite` file with one signature.

    Attributes:
        model: the file's root table, `ModelT` of the schema.
        inputs: `{name in the signature: number of the tensor}`.
        outputs: the same of the outputs.
    """

    def __init__(self, content: bytes):
        self.model: Any = file_schema().ModelT.InitFromPackedBuf(bytearray(content), 0)
        signature = self.model.signatureDefs[0]
        self.inputs = {entry.name.decode(): int(entry.tensorIndex) for entry in signature.inputs}
        self.outputs = {entry.name.decode(): int(entry.tensorIndex) for entry in signature.outputs}

    @property
    def main(self) -> Any:
        """The subgraph that runs."""
        return self.model.subgraphs[0]

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor of the first subgraph."""
        return tuple(int(side) for side in self.main.tensors[tensor].shape)

    def append(self, after: "LiteRTGraph") -> None:
        """Puts `after` behind this graph; its outputs take the place of those that it uses.

        Args:
            after: a graph whose inputs are called like outputs of this one; it is used up.

        Raises:
            ValueError: tensors of different shapes or types.
        """
        wires = {there: self.outputs.pop(name) for name, there in after.inputs.items()}
        for there, here in wires.items():
            given, taken = self.main.tensors[here], after.main.tensors[there]
            if given.type != taken.type or self.shape(here) != after.shape(there):
                raise ValueError(
                    f"A part of a LiteRT file takes {after.shape(there)} of type {taken.type}. Received: "
                    f"{self.shape(here)} of type {given.type}."
                )
        self._take_buffers_and_codes(after)
        moved = self._take_main(after, wires)
        self.model.subgraphs.extend(after.model.subgraphs[1:])
        self.outputs.update({name: moved[number] for name, number in after.outputs.items()})
        self._keep_newer_runtime(after)

    def add_constant(self, name: str, value: np.ndarray) -> int:
        """Adds a float32 constant and returns the number of its tensor."""
        schema = file_schema()
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value, "<f4").tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self._add_tensor(name, value.shape, len(self.model.buffers) - 1)

    def add_custom(self, code: str, options: bytes, inputs: list[int], outputs: dict[str, tuple]) -> None:
        """Adds a custom operator, whose float32 outputs `{name: shape}` become the graph's."""
        schema = file_schema()
        kind = schema.OperatorCodeT()
        kind.builtinCode = schema.BuiltinOperator.CUSTOM
        kind.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        kind.customCode, kind.version = code.encode(), 1
        self.model.operatorCodes.append(kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.customOptions = np.frombuffer(options, np.uint8)
        operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
        self.outputs = {name: self._add_tensor(name, shape, 0) for name, shape in outputs.items()}
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray(list(self.outputs.values()), np.int32)
        self.main.operators.append(operator)

    def add_metadata(self, name: str, content: bytes) -> None:
        """Adds an entry to the file's table of metadata."""
        schema = file_schema()
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(buffer)
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), len(self.model.buffers) - 1
        self.model.metadata = [*(self.model.metadata or []), entry]

    def operators(self) -> list[tuple[str, Any]]:
        """`[(name in the schema, operator)]` of the first subgraph."""
        schema = file_schema()
        names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in self.model.operatorCodes]
        return [(names[codes[operator.opcodeIndex]], operator) for operator in self.main.operators]

    def finish(self, description: str, tensor_names: dict[str, str] | None = None) -> bytes:
        """The file, with one signature.

        Args:
            description: one line about the file.
            tensor_names: `{name of an input or output: name of its tensor}`; default: the same.
        """
        schema = file_schema()
        for name, number in {**self.inputs, **self.outputs}.items():
            self.main.tensors[number].name = (tensor_names or {}).get(name, name).encode()
        self.main.outputs = np.asarray(list(self.outputs.values()), np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
        signature.inputs = [_tensor_map(schema, name, number) for name, number in self.inputs.items()]
        signature.outputs = [_tensor_map(schema, name, number) for name, number in self.outputs.items()]
        self.model.signatureDefs = [signature]
        self.model.description = description.encode()
        return _packed(self.model)

    def _add_tensor(self, name, shape, buffer):
        schema = file_schema()
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), np.asarray(shape, np.int32), buffer
        tensor.type = FLOAT32
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def _take_buffers_and_codes(self, after):
        """Takes over buffers (the first is empty in every file) and operator codes, and renumbers what names them."""
        buffers, codes = len(self.model.buffers) - 1, len(self.model.operatorCodes)
        subgraphs = len(self.model.subgraphs) - 1
        for subgraph in after.model.subgraphs:
            for tensor in subgraph.tensors:
                tensor.buffer += buffers if tensor.buffer else 0
            for operator in subgraph.operators:
                operator.opcodeIndex += codes
                for name in _SUBGRAPHS:
                    index = getattr(operator.builtinOptions, name, None)
                    if index is not None:
                        setattr(operator.builtinOptions, name, index + subgraphs)
        self.model.buffers.extend(after.model.buffers[1:])
        self.model.operatorCodes.extend(after.model.operatorCodes)

    def _take_main(self, after, wires):
        """Takes over tensors and operators of the other's first subgraph; returns `{number there: number here}`."""
        moved = {-1: -1, **wires}
        for number, tensor in enumerate(after.main.tensors):
            if number not in wires:
                moved[number] = len(self.main.tensors)
                self.main.tensors.append(tensor)
        for operator in after.main.operators:
            for name in ("inputs", "outputs", "intermediates"):
                numbers = getattr(operator, name)
                if numbers is not None:
                    setattr(operator, name, np.asarray([moved[int(number)] for number in numbers], np.int32))
            self.main.operators.append(operator)
        return moved

    def _keep_newer_runtime(self, after):
        """Of the two oldest versions of the runtime that the pieces ask for, the file asks for the newer."""
        here, there = self._min_runtime(), after._min_runtime()
        if here is not None and there is not None and _version(there.data) > _version(here.data):
            here.data = there.data

    def _min_runtime(self):
        for entry in self.model.metadata or []:
            if entry.name == _MIN_RUNTIME:
                return self.model.buffers[entry.buffer]
        return None


def file_schema() -> Any:
    """The generated classes of the schema of LiteRT files, which TensorFlow brings."""
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def _packed(model):
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):
        """Puts the content of buffers at multiples of 16 bytes, which the generated code does not."""

        def CreateNumpyVector(self, x):  # noqa: N802 (overrides flatbuffers' method)
            if x.dtype != np.uint8:
                return super().CreateNumpyVector(x)
            self.StartVector(1, x.size, _ALIGNMENT)
            self.head -= x.size
            self.Bytes[self.head : self.head + x.size] = x.tobytes()
            return self.EndVector()

    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = AlignedBuilder(size + 2**20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _tensor_map(schema, name, number):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), number
    return entry


def _version(data):
    text = bytes(data).rstrip(b"\0").decode()
    return tuple(int(part) for part in text.split("."))
