"""LiteRT files of a few convolutions, written with TensorFlow Lite's own schema: any type, any quantization."""

import numpy as np

SCALED = {"int8": np.int8, "uint8": np.uint8}


def write(path, layers, kind="float32", per_channel=True):
    """Writes a LiteRT file whose operators are convolutions that do not feed each other.

    Args:
        path: of the new file.
        layers: `{scope: (kernel, bias or None)}`; a kernel is Keras' `[h, w, in, out]`, or, in a scope that ends with
            "depthwise", `[h, w, in, multiplier]`.
        kind: "float32", "float16" (behind DEQUANTIZE operators, as converters write it), "int8" or "uint8".
        per_channel: of int8: a scale per output channel.

    Returns:
        `{key: value}` as a reader should give them, the quantization's error included.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    builder = _Graph(schema, kind, per_channel)
    for scope, (kernel, bias) in layers.items():
        builder.convolution(scope, kernel, bias)
    packed = flatbuffers.Builder(1024)
    packed.Finish(builder.model().Pack(packed), file_identifier=b"TFL3")
    path.write_bytes(bytes(packed.Output()))
    return builder.values


class _Graph:
    def __init__(self, schema, kind, per_channel):
        self.schema, self.kind, self.per_channel = schema, kind, per_channel
        self.buffers, self.tensors, self.operators = [schema.BufferT()], [], []
        self.codes = ["CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE"]
        self.values = {}

    def tensor(self, name, shape, kind, data=None, quantization=None):
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), getattr(self.schema.TensorType, kind)
        tensor.buffer = 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        tensor.quantization = quantization
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, code, inputs, outputs, options=None):
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(code), inputs, outputs
        if options is not None:
            operator.builtinOptionsType = self.schema.BuiltinOptions.DepthwiseConv2DOptions
            operator.builtinOptions = options
        self.operators.append(operator)

    def constant(self, key, name, value, axis):
        """The index of the float tensor of a constant, as stored."""
        if self.kind == "float32":
            self.values[key] = value
            return self.tensor(name, value.shape, "FLOAT32", value.astype(np.float32))
        if self.kind == "float16":
            half = value.astype(np.float16)
            self.values[key] = half.astype(np.float32)
            stored = self.tensor(name, value.shape, "FLOAT16", half)
            wide = self.tensor(f"{name}_dequantize", value.shape, "FLOAT32")
            self.operator("DEQUANTIZE", [stored], [wide])
            return wide
        bias = value.ndim == 1
        kind = "int32" if bias else self.kind
        others = tuple(number for number in range(value.ndim) if number != axis)
        largest = np.abs(value).max(axis=others) if self.per_channel else np.abs(value).max(keepdims=True).ravel()
        scales = np.maximum(largest, 1e-6).astype(np.float32) / np.float32(2**20 if bias else 127)
        zero = 128 if kind == "uint8" else 0
        shape = [1] * value.ndim
        shape[axis] = -1
        spread = scales.reshape(shape).astype(np.float64)
        stored = np.clip(np.round(value / spread) + zero, *((0, 255) if kind == "uint8" else (-(2**21), 2**21)))
        self.values[key] = ((stored - zero) * spread).astype(np.float32)
        quantization = self.schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = scales, np.full(len(scales), zero, np.int64)
        quantization.quantizedDimension = axis
        return self.tensor(name, value.shape, kind.upper(), stored.astype(kind), quantization)

    def convolution(self, scope, kernel, bias):
        depthwise = scope.endswith("depthwise")
        height, width, inputs, outputs = kernel.shape
        if depthwise:
            stored, axis = kernel.reshape(1, height, width, inputs * outputs), 3
        else:
            stored, axis = kernel.transpose(3, 0, 1, 2), 0
        x = self.tensor(f"{scope}/input", (1, 8, 8, inputs), "FLOAT32")
        tail = "depthwise" if depthwise else "Conv2D"
        into = [x, self.constant(f"{scope}/kernel", f"{scope}/{tail};other/scope/{tail}", stored, axis)]
        value = self.values[f"{scope}/kernel"]
        self.values[f"{scope}/kernel"] = (
            value.reshape(kernel.shape) if depthwise else value.transpose(1, 2, 3, 0).copy()
        )
        into.append(-1 if bias is None else self.constant(f"{scope}/bias", f"{scope}/BatchNorm/Fused", bias, 0))
        out = self.tensor(f"{scope}/Relu6", (1, 8, 8, stored.shape[axis]), "FLOAT32")
        options = None
        if depthwise:
            options = self.schema.DepthwiseConv2DOptionsT()
            options.depthMultiplier = outputs
        self.operator("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", into, [out], options)

    def model(self):
        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [], []
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = []
        for name in self.codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, name)
            model.operatorCodes.append(code)
        return model
