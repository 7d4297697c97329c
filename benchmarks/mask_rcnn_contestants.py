"""The Mask R-CNNs of `race.py`: ours and TorchVision's, with ResNet50, a feature pyramid and masks of 28 x 28 cells.

    python benchmarks/mask_rcnn_contestants.py keras_detect train 1

As the Faster R-CNNs of `faster_rcnn_contestants.py`, with masks that fill their boxes but for a corner. All run with
our numbers of proposals: 300, of which 64 are sampled in training. Ratios refer to TorchVision's as it is documented.
"""

import numpy as np
from contestant import CLASSES, OBJECTS, SIZE, serve
from faster_rcnn_contestants import FEW, keras_detect_contestant, torchvision_contestant, torchvision_settings


def ours():
    """Our Mask R-CNN with a feature pyramid, as `from_backbone` makes it."""
    from keras_detect.meta_architectures.mask_rcnn import MaskRCNN

    return MaskRCNN.from_backbone("resnet_v1_50", neck="fpn", num_classes=CLASSES, image_size=SIZE)


def torchvisions(proposals, sampled):
    """TorchVision's published Mask R-CNN."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    return maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        **torchvision_settings(proposals, sampled),
    )


def with_masks(ground_truth):
    """The objects without padding rows, and their masks `[B, OBJECTS, SIZE, SIZE]` uint8."""
    boxes, labels = (rows[:, :OBJECTS] for rows in ground_truth)
    pixels = (np.arange(SIZE) + 0.5) / SIZE
    low, high, middle = boxes[..., :2], boxes[..., 2:], (boxes[..., :2] + boxes[..., 2:]) / 2
    inside = (pixels >= low[..., None]) & (pixels < high[..., None])
    corner = inside & (pixels >= middle[..., None])
    masks = (inside[..., 0, :, None] & inside[..., 1, None, :]) & ~(corner[..., 0, :, None] & corner[..., 1, None, :])
    return boxes, labels, masks.astype("uint8")


def keras_detect(task, images, ground_truth, **settings):
    """Ours."""
    return keras_detect_contestant(task, images, with_masks(ground_truth), build=ours, numbers=FEW, **settings)


def torchvision(task, images, ground_truth, **settings):
    """TorchVision's."""
    return torchvision_contestant(task, images, with_masks(ground_truth), build=torchvisions, numbers=FEW, **settings)


CONTESTANTS = {
    "TorchVision": torchvision,
    "TorchVision, NHWC": lambda *a: torchvision(*a, memory="channels_last"),
    "keras_detect": keras_detect,
    "keras_detect, bfloat16": lambda *a: keras_detect(*a, policy="mixed_bfloat16"),
}

if __name__ == "__main__":
    serve(CONTESTANTS)
