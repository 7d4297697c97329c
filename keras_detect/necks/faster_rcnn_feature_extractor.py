"""Feature extractors of two-stage detectors: what the proposals are found on, and what is computed on each crop."""

import re

import keras

from keras_detect.layers.conv_blocks import ConvHyperparams, batch_norm
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.registry import serializable


class FasterRCNNFeatureExtractor(keras.Model):
    """The contract: feature maps of the picture, and features of each crop of them.

    A subclass sets `backbone`, `level_names` and `strides`, defines `extract_proposal_features`,
    `extract_box_classifier_features` and `weight_groups`, has all its variables at the end of its `__init__`, and ends
    it with `self.build()`. Called like a layer, it is `extract_proposal_features`.
    """

    def preprocess(self, images):
        """The backbone's pixel scaling: float 0...255 `[B, H, W, 3]` -> network input."""
        return self.backbone.preprocess(images)

    def extract_proposal_features(self, images, training=None):
        """Scaled pixels `[B, H, W, 3]` -> list of maps `[B, h_l, w_l, c_l]`, finest first, for proposals and crops."""
        raise TypeError(f"{type(self).__name__} must define `extract_proposal_features(images, training=None)`.")

    def extract_box_classifier_features(self, crops, training=None):
        """Crops of one map `[N, h, w, c]` -> `[N, h', w', D]`, for the box classifier."""
        raise TypeError(f"{type(self).__name__} must define `extract_box_classifier_features(crops, training=None)`.")

    def weight_groups(self):
        """`{group name: layers}`, which together hold every weight once; "backbone" is one of them."""
        return {"backbone": [self.backbone]}

    def call(self, images, training=None):
        return self.extract_proposal_features(images, training=training)

    def build(self, input_shape=None):
        self.built = True

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**{key: _deserialize(value, custom_objects) for key, value in config.items()})


