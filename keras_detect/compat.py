"""The private names of Keras that the package needs, each with the public feature it stands in for.

No other file uses a private name of Keras (`tests/test_architecture.py`). Each was checked on Keras 3.13.0 and 3.15.1;
`pyproject.toml` allows the versions from the first to the last that `python tests/run_all.py --oldest` and CI ran.
"""

import keras


def direct_layers(layer):
    """The layers that `layer` holds itself, in order of creation.

    Stands in for a public `layer.layers` (only `keras.Model` has it, and lists a functional model's graph).
    Private: `Layer._layers`.
    """
    return list(layer._layers)


def inner_layers(layer):
    """All layers inside `layer`, at any depth, `layer` itself left out.

    Stands in for a public, recursive `layer.layers`. Private: `Layer._flatten_layers`.
    """
    return list(layer._flatten_layers(include_self=False))


def is_functional(model) -> bool:
    """Whether `model` is a functional Keras model, whose graph `calls` and `producer` can read.

    Stands in for a public functional class. Private: `Functional._nodes_by_depth`.
    """
    return isinstance(model, keras.Model) and hasattr(model, "_nodes_by_depth")


def calls(model):
    """Calls of the operations of a functional model, each after those it depends on.

    Each has `operation`, `input_tensors` and `output_tensors`. Stands in for public access to a functional model's
    graph. Private: `Functional._nodes_by_depth`.
    """
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def producer(tensor):
    """The call (see `calls`) that computed a symbolic tensor.

    Stands in for a public `tensor.producer`. Private: `KerasTensor._keras_history`, `Operation._inbound_nodes`.
    """
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def moving_averages(optimizer):
    """`[(variable, its moving average), ...]` of an optimizer with `use_ema=True`.

    Stands in for public access to the averages: Keras can only overwrite the weights with them. Private:
    `Optimizer._trainable_variables`, `Optimizer._model_variables_moving_average`.
    """
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


class BuiltByConstructor:
    """Mixin of a `keras.Model` that creates every variable in its constructor.

    Before the first step of `fit`, `evaluate` and `predict`, Keras calls a model on the raw batch to create its
    variables and those of its optimizer, loss and metrics. A detector is built already, and its raw batch is not what
    `call` takes. Stands in for a public way to switch that off. Private: `Trainer._symbolic_build` (overridden),
    `Trainer._post_build`.
    """

    def _symbolic_build(self, iterator=None, data_batch=None):
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self._post_build()
