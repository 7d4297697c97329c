"""A detector as a config of its parts, and its weights by their place in the model."""

import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_detect import compat, files
from keras_detect.config_bounds import MAX_WEIGHTS, check_config
from keras_detect.meta_architectures.model_mixin import ModelMixin
from keras_detect.registry import PACKAGE, deserialize, unknown_name
from keras_detect.weights.finite import require_finite
from keras_detect.weights.named_weights import named_weights

# what a model keeps about itself beside the arguments of its constructor, where it is not None
_NOTES = ("started_from", "score_threshold", "frozen", "quantization_ranges")


class Serialization(ModelMixin):
    """What `DetectionModel` inherits for `save`, `load_model`, presets and checkpoints.

    Each name in `parts` and `settings` is an argument of the constructor and an attribute of the model. Parts are
    serializable objects, layers or weightless, or lists of such; settings are numbers, strings and flags.
    """

    dtype_policy: keras.DTypePolicy  # Keras' own

    #: names of the parts that the model is made of
    parts: tuple[str, ...] = ()

    #: names of the constructor's other arguments, beside `class_names` and Keras' own
    settings: tuple[str, ...] = ()

    #: what the weights were before any training, in words; `train` prints it, `save`, `re_head` and presets keep it
    started_from: str | None = None

    #: `{scope in the checkpoint: (minimum, maximum)}` where the weights were trained with fake quantization
    quantization_ranges: dict | None = None

    def named_weights(self) -> dict[str, Any]:
        """`{name: variable}` of every weight, by its place in the model: `"backbone/stem_conv/kernel"`.

        The names do not depend on the order in which models were built, as Keras' variable paths do; checkpoint maps
        and re-heading go by them.
        """
        return named_weights(self._weight_groups())

    def _weight_groups(self):
        """`{group name: layers}`; together they hold every weight of the model once."""
        groups = {}
        for name in self.parts:
            groups.update(_weight_groups_of(name, getattr(self, name)))
        return groups

    def get_config(self) -> dict[str, Any]:
        """`parts` and `settings` by name, each the constructor's argument and the model's attribute of that name."""
        notes = {name: getattr(self, name) for name in _NOTES}
        return {
            **{name: value for name, value in notes.items() if value is not None and value != ()},
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "class_names": None if self.class_names is None else list(self.class_names),
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.parts},
            **{name: getattr(self, name) for name in self.settings},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds the model under the dtype policy it was saved with, not under the global one.

        Raises:
            ValueError: a configuration that is nested too deep, asks for an absurd number (`config_bounds`), or for
                weights of more than 4 GiB, before they are made.
        """
        check_config(config, own=cls.__module__.startswith(f"{PACKAGE}."))
        config = dict(config)
        notes = {name: config.pop(name, None) for name in _NOTES}
        before = keras.config.dtype_policy()
        policy = deserialize(config.get("dtype")) or before
        keras.config.set_dtype_policy(policy)
        try:
            with compat.limited_variables(MAX_WEIGHTS):
                model = cls(**{key: deserialize(value) for key, value in config.items()})
            frozen = notes.pop("frozen", None)
            for name, value in notes.items():
                setattr(model, name, value)
            if frozen:
                model.freeze_again(frozen)
            return model
        finally:
            keras.config.set_dtype_policy(before)

    @classmethod
    def with_num_classes(cls, config: dict[str, Any], num_classes: int) -> dict[str, Any]:
        """A copy of a `get_config()` dict for another number of classes: new class heads, no class names.

        The class heads are the parts whose config holds `"num_classes"`.

        Raises:
            ValueError: there is no such part.
        """
        heads = [name for name in cls.parts if _has_classes(config.get(name))]
        if not heads:
            raise ValueError(
                f"This {cls.__name__} has no class head: none of its parts ({', '.join(cls.parts)}) has 'num_classes' "
                f"in its config. Received: num_classes={num_classes}. Replace a part with `with_parts` instead."
            )
        changed = {name: _for_classes(config[name], int(num_classes)) for name in heads}
        config = {key: value for key, value in config.items() if key not in ("score_threshold", "frozen")}
        return {**config, **changed, "class_names": None}

    def save(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        include_optimizer: bool = True,
        **kwargs: Any,
    ) -> None:
        """Keras' `save`, with a choice, and whole or not at all: an older file stays until the new one is written.

        Args:
            filepath: `.keras` file.
            overwrite, zipped, **kwargs: as in Keras.
            include_optimizer: `False` leaves out how the model was compiled and the optimizer's state, up to two
                thirds of the file; the loaded model is not compiled.

        Raises:
            NonFiniteWeightsError: a weight is NaN or infinite, or an average of weights that the optimizer keeps.
        """
        require_finite(self, averages=include_optimizer)
        path = pathlib.Path(str(filepath))
        local = path.suffix == ".keras" and zipped is not False and "://" not in str(filepath)
        whole = local and (overwrite or not path.exists()) and not path.name.startswith(files.PART)
        with contextlib.ExitStack() as stack:
            if not include_optimizer:
                stack.enter_context(self._without_optimizer())
            target = stack.enter_context(files.replacing_file(path)) if whole else filepath
            super().save(target, overwrite=overwrite, zipped=zipped, **kwargs)

    def save_weights(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Keras' `save_weights`. Raises `NonFiniteWeightsError` where a weight is NaN or infinite."""
        require_finite(self)
        super().save_weights(filepath, overwrite=overwrite, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """What every function of Keras that saves a model calls. Raises `NonFiniteWeightsError`."""
        require_finite(self)
        super().save_own_variables(store)

    @contextlib.contextmanager
    def _without_optimizer(self):
        if not self.compiled:
            yield
            return
        optimizer = self.optimizer
        self.optimizer, self.compiled = None, False
        try:
            yield
        finally:
            self.optimizer, self.compiled = optimizer, True

    def with_parts(self, class_names: Sequence[str] | None = None, **parts: Any) -> Self:
        """A new model with some parts exchanged; the other parts keep their weights.

        Args:
            class_names: names of the new model's classes; default: this model's, if it has as many classes.
            **parts: new part by name, out of `parts`.

        Returns:
            The new, uncompiled model. It shares no weight with this one.

        Raises:
            TypeError: no part has such a name; similar names are listed.
            ValueError: the new part does not fit the others, or weights of the others would have another shape.
        """
        for name in parts:
            if name not in self.parts:
                raise TypeError(unknown_name(f"part of {type(self).__name__}", name, self.parts))
        model = type(self).from_config({**self.get_config(), "class_names": class_names, **parts})
        if class_names is None and self.class_names is not None and model.num_classes == self.num_classes:
            model.class_names = self.class_names
        new = {id(weight) for name in parts for weight in _weights_of(name, getattr(model, name))}
        ours, theirs = model.named_weights(), self.named_weights()
        kept = [name for name, weight in ours.items() if id(weight) not in new]
        unfit = [name for name in kept if name not in theirs or theirs[name].shape != ours[name].shape]
        if unfit:
            raise ValueError(
                f"The weights of the kept parts must fit. Received {', '.join(parts)}, with which these have another "
                f"shape: {', '.join(unfit[:5])}. Replace their part too."
            )
        for name in kept:
            ours[name].assign(theirs[name])
        return model

    def with_dtype_policy(self, policy: str) -> Self:
        """This model under another dtype policy, with the same weights; a layer with a policy of its own keeps it.

        Args:
            policy: its name, such as "mixed_bfloat16".

        Returns:
            The new, uncompiled model; this one where it has that policy already.
        """
        before = self.dtype_policy.name
        if before == policy:
            return self
        model = type(self).from_config(_under(self.get_config(), before, policy))
        theirs = self.named_weights()
        for name, weight in model.named_weights().items():
            weight.assign(theirs[name])
        return model


def _under(config, before, policy):
    """A config in which the dtype policy named `before` is `policy`."""
    if isinstance(config, list | tuple):
        return [_under(value, before, policy) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"] == before:
        return {**config, "config": {**config["config"], "name": policy}}
    return {key: _under(value, before, policy) for key, value in config.items()}


def _weight_groups_of(name, part):
    if isinstance(part, list | tuple):
        return {group: layers for each in part for group, layers in _weight_groups_of(each.name, each).items()}
    if hasattr(part, "weight_groups"):
        return part.weight_groups()
    return {name: [part]} if isinstance(part, keras.layers.Layer) else {}


def _weights_of(name, part):
    return [weight for layers in _weight_groups_of(name, part).values() for layer in layers for weight in layer.weights]


def _has_classes(serialized):
    if isinstance(serialized, list):
        return any(_has_classes(each) for each in serialized)
    return "num_classes" in _config_of(serialized)


def _for_classes(serialized, num_classes):
    """A serialized part, or a list of them, with the class heads of another number of classes."""
    if isinstance(serialized, list):
        return [_for_classes(each, num_classes) for each in serialized]
    if not _has_classes(serialized):
        return serialized
    return {**serialized, "config": {**serialized["config"], "num_classes": num_classes}}


def _config_of(serialized):
    config = serialized.get("config") if isinstance(serialized, dict) else None
    return config if isinstance(config, dict) else {}
