"""Box and class heads that share their convolutions between feature maps (Lin et al. 2017, arXiv:1708.02002)."""

from typing import Any

import keras
from keras import ops

from keras_detect import schema
from keras_detect.heads.box_predictor import SMALL_NORMAL, BoxPredictor, check_map_count, checked_num_classes
from keras_detect.heads.convolutional import anchors_first
from keras_detect.layers.conv_blocks import batch_norm, conv, separable
from keras_detect.registry import register_head, serializable

_GROUP_EPSILON = 1e-5  # torch's


@register_head(
    "weight_shared",
    background=False,
    hyperparams=SMALL_NORMAL,
)
@serializable
class WeightSharedConvolutionalBoxPredictor(BoxPredictor):
    """Feature maps -> box codes and class logits for every anchor, by the same convolutions on each map.

    A tower of convolutions is before the box head and another one before the class head; only their batch norms
    belong to a feature map each, since the statistics of the maps differ.

    Args:
        num_classes: K, background not counted.
        num_anchors_per_location: one int per feature map, all equal; the anchor generator's
            `num_anchors_per_location()`.
        num_layers_before_predictor: convolutions in a tower.
        depth: channels of a tower.
        kernel_size: side of all kernels.
        box_code_size: numbers per box, the coder's `code_size`.
        background: whether the logits have a background column at index 0 (K + 1 columns).
        class_bias: initial bias of the class logits; -4.6 is a prior probability of 0.01 (section 3.3).
        share_tower: one tower for both heads.
        separable: depthwise-separable convolutions instead of full ones.
        tower_bias: a bias in the tower convolutions although batch norm follows (upstream's `force_use_bias`).
        hyperparams: `ConvHyperparams`. A separable tower takes initializer and L2 for its depthwise kernels only, a
            separable head for none, as upstream does.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: no class, or numbers of anchors that differ between the maps.
    """

    checkpoint_family = "weight_shared"

    settings: tuple[str, ...] = (
        "num_classes",
        "num_anchors_per_location",
        "num_layers_before_predictor",
        "depth",
        "kernel_size",
        "box_code_size",
        "background",
        "class_bias",
        "share_tower",
        "separable",
        "tower_bias",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        num_anchors_per_location: Any,
        num_layers_before_predictor: int = 4,
        depth: int = 256,
        kernel_size: int = 3,
        box_code_size: int = 4,
        background: bool = True,
        class_bias: float = -4.6,
        share_tower: bool = False,
        separable: bool = False,
        tower_bias: bool = False,
        hyperparams: Any = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams, **kwargs)
        self.num_classes = checked_num_classes(num_classes)
        self.num_anchors_per_location = tuple(int(number) for number in num_anchors_per_location)
        if len(set(self.num_anchors_per_location)) != 1:
            raise ValueError(
                "Feature maps that share their heads have the same number of anchors per location. Received: "
                f"num_anchors_per_location={self.num_anchors_per_location}. Use ConvolutionalBoxPredictor, or an "
                "anchor generator with equal ratios and scales on each level."
            )
        self.num_layers_before_predictor, self.depth, self.kernel_size = num_layers_before_predictor, depth, kernel_size
        self.box_code_size, self.background, self.class_bias = box_code_size, background, class_bias
        self.share_tower, self.separable, self.tower_bias = share_tower, separable, tower_bias

    @property
    def tower_names(self) -> Any:
        """Names of the towers: `("tower",)` if shared, else `("box_tower", "class_tower")`; the box head's first."""
        return ("tower",) if self.share_tower else ("box_tower", "class_tower")

    def build(self, input_shapes: Any) -> None:
        """Layers `<tower>_<i>`, `level_<l>_<tower>_<i>_bn`, `shared_box` and `shared_class`.

        Raises:
            ValueError: another number of feature maps than anchors were given for, or maps that differ in channels.
        """
        check_map_count(self.num_anchors_per_location, input_shapes)
        channels = sorted({int(shape[-1]) for shape in input_shapes})
        if len(channels) != 1:
            raise ValueError(
                f"Feature maps that share their heads have the same number of channels. Received: {channels}. "
                "Put a neck with one depth in front, such as FeaturePyramid."
            )
        layers = range(self.num_layers_before_predictor)
        self.towers = [
            [self._conv(self.depth, f"{tower}_{layer}", self._biased_tower) for layer in layers]
            for tower in self.tower_names
        ]
        self.norms = self._norms(len(input_shapes))
        anchors = self.num_anchors_per_location[0]
        self.box_head = self._conv(anchors * self.box_code_size, "shared_box", True, reach=())
        self.class_head = self._conv(anchors * self.num_columns, "shared_class", True, reach=())
        self.class_head.bias_initializer = keras.initializers.Constant(self.class_bias)
        self._build_layers(channels[0])
        self.built = True

    @property
    def _biased_tower(self):
        """`use_bias` of a tower's convolutions."""
        return self.tower_bias or None

    def _norms(self, num_levels):
        """Layers behind the convolutions of the towers: per level, per tower, per convolution; or none."""
        if not self.hyperparams.batch_norm:
            return []
        layers = range(self.num_layers_before_predictor)
        return [
            [
                [batch_norm(self.hyperparams, name=f"level_{level}_{tower}_{layer}_bn") for layer in layers]
                for tower in self.tower_names
            ]
            for level in range(num_levels)
        ]

    def class_biases(self) -> Any:
        return [self.class_head.bias]

    def _conv(self, filters, name, use_bias, reach=("depthwise",)):
        if self.separable:
            return separable(self.hyperparams, filters, self.kernel_size, use_bias=use_bias, name=name, reach=reach)
        return conv(self.hyperparams, filters, self.kernel_size, use_bias=use_bias, name=name)

    def _build_layers(self, channels):
        inside = (None, None, None, self.depth)
        for tower in self.towers:
            for index, layer in enumerate(tower):
                layer.build((None, None, None, channels) if index == 0 else inside)
        for level in self.norms:
            for tower in level:
                for layer in tower:
                    layer.build(inside)
        for head in (self.box_head, self.class_head):
            head.build(inside if self.num_layers_before_predictor else (None, None, None, channels))

    def call(self, feature_maps: Any, training: bool | None = None) -> Any:
        """Returns `{"box_encodings" [B, A, code], "class_logits" [B, A, K or K + 1]}`, float32."""
        boxes, classes = [], []
        for level, feature_map in enumerate(feature_maps):
            ends = [self._run_tower(level, tower, feature_map, training) for tower in range(len(self.towers))]
            boxes.append(anchors_first(self.box_head(ends[0]), self.box_code_size))
            classes.append(anchors_first(self.class_head(ends[-1]), self.num_columns))
        return {
            schema.BOX_ENCODINGS: ops.cast(ops.concatenate(boxes, axis=1), "float32"),
            schema.CLASS_LOGITS: ops.cast(ops.concatenate(classes, axis=1), "float32"),
        }

    def _run_tower(self, level, tower, x, training):
        activation = keras.activations.get(self.hyperparams.activation)
        for index, layer in enumerate(self.towers[tower]):
            x = layer(x)
            if self.norms:
                x = self.norms[level % len(self.norms)][tower][index](x, training=training)
            x = activation(x)
        return x