@serializable
class CutFeatureExtractor(FasterRCNNFeatureExtractor):
    """A backbone cut at a level: the part before it sees the picture, the part behind it each crop (Ren et al. 2015).

    Both parts are the backbone's own layers, whose weights count once.

    Args:
        backbone: a `Backbone`.
        cut: level at which proposals are found and crops are taken; `None` takes the backbone's `two_stage_cut`.
        tail: level whose map of the crop is the box classifier's input; `None` takes the coarsest.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a level that the backbone lacks, a cut that does not lie before the tail, or a tail that is
            computed from something else beside the cut.
    """

    def __init__(self, *, backbone, cut=None, tail=None, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.cut = backbone.two_stage_cut if cut is None else cut
        self.tail = list(backbone.strides)[-1] if tail is None else tail
        _check_cut(backbone, self.cut, self.tail)
        inner = backbone.cut_points()
        trunk = keras.Model(backbone.input, backbone.output[self.cut], name=f"before_{self.cut}")
        tail_model = keras.Model(inner[self.cut], inner[self.tail], name=f"from_{self.cut}_to_{self.tail}")
        # as methods: Keras would count and save the layers of a model once more
        self._run_trunk, self._run_tail = trunk.__call__, tail_model.__call__
        self.level_names, self.strides = (self.cut,), (backbone.strides[self.cut],)
        self.build()

    def extract_proposal_features(self, images, training=None):
        """Scaled pixels `[B, H, W, 3]` -> `[map [B, h, w, c]]` of the cut."""
        return [self._run_trunk(images, training=training)]

    def extract_box_classifier_features(self, crops, training=None):
        """Crops of the cut `[N, h, w, c]` -> `[N, h', w', D]` of the tail."""
        return self._run_tail(crops, training=training)

    def get_config(self):
        return {**super().get_config(), "cut": self.cut, "tail": self.tail}


@serializable
class FPNFeatureExtractor(FasterRCNNFeatureExtractor):
    """A feature pyramid; two dense layers see each crop of one of its maps (Lin et al. 2017, section 4.2).

    Between the two dense layers, which end in ReLU, stands a batch norm where the paper has none.

    Args:
        backbone: a `Backbone`.
        neck: part that turns the backbone's levels into maps P*n* of one depth: `FeaturePyramid`, `BiFPN`.
        crop_size: side of a crop when it comes to the dense layers, after its pooling.
        units: of each dense layer.
        hyperparams: `ConvHyperparams`, of which the batch norm between the dense layers is used.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a neck whose maps are not called P*n* or differ in depth.
    """

    def __init__(self, *, backbone, neck, crop_size=7, units=1024, hyperparams=None, **kwargs):
        super().__init__(**kwargs)
        self.backbone, self.neck, self.hyperparams = backbone, neck, hyperparams or ConvHyperparams()
        self.crop_size, self.units = int(crop_size), int(units)
        self.pyramid = SSDFeatureExtractor(backbone=backbone, neck=neck, name="pyramid")
        self.level_names = self.pyramid.level_names
        depths = {int(tensor.shape[-1]) for tensor in self.pyramid.outputs}
        if len(depths) > 1 or not all(re.fullmatch(r"P\d+", name) for name in self.level_names):
            raise ValueError(
                "Crops come from maps P2, P3, ... of one depth, on which one box classifier runs. Received: "
                f"{type(neck).__name__} with maps {self.level_names} of depths {sorted(depths)}. Use FeaturePyramid."
            )
        self.strides = tuple(2 ** int(name[1:]) for name in self.level_names)
        self.box_classifier = self._box_classifier(depths.pop())
        self.build()

    def _box_classifier(self, depth):
        x = inputs = keras.Input((self.crop_size, self.crop_size, depth))
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dense(self.units, activation="relu", name="dense_0")(x)
        if self.hyperparams.batch_norm:
            x = batch_norm(self.hyperparams, name="dense_0_bn")(x)
        x = keras.layers.Dense(self.units, activation="relu", name="dense_1")(x)
        return keras.Model(inputs, keras.layers.Reshape((1, 1, self.units))(x), name="box_classifier_features")

    def extract_proposal_features(self, images, training=None):
        """Scaled pixels `[B, H, W, 3]` -> the pyramid's maps `[B, h_l, w_l, depth]`, finest first."""
        return list(self.pyramid(images, training=training))

    def extract_box_classifier_features(self, crops, training=None):
        """Crops of any map `[N, crop_size, crop_size, depth]` -> `[N, 1, 1, units]`."""
        return self.box_classifier(crops, training=training)

    def weight_groups(self):
        neck = [layer for layer in self.pyramid.layers if layer is not self.backbone]
        return {"backbone": [self.backbone], "neck": neck, "box_classifier_features": self.box_classifier.layers}

    def get_config(self):
        return {
            **super().get_config(),
            "neck": keras.saving.serialize_keras_object(self.neck),
            "crop_size": self.crop_size,
            "units": self.units,
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


def _check_cut(backbone, cut, tail):
    missing = [level for level in (cut, tail) if level not in backbone.strides]
    if missing:
        raise ValueError(
            f"The backbone '{backbone.name}' is cut at one of its levels {list(backbone.strides)}. Received: "
            f"cut={cut!r}, tail={tail!r}. Choose among those, or let the backbone output the level."
        )
    levels = list(backbone.strides)
    if levels.index(cut) >= levels.index(tail):
        raise ValueError(f"The cut lies before the tail, in the order {levels}. Received: cut={cut!r}, tail={tail!r}.")
    points = backbone.cut_points()
    above = _ancestors(points[tail], points[cut])
    through = _descendants(above, points[cut])
    if id(points[tail]) not in through:
        raise ValueError(
            f"The level '{tail}' of '{backbone.name}' is not computed from '{cut}', so it cannot see a crop of it. "
            "Choose another cut, or let the backbone output the tensor through which everything passes."
        )
    joins = [
        operation.name
        for operation, inputs, outputs in above
        if through.intersection(map(id, outputs)) and not through.issuperset(map(id, inputs))
    ]
    if joins:
        raise ValueError(
            f"The level '{tail}' of '{backbone.name}' is computed from more than '{cut}': a path around it ends in "
            f"{', '.join(sorted(joins))}, and a crop has nothing to give it. Cut at a level through which everything "
            "passes."
        )


def _ancestors(tensor, cut):
    """`[(operation, input tensors, output tensors)]` of all that `tensor` is computed by, up to the tensor `cut`."""
    calls, seen, waiting = [], {id(cut)}, [tensor]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        operation, index, _ = current._keras_history
        node = operation._inbound_nodes[index]
        seen.update(map(id, node.output_tensors))
        waiting += node.input_tensors
        calls.append((operation, node.input_tensors, node.output_tensors))
    return calls


def _descendants(calls, cut):
    """Ids of the tensors that the `calls` compute from `cut`, and of `cut` itself."""
    found, size = {id(cut)}, 0
    while len(found) > size:
        size = len(found)
        # a search from the end backwards lists calls before those that feed them
        for _, inputs, outputs in reversed(calls):
            if found.intersection(map(id, inputs)):
                found.update(map(id, outputs))
    return found


def _deserialize(value, custom_objects):
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value, custom_objects)
    return value
