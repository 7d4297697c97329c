"""The order of preprocessing of Faster R-CNN and CenterNet; SSD scales the pixels first, as upstream does."""

from typing import Any

from keras import ops

from keras_detect import schema
from keras_detect.meta_architectures.model_mixin import ModelMixin


class ResizeFirst(ModelMixin):
    """Mixin of a `DetectionModel` with a `resizer` and a `feature_extractor`: padding is a scaled black pixel."""

    def preprocess(self, images: Any, true_image_shapes: Any = None, resized: bool = False) -> dict[str, Any]:
        """Resizes and pads, then scales the pixels.

        Args:
            images: `[B, H, W, 3]` uint8 or float in 0...255.
            true_image_shapes: `[B, 3]` int32, or `None` where no image is padded.
            resized: whether the resizer has resized and padded them already.

        Returns:
            `{"images" [B, h, w, 3] float32, "true_image_shapes" [B, 3] int32}`.
        """
        images, true_image_shapes = self.resizer(ops.cast(images, "float32"), true_image_shapes, resized=resized)
        return {schema.IMAGES: self.feature_extractor.preprocess(images), schema.TRUE_IMAGE_SHAPES: true_image_shapes}
