"""Images of any size and number through a file whose input has a fixed size or batch."""

import numpy as np

from keras_detect import schema
from keras_detect.transforms.resizers import FixedShapeResizer


class FittedRunner:
    """Calls a `Runner` with images of any size.

    Where the file's input is the canvas of the model's resizer, an image is resized and padded as the model would
    (rounded to uint8 unless the runner takes floats); where it is another size, the image is stretched to it. A short
    batch is filled up.

    Args:
        runner: a `Runner`.
        resizer: of the model, or `None`.
    """

    def __init__(self, runner, resizer=None):
        self.runner, self.resizer = runner, resizer

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Detections of images of one size.

        Args:
            images: `[B, H, W, 3]` uint8.

        Returns:
            As of `Runner`; `"boxes" [B, D, 4]` are yxyx, normalized to the given images.
        """
        resizing = None
        size = self.runner.image_size
        if size is not None and images.shape[1:3] != tuple(size):
            resizer = fitting_resizer(self.resizer, images.shape[1:3], tuple(size))
            resizing = resizer.resizing(*images.shape[1:3])
            images = images.astype(np.float32) if self.runner.takes_float else images
            images = np.stack([resizer.resize_image(image)[0] for image in images])
        step = self.runner.batch_size or len(images)
        parts = [self._filled(images[start : start + step], step) for start in range(0, len(images), step)]
        found = (
            parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        )
        if resizing is None or tuple(resizing.after) == tuple(resizing.canvas):
            return found
        return {**found, schema.BOXES: np.clip(_from_canvas(found[schema.BOXES], resizing), 0.0, 1.0)}

    def _filled(self, images, count):
        missing = count - len(images)
        if missing:
            images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        found = self.runner(images)
        return {key: value[: len(images) - missing] for key, value in found.items()} if missing else found


def fitting_resizer(resizer, given, size):
    """The resizer that brings an image to `size`: the model's if that is its canvas, else one that stretches.

    Args:
        resizer: of the model, or `None`.
        given: `(height, width)` of the image.
        size: `(height, width)` wanted.
    """
    if resizer is not None and tuple(resizer.output_shape(*given)) == size:
        return resizer
    return FixedShapeResizer(height=size[0], width=size[1])


def _from_canvas(boxes, resizing):
    """Boxes normalized to the canvas as boxes normalized to the true image, `[B, D, 4]` float32."""
    height, width = (
        float(canvas) / float(after) for canvas, after in zip(resizing.canvas, resizing.after, strict=True)
    )
    return (boxes * np.asarray([height, width, height, width])).astype(np.float32)
