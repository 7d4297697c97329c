"""Feature extractors of two-stage detectors: maps for the proposals, and a network that runs on RoI features."""

import re
from typing import Any

import keras

from keras_detect import compat
from keras_detect.layers.conv_blocks import ConvHyperparams, batch_norm, conv_bn_act
from keras_detect.necks.ssd_feature_extractor import SSDFeatureExtractor
from keras_detect.registry import deserialize, serializable


class FasterRCNNFeatureExtractor(keras.Model):
    """The contract: feature maps of an image, and what is computed from the RoI features sampled from them.

    A subclass sets `backbone`, `level_names` and `strides`, defines `extract_proposal_features`,
    `extract_box_classifier_features` and `weight_groups`, has all its variables at the end of its `__init__`, and ends
    it with `self.build()`. Called like a layer, it is `extract_proposal_features`.
    """

    def preprocess(self, images: Any) -> Any:
        """The backbone's pixel scaling: float 0...255 `[B, H, W, 3]` -> network input."""
        return self.backbone.preprocess(images)

    def extract_proposal_features(self, images: Any, training: bool | None = None) -> Any:
        """Scaled pixels `[B, H, W, 3]` -> list of maps `[B, h_l, w_l, c_l]`, finest first, for proposals and RoIs."""
        raise TypeError(f"{type(self).__name__} must define `extract_proposal_features(images, training=None)`.")

    def extract_box_classifier_features(self, roi_features: Any, training: bool | None = None) -> Any:
        """RoI features from one map `[N, h, w, c]` -> `[N, h', w', D]`, for the box classifier."""
        raise TypeError(
            f"{type(self).__name__} must define `extract_box_classifier_features(roi_features, training=None)`."
        )

    def weight_groups(self) -> dict[str, Any]:
        """`{group name: layers}`, which together hold every weight once; "backbone" is one of them."""
        return {"backbone": [self.backbone]}

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.extract_proposal_features(images, training=training)

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        return cls(**{key: deserialize(value, custom_objects) for key, value in config.items()})


