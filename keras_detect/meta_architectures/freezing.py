"""What of a detector does not train: weights by their names, and batch norm."""

import fnmatch
import re
from collections.abc import Iterable
from typing import Any

import keras

from keras_detect import compat
from keras_detect.meta_architectures.serialization import Serialization
from keras_detect.registry import unknown_name


class Freezing(Serialization):
    """What `DetectionModel` inherits for training a part of its weights only."""

    #: patterns of the weights that do not train; `save` keeps them
    frozen: tuple[str, ...] = ()

    #: whether batch norm runs in inference mode and does not train: True, False, or "backbone", there alone
    freeze_batchnorm: bool | str = False

    _norms_frozen: tuple[int, ...] = ()
    _constants: frozenset[int] = frozenset()  # the weights that did not train when the constructor ended
    trainable_variables: list[keras.Variable]  # Keras' own

    def freeze(self, *patterns: str) -> int:
        """Keeps weights from training: they stay as they are, bit for bit. Before `compile`.

        A batch norm of which one weight is frozen runs in inference mode, and all of it stays.

        Args:
            *patterns: each a name in `named_weights`, or the path of a layer or group above it, such as
                "backbone/conv_1_bn" or "backbone"; "*" stands for any text, "/" included ("backbone/conv_?_*"). A
                pattern that matches nothing so is taken for a regular expression of a whole name or path.

        Returns:
            How many of `named_weights` do not train now.

        Raises:
            ValueError: a pattern matches nothing (similar names are listed), or nothing is left to train.
        """
        names = self.named_weights()
        for pattern in patterns:
            if not _matching(pattern, names):
                raise ValueError(unknown_name("weight or layer", pattern, _paths(names)))
        self.freeze_again(patterns)
        if not self.trainable_variables:
            raise ValueError(f"All weights are frozen. Received: freeze={', '.join(patterns)}")
        trained = {id(variable) for variable in self.trainable_variables}
        return len([weight for weight in self._learned(names) if id(weight) not in trained])

    def freeze_again(self, patterns: Iterable[str]) -> None:
        """`freeze`, for patterns of another model: those that match nothing here are skipped."""
        names = self.named_weights()
        for pattern in patterns:
            if found := _matching(pattern, names):
                self._keep({id(names[name]) for name in found})
                self.frozen = tuple(dict.fromkeys((*self.frozen, pattern)))

    def get_config(self) -> dict[str, Any]:
        """The model's parts and settings; `frozen` is what does not train now, `trainable = False` set by hand too."""
        config = super().get_config()
        frozen = (*self._still_frozen(), *self._set_by_hand())
        config.pop("frozen", None)
        return {**config, "frozen": frozen} if frozen else config

    def finish_init(self) -> None:
        """Remembers what does not train by construction, such as the batch norm of some architectures."""
        self._constants = frozenset(id(weight) for weight in self.weights if not weight.trainable)

    def _still_frozen(self):
        """The patterns of `frozen` without those whose weights train again: `trainable = True` was set by hand."""
        if not self.frozen:
            return ()
        names, trained = self.named_weights(), {id(weight) for weight in self.trainable_variables}
        learned = {name for name, weight in names.items() if id(weight) not in self._constants}
        matched = {pattern: learned.intersection(_matching(pattern, names)) for pattern in self.frozen}
        return tuple(
            pattern for pattern, found in matched.items() if any(id(names[name]) not in trained for name in found)
        )

    def _set_by_hand(self):
        """Paths of layers and weights that do not train though nothing else says so; the outermost ones."""
        trained = {id(weight) for weight in self.trainable_variables}
        if not self.trainable or len(trained) + len(self._constants) == len(self.weights):
            return ()
        names = self.named_weights()
        said = {name for pattern in self.frozen for name in _matching(pattern, names)}
        norms = [layer for layer in compat.inner_layers(self) if id(layer) in self._norms_frozen]
        constant = {*self._constants, *(id(weight) for layer in norms for weight in layer.weights)}
        ours = {name: id(weight) for name, weight in names.items() if id(weight) not in constant}
        training = {path for name, number in ours.items() if number in trained for path in _lineage(name)}
        still = [name for name, number in ours.items() if number not in trained and name not in said]
        paths = [[path for path in _lineage(name) if path not in training][-1] for name in still]
        return tuple(dict.fromkeys(paths))

    def freeze_batch_norm(self, which: bool | str = True) -> None:
        """Runs batch norm in inference mode, without training: for small batches. Before `compile`.

        Args:
            which: True for all of it, "backbone" for the backbone's, False to undo an earlier call.

        Raises:
            ValueError: another value.
        """
        if which not in (True, False, "backbone"):
            raise ValueError(f"freeze_batchnorm is True, False or 'backbone'. Received: {which!r}")
        norms = [layer for layer in compat.inner_layers(self) if isinstance(layer, keras.layers.BatchNormalization)]
        for layer in norms:
            if id(layer) in self._norms_frozen:
                layer.trainable = True
        if which == "backbone":
            groups = self._weight_groups().get("backbone", [])
            inside = {id(layer) for part in groups for layer in compat.inner_layers(part)}
            norms = [layer for layer in norms if id(layer) in inside]
        norms = [layer for layer in norms if which and layer.trainable]
        for layer in norms:
            layer.trainable = False
        self.freeze_batchnorm, self._norms_frozen = which, tuple(id(layer) for layer in norms)

    def _keep(self, weights):
        """Keeps the weights of these ids from training."""
        for layer in compat.inner_layers(self):
            kept = [id(weight) in weights for weight in layer.trainable_weights]
            if all(kept) or (any(kept) and isinstance(layer, keras.layers.BatchNormalization)):
                layer.trainable = False
        for weight in self.weights:
            if id(weight) in weights:
                weight.trainable = False

    def _learned(self, names):
        """The weights that can train: without statistics."""
        return [weight for name, weight in names.items() if not re.search(r"/moving_(mean|variance)$", name)]


def _paths(names):
    """Names of weights and of all layers and groups above them."""
    return list(dict.fromkeys(path for name in names for path in _lineage(name)))


def _lineage(name):
    """ "a/b/c" -> "a/b/c", "a/b", "a"."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _matching(pattern, names):
    """The names that a pattern means."""
    found = [name for name in names if any(fnmatch.fnmatchcase(path, pattern) for path in _lineage(name))]
    if found:
        return found
    try:
        expression = re.compile(pattern)
    except re.error:
        return []
    return [name for name in names if any(expression.fullmatch(path) for path in _lineage(name))]
