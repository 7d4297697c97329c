"""R-FCN's heads: a map of scores for every part of a box, from which the parts are cropped (Dai et al. 2016)."""

from typing import Any

from keras import ops

from keras_detect import schema
from keras_detect.heads.box_predictor import SMALL_NORMAL, BoxPredictor, checked_num_classes
from keras_detect.kernels.position_sensitive import position_sensitive_crop
from keras_detect.layers.conv_blocks import conv
from keras_detect.registry import serializable


@serializable
class PositionSensitiveBoxPredictor(BoxPredictor):
    """A feature map and boxes on it -> box codes and class logits of each box (arXiv:1605.06409, section 3).

    A 1x1 convolution with ReLU reduces the map; two more give each bin of a box channels of its own, whose samples
    inside the box are averaged.

    Args:
        num_classes: K, background not counted; the logits have K + 1 columns, background first.
        depth: channels of the reduced map.
        crop_size: `(h, w)` samples of a box, multiples of the bins.
        bins: `(bins_y, bins_x)`, parts of a box.
        box_code_size: numbers per box, the coder's `code_size`; there is a box for each of the K classes.
        hyperparams: `ConvHyperparams`, of which initializer and L2 are used, and the activation behind the reduction.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: no class, or a crop size that the bins do not divide.
    """

    checkpoint_family = "position_sensitive"

    settings = ("num_classes", "depth", "crop_size", "bins", "box_code_size")

    def __init__(
        self,
        *,
        num_classes: int,
        depth: int = 1024,
        crop_size: tuple[int, int] = (18, 18),
        bins: tuple[int, int] = (3, 3),
        box_code_size: int = 4,
        hyperparams: Any = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams or SMALL_NORMAL, **kwargs)
        self.num_classes, self.depth, self.box_code_size = checked_num_classes(num_classes), depth, box_code_size
        self.crop_size, self.bins = tuple(crop_size), tuple(bins)
        if any(number < 1 or side < 1 or side % number for side, number in zip(self.crop_size, self.bins, strict=True)):
            raise ValueError(
                f"crop_size must be multiples of the bins. Received: crop_size={self.crop_size}, bins={self.bins}"
            )
        count = self.bins[0] * self.bins[1]
        self.reduce = self._conv(depth, "reduce")
        self.box_head = self._conv(count * self.num_classes * box_code_size, "box_head")
        self.class_head = self._conv(count * self.num_columns, "class_head")

    def _conv(self, filters, name):
        return conv(self.hyperparams, filters, 1, use_bias=True, name=name)

    def class_biases(self) -> Any:
        return [self.class_head.bias]

    def build(self, input_shape: Any) -> None:
        self.reduce.build((None, None, None, int(input_shape[-1])))
        for head in (self.box_head, self.class_head):
            head.build((None, None, None, self.depth))
        self.built = True

    def call(self, features: Any, boxes: Any, training: bool | None = None) -> Any:
        """Box codes and class logits.

        Args:
            features: `[B, h, w, D]`.
            boxes: `[B, P, 4]`, normalized to the extent of the features.
            training: has no effect.

        Returns:
            `{"box_encodings" [B, P, K, code], "class_logits" [B, P, K + 1]}`, float32.
        """
        x = ops.relu(self.reduce(features))
        codes, logits = (
            ops.cast(position_sensitive_crop(head(x), boxes, self.crop_size, self.bins), "float32")
            for head in (self.box_head, self.class_head)
        )
        shape = (*ops.shape(codes)[:2], self.num_classes, self.box_code_size)
        return {schema.BOX_ENCODINGS: ops.reshape(codes, shape), schema.CLASS_LOGITS: logits}
