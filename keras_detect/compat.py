"""The private names of Keras that the package needs, each with the public feature it stands in for.

No other file uses a private name of Keras (`tests/test_architecture.py`). Each was checked on Keras 3.13.0 and 3.15.1;
`pyproject.toml` allows the versions from the first to the last that `python tests/run_all.py --oldest` and CI ran.
"""

import contextlib
import contextvars
import functools
import math
import re
from collections.abc import Iterator

import keras


def direct_layers(layer):
    """The layers that `layer` holds itself, in order of creation.

    Stands in for a public `layer.layers` (only `keras.Model` has it, and lists a functional model's graph).
    Private: `Layer._layers`.
    """
    return list(layer._layers)


def inner_layers(layer):
    """All layers inside `layer`, at any depth, `layer` itself excluded.

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
    """`[(variable, its moving average), ...]` of an optimizer, empty unless it is built and has `use_ema=True`.

    Stands in for public access to the averages: Keras can only overwrite the weights with them. Private:
    `Optimizer._trainable_variables`, `Optimizer._model_variables_moving_average`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if not optimizer.built or not optimizer.use_ema:
        return []
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


def begin_fit_at(model, epoch) -> None:
    """Makes the running `fit`, whose `on_train_begin` calls this, begin at `epoch` (from 0); 0 takes it back.

    Stands in for a public way to resume: Keras' own `BackupAndRestore` does the same. Private:
    `Trainer._initial_epoch`.
    """
    model._initial_epoch = epoch


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


class KeepsValuesOnJax:
    """Mixin of a `keras.Model` that has its values back when the first step of `fit` is interrupted under JAX.

    There `fit` takes the values out of the variables before its first step, and puts back what the last complete step
    returned. An interruption before that (Ctrl-C while the step is compiled, a refused batch) would leave variables
    without values, and an optimizer that averages weights would end in "'NoneType' object is not callable". Private:
    `JAXTrainer._purge_model_variables` (overridden), `_jax_state`, `_jax_state_synced`.
    """

    def _purge_model_variables(self, **which):
        if which.get("optimizer_variables"):  # `fit`; `evaluate` and `predict` change no weight
            variables = {
                "trainable_variables": self.trainable_variables,
                "non_trainable_variables": self.non_trainable_variables,
                "optimizer_variables": self.optimizer.variables,
                "metrics_variables": self.metrics_variables,
            }
            self._jax_state = {
                name: [entry.value for entry in variables[name]] for name, purged in which.items() if purged
            }
            self._jax_state_synced = False
        super()._purge_model_variables(**which)


class VariableLimitError(ValueError):
    """The variables of a model take more memory, or are more in number, than what was allowed. One line."""


class _Limit:
    """What the variables that are made inside one `limited_variables` may still take."""

    def __init__(self, max_bytes, max_variables):
        self.max_bytes, self.max_variables = max_bytes, max_variables
        self.bytes = self.variables = 0
        self.error = None

    def charge(self, variable, shape):
        bits = re.search(r"\d+", variable.dtype)
        self.bytes += math.prod(shape) * (int(bits.group()) // 8 if bits else 1)
        self.variables += 1
        if self.bytes > self.max_bytes or self.variables > self.max_variables:
            self.error = VariableLimitError(
                f"the weights take more than {self.max_bytes / 2**20:,.0f} MiB, or are more than {self.max_variables} "
                f"(at {variable.path[-100:]!r} of shape {str(shape)[:60]})"
            )
            raise self.error


_limits: contextvars.ContextVar[tuple[_Limit, ...]] = contextvars.ContextVar("limits", default=())


@contextlib.contextmanager
def limited_variables(max_bytes: int, max_variables: int = 20_000) -> Iterator[None]:
    """Context in which Keras refuses to make variables beyond a limit, before their memory is allocated.

    Stands in for a public way to learn what a configuration will allocate, or to bound it. Private:
    `KerasVariable._validate_shape`, which sees the shape of every variable before its first value is made, and
    `KerasVariable._shape`, which is None until then.

    Args:
        max_bytes: of all variables that are made inside, in bytes.
        max_variables: their number.

    Raises:
        VariableLimitError: at the first variable beyond the limit.
    """
    _watch_variables()
    limit = _Limit(max_bytes, max_variables)
    token = _limits.set((*_limits.get(), limit))
    try:
        yield
    except Exception:
        if limit.error is not None:  # Keras may have wrapped it into the story of the layer
            raise limit.error from None
        raise
    finally:
        _limits.reset(token)


@functools.cache
def _watch_variables():
    """Charges every variable that is made to the limits in force; once per process."""
    validate = keras.Variable._validate_shape

    @functools.wraps(validate)
    def validate_and_charge(self, shape):
        shape = validate(self, shape)
        for limit in _limits.get() if self._shape is None else ():  # JAX validates the first value, too
            limit.charge(self, shape)
        return shape

    keras.Variable._validate_shape = validate_and_charge
