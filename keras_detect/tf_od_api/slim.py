"""The arg scopes of tf_slim around upstream's TensorFlow 1 backbones: what holds where a config overrides nothing."""

import dataclasses

from keras_detect.layers.conv_blocks import ConvHyperparams, initializer


@dataclasses.dataclass(frozen=True)
class ArgScope:
    """How a backbone of tf_slim is set.

    Attributes:
        hyperparams: its own settings.
        kept: names of those that stay where the config overrides them, since an inner scope sets them.
    """

    hyperparams: ConvHyperparams
    kept: tuple = ()


_BATCH_NORM = ("batch_norm", "batch_norm_momentum", "batch_norm_epsilon", "batch_norm_scale", "batch_norm_center")
_MOBILE = ConvHyperparams(
    activation="relu6",
    batch_norm_momentum=0.9997,
    batch_norm_epsilon=0.001,
    kernel_initializer=initializer("truncated_normal", mean=0.0, stddev=0.09),
    l2_weight=4e-5,
)
MOBILENET_V1 = ArgScope(_MOBILE)
#: the embedded SSD leaves out that depthwise kernels are regularized
MOBILENET_V1_EMBEDDED = ArgScope(dataclasses.replace(_MOBILE, depthwise_l2=False))
MOBILENET_V2 = ArgScope(
    dataclasses.replace(_MOBILE, depthwise_l2=False), ("activation", "batch_norm_scale", "batch_norm_center")
)
#: Inception V2 and V3: upstream has no scope of their own for SSD and takes the config's alone, with or without the
#: field that says so, which its first programs did not have
INCEPTION = ArgScope(ConvHyperparams(activation="relu", batch_norm_momentum=0.9997, batch_norm_epsilon=0.001))
#: upstream passes the batch norm's settings to each convolution, where a config cannot reach them
RESNET_V1 = ArgScope(
    ConvHyperparams(
        activation="relu",
        batch_norm_momentum=0.997,
        batch_norm_epsilon=1e-5,
        kernel_initializer=initializer("variance_scaling", scale=2.0, mode="fan_in", distribution="truncated_normal"),
        l2_weight=1e-4,
    ),
    _BATCH_NORM,
)

#: below a pooling pyramid, the config never reaches the network
RESNET_V1_PPN = ArgScope(RESNET_V1.hyperparams, tuple(field.name for field in dataclasses.fields(ConvHyperparams)))


def backbone_hyperparams(scope, overriding=None):
    """`ConvHyperparams` of a backbone in the `ArgScope` `scope`, with those of the config where it is to override."""
    if overriding is None:
        return scope.hyperparams
    kept = {name: getattr(scope.hyperparams, name) for name in scope.kept}
    return dataclasses.replace(overriding, **kept)
