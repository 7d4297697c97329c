"""BiFPN, the feature pyramid of EfficientDet (Tan et al. 2020, arXiv:1911.09070, section 3)."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_detect import registry
from keras_detect.layers.conv_blocks import ConvHyperparams, conv_bn_act, initializer, separable_bn_act
from keras_detect.registry import serializable

EPSILON = 1e-4  # keeps the weights' sum away from 0 (section 3.3)
COMBINE_METHODS = ("fast_attention", "sum")
RESAMPLINGS = ("same", "up", "down")

HYPERPARAMS = ConvHyperparams(
    activation="swish", kernel_initializer=initializer("truncated_normal", stddev=0.03), l2_weight=4e-5
)


@dataclasses.dataclass(frozen=True)
class Size:
    """A row of EfficientDet's table 1: the BiFPN that goes with one size of the detector."""

    num_iterations: int
    num_filters: int
    combine_method: str = "fast_attention"


# D7 is D6 on larger images. Both add without weights, which trains more stably (the authors' choice).
SIZES = {
    "d0": Size(3, 64),
    "d1": Size(4, 88),
    "d2": Size(5, 112),
    "d3": Size(6, 160),
    "d4": Size(7, 224),
    "d5": Size(7, 288),
    "d6": Size(8, 384, "sum"),
    "d7": Size(8, 384, "sum"),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """One knot of the graph: its name, its level, and its inputs as `(name of a node or a backbone level, level)`."""

    name: str
    level: int
    inputs: tuple


@registry.register_neck("bifpn")
@registry.part
class BiFPN:
    """Backbone levels and coarser maps, fused top-down and bottom-up several times; `num_filters` channels each.

    Args:
        levels: backbone levels to take over, finest first, one stride after the other.
        max_level: the coarsest level; those above the backbone's are made by max pooling.
        num_iterations: how often the pyramid is run through.
        num_filters: channels of every map.
        combine_method: "fast_attention" weights the inputs of a node by learned numbers, "sum" does not.
        use_bias: whether convolutions have a bias beside their batch norm.
        hyperparams: `ConvHyperparams` of every convolution.

    Raises:
        ValueError: levels with a gap, a coarsest level that is no new one, no iterations, an unknown method.
    """

    checkpoint_family = "bifpn"

    levels: tuple = ("C3", "C4", "C5")
    max_level: int = 7
    num_iterations: int = 3
    num_filters: int = 64
    combine_method: str = "fast_attention"
    use_bias: bool = True
    hyperparams: ConvHyperparams = HYPERPARAMS

    def __post_init__(self):
        first = int(self.levels[0][1:]) if self.levels and self.levels[0][1:].isdigit() else None
        if first is None or list(self.levels) != [f"C{first + index}" for index in range(len(self.levels))]:
            raise ValueError(f"BiFPN needs levels such as C3, C4, C5 without a gap. Received: levels={self.levels}")
        if self.max_level < first + max(1, len(self.levels) - 1):
            raise ValueError(
                f"BiFPN needs two levels or more and a coarsest one not below {self.levels[-1]}. Received: "
                f"levels={self.levels}, max_level={self.max_level}"
            )
        if self.num_iterations < 1:
            raise ValueError(f"BiFPN runs once or more. Received: num_iterations={self.num_iterations}")
        _check_method(self.combine_method)

    @classmethod
    def of_size(cls, size: Any, **settings) -> Any:
        """The BiFPN of EfficientDet `size` ("d0" to "d7"), with `settings` over it.

        Raises:
            ValueError: an unknown size.
        """
        if size not in SIZES:
            raise ValueError(registry.unknown_name("EfficientDet size", size, SIZES))
        return cls(**{**dataclasses.asdict(SIZES[size]), **settings})

    @classmethod
    def for_context(cls, levels: Any, last_level: int, **settings) -> Any:
        """The neck on backbone `levels`, finest first; its coarsest map is P`last_level`, an int."""
        return cls(**{"levels": levels, "max_level": last_level, **settings})

    def nodes(self) -> Any:
        """All nodes in the order in which they are computed (figure 2d), first those that add the coarser levels."""
        low, high = int(self.levels[0][1:]), self.max_level
        latest = {low + index: name for index, name in enumerate(self.levels)}
        nodes = []

        def add(iteration, way, level, *inputs):
            nodes.append(Node(f"bifpn_{iteration}_{way}_{level}", level, inputs))
            return nodes[-1].name

        for level in range(low + len(self.levels), high + 1):
            latest[level] = add(0, "extra", level, (latest[level - 1], level - 1))
        for iteration in range(1, self.num_iterations + 1):
            down = {high: latest[high]}
            for level in range(high - 1, low - 1, -1):
                down[level] = add(iteration, "down", level, (latest[level], level), (down[level + 1], level + 1))
            before, latest = latest, {low: down[low]}
            for level in range(low + 1, high + 1):
                inputs = [(before[level], level), (down[level], level), (latest[level - 1], level - 1)]
                # at the top there is no way down: its two first inputs are one and the same
                latest[level] = add(iteration, "up", level, *(inputs if level < high else inputs[1:]))
        return tuple(nodes)

    def __call__(self, features: Any) -> Any:
        """Dict of Keras tensors -> dict "P3", "P4", ... of Keras tensors `[B, h, w, num_filters]`, finest first.

        Raises:
            ValueError: if the backbone lacks a level.
        """
        missing = [level for level in self.levels if level not in features]
        if missing:
            raise ValueError(
                f"BiFPN needs the backbone levels {self.levels}. Received: {sorted(features)}. "
                "Choose `levels` among those."
            )
        maps, outputs = dict(features), {}
        for node in self.nodes():
            maps[node.name] = self._node(node, maps)
            outputs[node.level] = maps[node.name]
        return {f"P{level}": outputs[level] for level in sorted(outputs)}

    def _node(self, node, maps):
        inputs = [
            self._project(maps[source], f"{node.name}_input_{index}") for index, (source, _) in enumerate(node.inputs)
        ]
        if len(inputs) == 1:
            return keras.layers.MaxPooling2D(3, 2, "same", name=f"{node.name}_pool")(inputs[0])
        x = CombineLevels(
            resampling=[_resampling(level, node.level) for _, level in node.inputs],
            method=self.combine_method,
            name=f"{node.name}_combine",
        )(inputs)
        if self.hyperparams.activation:
            x = keras.layers.Activation(self.hyperparams.activation, name=f"{node.name}_act")(x)
        # The activation is in front of the convolution, so the maps may be negative.
        return separable_bn_act(
            x,
            self.num_filters,
            3,
            hyperparams=self.hyperparams,
            name=node.name,
            activation=None,
            reach=("depthwise", "pointwise"),
            use_bias=self.use_bias or not self.hyperparams.batch_norm,
        )

    def _project(self, x, name):
        """A backbone level brought to `num_filters` channels, by each node that reads it again."""
        if int(x.shape[-1]) == self.num_filters:
            return x
        return conv_bn_act(
            x,
            self.num_filters,
            1,
            hyperparams=self.hyperparams,
            name=name,
            activation=None,
            use_bias=self.use_bias or not self.hyperparams.batch_norm,
        )


@serializable
class CombineLevels(keras.layers.Layer):
    """Brings feature maps of neighboring levels to one size and adds them.

    With method "fast_attention", map i of n has the share relu(w_i) / (sum_j relu(w_j) + 1e-4), where w starts at one
    (the paper's fast normalized fusion, section 3.3); with "sum" all have the share 1.

    Args:
        resampling: for each map "same", "up" (twice as large, nearest neighbor) or "down" (half as large, 3x3 max
            pooling); at least one is "same" and gives the size.
        method: "fast_attention" or "sum".
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: list of `[B, h_i, w_i, C]`.

    Raises:
        ValueError: an unknown method or resampling, no map of the result's size, another number of maps.
    """

    def __init__(self, *, resampling, method="fast_attention", **kwargs):
        super().__init__(**kwargs)
        self.resampling, self.method = tuple(resampling), method
        _check_method(method)
        if not set(self.resampling) <= set(RESAMPLINGS) or "same" not in self.resampling:
            raise ValueError(
                f"Each map must be one of {RESAMPLINGS}, one at least is 'same'. Received: resampling={self.resampling}"
            )

    def build(self, input_shapes):
        if len(input_shapes) != len(self.resampling):
            raise ValueError(
                f"This layer combines {len(self.resampling)} maps {self.resampling}. Received: {len(input_shapes)}"
            )
        if self.method == "fast_attention":
            # float32 under every policy: half precision loses the epsilon
            self.combine_weights = self.add_weight(
                name="combine_weights", shape=(len(self.resampling), 1), initializer="ones", autocast=False
            )
        self.built = True

    def call(self, inputs):
        if self.method == "fast_attention":
            weights = ops.relu(self.combine_weights[:, 0])
            shares = ops.cast(weights / (ops.sum(weights) + EPSILON), self.compute_dtype)
            inputs = [self._at_size(x, shares[i], self.resampling[i]) for i, x in enumerate(inputs)]
        else:
            inputs = [self._at_size(x, None, way) for x, way in zip(inputs, self.resampling, strict=True)]
        height, width = ops.shape(inputs[self.resampling.index("same")])[1:3]
        total = None
        for x, way in zip(inputs, self.resampling, strict=True):
            # ceil(odd / 2) * 2 is one too many
            x = x[:, :height, :width] if way == "up" else x
            total = x if total is None else total + x
        return total

    def _at_size(self, x, share, way):
        """`x` resampled and multiplied, the latter where the map is smaller: a share is never negative."""
        x = ops.max_pool(x, 3, 2, "same") if way == "down" else x
        x = x if share is None else x * share
        return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2) if way == "up" else x

    def compute_output_shape(self, input_shapes):
        return tuple(input_shapes[self.resampling.index("same")])

    def get_config(self):
        return {**super().get_config(), "resampling": list(self.resampling), "method": self.method}


def _resampling(source, target):
    return {0: "same", 1: "up", -1: "down"}[source - target]


def _check_method(method):
    if method not in COMBINE_METHODS:
        raise ValueError(
            f"The combine method must be one of {COMBINE_METHODS}. Received: {method!r}. (Upstream's 'attention' is a "
            "plain sum with weights that have no effect: use 'sum'.)"
        )
