"""Convolution, batch norm, activation: the blocks of backbones, necks and heads.

The graph functions take a Keras tensor `[B, H, W, C]` and return one; they name their layers `<name>_conv`,
`<name>_depthwise`, `<name>_separable`, `<name>_pad`, `<name>_bn` and `<name>_act` (Keras allows no "/" in a name), so
that a name table can map a checkpoint to them. The layer functions (`conv`, `batch_norm`, ...) make one layer, for
graphs that share a convolution between feature maps.
"""

import keras

from keras_detect.layers.batch_normalization import BatchNormalization
from keras_detect.registry import part, seldom

ACTIVATIONS = (None, "relu", "relu6", "swish")
PADDINGS = ("same", "valid", "fixed")


@part
class Initializer:
    """How a weight starts: a Keras initializer by name, with its settings, comparable and hashable.

    Args:
        name: any name `keras.initializers.get` knows, such as `"truncated_normal"`.
        settings: `((argument, value), ...)` for its constructor.
    """

    name: str = "glorot_uniform"
    settings: tuple = ()

    def build(self):
        """A new Keras initializer. Raises `ValueError` for a name or setting that Keras does not know."""
        try:
            # A shared instance would fill equal shapes with equal numbers, hence a new one per weight.
            return keras.initializers.get({"class_name": self.name, "config": dict(self.settings)})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"An initializer is a Keras initializer's name and its arguments. Received: name={self.name!r}, "
                f"settings={self.settings!r}. See keras.initializers. ({error})"
            ) from error


def initializer(name, **settings):
    """`Initializer` from keyword settings: `initializer("truncated_normal", stddev=0.03)`."""
    return Initializer(name=name, settings=tuple(sorted(settings.items())))


@part
class ConvHyperparams:
    """What the convolutions of one network share.

    Args:
        activation: `"relu6"`, `"relu"`, `"swish"` or `None`.
        batch_norm: whether convolutions are followed by batch normalization; without it they have a bias.
        batch_norm_momentum: share of the old moving statistics that an update keeps (upstream's `decay`).
        batch_norm_epsilon: added to the variance.
        batch_norm_scale: whether batch normalization has a trainable scale.
        batch_norm_center: whether it has a trainable offset.
        batch_norm_trainable: `False` freezes it: inference mode, and nothing of it trains.
        batch_norm_frozen_statistics: inference mode, and its scale and offset train.
        kernel_initializer: how kernels start.
        bias_initializer: how biases start.
        l2_weight: upstream's number; the penalty is `l2_weight / 2 * sum(kernel ** 2)`.
        depthwise_l2: whether it also applies to depthwise convolutions.
        whole_separable: whether both kernels of every separable convolution take initializer and L2 from here, as in
            tf_slim; else those that the network's layers say (`separable`).

    Raises:
        ValueError: for an unknown activation or a negative `l2_weight`.
    """

    activation: str | None = "relu6"
    batch_norm: bool = True
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 0.001
    batch_norm_scale: bool = True
    batch_norm_center: bool = True
    batch_norm_trainable: bool = True
    batch_norm_frozen_statistics: bool = seldom(False)
    kernel_initializer: Initializer = Initializer(name="glorot_uniform")
    bias_initializer: Initializer = Initializer(name="zeros")
    l2_weight: float = 0.0
    depthwise_l2: bool = seldom(True)
    whole_separable: bool = seldom(False)

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"The activation must be one of {ACTIVATIONS}. Received: activation={self.activation!r}")
        if not self.l2_weight >= 0:
            raise ValueError(f"l2_weight must be 0 (none) or positive. Received: l2_weight={self.l2_weight!r}")

    def regularizer(self):
        """A Keras regularizer, or `None` where `l2_weight` is 0. Keras' L2 has no factor 1/2, upstream's has."""
        return keras.regularizers.L2(self.l2_weight * 0.5) if self.l2_weight else None


def conv(hyperparams, filters, kernel_size, *, name, strides=1, padding="same", use_bias=None, dilation_rate=1):
    """A `Conv2D` layer; `use_bias=None` means a bias exactly where no batch normalization follows."""
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
        use_bias=not hyperparams.batch_norm if use_bias is None else use_bias,
        kernel_initializer=hyperparams.kernel_initializer.build(),
        bias_initializer=hyperparams.bias_initializer.build(),
        kernel_regularizer=hyperparams.regularizer(),
        name=name,
    )


def depthwise(hyperparams, kernel_size, *, name, strides=1, padding="same", use_bias=None, dilation_rate=1):
    """A `DepthwiseConv2D` layer; `use_bias` as in `conv`."""
    return keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
        use_bias=not hyperparams.batch_norm if use_bias is None else use_bias,
        depthwise_initializer=hyperparams.kernel_initializer.build(),
        bias_initializer=hyperparams.bias_initializer.build(),
        depthwise_regularizer=hyperparams.regularizer() if hyperparams.depthwise_l2 else None,
        name=name,
    )


