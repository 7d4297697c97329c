"""The second stage's heads on the features of each proposal (Ren et al. 2015; He et al. 2017, arXiv:1703.06870)."""

from typing import Any

import keras
from keras import ops

from keras_detect import schema
from keras_detect.heads.box_predictor import BoxPredictor, checked_num_classes
from keras_detect.layers.conv_blocks import ConvHyperparams, Initializer
from keras_detect.registry import register_roi_head, serializable

SCALED_UNIFORM = Initializer(name="variance_scaling", settings=(("distribution", "uniform"), ("mode", "fan_avg")))


@register_roi_head("mask_rcnn")
@serializable
class MaskRCNNBoxPredictor(BoxPredictor):
    """Features of a proposal, averaged over their cells, -> box codes and class logits by one dense layer each.

    Args:
        num_classes: K, background not counted; the logits have K + 1 columns, background first.
        share_box_across_classes: one box per proposal; else one for each of the K classes.
        box_code_size: numbers per box, the coder's `code_size`.
        dropout: rate in front of both dense layers.
        hyperparams: `ConvHyperparams`, of which initializer and L2 are used.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.
    """

    checkpoint_family = "mask_rcnn"

    settings = (
        "num_classes",
        "share_box_across_classes",
        "box_code_size",
        "dropout",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        share_box_across_classes: bool = False,
        box_code_size: int = 4,
        dropout: float = 0.0,
        hyperparams: ConvHyperparams | None = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams or ConvHyperparams(kernel_initializer=SCALED_UNIFORM), **kwargs)
        self.num_classes = checked_num_classes(num_classes)
        self.share_box_across_classes, self.box_code_size = bool(share_box_across_classes), box_code_size
        self.dropout = dropout
        self.dropout_layer = keras.layers.Dropout(dropout, name="dropout") if dropout else None
        self.box_head = self._dense(self.num_boxes * box_code_size, "box_head")
        self.class_head = self._dense(self.num_columns, "class_head")

    @property
    def num_boxes(self) -> int:
        """q, boxes per proposal: 1 or K."""
        return 1 if self.share_box_across_classes else self.num_classes

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=self.hyperparams.kernel_initializer.build(),
            bias_initializer=self.hyperparams.bias_initializer.build(),
            kernel_regularizer=self.hyperparams.regularizer(),
            name=name,
        )

    def build(self, input_shape: Any) -> None:
        for head in (self.box_head, self.class_head):
            head.build((None, int(input_shape[-1])))
        self.built = True

    def class_biases(self) -> Any:
        return [self.class_head.bias]

    def call(self, features: Any, training: bool | None = None) -> Any:
        """`[B, P, h, w, D]` -> `{"box_encodings" [B, P, q, code], "class_logits" [B, P, K + 1]}`, float32."""
        x = ops.mean(features, axis=(2, 3))
        if self.dropout_layer is not None:
            x = self.dropout_layer(x, training=training)
        boxes = ops.cast(self.box_head(x), "float32")
        return {
            schema.BOX_ENCODINGS: ops.reshape(boxes, (*ops.shape(boxes)[:2], self.num_boxes, self.box_code_size)),
            schema.CLASS_LOGITS: ops.cast(self.class_head(x), "float32"),
        }
