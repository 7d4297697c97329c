"""Whether weights are numbers: nothing of the package saves a model with NaN or infinity in it."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_detect import compat


class NonFiniteWeightsError(ValueError):
    """A weight is NaN or infinite; nothing was written."""


def defect(value: np.ndarray) -> str | None:
    """ "NaN" or "infinite" where an array of floats holds such a value, None where all are finite."""
    if value.dtype.kind in "iub" or np.isfinite(value).all():
        return None
    return "NaN" if np.isnan(value).any() else "infinite"


def non_finite(variables: Iterable[keras.Variable]) -> str | None:
    """The first of `variables` that is not finite, with its path and what it holds; None where all are finite."""
    for variable in variables:
        found = defect(keras.ops.convert_to_numpy(variable)) if "float" in variable.dtype else None
        if found is not None:
            return f"{variable.path} is {found}"
    return None


def non_finite_weight(model: keras.Model, averages: bool = True) -> str | None:
    """The first weight of `model` that is not finite, or None.

    Args:
        model: a built Keras model.
        averages: look at the moving averages that its optimizer keeps (`use_ema=True`) too.
    """
    found = non_finite(model.weights)
    optimizer = getattr(model, "optimizer", None)
    if found is None and averages and optimizer is not None:
        found = non_finite(average for _, average in compat.moving_averages(optimizer))
    return found


def require_finite(model: keras.Model, averages: bool = True) -> None:
    """Raises `NonFiniteWeightsError` unless every weight of `model` is a number; arguments as `non_finite_weight`."""
    found = non_finite_weight(model, averages)
    if found is not None:
        raise NonFiniteWeightsError(
            f"Only models with finite weights can be saved. Received: {found}. Nothing was written. The training "
            "diverged: go back to the last good model and lower the learning rate."
        )
