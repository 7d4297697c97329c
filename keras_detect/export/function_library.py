"""The branches and loop bodies of a graph, which TensorFlow keeps as functions of their own."""

import itertools

_numbers = itertools.count()


def register_functions(graph_def) -> None:
    """Gives the functions of a graph new names and makes them known to this process, in place.

    An optimized graph holds other versions of functions that the process knows already, under the same names.
    """
    from tensorflow.python.eager import context

    number = next(_numbers)
    names = {f.signature.name: f"{f.signature.name}_frozen_{number}" for f in graph_def.library.function}
    del graph_def.library.gradient[:]
    _rename(graph_def.node, names)
    for function in graph_def.library.function:
        function.signature.name = names[function.signature.name]
        _rename(function.node_def, names)
        context.context().add_function_def(function)


def _rename(nodes, names):
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            kind = value.WhichOneof("value")  # reading a field that is not set would set it
            for function in [value.func] if kind == "func" else value.list.func if kind == "list" else []:
                function.name = names.get(function.name, function.name)
