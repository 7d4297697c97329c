"""`data_augmentation_options` -> our augmentations: the same operation where we have it, else the nearest one."""

from typing import NamedTuple

from keras_detect.transforms import (
    RandomColor,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomRotation90,
    RandomVerticalFlip,
)


class Approximation(NamedTuple):
    """What is carried over in nearly the same form: its `path` and `line` in the file, and the difference."""

    path: str
    line: int
    reason: str


def augmentations(train, near):
    """The augmentations of a `train_config` in their order; appends an `Approximation` to `near` where one differs.

    A step without a counterpart is left unread, so that it is listed as ignored. Raises `PipelineConfigError` for a
    number out of its range.
    """
    built = []
    for option in train.repeated("data_augmentation_options"):
        kind, node = option.oneof(*STEPS, required=False)
        if kind is None:
            continue
        build, reason = STEPS[kind]
        try:
            built.append(build(node))
        except ValueError as error:
            raise node.error(None, f"cannot be built: {error}") from error
        if reason is not None:
            near.append(Approximation(node.path, node.line, reason))
    return tuple(built)


def _rotation(node):
    return RandomRotation90(probability=node.scalar("probability", float, 0.5))


def _flip(part):
    """Without a permutation in the file, the data set says which keypoints change places."""
    return lambda node: part(
        probability=node.scalar("probability", float, 0.5),
        keypoint_permutation=tuple(node.repeated("keypoint_flip_permutation", int)) or None,
    )


def _color(**settings):
    """A `RandomColor` that changes nothing but `settings`."""
    none = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    return RandomColor(**(none | settings), probability=1.0)


def _factor(name):
    """One factor drawn from [min_delta, max_delta]; ours lies as far below 1 as above it."""

    def build(node):
        low, high = node.scalar("min_delta", float, 0.8), node.scalar("max_delta", float, 1.25)
        return _color(**{name: min(max(abs(1.0 - low), abs(high - 1.0)), 1.0)})

    return build


def _distort_color(node):
    if node.scalar("color_ordering", int, 0) not in (0, 1):
        raise node.error("color_ordering", "supported: 0 or 1")
    return _color(brightness=32.0 / 255.0, contrast=0.5, saturation=0.5, hue=0.2)


def _crop(node):
    low, high = node.scalar("min_aspect_ratio", float, 0.75), node.scalar("max_aspect_ratio", float, 1.33)
    overlap = node.scalar("min_object_covered", float, 1.0)
    return RandomIoUCrop(
        min_overlaps=(overlap,) if overlap else (),
        min_area=node.scalar("min_area", float, 0.1),
        max_aspect_ratio=max(1.0 / low if low > 0 else 1.0, high, 1.0),
        probability=1.0 - node.scalar("random_coef", float, 0.0),
    )


def _ssd_crop(node):
    """Upstream draws one of several operations; without any, those of the paper, which are ours too."""
    operations = node.repeated("operations")
    if not operations:
        return RandomIoUCrop()
    low = min(operation.scalar("min_aspect_ratio", float, 0.5) for operation in operations)
    high = max(operation.scalar("max_aspect_ratio", float, 2.0) for operation in operations)
    covered = [operation.scalar("min_object_covered", float, 0.0) for operation in operations]
    return RandomIoUCrop(
        min_overlaps=tuple(sorted({overlap for overlap in covered if 0 < overlap < 1})),
        min_area=min(operation.scalar("min_area", float, 0.1) for operation in operations),
        max_aspect_ratio=max(1.0 / low if low > 0 else 1.0, high, 1.0),
    )


def _zoom(node):
    """Scales of 1 to `scale_max` as crops; the smaller ones, which pad the image, have no counterpart."""
    return RandomIoUCrop(
        min_overlaps=(),
        min_area=1.0 / max(node.scalar("scale_max", float, 2.0), 1.0) ** 2,
        max_aspect_ratio=1.0,
    )


_CROP = "patches are drawn by overlap and not by covered part, and a box stays if its center does"
_FACTOR = "the factor's range is symmetric about 1"
_HUE = "hue and saturation change in YIQ and not in HSV"

#: step -> (builder, how ours differs; None where it does not)
STEPS = {
    "random_horizontal_flip": (_flip(RandomHorizontalFlip), None),
    "random_vertical_flip": (_flip(RandomVerticalFlip), None),
    "random_rotation90": (_rotation, None),
    "random_adjust_brightness": (lambda node: _color(brightness=node.scalar("max_delta", float, 0.2)), None),
    "random_adjust_contrast": (_factor("contrast"), _FACTOR),
    "random_adjust_saturation": (_factor("saturation"), f"{_HUE}; {_FACTOR}"),
    "random_adjust_hue": (lambda node: _color(hue=node.scalar("max_delta", float, 0.02)), _HUE),
    "random_distort_color": (_distort_color, f"one order of the changes; {_HUE}"),
    "random_crop_image": (_crop, _CROP),
    "ssd_random_crop": (_ssd_crop, _CROP),
    "random_scale_crop_and_pad_to_square": (_zoom, "zooms in only; the resizer of the model gives the size"),
}
