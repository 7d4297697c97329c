"""Name -> builder tables; how parts are serialized; the `part` decorator for weightless parts."""

import dataclasses
import difflib
import functools
import numbers
import os
import typing

import keras

from keras_detect.files import check_regular
from keras_detect.messages import shown

PACKAGE = "keras_detect"
_LONGEST, _LISTED = 200, 100  # letters of a name that are compared, and names in one message
_FEW = 6  # names that a message can list beside its suggestion


def serializable(cls):
    """Class decorator: Keras saves and loads the class under its package's name.

    Classes of this package are saved as "keras_detect>Name". A class from elsewhere is saved under the name of its own
    module ("my_models>Name", "__main__>Name" in a notebook), so that it never takes the place of a built-in one
    of the same name. A class that a script saved as "__main__>Name" is also found once the script is imported as a
    module.
    """
    module = cls.__module__
    if module.partition(".")[0] == PACKAGE:
        return keras.saving.register_keras_serializable(PACKAGE)(cls)
    cls = keras.saving.register_keras_serializable(module)(cls)
    known, from_a_script = keras.saving.get_custom_objects(), f"__main__>{cls.__name__}"
    if getattr(known.get(from_a_script), "__module__", None) != "__main__":
        known[from_a_script] = cls
    return cls


def deserialize(value, custom_objects=None):
    """The object that Keras serialized as the dict `value`, or a list of such; any other value is returned as it is."""
    if isinstance(value, list):
        return [deserialize(item, custom_objects) for item in value]
    if isinstance(value, dict) and "class_name" in value and "config" in value:
        return keras.saving.deserialize_keras_object(value, custom_objects)
    return value


class Registry:
    """A table of named builders. A duplicate name raises; an unknown one lists similar names.

    Args:
        kind: what the names stand for, used in error messages ("backbone").
    """

    def __init__(self, kind):
        self.kind = kind
        self._entries = {}

    def register(self, name):
        """Decorator that files a class or function under `name`. Raises `ValueError` if the name is taken."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"A {self.kind} is registered under a non-empty string. Received: name={name!r}")

        def decorate(builder):
            taken = self._entries.get(name)
            if taken is not None and _origin(taken) != _origin(builder):
                raise ValueError(
                    f"The {self.kind} name '{name}' is already registered by {_origin(taken)}. "
                    f"Received a second one: {_origin(builder)}. Choose another name."
                )
            self._entries[name] = builder
            return builder

        return decorate

    def register_class(self, name, **settings):
        """Decorator that files a class under `name` and makes it serializable.

        Args:
            name: what `from_backbone` knows the class by.
            **settings: constructor arguments that the name stands for, so that one class may have several names.

        A class without `get_config` and without `__init__` becomes a `part`: its annotated fields are its settings.

        Raises:
            ValueError: if another class holds the name, or the class cannot be saved: it has an `__init__` and no
                `get_config`.
        """

        def decorate(cls):
            if not hasattr(cls, "get_config") and "__init__" in cls.__dict__:
                raise ValueError(
                    f"A {self.kind} is saved with the model, by what `get_config` returns. Received: {cls.__name__} "
                    "with `__init__` and without `get_config`. Return the arguments of `__init__` from `get_config`, "
                    "or replace `__init__` by annotated fields (`depth: int = 64`)."
                )
            builder = functools.partial(cls, **settings) if settings else cls
            # a row is known by its class: running the same file twice must not look like two owners of one name
            self.register(name)(functools.update_wrapper(builder, cls, updated=()) if settings else cls)
            return serializable(cls) if hasattr(cls, "get_config") else part(cls)

        return decorate

    def create(self, name, context=None):
        """A part registered under `name`, with its settings.

        Args:
            name: a registered name.
            context: dict for the classmethod `for_context(**context, **settings)` of a class that follows what it is
                built for (a neck follows the levels of the backbone); a class without it is built from its settings.
        """
        return _create(self.get(name), context)

    def resolve(self, value, context=None):
        """A part from its name or its class (or a `functools.partial` of it), as `create`; or the part itself.

        Raises `ValueError` for an unknown name, and for what is none of these.
        """
        if isinstance(value, str):
            return self.create(value, context)
        if not callable(value):
            raise ValueError(f"A {self.kind} is a registered name, a class or a part. Received: {value!r}")
        return _create(value, context) if isinstance(value, type | functools.partial) else value

    def get(self, name):
        """The builder filed under `name`. Raises `ValueError` with similar names if there is none."""
        if name not in self._entries:
            raise ValueError(unknown_name(self.kind, name, self._entries))
        return self._entries[name]

    def names(self):
        """All registered names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name):
        return name in self._entries


