"""The third stage's head: a mask from the features of each region (He et al. 2017, arXiv:1703.06870)."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_detect.heads.box_predictor import BoxPredictor, checked_num_classes
from keras_detect.kernels.roi import checked_size
from keras_detect.layers.conv_blocks import ConvHyperparams, batch_norm, conv, initializer
from keras_detect.registry import serializable

UPSAMPLING = ("transposed", "resize", "nearest")
PLAIN = ConvHyperparams(
    activation="relu",
    batch_norm=False,
    kernel_initializer=initializer("variance_scaling", scale=2.0, mode="fan_out", distribution="truncated_normal"),
)


@serializable
class MaskPredictor(BoxPredictor):
    """Features of a region -> logits of its mask: 3 x 3 convolutions, upsampling, and a convolution per class.

    Where the classes of the regions are given, the mask of that class alone is computed.

    Args:
        num_classes: K, background not counted.
        mask_size: cells of a mask, an int or `(h, w)`.
        num_convolutions: how many 3 x 3 convolutions before the last one.
        depth: their channels; 0 chooses as upstream does, by the channels of the features and the number of classes.
        class_agnostic: one mask per region; else one for each class.
        upsampling: where the features are enlarged to `mask_size`. "transposed": a 2 x 2 transposed convolution with
            stride 2 behind the convolutions, and a last convolution of 1 x 1, as in the paper. "resize": bilinearly,
            corners aligned, before the convolutions, and a last one of 3 x 3 (upstream). "nearest": a whole number of
            times behind the convolutions, then one more 3 x 3 convolution and a last one of 3 x 3 (upstream's
            `convolve_then_upsample_masks`).
        hyperparams: `ConvHyperparams`; default: ReLU without batch norm.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: an unknown upsampling, a count or size below its range, or, when built, features that the upsampling
            does not bring to `mask_size`.
    """

    checkpoint_family = "mask_rcnn_masks"

    settings = ("num_classes", "mask_size", "num_convolutions", "depth", "class_agnostic", "upsampling")

    def __init__(
        self,
        *,
        num_classes: int,
        mask_size: int | tuple[int, int] = 28,
        num_convolutions: int = 4,
        depth: int = 256,
        class_agnostic: bool = False,
        upsampling: str = "transposed",
        hyperparams: ConvHyperparams | None = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams or PLAIN, **kwargs)
        self.num_classes = checked_num_classes(num_classes)
        self.mask_size = tuple(int(side) for side in checked_size(mask_size))
        self.num_convolutions, self.depth = int(num_convolutions), int(depth)
        self.class_agnostic, self.upsampling = bool(class_agnostic), upsampling
        if upsampling not in UPSAMPLING:
            raise ValueError(f"upsampling must be one of {UPSAMPLING}. Received: upsampling={upsampling!r}")
        if self.num_convolutions < 0 or self.depth < 0:
            raise ValueError(
                "num_convolutions and depth are 0 or more. Received: "
                f"num_convolutions={num_convolutions}, depth={depth}"
            )

    @property
    def num_masks(self) -> int:
        """Masks per region: 1 or K."""
        return 1 if self.class_agnostic else self.num_classes

    def build(self, input_shape: Any) -> None:
        height, width, channels = (int(side) for side in input_shape[-3:])
        self._check_size(height, width)
        self.depth = self.depth or _upstream_depth(channels, self.num_classes)
        self._layers_of(height, width, channels)
        self.built = True

    def _check_size(self, height, width):
        scales = [mask / side for mask, side in zip(self.mask_size, (height, width), strict=True)]
        fits = {
            "transposed": scales == [2.0, 2.0],
            "resize": True,
            "nearest": all(scale == int(scale) for scale in scales),
        }
        if not fits[self.upsampling]:
            wanted = {"transposed": "twice the features'", "nearest": "a multiple of the features'"}[self.upsampling]
            raise ValueError(
                f"With upsampling={self.upsampling!r} the mask's size is {wanted}. Received: mask_size="
                f"{self.mask_size} for features of {height} x {width}. Pass a fitting mask_size, or 'resize'."
            )

    def _layers_of(self, height, width, channels):
        steps, sides = [], (height, width)
        names = [f"conv_{index}" for index in range(self.num_convolutions)]
        if self.upsampling == "resize":
            self.rows, self.columns = (_aligned(side, mask) for side, mask in zip(sides, self.mask_size, strict=True))
        if self.upsampling == "nearest":
            self.scale = tuple(mask // side for mask, side in zip(self.mask_size, sides, strict=True))
            names.append("upsample_conv")
        for name in names:
            steps += self._block(conv(self.hyperparams, self.depth, 3, name=name), channels, name)
            channels = self.depth
        if self.upsampling == "transposed":
            steps += self._block(self._transposed(), channels, "upsample_conv")
            channels = self.depth
        self.steps = steps
        size = 1 if self.upsampling == "transposed" else 3
        self.mask_head = conv(self.hyperparams, self.num_masks, size, use_bias=True, name="mask_head")
        self.mask_head.build((None, None, None, channels))

    def _block(self, layer, channels, name):
        """The convolution, its batch norm and its activation, built."""
        layer.build((None, None, None, channels))
        block = [layer]
        if self.hyperparams.batch_norm:
            block.append(batch_norm(self.hyperparams, name=f"{name}_bn"))
            block[-1].build((None, None, None, self.depth))
        if self.hyperparams.activation:
            block.append(keras.layers.Activation(self.hyperparams.activation, name=f"{name}_act"))
        return block

    def _transposed(self):
        return keras.layers.Conv2DTranspose(
            self.depth,
            2,
            strides=2,
            use_bias=not self.hyperparams.batch_norm,
            kernel_initializer=self.hyperparams.kernel_initializer.build(),
            bias_initializer=self.hyperparams.bias_initializer.build(),
            kernel_regularizer=self.hyperparams.regularizer(),
            name="upsample_conv",
        )

    def call(self, features: Any, labels: Any = None, training: bool | None = None) -> Any:
        """The logits of the masks.

        Args:
            features: `[N, h, w, C]`.
            labels: `[N]` int32 in [0, K), the class whose mask is wanted of each region; `None`: all.
            training: whether batch norm trains.

        Returns:
            `[N, *mask_size]` float32, or `[N, *mask_size, K]` (1 for masks of no class) without labels.
        """
        x = features
        if self.upsampling == "resize":
            x = ops.einsum("yh,nhwc->nywc", ops.cast(self.rows, x.dtype), x)
            x = ops.einsum("xw,nywc->nyxc", ops.cast(self.columns, x.dtype), x)
        for layer in self.steps:
            if layer.name == "upsample_conv" and self.upsampling == "nearest":
                x = ops.repeat(ops.repeat(x, self.scale[0], axis=1), self.scale[1], axis=2)
            x = layer(x, training=training) if isinstance(layer, keras.layers.BatchNormalization) else layer(x)
        if labels is None or self.num_masks == 1:
            masks = ops.cast(self.mask_head(x), "float32")
            return masks if labels is None else masks[..., 0]
        return self._of_classes(x, labels)

    def _of_classes(self, x, labels):
        """The last convolution with the kernel of each region's class: `[N, h, w, C]`, `[N]` -> `[N, h, w]`."""
        size = self.mask_head.kernel_size[0]
        height, width, channels = x.shape[1:]
        kernel = ops.reshape(ops.transpose(self.mask_head.kernel, (3, 2, 0, 1)), (self.num_masks, channels, size**2))
        kernel = ops.cast(ops.take(kernel, labels, axis=0), x.dtype)
        # what each cell gives to each neighbor, then the sum over those neighbors
        given = ops.matmul(ops.reshape(x, (-1, height * width, channels)), kernel)
        given = ops.cast(ops.reshape(given, (-1, height, width, size**2)), "float32")
        reach = size // 2
        given = ops.pad(given, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        total = ops.cast(ops.take(self.mask_head.bias, labels, axis=0), "float32")[:, None, None]
        for row in range(size):
            for column in range(size):
                total = total + given[:, row : row + height, column : column + width, row * size + column]
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *self.mask_size, self.num_masks)


def _aligned(side, length):
    """`[length, side]` float32: the bilinear shares of `side` cells in `length` ones, corners aligned."""
    position = np.linspace(0.0, side - 1.0, length)
    cells = np.arange(side)
    return np.maximum(1.0 - np.abs(position[:, None] - cells), 0.0).astype("float32")


def _upstream_depth(channels, num_classes):
    """Upstream's: the power of two nearest to a mean of channels (2 parts) and classes (3 parts), in logarithms."""
    return 2 ** round((2.0 * math.log2(channels) + 3.0 * math.log2(num_classes)) / 5.0)
