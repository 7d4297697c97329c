"""A network in two pieces: what int8 quantizes, and the last convolutions of its heads, which stay float32.

A quantized tensor has 256 steps over its whole range. An output of the network holds the codes or the logits of all
anchors, and the extreme codes of a few anchors would make the steps of all others too wide.
"""

from collections.abc import Iterable
from typing import Any

from keras_detect.export.folding import node_name, remove_unused
from keras_detect.export.frozen import FrozenGraph, frozen_graph, function_of

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def split_before_heads(function) -> tuple[Any, Any] | None:
    """`(body, heads)` of a network: one after the other, they are `function`.

    Args:
        function: a concrete function of images `[B, h, w, 3]` float32 whose outputs are a dict.

    Returns:
        Concrete functions without variables. `heads` begins with the last convolutions, those that no other one
        follows; its inputs are called like the outputs of `body`. `None` where an output bypasses them.
    """
    import tensorflow as tf

    graph = frozen_graph(function)
    nodes = {node.name: node for node in graph.graph_def.node}
    features = sorted({node.input[0] for node in _last_convolutions(nodes)})
    if not features or node_name(graph.inputs[0]) in _needed(nodes, graph.outputs.values(), features):
        return None
    wires = {f"features_{index:03}": name for index, name in enumerate(features)}
    body = function_of(_before(graph, wires), function.structured_input_signature[0])
    specs = [tf.TensorSpec(value.shape, value.dtype, name) for name, value in body.structured_outputs.items()]
    return body, function_of(_behind(graph, wires), specs)


def _last_convolutions(nodes):
    """The convolutions whose results no other convolution needs."""
    convolutions = [node for node in nodes.values() if node.op in _CONVOLUTIONS]
    followed = _needed(nodes, [name for node in convolutions for name in node.input])
    return [node for node in convolutions if node.name not in followed]


def _needed(nodes, tensors: Iterable[str], given: Iterable[str] = ()) -> set[str]:
    """Names of the nodes that tensors are computed with, those before the tensors `given` left out."""
    waiting, needed = list(tensors), {node_name(name) for name in given}
    start = set(needed)
    while waiting:
        name = node_name(waiting.pop())
        if name not in needed:
            needed.add(name)
            waiting += nodes[name].input
    return needed - start


def _before(graph, wires):
    graph_def = type(graph.graph_def)()
    graph_def.CopyFrom(graph.graph_def)
    remove_unused(graph_def, [*graph.inputs, *wires.values()])
    outputs = {name: tensor if ":" in tensor else f"{tensor}:0" for name, tensor in wires.items()}
    return FrozenGraph(graph_def, graph.inputs, outputs, dict.fromkeys(wires))


def _behind(graph, wires):
    import tensorflow as tf

    graph_def = type(graph.graph_def)()
    graph_def.CopyFrom(graph.graph_def)
    names = {tensor: name for name, tensor in wires.items()}
    for node in graph_def.node:
        for index, tensor in enumerate(node.input):
            if tensor in names:
                node.input[index] = names[tensor]
    for name in wires:
        placeholder = graph_def.node.add(name=name, op="Placeholder")
        placeholder.attr["dtype"].type = tf.float32.as_datatype_enum
    remove_unused(graph_def, [*wires, *graph.outputs.values()])
    return graph._replace(graph_def=graph_def, inputs=[f"{name}:0" for name in wires])
