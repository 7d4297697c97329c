"""Batch norm folded into the convolutions before it, in a frozen TensorFlow graph."""

import numpy as np

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_ADDITIONS = ("BiasAdd", "Add", "AddV2")


def fold_batch_norm(graph_def) -> int:
    """Folds every batch norm of a graph whose weights are constants, in place.

    A batch norm behind a convolution (with or without a bias) becomes that convolution's kernel and bias; any other
    one becomes a multiplication and an addition. A kernel that several convolutions share gets one copy for each.

    Args:
        graph_def: `tf.compat.v1.GraphDef`.

    Returns:
        How many were folded into a kernel.
    """
    graph = _Graph(graph_def)
    return sum(_fold(graph, node) for node in list(graph_def.node) if node.op in _NORMS)


def remove_unused(graph_def, kept) -> None:
    """Removes every node that none of the tensors or nodes called `kept` needs, in place."""
    nodes = {node.name: node for node in graph_def.node}
    needed: set[str] = set()
    waiting = [node_name(name) for name in kept]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [node_name(source) for source in nodes[name].input]
    for index in reversed(range(len(graph_def.node))):
        if graph_def.node[index].name not in needed:
            del graph_def.node[index]


class _Graph:
    """Nodes by name, with their consumers."""

    def __init__(self, graph_def):
        self.graph_def = graph_def
        self.nodes = {node.name: node for node in graph_def.node}
        self.consumers = dict.fromkeys(self.nodes, 0)
        for node in graph_def.node:
            for name in node.input:
                self.consumers[node_name(name)] += 1

    def source(self, name):
        """The node behind an input, through identities."""
        node = self.nodes[node_name(name)]
        while node.op == "Identity":
            node = self.nodes[node_name(node.input[0])]
        return node

    def constant(self, name):
        """The value of a constant input; `None` for any other."""
        import tensorflow as tf

        node = self.source(name)
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    def add_constant(self, name, value):
        import tensorflow as tf

        value = np.asarray(value, np.float32)
        node = self.graph_def.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        self.nodes[name], self.consumers[name] = node, 1
        return name


def _fold(graph, norm):
    """Whether it went into a kernel."""
    values = [graph.constant(name) for name in norm.input[1:5]]
    if norm.attr["is_training"].b or any(value is None for value in values):
        return False
    scale, offset, mean, variance = (value.astype(np.float64) for value in values)
    factor = scale / np.sqrt(variance + norm.attr["epsilon"].f)
    before = graph.nodes[node_name(norm.input[0])]
    convolution, bias = before, np.zeros_like(mean)
    if before.op in _ADDITIONS and graph.consumers[before.name] == 1:
        added = graph.constant(before.input[1])
        if added is not None and added.shape == mean.shape:
            convolution, bias = graph.nodes[node_name(before.input[0])], added.astype(np.float64)
    offset = offset + (bias - mean) * factor
    kernel = graph.constant(convolution.input[1]) if convolution.op in _CONVOLUTIONS else None
    if kernel is None or graph.consumers[convolution.name] != 1:
        _multiply_and_add(graph, norm, factor, (offset - bias * factor))
        return False
    shape = kernel.shape[2:] if convolution.op == "DepthwiseConv2dNative" else (1, kernel.shape[3])
    folded = kernel.astype(np.float64) * factor.reshape(shape)
    convolution.input[1] = graph.add_constant(f"{norm.name}/folded_kernel", folded)
    _become(norm, "BiasAdd", [convolution.name, graph.add_constant(f"{norm.name}/folded_bias", offset)])
    return True


def _multiply_and_add(graph, norm, factor, offset):
    product = graph.graph_def.node.add(name=f"{norm.name}/scaled", op="Mul")
    product.input.extend([norm.input[0], graph.add_constant(f"{norm.name}/factor", factor)])
    product.attr["T"].CopyFrom(norm.attr["T"])
    graph.nodes[product.name], graph.consumers[product.name] = product, 1
    _become(norm, "AddV2", [product.name, graph.add_constant(f"{norm.name}/offset", offset)])


def _become(node, op, inputs):
    kind = node.attr["T"].type
    node.op = op
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    node.attr["T"].type = kind


def node_name(name: str) -> str:
    """The node of an input or a tensor: without its number, and without the mark of a control input."""
    return name.lstrip("^").split(":")[0]
