"""Arguments of `from_backbone`: unknown ones, ones that would be ignored, and parts given by name."""

import functools
import inspect
import numbers

import keras

from keras_detect.registry import check_num_classes, unknown_name


def check_known(cls, own, parts):
    """Raises `TypeError` for a name in `parts` that the constructor of `cls` and its bases do not know.

    Args:
        cls: class of the model.
        own: names of the arguments that its `from_backbone` adds.
        parts: iterable of the names that were received.
    """
    known = set(own) | {"name", "dtype", "trainable"} | _named(cls.from_backbone)
    for base in cls.__mro__:
        if base is keras.Model:
            break
        if "__init__" in base.__dict__:
            known |= _named(base.__init__)
    for name in parts:
        if name not in known:
            raise TypeError(unknown_name(f"argument of {cls.__name__}.from_backbone", name, known))


def _named(function):
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}


def check_parts(cls, given, named=("anchor_generator", "box_predictor")):
    """Raises `ValueError` for a number, a text or a container in place of a part of `cls`; `named` take a text."""
    for name in cls.parts:
        value = given.get(name)
        if isinstance(value, numbers.Number | list | tuple | dict) or (isinstance(value, str) and name not in named):
            raise ValueError(f"{name} is a part, an object of the model. Received: {value!r}")


def refuse_ignored(arguments, rules):
    """Raises `ValueError` for an argument that another one leaves without effect.

    Args:
        arguments: dict name -> value; `None` is not given.
        rules: `((ignored, by), ...)`.
    """
    for ignored, by in rules:
        if arguments.get(ignored) is not None and arguments.get(by) is not None:
            raise ValueError(
                f"'{ignored}' would be ignored, because '{by}' takes its place. Received: "
                f"{ignored}={_short(arguments[ignored])} and {by}={_short(arguments[by])}. Remove one of them."
            )


def with_settings(given, settings, rules):
    """`given`, with those `settings` (argument -> value) that it neither has nor, by `rules`, leaves without effect."""
    given = {name: value for name, value in given.items() if value is not None}
    replaced = {ignored for ignored, by in rules if by in given}
    return {**{name: value for name, value in settings.items() if name not in replaced}, **given}


def count_classes(num_classes, class_names, predictor):
    """K of what was given: a number, names, or the head of a finished predictor (`None` or a name: no such head).

    Raises `ValueError` for a number that is not a positive integer, if nothing tells, or if the predictor was built for
    another number.
    """
    check_num_classes(num_classes, "that of class_names")
    if isinstance(predictor, functools.partial):
        built_for = predictor.keywords.get("num_classes")
    else:
        built_for = None if isinstance(predictor, type) else getattr(predictor, "num_classes", None)
    if num_classes is None:
        num_classes = len(class_names) if class_names is not None else built_for
    if num_classes is None:
        raise ValueError("from_backbone needs num_classes or class_names. Received neither.")
    if built_for is not None and built_for != num_classes:
        raise ValueError(
            f"The box_predictor was built for {built_for} classes. Received: num_classes={num_classes}. Leave "
            "num_classes out, or build the predictor for as many."
        )
    return num_classes


def image_size_of(resizer):
    """`(height, width)` that `resizer` states, of the shorter side where it keeps the aspect ratio; else `None`."""
    if hasattr(resizer, "min_dimension"):
        return (resizer.min_dimension, resizer.min_dimension)
    if hasattr(resizer, "height"):
        return (resizer.height, resizer.width)
    return None


def _short(value):
    if isinstance(value, str | int | float | tuple | list):
        return repr(value)
    return f"a {type(value).__name__}"