def _create(builder, context):
    cls, settings = getattr(builder, "func", builder), getattr(builder, "keywords", {})
    if context is not None and hasattr(cls, "for_context"):
        return cls.for_context(**context, **settings)
    return builder()


#: parts that `from_backbone` takes by name
NECKS = Registry("neck")
ANCHOR_GENERATORS = Registry("anchor generator")
MATCHERS = Registry("matcher")
HEADS = Registry("head")
ROI_HEADS = Registry("RoI head")
CLASSIFICATION_LOSSES = Registry("classification loss")
LOCALIZATION_LOSSES = Registry("localization loss")

#: formats that `export_model` writes, each an `export.exporter.Exporter`
EXPORTERS = Registry("export format")

register_neck = NECKS.register_class
register_anchor_generator = ANCHOR_GENERATORS.register_class
register_matcher = MATCHERS.register_class
register_head = HEADS.register_class
register_roi_head = ROI_HEADS.register_class
register_classification_loss = CLASSIFICATION_LOSSES.register_class
register_localization_loss = LOCALIZATION_LOSSES.register_class
register_exporter = EXPORTERS.register


_PROVIDED: dict[str, typing.Any] = {}


def provide(service):
    """Decorator: the function is what lower levels get under the name `service`.

    A lower level must not import a higher one, yet offers something of it: `DetectionModel.detect` opens image files,
    `DetectionModel.from_preset` reads presets. The higher level provides the function, the lower one asks for it with
    `provided`.
    """

    def decorate(function):
        _PROVIDED[service] = function
        return function

    return decorate


def provided(service):
    """The function that a higher level has provided as `service`. Raises `ValueError` if none has."""
    if service not in _PROVIDED:
        raise ValueError(
            f"'{service}' is provided by a package that has not been imported yet. Received a call before "
            "`import keras_detect` was finished: import keras_detect first."
        )
    return _PROVIDED[service]


@dataclasses.dataclass(frozen=True)
class Resolver:
    """One kind of name, as `resolves` files it."""

    kind: str
    role: str
    names: typing.Callable
    opens: typing.Callable
    use: str
    load: typing.Callable


_RESOLVERS: dict[str, Resolver] = {}


def resolves(kind, *, role, names, use, opens=None):
    """Decorator: the function loads what a name of this `kind` stands for, and `resolve` calls it.

    Every level adds its kinds, so that one call takes them all and one error knows the names of all.

    Args:
        kind: for messages, e.g. "Keras file".
        role: what the kind gives, "preset" (a whole detector) or "backbone".
        names: function without arguments that returns the names that are known, for messages.
        use: how a name is used, with a place for it: `"SSD.from_backbone({name!r}, ...)"`.
        opens: name -> whether it is of this kind; default: it is one of `names()`.
    """

    def decorate(load):
        _RESOLVERS[kind] = Resolver(kind, role, names, opens or (lambda name: name in names()), use, load)
        return load

    return decorate


def resolve(role, name, **options):
    """What `name` stands for in its `role`: the kinds are asked in the order in which they were filed.

    Args:
        role: "preset" or "backbone".
        name: str or path.
        **options: for the function that loads it.

    Raises `ValueError` for an unknown name, which lists similar names of all kinds, each with its kind and with its
    use where it has another role, and for the path of a pipe or a device.
    """
    for resolver in _RESOLVERS.values():
        if resolver.role == role and resolver.opens(name):
            return resolver.load(name, **options)
    check_regular(name)
    raise ValueError(unknown_everywhere(role, name))


def opens(role, name):
    """Whether a kind of `role` ("preset" or "backbone") takes `name`, so that `resolve` would load it."""
    return any(resolver.role == role and resolver.opens(name) for resolver in _RESOLVERS.values())


