"""Weights of a classifier that was trained around one of our backbones, back into the backbone of a detector."""

import h5py
import keras

from keras_detect import compat
from keras_detect.weights.keras_file import existing_file, reason
from keras_detect.weights.keras_h5 import KerasH5File, is_keras_h5
from keras_detect.weights.named_weights import stable_names

CLASSIFIER = "not part of the backbone, which a detector reads alone"


def source_name(source, name=None):
    """What messages call a source: `name`, else the model's own name or the path."""
    return name or (f"{source.name} (Keras model)" if isinstance(source, keras.Model) else str(source))


class NetworkWeights:
    """Variables of a Keras network as a source of weights; a subclass fills `rows` and `_variables`, or takes a file.

    Attributes:
        rows: `{layer of the backbone, by its stable name: layer of the network}`.
        advice: what to do where the weights do not fit.
    """

    advice = "Pass the network that the backbone is, of the same depth and width."
    _file = None

    def take_named(self, path, wanted, around):
        """Takes the variables of a file that holds them by name, the whole model's `.h5`; whether it could.

        Args:
            path: of the file.
            wanted: names of layers that its network has.
            around: (layer, its variables) -> why they are not part of the backbone, or `None`.

        Raises:
            ValueError: a damaged file, or a whole model without these layers.
        """
        file = KerasH5File(path) if is_keras_h5(path) else None
        network = None if file is None else file.network(wanted)
        if file is None or network is None:
            if file is not None and file.whole:
                _refuse(self.source, set(wanted), file.networks)
            return False
        self._file, self.shapes, self.ignored, self._variables = file, {}, {}, {}
        for layers in file.networks:
            for layer, variables in layers.items():
                reason = around(layer, variables) if layers is network else CLASSIFIER
                for name, (place, shape) in variables.items():
                    if reason is not None:
                        self.ignored[f"{layer}/{name}"] = reason
                    else:
                        self.shapes[f"{layer}/{name}"], self._variables[f"{layer}/{name}"] = shape, place
        return True

    def key(self, weight):
        """`"backbone/stem_conv/kernel"` -> `"conv1_conv/kernel"`; `None` for a weight that `rows` has not."""
        layer, _, variable = weight.removeprefix("backbone/").rpartition("/")
        return f"{self.rows[layer]}/{variable}" if layer in self.rows else None

    def read(self, key):
        """The value under `key` as a numpy array."""
        value = self._variables[key]
        return keras.ops.convert_to_numpy(value) if self._file is None else self._file.read(value)


class OwnWeights(NetworkWeights):
    """Weights of a backbone of the same class, as a source that the strict restore reads.

    Layers are paired by name, so a backbone names each layer with weights itself.

    Args:
        backbone: the `Backbone` that the weights are for.
        source: a Keras model that is the same backbone, contains it, or is a classifier built on its layers; or the
            path of the `.h5` file of such a model, or of a `.weights.h5` file of the backbone, or of it and dense
            layers.
        name: what messages call a model.

    Attributes:
        shapes: `{"layer/variable": shape}` of the source's backbone.
        ignored: `{"layer/variable": reason}` of what is around it.
        ignore, notes: nothing, since the class and every shape are the same.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a source that is not built on this backbone.
    """

    ignore = notes = ()

    def __init__(self, backbone, source, name=None):
        self.source = source_name(source, name)
        stable = zip(backbone.layers, stable_names(backbone.layers), strict=True)
        names = {name: layer.name for layer, name in stable if layer.weights}
        if not isinstance(source, keras.Model):
            mine = set(names.values())
            if self.take_named(existing_file(source), mine, lambda layer, _: None if layer in mine else CLASSIFIER):
                self.rows = names
                return
        theirs = self._layers(backbone, list(names.values()), source)
        self.rows = dict(zip(names, (layer.name for layer in theirs[: len(names)]), strict=True))
        self._variables, self.ignored = {}, {}
        for layer in theirs:
            mine = layer.name in self.rows.values()
            for variable in layer.weights:
                key = f"{layer.name}/{variable.name}"
                (self._variables if mine else self.ignored)[key] = variable if mine else CLASSIFIER
        self.shapes = {key: tuple(variable.shape) for key, variable in self._variables.items()}

    def _layers(self, backbone, names, source):
        """The source's layers with weights, those of the backbone first and in its order."""
        if not isinstance(source, keras.Model):
            return _load_h5(backbone, existing_file(source))
        missing = names
        for candidate in (source, *compat.inner_layers(source)):
            if not isinstance(candidate, keras.Model):
                continue
            found = {layer.name: layer for layer in candidate.layers if layer.weights}
            absent = [name for name in names if name not in found]
            if not absent:
                return [found.pop(name) for name in names] + list(found.values())
            missing = min(missing, absent, key=len)
        raise ValueError(
            f"{self.source} is not built on the backbone '{backbone.name}' ({type(backbone).__name__}): it has no "
            f"layer '{missing[0]}', nor {len(missing) - 1} others of {len(names)}. Pass a model around the same "
            "backbone; layers without names of their own are called something else in each model."
        )


def network_with(model, layers):
    """The Keras model that has layers of these names, `model` or one inside it; `None` where none has them all."""
    for candidate in (model, *compat.inner_layers(model)):
        if isinstance(candidate, keras.Model) and {layer.name for layer in candidate.layers}.issuperset(layers):
            return candidate
    return None


def is_dense(variables):
    """Whether the variables of a layer, `{name: (anything, shape)}`, are those of a dense layer."""
    return {"kernel", "bias"} >= variables.keys() and len(variables.get("kernel", (None, ()))[1]) == 2


def _refuse(source, wanted, networks):
    missing = sorted(min((wanted - layers.keys() for layers in networks), key=len))
    raise ValueError(
        f"{source}: the model in it is another network: it has no layer {missing[0]!r}, nor {len(missing) - 1} others "
        f"of {len(wanted)}. Pass the file of a model that is the same network, or is built around it."
    )


def _load_h5(backbone, path):
    """Layers of a twin of `backbone` that has read the file, which goes by the order of layers and holds no names."""
    twin = type(backbone).from_config(backbone.get_config())
    layers = [layer for layer in twin.layers if layer.weights]
    try:
        _check_leftovers(path, sum(len(layer.weights) for layer in layers))
        twin.load_weights(path)
    except Exception as error:  # Keras and HDF5 raise many kinds for a damaged file
        raise ValueError(
            f"{path} does not hold the weights of the backbone '{backbone.name}' ({reason(error)}). "
            "Write it with the backbone's own `save_weights`, or pass the classifier or its .keras file, which name "
            "the layers."
        ) from error
    return layers


def _check_leftovers(path, wanted):
    """A deeper network's file would fill a shallower one and be cut: only dense layers may be left over."""
    with h5py.File(path, "r") as file:
        layers = [group for name, group in file["layers"].items() if not name.startswith("dense")]
        found = sum(len(group["vars"]) for group in layers if "vars" in group)
    if found != wanted:
        raise ValueError(f"{found} variables in the file, {wanted} in the backbone")
