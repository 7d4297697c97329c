"""Files of whole Keras models as weights of a network of keras.applications that is then wrapped as a backbone."""

import os
import re

import keras

from keras_detect.weights.keras_file import existing_file, load_keras_file
from keras_detect.weights.keras_h5 import is_keras_h5
from keras_detect.weights.keras_model import CLASSIFIER, NetworkWeights, is_dense, network_with
from keras_detect.weights.named_weights import stable_names
from keras_detect.weights.restore import RestoreReport, restore

_CONVOLUTIONS = {"conv_preds", "conv_2", "logits"}  # the classifiers of MobileNet and MobileNetV3


def holds_model(path: str | os.PathLike) -> bool:
    """Whether `path` is of a file that names the layers of a model: `.keras`, or `.h5` in Keras' older layout."""
    return os.fspath(path).endswith(".keras") or is_keras_h5(existing_file(path))


def load_network(network: keras.Model, path: str | os.PathLike) -> RestoreReport:
    """Gives a network of keras.applications, without classifier, the weights of the same network in a file.

    Args:
        network: the network.
        path: of a `.keras` file, or of an `.h5` file in Keras' older layout, of a model that is the network, with or
            without its classifier, or is built around it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another network: what is missing and what is left over is listed.
    """
    stable = zip(network.layers, stable_names(network.layers), strict=True)
    layers = {name: layer for layer, name in stable if layer.weights}
    variables = {f"{name}/{weight.name}": weight for name, layer in layers.items() for weight in layer.weights}
    reader = _Network(existing_file(path), layers)
    return restore(variables, {name: name for name in variables}, reader)


class _Network(NetworkWeights):
    """The layers `wanted` of a file, and what the network of these layers has besides."""

    def __init__(self, path, wanted):
        self.source, self._wanted, wanted = os.fspath(path), set(wanted), set(wanted)
        counted = {name for name in wanted if re.fullmatch(r"normalization|rescaling", name)}
        if not self.source.endswith(".keras"):
            if not self.take_named(path, wanted - counted, self._around):
                raise ValueError(f"{self.source}: no file of a Keras model with the layers of this network")
        else:
            self._take(load_keras_file(path, compile=False), wanted - counted)
        # names that Keras counts through a session
        self._variables = {_uncounted(key, counted): value for key, value in self._variables.items()}
        self.shapes = {_uncounted(key, counted): shape for key, shape in self.shapes.items()}

    def _take(self, model, wanted):
        network = network_with(model, wanted)
        if network is None:
            missing = sorted(wanted - {layer.name for layer in model.layers})
            raise ValueError(f"{self.source}: the model in it is another network: it has no layer {missing[0]!r}")
        self._variables, self.ignored = {}, {}
        for layer in network.layers:
            found = {weight.name: (weight, tuple(weight.shape)) for weight in layer.weights}
            reason = self._around(layer.name, found)
            for name, (weight, _) in found.items():
                if reason is None:
                    self._variables[f"{layer.name}/{name}"] = weight
                else:
                    self.ignored[f"{layer.name}/{name}"] = reason
        self.shapes = {name: tuple(weight.shape) for name, weight in self._variables.items()}

    def _around(self, layer, variables):
        """The classifier of keras.applications: a dense layer, or the convolutions in its place."""
        convolution = layer in _CONVOLUTIONS and layer not in self._wanted
        return CLASSIFIER if convolution or is_dense(variables) else None


def _uncounted(key, counted):
    layer, _, variable = key.rpartition("/")
    plain = re.sub(r"_\d+$", "", layer)
    return f"{plain}/{variable}" if plain in counted else key
