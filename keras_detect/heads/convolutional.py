"""Box and class heads with layers of their own for each feature map (Liu et al. 2016, section 2.1)."""

from typing import Any

import keras
from keras import ops

from keras_detect import schema
from keras_detect.heads.box_predictor import SMALL_NORMAL, BoxPredictor, check_map_count, checked_num_classes
from keras_detect.layers.conv_blocks import conv, depthwise_bn_act
from keras_detect.registry import register_head, serializable


@register_head(
    "convolutional",
    kernel_size=3,
    hyperparams=SMALL_NORMAL,
)
@serializable
class ConvolutionalBoxPredictor(BoxPredictor):
    """Feature maps -> box codes and class logits for every anchor.

    Args:
        num_classes: K, background not counted.
        num_anchors_per_location: one int per feature map, as the anchor generator's `num_anchors_per_location()`.
        kernel_size: side of the two prediction convolutions.
        box_code_size: numbers per box, the coder's `code_size`.
        background: whether the logits have a background column at index 0 (K + 1 columns).
        class_bias: initial bias of the class logits; -4.6 is a prior probability of 0.01 (Lin et al. 2017, 3.3).
        dropout: rate in front of the class head.
        depthwise: a depthwise convolution of `kernel_size` with batch norm and activation, then a 1x1 convolution, in
            the place of each prediction convolution (SSDLite: Sandler et al. 2018, section 6.2).
        hyperparams: `ConvHyperparams`; without `depthwise`, initializer and L2 are used.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.
    """

    checkpoint_family = "convolutional"

    settings = (
        "num_classes",
        "num_anchors_per_location",
        "kernel_size",
        "box_code_size",
        "background",
        "class_bias",
        "dropout",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        num_anchors_per_location: Any,
        kernel_size: int = 1,
        box_code_size: int = 4,
        background: bool = True,
        class_bias: float = -4.6,
        dropout: float = 0.0,
        depthwise: bool = False,
        hyperparams: Any = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams, **kwargs)
        self.num_classes = checked_num_classes(num_classes)
        self.num_anchors_per_location = tuple(int(number) for number in num_anchors_per_location)
        self.kernel_size, self.box_code_size, self.background = kernel_size, box_code_size, background
        self.class_bias, self.dropout, self.depthwise = class_bias, dropout, depthwise

    def build(self, input_shapes: Any) -> None:
        check_map_count(self.num_anchors_per_location, input_shapes)
        self.levels = [
            self._level(index, shape, anchors)
            for index, (shape, anchors) in enumerate(zip(input_shapes, self.num_anchors_per_location, strict=True))
        ]
        self.built = True

    def _level(self, index, shape, anchors):
        """A functional model: one feature map -> `[box codes, class logits]` of its anchors."""
        x = inputs = keras.Input((None, None, int(shape[-1])))
        boxes = self._head(x, anchors * self.box_code_size, f"level_{index}_box", None)
        x = keras.layers.Dropout(self.dropout)(x) if self.dropout else x
        classes = self._head(x, anchors * self.num_columns, f"level_{index}_class", self.class_bias)
        return keras.Model(inputs, [boxes, classes], name=f"level_{index}")

    def _head(self, x, filters, name, bias):
        kernel_size = self.kernel_size
        if self.depthwise:
            x, kernel_size = depthwise_bn_act(x, kernel_size, hyperparams=self.hyperparams, name=name), 1
        layer = conv(self.hyperparams, filters, kernel_size, use_bias=True, name=name)
        if bias is not None:
            layer.bias_initializer = keras.initializers.Constant(bias)
        return layer(x)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config | {"depthwise": True} if self.depthwise else config

    def class_biases(self) -> Any:
        return [level.get_layer(f"level_{index}_class").bias for index, level in enumerate(self.levels)]

    def call(self, feature_maps: Any, training: bool | None = None) -> Any:
        """Returns `{"box_encodings" [B, A, code], "class_logits" [B, A, K or K + 1]}`, float32."""
        boxes, classes = [], []
        for level, feature_map in zip(self.levels, feature_maps, strict=True):
            level_boxes, level_classes = level(feature_map, training=training)
            boxes.append(anchors_first(level_boxes, self.box_code_size))
            classes.append(anchors_first(level_classes, self.num_columns))
        return {
            schema.BOX_ENCODINGS: ops.cast(ops.concatenate(boxes, axis=1), "float32"),
            schema.CLASS_LOGITS: ops.cast(ops.concatenate(classes, axis=1), "float32"),
        }


def anchors_first(x, columns):
    """`[B, h, w, anchors * columns]` -> `[B, h * w * anchors, columns]`, cells row-major, anchors innermost."""
    height, width = ops.shape(x)[1:3]
    return ops.reshape(x, (-1, height * width * (x.shape[-1] // columns), columns))