def separable(
    hyperparams,
    filters,
    kernel_size,
    *,
    name,
    strides=1,
    padding="same",
    use_bias=None,
    reach=("depthwise",),
    depth_multiplier=1,
):
    """A `SeparableConv2D` layer with `depth_multiplier` depthwise kernels per channel; `use_bias` as in `conv`.

    `reach` names the kernels that take initializer and L2 from `hyperparams`, of "depthwise" and "pointwise"; the
    other starts as Glorot uniform without L2. Upstream's FPN has ("depthwise",), its BiFPN both, its separable
    prediction heads none.
    """
    unknown = set(reach) - {"depthwise", "pointwise"}
    if unknown:
        raise ValueError(f"`reach` holds 'depthwise', 'pointwise', both or none. Received: reach={reach!r}")
    settings = {}
    for kernel in ("depthwise", "pointwise") if hyperparams.whole_separable else reach:
        settings[f"{kernel}_initializer"] = hyperparams.kernel_initializer.build()
        settings[f"{kernel}_regularizer"] = hyperparams.regularizer()
    return keras.layers.SeparableConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        depth_multiplier=depth_multiplier,
        use_bias=not hyperparams.batch_norm if use_bias is None else use_bias,
        bias_initializer=hyperparams.bias_initializer.build(),
        name=name,
        **settings,
    )


def batch_norm(hyperparams, *, name):
    """A `BatchNormalization` layer with the settings of `hyperparams`."""
    return BatchNormalization(
        momentum=hyperparams.batch_norm_momentum,
        epsilon=hyperparams.batch_norm_epsilon,
        scale=hyperparams.batch_norm_scale,
        center=hyperparams.batch_norm_center,
        trainable=hyperparams.batch_norm_trainable,
        frozen_statistics=hyperparams.batch_norm_frozen_statistics,
        name=name,
    )


def norm_act(x, *, hyperparams, name, activation="inherit"):
    """Batch normalization where `hyperparams` has it, then the activation.

    `activation` overrides that of `hyperparams`; `None` leaves it out (a linear bottleneck).
    """
    if hyperparams.batch_norm:
        x = batch_norm(hyperparams, name=f"{name}_bn")(x)
    activation = hyperparams.activation if activation == "inherit" else activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"The activation is 'inherit' or one of {ACTIVATIONS}. Received: activation={activation!r}")
    return keras.layers.Activation(activation, name=f"{name}_act")(x) if activation else x


def conv_bn_act(x, filters, kernel_size, *, hyperparams, name, strides=1, padding="same", **options):
    """Convolution, batch normalization, activation.

    Args:
        x: Keras tensor `[B, H, W, C]`.
        filters: number of output channels.
        kernel_size: side of the kernel.
        hyperparams: `ConvHyperparams`.
        name: stem of the layer names.
        strides: step of the kernel.
        padding: `"same"` (TensorFlow's, uneven for stride 2), `"valid"`, or `"fixed"` (even on both sides, for any
            input size, as in upstream's ResNets).
        **options: `activation` as in `norm_act`; `use_bias` and `dilation_rate` as in `conv`.

    Returns:
        Keras tensor `[B, H', W', filters]`.
    """
    activation = options.pop("activation", "inherit")
    x, padding = _pad(x, kernel_size, strides, padding, options.get("dilation_rate", 1), name)
    layer = conv(hyperparams, filters, kernel_size, strides=strides, padding=padding, name=f"{name}_conv", **options)
    return norm_act(layer(x), hyperparams=hyperparams, name=name, activation=activation)


def depthwise_bn_act(x, kernel_size, *, hyperparams, name, strides=1, padding="same", **options):
    """Depthwise convolution, batch normalization, activation; arguments as in `conv_bn_act`."""
    activation = options.pop("activation", "inherit")
    x, padding = _pad(x, kernel_size, strides, padding, options.get("dilation_rate", 1), name)
    layer = depthwise(hyperparams, kernel_size, strides=strides, padding=padding, name=f"{name}_depthwise", **options)
    return norm_act(layer(x), hyperparams=hyperparams, name=name, activation=activation)


def separable_bn_act(x, filters, kernel_size, *, hyperparams, name, strides=1, padding="same", **options):
    """Separable convolution, batch normalization, activation: as `conv_bn_act`, and `separable`'s options."""
    activation = options.pop("activation", "inherit")
    x, padding = _pad(x, kernel_size, strides, padding, 1, name)
    layer = separable(
        hyperparams, filters, kernel_size, strides=strides, padding=padding, name=f"{name}_separable", **options
    )
    return norm_act(layer(x), hyperparams=hyperparams, name=name, activation=activation)


def fixed_padding(x, kernel_size, *, name=None, dilation_rate=1):
    """Zeros around `x` `[B, H, W, C]` so that a valid convolution at stride 1 keeps any size.

    Of the `dilation_rate * (kernel_size - 1)` rows and columns, the odd one goes to the bottom and the right.
    """
    total = dilation_rate * (kernel_size - 1)
    before, after = total // 2, total - total // 2
    return keras.layers.ZeroPadding2D(((before, after), (before, after)), name=name)(x)


def upsample_nearest(x, factor=2, *, name=None):
    """Each pixel of `x` `[B, H, W, C]` repeated `factor` times in both directions."""
    return keras.layers.UpSampling2D(factor, interpolation="nearest", name=name)(x)


def _pad(x, kernel_size, strides, padding, dilation_rate, name):
    """Input and Keras padding for the three kinds of padding. At stride 1 "fixed" and "same" are the same thing."""
    if padding not in PADDINGS:
        raise ValueError(f"The padding must be one of {PADDINGS}. Received: padding={padding!r} for '{name}'")
    if padding != "fixed" or strides == 1:
        return x, "same" if padding == "fixed" else padding
    if kernel_size > 1:
        x = fixed_padding(x, kernel_size, name=f"{name}_pad", dilation_rate=dilation_rate)
    return x, "valid"
