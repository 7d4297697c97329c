"""The heads of the first stage, which find objects of any class (Ren et al. 2015, arXiv:1506.01497, section 3.1)."""

from typing import Any

import keras

from keras_detect import schema
from keras_detect.heads.box_predictor import BoxPredictor, check_map_count
from keras_detect.heads.convolutional import ConvolutionalBoxPredictor, anchors_first
from keras_detect.layers.conv_blocks import conv
from keras_detect.registry import serializable


@serializable
class RegionProposalPredictor(BoxPredictor):
    """A convolution shared by all feature maps, then box codes and two objectness logits per anchor on each map.

    Args:
        num_anchors_per_location: one int per feature map, as the anchor generator's `num_anchors_per_location()`.
        depth: channels of the shared convolution.
        kernel_size: its side.
        box_code_size: numbers per box, the coder's `code_size`.
        dilation_rate: of the shared convolution.
        hyperparams: `ConvHyperparams`, of which initializer and L2 are used; the shared convolution has a bias and
            no batch norm, and ReLU6 follows it.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.
    """

    checkpoint_family = "region_proposal"

    num_classes = 1  # "object", of any class
    settings = (
        "num_anchors_per_location",
        "depth",
        "kernel_size",
        "box_code_size",
    )

    def __init__(
        self,
        *,
        num_anchors_per_location: Any,
        depth: int = 512,
        kernel_size: int = 3,
        box_code_size: int = 4,
        dilation_rate: int = 1,
        hyperparams: Any = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams, **kwargs)
        self.num_anchors_per_location = tuple(int(number) for number in num_anchors_per_location)
        self.depth, self.kernel_size, self.box_code_size = depth, kernel_size, box_code_size
        self.dilation_rate = dilation_rate
        self.shared_conv = conv(
            self.hyperparams, depth, kernel_size, use_bias=True, dilation_rate=dilation_rate, name="shared_conv"
        )
        self.heads = ConvolutionalBoxPredictor(
            num_classes=1,
            num_anchors_per_location=self.num_anchors_per_location,
            box_code_size=box_code_size,
            class_bias=0.0,
            hyperparams=self.hyperparams,
            name="heads",
        )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | ({"dilation_rate": self.dilation_rate} if self.dilation_rate != 1 else {})

    def build(self, input_shapes: Any) -> None:
        channels = {int(shape[-1]) for shape in input_shapes}
        if len(channels) != 1:
            raise ValueError(
                "The first stage's shared convolution needs feature maps of one depth. Received maps of depth "
                f"{[int(shape[-1]) for shape in input_shapes]}. Put a feature pyramid on the backbone or give one map."
            )
        self.shared_conv.build((None, None, None, channels.pop()))
        self.heads.build([(None, None, None, self.depth)] * len(input_shapes))
        self.built = True

    def features(self, feature_maps: Any) -> Any:
        """Input of the heads: list of `[B, h_l, w_l, C]` -> list of `[B, h_l, w_l, depth]`."""
        return [keras.ops.relu6(self.shared_conv(feature_map)) for feature_map in feature_maps]

    def call(self, feature_maps: Any, training: bool | None = None) -> Any:
        """Returns `{"rpn_box_encodings" [B, A, code], "rpn_objectness" [B, A, 2]}`, float32; column 1 is "object"."""
        heads = self.heads(self.features(feature_maps), training=training)
        return {
            schema.RPN_BOX_ENCODINGS: heads[schema.BOX_ENCODINGS],
            schema.RPN_OBJECTNESS: heads[schema.CLASS_LOGITS],
        }


@serializable
class SharedRegionProposalPredictor(BoxPredictor):
    """Convolutions, box codes and objectness that all feature maps share, as in torchvision.

    There is one logit of objectness per anchor; the column of "no object" beside it is 0, so that their softmax is its
    sigmoid.

    Args:
        num_anchors_per_location: one int per feature map, all equal.
        depth: channels of the shared convolutions.
        num_convolutions: how many of them, 3 x 3 with a bias, each followed by ReLU.
        box_code_size: numbers per box, the coder's `code_size`.
        hyperparams: `ConvHyperparams`, of which initializer and L2 are used.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.

    Raises:
        ValueError: numbers of anchors that differ between the maps.
    """

    checkpoint_family = "region_proposal_shared"

    num_classes = 1  # "object", of any class
    settings = ("num_anchors_per_location", "depth", "num_convolutions", "box_code_size")

    def __init__(
        self,
        *,
        num_anchors_per_location: Any,
        depth: int = 256,
        num_convolutions: int = 1,
        box_code_size: int = 4,
        hyperparams: Any = None,
        **kwargs,
    ):
        super().__init__(hyperparams=hyperparams, **kwargs)
        self.num_anchors_per_location = tuple(int(number) for number in num_anchors_per_location)
        if len(set(self.num_anchors_per_location)) != 1:
            raise ValueError(
                "Feature maps that share their heads have the same number of anchors per location. Received: "
                f"num_anchors_per_location={self.num_anchors_per_location}."
            )
        self.depth, self.num_convolutions, self.box_code_size = depth, num_convolutions, box_code_size
        anchors = self.num_anchors_per_location[0]
        self.convolutions = [
            conv(self.hyperparams, depth, 3, use_bias=True, name=f"shared_conv_{index}")
            for index in range(num_convolutions)
        ]
        self.box_head = conv(self.hyperparams, anchors * box_code_size, 1, use_bias=True, name="shared_box")
        self.object_head = conv(self.hyperparams, anchors, 1, use_bias=True, name="shared_object")

    def build(self, input_shapes: Any) -> None:
        check_map_count(self.num_anchors_per_location, input_shapes)
        channels = int(input_shapes[0][-1])
        for layer in self.convolutions:
            layer.build((None, None, None, channels))
            channels = self.depth
        for head in (self.box_head, self.object_head):
            head.build((None, None, None, channels))
        self.built = True

    def call(self, feature_maps: Any, training: bool | None = None) -> Any:
        """Returns `{"rpn_box_encodings" [B, A, code], "rpn_objectness" [B, A, 2]}`, float32; column 1 is "object"."""
        boxes, objects = [], []
        for x in feature_maps:
            for layer in self.convolutions:
                x = keras.ops.relu(layer(x))
            boxes.append(anchors_first(self.box_head(x), self.box_code_size))
            objects.append(anchors_first(self.object_head(x), 1))
        logits = keras.ops.cast(keras.ops.concatenate(objects, axis=1), "float32")
        return {
            schema.RPN_BOX_ENCODINGS: keras.ops.cast(keras.ops.concatenate(boxes, axis=1), "float32"),
            schema.RPN_OBJECTNESS: keras.ops.concatenate([keras.ops.zeros_like(logits), logits], axis=-1),
        }
