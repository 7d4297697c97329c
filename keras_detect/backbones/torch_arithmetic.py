"""What networks of torchvision and timm have in common, where TensorFlow's networks differ.

Convolutions pad evenly on all sides, also at stride 2; batch norm has epsilon 1e-5 and momentum 0.9; pixels are scaled
to mean 0 and deviation 1 of ImageNet's. Weights trained so give other features in a network that pads as
TensorFlow's SAME: on 72 photos, MobileNetV2's first class is then another one for 37 % of them.
"""

from keras import ops

TENSORFLOW, TORCH = "tensorflow", "torch"
PADDINGS = {TENSORFLOW: "same", TORCH: "fixed"}
BATCH_NORM = {"batch_norm_momentum": 0.9, "batch_norm_epsilon": 1e-5}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in 0...1


def checked_arithmetic(arithmetic: str) -> str:
    """`arithmetic`; raises `ValueError` unless it is "tensorflow" or "torch"."""
    if arithmetic not in PADDINGS:
        raise ValueError(f"The arithmetic must be one of {', '.join(PADDINGS)}. Received: arithmetic={arithmetic!r}")
    return arithmetic


def scaled_by_deviation(images):
    """Pixels 0...255, `[B, H, W, 3]` RGB, to mean 0 and deviation 1 of ImageNet's pixels."""
    scale = ops.convert_to_tensor([1.0 / (255.0 * std) for std in STD], images.dtype)
    shift = ops.convert_to_tensor([mean / std for mean, std in zip(MEAN, STD, strict=True)], images.dtype)
    return images * scale - shift
