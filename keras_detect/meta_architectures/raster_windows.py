"""Where the true image lies in the rasters of the ground truth, whose frame is that of the images as given."""

import keras
from keras import ops

from keras_detect import schema
from keras_detect.meta_architectures.ground_truth import split_images
from keras_detect.transforms.resizing import true_window


def with_raster_windows(inputs, data):
    """`inputs` of a model, with `schema.RASTER_WINDOWS` `[B, 4]` where the rasters of y have another frame than these.

    Args:
        inputs: what `preprocess` returned.
        data: the batch, as `fit` passes it.
    """
    images, shapes, resized = split_images(keras.utils.unpack_x_y_sample_weight(data)[0])
    if resized:
        return inputs
    sides = ops.cast(ops.stack(ops.shape(images)[1:3]), "float32")
    if shapes is None:
        windows = ops.broadcast_to(ops.array([0.0, 0.0, 1.0, 1.0], "float32"), (ops.shape(images)[0], 4))
    else:
        windows = true_window(shapes, sides)
    return {**inputs, schema.RASTER_WINDOWS: windows}


def in_rasters(boxes, window, raster_window):
    """Boxes `[B, n, 4]`, normalized to the preprocessed image, normalized to the rasters of y.

    Args:
        boxes: the boxes.
        window: `[B, 4]`, the true image in the preprocessed one; it begins at 0.
        raster_window: `[B, 4]`, the true image in the rasters; `None`: as in the preprocessed one.
    """
    if raster_window is None:
        return boxes
    return boxes * ops.tile((raster_window / ops.maximum(window, 1e-6))[:, None, 2:], (1, 1, 2))