def unknown_everywhere(role, name):
    """Error text for a `name` that no kind of `role` knows: what it is elsewhere, else similar names of all kinds."""
    name = str(name)
    for resolver in _RESOLVERS.values():
        if resolver.role != role and name in resolver.names():
            return f"Unknown {role} '{name}': it is a {resolver.kind}. Use {resolver.use.format(name=name)}."
    near = []
    for resolver in sorted(_RESOLVERS.values(), key=lambda resolver: resolver.role != role):
        found = difflib.get_close_matches(name, list(resolver.names()), n=3, cutoff=0.5)
        if found:
            other = f": {resolver.use.format(name=found[0])}" if resolver.role != role else ""
            near.append(f"{', '.join(found)} ({resolver.kind}{other})")
    if near:
        return f"Unknown {role} '{name}'. Did you mean {'; '.join(near)}?"
    if name.startswith((".", "~", os.sep)):
        return f"No such file or folder: {shown(name, 400)}. Give the path of a model, or the name of a {role}."
    own = [(resolver.kind, sorted(resolver.names())) for resolver in _RESOLVERS.values() if resolver.role == role]
    known = "; ".join(f"{kind}: {_first(names)}" for kind, names in own if names)
    return f"Unknown {role} '{name}'. Known names: {known or 'none'}."


def _first(names):
    """The names, or a few of many and where the others are listed."""
    some = ", ".join(names[:_FEW])
    return some if len(names) <= 2 * _FEW else f"{some}, ... ({len(names)} in all; docs/zoo.md lists them)"


def check_num_classes(num_classes, whose):
    """Raises `ValueError` unless `num_classes` is a positive integer, or None for that of `whose` ("the config's")."""
    if num_classes is not None and (not isinstance(num_classes, numbers.Integral) or num_classes < 1):
        raise ValueError(f"num_classes must be a positive integer, or None for {whose}. Received: {num_classes!r}")


def unknown_name(kind, name, known):
    """Error text for an unknown `name`: similar names first, else all of them; `kind` is "part" or "part of whole"."""
    what, of, whole = kind.partition(" of ")
    near = difflib.get_close_matches(str(name)[:_LONGEST], [other[:_LONGEST] for other in known], n=5, cutoff=0.5)
    names = near or sorted(known)
    listed = ", ".join(shown(other) for other in names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    hint = f"Did you mean {listed}?" if near else f"Known names: {listed or 'none'}."
    if near and len(known) <= _FEW:
        hint += f" Known names: {', '.join(shown(other) for other in sorted(known))}."
    return f"Unknown {what} '{shown(name)}'{of}{whole}. {hint}"


def _origin(builder):
    """Module and qualified name: re-running a notebook cell may redefine the same class, two classes may not share."""
    return f"{getattr(builder, '__module__', '?')}.{getattr(builder, '__qualname__', repr(builder))}"


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
def part(cls):
    """Class decorator: a frozen, keyword-only dataclass that Keras can serialize.

    Parts (anchor generators, coders, matchers, losses, resizers...) have settings and no weights. Two parts with the
    same settings are equal and hash alike. `get_config` / `from_config` round-trip, nested parts included; sequences
    are stored as tuples. A setting made by `seldom` is in the config only where it is not the default.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    def get_config(self) -> dict[str, typing.Any]:
        values = {field: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            field.name: keras.saving.serialize_keras_object(_plain(value))
            for field, value in values.items()
            if not (field.metadata.get(_SELDOM) and value == field.default)
        }

    @classmethod
    def from_config(cls, config: dict[str, typing.Any]) -> typing.Any:
        return cls(**{key: _tuples(keras.saving.deserialize_keras_object(value)) for key, value in config.items()})

    cls.get_config = get_config
    cls.from_config = from_config
    return serializable(cls)


_SELDOM = "seldom"


def seldom(default: typing.Any) -> typing.Any:
    """The field of a `part` for a setting that few models need: configs leave out its default."""
    return dataclasses.field(default=default, metadata={_SELDOM: True})


def _plain(value):
    """Tuples as lists: JSON has no tuples, and `from_config` makes them again."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