@serializable
class GroupNormBoxPredictor(WeightSharedConvolutionalBoxPredictor):
    """Shared heads whose towers have group normalization (Wu and He 2018, arXiv:1803.08494), as in torchvision.

    It has no statistics of its own, so the feature maps share it; the convolutions before it have no bias.

    Args:
        norm_groups: into how many groups the channels of a tower are divided.
        **kwargs: arguments of `WeightSharedConvolutionalBoxPredictor`, without batch norm and `tower_bias`.

    Raises:
        ValueError: batch norm or a bias besides; and as the base class.
    """

    settings = (*WeightSharedConvolutionalBoxPredictor.settings, "norm_groups")

    def __init__(self, *, norm_groups: int = 32, **kwargs):
        super().__init__(**kwargs)
        self.norm_groups = norm_groups
        if self.hyperparams.batch_norm or self.tower_bias:
            raise ValueError(
                "Group normalization cannot be combined with batch norm or a bias before it. Received: "
                f"batch_norm={self.hyperparams.batch_norm}, tower_bias={self.tower_bias}."
            )

    @property
    def _biased_tower(self):
        return False

    def _norms(self, num_levels):
        towers = [
            [self._group_norm(f"{tower}_{layer}_gn") for layer in range(self.num_layers_before_predictor)]
            for tower in self.tower_names
        ]
        return [towers]  # of all levels

    def _group_norm(self, name):
        return keras.layers.GroupNormalization(self.norm_groups, epsilon=_GROUP_EPSILON, name=name)