@serializable
class SplitFeatureExtractor(FasterRCNNFeatureExtractor):
    """A backbone split at a level: the trunk runs on the image, the tail on the RoI features (Ren et al. 2015).

    Both parts are the backbone's own layers, whose weights count once.

    Args:
        backbone: a `Backbone`.
        split: level from which proposals and RoI features are taken; `None` takes the backbone's `split_level`.
        tail: level whose map of the RoI features is the box classifier's input; `None` takes the coarsest.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a level that the backbone lacks, a split that does not lie before the tail, or a tail that is
            computed from something else beside the split.
    """

    checkpoint_family = "faster_rcnn_c4"

    def __init__(self, *, backbone: Any, split: str | None = None, tail: Any = None, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.split = backbone.split_level if split is None else split
        self.tail = list(backbone.strides)[-1] if tail is None else tail
        _check_split(backbone, self.split, self.tail)
        inner = backbone.split_points()
        trunk = keras.Model(backbone.input, backbone.output[self.split], name=f"before_{self.split}")
        tail_model = keras.Model(inner[self.split], inner[self.tail], name=f"from_{self.split}_to_{self.tail}")
        # as methods: Keras would count and save the layers of a model once more
        self._run_trunk, self._run_tail = trunk.__call__, tail_model.__call__
        self.level_names, self.strides = (self.split,), (backbone.strides[self.split],)
        self.build()

    def extract_proposal_features(self, images: Any, training: bool | None = None) -> Any:
        """Scaled pixels `[B, H, W, 3]` -> `[map [B, h, w, c]]` of the split level."""
        return [self._run_trunk(images, training=training)]

    def extract_box_classifier_features(self, roi_features: Any, training: bool | None = None) -> Any:
        """RoI features of the split level `[N, h, w, c]` -> `[N, h', w', D]` of the tail."""
        return self._run_tail(roi_features, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "split": self.split, "tail": self.tail}


@serializable
class FPNFeatureExtractor(FasterRCNNFeatureExtractor):
    """A feature pyramid; two dense layers run on the RoI features of one of its maps (Lin et al. 2017, section 4.2).

    Between the two dense layers, which end in ReLU, stands a batch norm where the paper has none. With `convolutions`,
    that many 3x3 convolutions are before a single dense layer, as in torchvision's second version.

    Args:
        backbone: a `Backbone`.
        neck: part that turns the backbone's levels into maps P*n* of one depth: `FeaturePyramid`, `BiFPN`.
        roi_size: side of the RoI features that reach the dense layers, after pooling.
        units: of each dense layer.
        convolutions: how many convolutions as wide as the maps run on the RoI features, each with batch norm and ReLU.
        hyperparams: `ConvHyperparams`, of which the batch norm between the dense layers is used, or that of the
            convolutions.
        **kwargs: Keras' own `name`, `trainable`.

    Raises:
        ValueError: a neck whose maps are not called P*n* or differ in depth.
    """

    checkpoint_family = "faster_rcnn_fpn"

    def __init__(
        self,
        *,
        backbone: Any,
        neck: Any,
        roi_size: int = 7,
        units: int = 1024,
        convolutions: int = 0,
        hyperparams: ConvHyperparams | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.backbone, self.neck, self.hyperparams = backbone, neck, hyperparams or ConvHyperparams()
        self.roi_size, self.units, self.convolutions = int(roi_size), int(units), int(convolutions)
        self.pyramid = SSDFeatureExtractor(backbone=backbone, neck=neck, name="pyramid")
        self.level_names = self.pyramid.level_names
        depths = {int(tensor.shape[-1]) for tensor in self.pyramid.outputs}
        if len(depths) > 1 or not all(re.fullmatch(r"P\d+", name) for name in self.level_names):
            raise ValueError(
                "RoI features come from maps P2, P3, ... of one depth, on which one box classifier runs. Received: "
                f"{type(neck).__name__} with maps {self.level_names} of depths {sorted(depths)}. Use FeaturePyramid."
            )
        self.strides = tuple(2 ** int(name[1:]) for name in self.level_names)
        self.box_classifier = self._box_classifier(depths.pop())
        self.build()

    def _box_classifier(self, depth):
        x = inputs = keras.Input((self.roi_size, self.roi_size, depth))
        for index in range(self.convolutions):
            x = conv_bn_act(x, depth, 3, hyperparams=self.hyperparams, name=f"roi_{index}", activation="relu")
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dense(self.units, activation="relu", name="dense_0")(x)
        if not self.convolutions:
            if self.hyperparams.batch_norm:
                x = batch_norm(self.hyperparams, name="dense_0_bn")(x)
            x = keras.layers.Dense(self.units, activation="relu", name="dense_1")(x)
        return keras.Model(inputs, keras.layers.Reshape((1, 1, self.units))(x), name="box_classifier_features")

    def extract_proposal_features(self, images: Any, training: bool | None = None) -> Any:
        """Scaled pixels `[B, H, W, 3]` -> the pyramid's maps `[B, h_l, w_l, depth]`, finest first."""
        return list(self.pyramid(images, training=training))

    def extract_box_classifier_features(self, roi_features: Any, training: bool | None = None) -> Any:
        """RoI features of any map `[N, roi_size, roi_size, depth]` -> `[N, 1, 1, units]`."""
        return self.box_classifier(roi_features, training=training)

    def weight_groups(self) -> dict[str, Any]:
        neck = [layer for layer in self.pyramid.layers if layer is not self.backbone]
        return {"backbone": [self.backbone], "neck": neck, "box_classifier_features": self.box_classifier.layers}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "neck": keras.saving.serialize_keras_object(self.neck),
            "roi_size": self.roi_size,
            "units": self.units,
            **({"convolutions": self.convolutions} if self.convolutions else {}),
            "hyperparams": keras.saving.serialize_keras_object(self.hyperparams),
        }


def _check_split(backbone, split, tail):
    if len(set(backbone.strides.values())) == 1:
        raise ValueError(
            "A backbone is split for two stages at a level from which a coarser one is computed. Received: "
            f"'{backbone.name}' ({type(backbone).__name__}) with the levels {list(backbone.strides)} of one stride. "
            "Choose a backbone with the levels C3, C4 and C5."
        )
    missing = [level for level in (split, tail) if level not in backbone.strides]
    if missing:
        raise ValueError(
            f"The backbone '{backbone.name}' is split at one of its levels {list(backbone.strides)}. Received: "
            f"split={split!r}, tail={tail!r}. Choose among those, or let the backbone output the level."
        )
    levels = list(backbone.strides)
    if levels.index(split) >= levels.index(tail):
        raise ValueError(
            f"The split must be before the tail, in the order {levels}. Received: split={split!r}, tail={tail!r}."
        )
    points = backbone.split_points()
    above = _ancestors(points[tail], points[split])
    through = _descendants(above, points[split])
    if id(points[tail]) not in through:
        raise ValueError(
            f"The level '{tail}' of '{backbone.name}' is not computed from '{split}', so it cannot run on RoI "
            f"features of '{split}'. Choose another split, or let the backbone output the tensor behind which nothing "
            f"but '{split}' is used."
        )
    joins = [
        operation.name
        for operation, inputs, outputs in above
        if through.intersection(map(id, outputs)) and not through.issuperset(map(id, inputs))
    ]
    if joins:
        raise ValueError(
            f"The level '{tail}' of '{backbone.name}' is computed from more than '{split}': a path around it ends in "
            f"{', '.join(sorted(joins))}, which RoI features cannot feed. Split at a level through which everything "
            "passes."
        )


def _ancestors(tensor, split):
    """`[(operation, input tensors, output tensors)]` of all that `tensor` is computed by, up to the tensor `split`."""
    calls, seen, waiting = [], {id(split)}, [tensor]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        node = compat.producer(current)
        seen.update(map(id, node.output_tensors))
        waiting += node.input_tensors
        calls.append((node.operation, node.input_tensors, node.output_tensors))
    return calls


def _descendants(calls, split):
    """Ids of the tensors that the `calls` compute from `split`, and of `split` itself."""
    found, size = {id(split)}, 0
    while len(found) > size:
        size = len(found)
        # a search from the end backwards lists calls before those that feed them
        for _, inputs, outputs in reversed(calls):
            if found.intersection(map(id, inputs)):
                found.update(map(id, outputs))
    return found
