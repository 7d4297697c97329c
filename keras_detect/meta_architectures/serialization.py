"""A detector as a config of its parts, and its weights by their place in the model."""

import keras

from keras_detect import compat
from keras_detect.registry import deserialize


class Serialization:
    """What `DetectionModel` inherits for `save`, `load_model`, presets and checkpoints."""

    def named_weights(self):
        """`{name: variable}` of every weight, by its place in the model: `"backbone/stem_conv/kernel"`.

        The names do not depend on the order in which models were built, as Keras' variable paths do; checkpoint maps
        and re-heading go by them.
        """
        names = {}
        for group, layers in self._weight_groups().items():
            for layer in layers:
                _collect(layer, group, names)
        return names

    def _weight_groups(self):
        """`{group name: layers}`; together they hold every weight of the model once."""
        raise TypeError(f"{type(self).__name__} must define `_weight_groups()`.")

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "resizer": keras.saving.serialize_keras_object(self.resizer),
            "class_names": None if self.class_names is None else list(self.class_names),
        }

    @classmethod
    def from_config(cls, config):
        """Builds the model under the dtype policy it was saved with, whatever the global one is now."""
        config = dict(config)
        before = keras.config.dtype_policy()
        policy = deserialize(config.get("dtype")) or before
        keras.config.set_dtype_policy(policy)
        try:
            return cls(**{key: deserialize(value) for key, value in config.items()})
        finally:
            keras.config.set_dtype_policy(before)


def _collect(layer, prefix, names):
    """Adds the weights of `layer` and of its sub-layers to `names`, each under its layer's name."""
    children = layer.layers if isinstance(layer, keras.Model) else compat.direct_layers(layer)
    inherited = {id(weight) for child in children for weight in child.weights}
    for weight in layer.weights:
        if id(weight) not in inherited:
            names[f"{prefix}/{layer.name}/{weight.name}"] = weight
    for child in children:
        _collect(child, prefix if not compat.direct_layers(child) else f"{prefix}/{child.name}", names)
