"""Heads of detectors that predict at points: a few convolutions per head and feature map."""

import keras

from keras_detect.registry import part


@part
class PointHead:
    """How a head is made: convolutions with ReLU, then a 1 x 1 convolution (upstream's `PredictionHeadParams`).

    Args:
        filters: of each convolution before the last.
        kernel_sizes: of each of them.
        separable: whether they are separable.

    Raises:
        ValueError: as many filters as kernel sizes are needed, each positive.
    """

    filters: tuple[int, ...] = (256,)
    kernel_sizes: tuple[int, ...] = (3,)
    separable: bool = False

    def __post_init__(self):
        if len(self.filters) != len(self.kernel_sizes) or not all(n >= 1 for n in (*self.filters, *self.kernel_sizes)):
            raise ValueError(
                "A head has a kernel size for each of its convolutions, all positive. Received: "
                f"filters={self.filters!r}, kernel_sizes={self.kernel_sizes!r}"
            )

    def layers(self, name: str, channels: int, bias: float = 0.0) -> list[keras.layers.Layer]:
        """New layers `name_conv_0`, ..., `name_out`, which are called one after the other.

        Args:
            name: of the head.
            channels: of its output.
            bias: start of the last layer's bias.
        """
        kind = keras.layers.SeparableConv2D if self.separable else keras.layers.Conv2D
        hidden = [
            kind(filters, size, padding="same", activation="relu", name=f"{name}_conv_{index}")
            for index, (filters, size) in enumerate(zip(self.filters, self.kernel_sizes, strict=True))
        ]
        start = keras.initializers.Constant(bias) if bias else "zeros"
        return [*hidden, keras.layers.Conv2D(channels, 1, bias_initializer=start, name=f"{name}_out")]
