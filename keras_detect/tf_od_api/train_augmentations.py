"""`data_augmentation_options` -> our augmentations, with upstream's defaults (`preprocessor.proto`)."""

from typing import NamedTuple

from keras_detect.transforms import (
    LargeScaleJitter,
    RandomAspectRatioCrop,
    RandomBoxJitter,
    RandomChoice,
    RandomColor,
    RandomCropAndPad,
    RandomCutout,
    RandomGamma,
    RandomGray,
    RandomHorizontalFlip,
    RandomJpegQuality,
    RandomObjectCrop,
    RandomPad,
    RandomPatchNoise,
    RandomPixelScale,
    RandomResize,
    RandomRotation90,
    RandomSquareCrop,
    RandomVerticalFlip,
    RandomZoomOut,
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
    built: list = []
    for option in train.repeated("data_augmentation_options"):
        kind, node = option.oneof(*STEPS, required=False)
        if kind is None:
            continue
        build, reason = STEPS[kind]
        try:
            made = build(node)
        except ValueError as error:
            raise node.error(None, f"cannot be built: {error}") from error
        built += made if isinstance(made, list) else [made]
        if reason is not None:
            near.append(Approximation(node.path, node.line, reason))
    return tuple(built)


def _flip(part):
    """Without a permutation in the file, the data set says which keypoints change places."""
    return lambda node: part(
        probability=node.scalar("probability", float, 0.5),
        keypoint_permutation=node.repeated("keypoint_flip_permutation", int) or None,
    )


def _turn(node):
    return RandomRotation90(
        probability=node.scalar("probability", float, 0.5),
        keypoint_permutation=node.repeated("keypoint_rot_permutation", int),
    )


def _color(**settings):
    """A `RandomColor` that changes nothing but `settings`."""
    none = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    return RandomColor(**(none | settings), probability=1.0)


def _factor(name):
    """One factor drawn from [min_delta, max_delta]."""

    def build(node):
        return _color(**{name: (node.scalar("min_delta", float, 0.8), node.scalar("max_delta", float, 1.25))})

    return build


def _distort_color(node):
    if node.scalar("color_ordering", int, 0) not in (0, 1):
        raise node.error("color_ordering", "supported: 0 or 1")
    return _color(brightness=32.0 / 255.0, contrast=0.5, saturation=0.5, hue=0.2)


def _crop(node, aspect_ratio=None, unset=None):
    """One crop; `unset`: a dict of what stands for fields that are not written, by default the proto's values."""
    unset = unset or {}
    low = node.scalar("min_aspect_ratio", float, unset.get("aspect", 0.75)) if aspect_ratio is None else aspect_ratio
    high = node.scalar("max_aspect_ratio", float, unset.get("aspect", 1.33)) if aspect_ratio is None else aspect_ratio
    _clipped(node)
    return RandomObjectCrop(
        min_object_covered=node.scalar("min_object_covered", float, unset.get("covered", 1.0)),
        min_aspect_ratio=low,
        max_aspect_ratio=high,
        min_area=node.scalar("min_area", float, unset.get("area", 0.1)),
        max_area=node.scalar("max_area", float, unset.get("area", 1.0)),
        overlap_threshold=node.scalar("overlap_thresh", float, unset.get("overlap", 0.3)),
        probability=1.0 - node.scalar("random_coef", float, 0.0),
    )


def _clipped(node):
    if not node.scalar("clip_boxes", bool, True):
        raise node.error("clip_boxes", "supported: true, boxes stay inside the image")


#: a crop in a list of crops has no defaults but protobuf's own: 0
_IN_A_LIST = {"covered": 0.0, "aspect": 0.0, "area": 0.0, "overlap": 0.0}
#: upstream's crops where a file lists none: the part of an object that shows, and that must be left of others
_SSD_THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def _paper_crops(aspect_ratio=None, thresholds=_SSD_THRESHOLDS):
    return tuple(
        RandomObjectCrop(
            min_object_covered=threshold,
            min_aspect_ratio=aspect_ratio or 0.5,
            max_aspect_ratio=aspect_ratio or 2.0,
            overlap_threshold=threshold,
            probability=0.85,
        )
        for threshold in thresholds
    )


def _ssd_crop(node):
    operations = node.repeated("operations")
    crops = tuple(_crop(operation, unset=_IN_A_LIST) for operation in operations)
    return RandomChoice(operations=crops or _paper_crops())


def _ssd_crop_fixed(node):
    """A crop of one aspect ratio, and then the rounding, or the image that was left whole, cut to it."""
    ratio = node.scalar("aspect_ratio", float, 1.0)
    crops = tuple(_crop(operation, ratio, _IN_A_LIST) for operation in node.repeated("operations"))
    return [RandomChoice(operations=crops or _paper_crops(ratio)), RandomAspectRatioCrop(aspect_ratio=ratio)]


def _ssd_crop_pad(node):
    operations = node.repeated("operations")
    padded = tuple(
        RandomCropAndPad(
            crop=_crop(operation, unset=_IN_A_LIST),
            **_ratios(operation),
            color=_pixels(
                (
                    operation.scalar("pad_color_r", float, 0.0),
                    operation.scalar("pad_color_g", float, 0.0),
                    operation.scalar("pad_color_b", float, 0.0),
                )
            ),
        )
        for operation in operations
    )
    return RandomChoice(
        operations=padded or tuple(RandomCropAndPad(crop=crop) for crop in _paper_crops(thresholds=_SSD_THRESHOLDS[1:]))
    )


def _crop_pad(node):
    return RandomCropAndPad(crop=_crop(node), **_ratios(node), color=_pad_color(node))


def _ratios(node):
    found = {
        "min_ratio": node.repeated("min_padded_size_ratio", float) or (1.0, 1.0),
        "max_ratio": node.repeated("max_padded_size_ratio", float) or (2.0, 2.0),
    }
    for ratio in found.values():
        if len(ratio) != 2:
            raise node.error(None, f"a padded size ratio is two numbers; found {len(ratio)}")
    return found


def _pad_color(node):
    """Upstream multiplies images by 1 / 255 nowhere: the numbers are in 0...255. None: the mean color."""
    return _pixels(node.repeated("pad_color", float)) or None


def _pixels(color):
    return tuple(min(max(value, 0.0), 255.0) for value in color)


def _pad(node):
    # upstream reads 0 as 1, which adds nothing
    return RandomPad(
        max_height=node.scalar("max_height_padding", int, 0) or 1,
        max_width=node.scalar("max_width_padding", int, 0) or 1,
        color=_pad_color(node),
    )


def _zoom_out(node):
    """Without sizes in pixels, which stay unread: up to twice the image."""
    return RandomZoomOut(max_scale=2.0, same_for_both=False, color=_pad_color(node), probability=1.0)


def _square_crop(node):
    return RandomSquareCrop(
        min_scale=node.scalar("scale_min", float, 0.6),
        max_scale=node.scalar("scale_max", float, 1.3),
        num_scales=node.scalar("num_scales", int, 8),
        max_border=node.scalar("max_border", int, 128),
    )


def _scale_jitter(node):
    return LargeScaleJitter(
        output_size=node.scalar("output_size", int, 512),
        min_scale=node.scalar("scale_min", float, 0.1),
        max_scale=node.scalar("scale_max", float, 2.0),
    )


def _black_patches(node):
    return RandomCutout(
        max_patches=node.scalar("max_black_patches", int, 10),
        patch_probability=node.scalar("probability", float, 0.5),
        size=node.scalar("size_to_image_ratio", float, 0.1),
    )


def _patch_noise(node):
    return RandomPatchNoise(
        min_size=node.scalar("min_patch_size", int, 1),
        max_size=node.scalar("max_patch_size", int, 250),
        min_stddev=node.scalar("min_gaussian_stddev", float, 0.0),
        max_stddev=node.scalar("max_gaussian_stddev", float, 1.0),
        probability=1.0 - node.scalar("random_coef", float, 0.0),
    )


def _gamma(node):
    gamma = node.scalar("gamma", float, 1.0)
    return RandomGamma(min_gamma=gamma, max_gamma=gamma, gain=node.scalar("gain", float, 1.0), probability=1.0)


def _jpeg(node):
    return RandomJpegQuality(
        min_quality=node.scalar("min_jpeg_quality", int, 0),
        max_quality=node.scalar("max_jpeg_quality", int, 100),
        probability=1.0 - node.scalar("random_coef", float, 0.0),
    )


def _resize(node):
    return RandomResize(
        min_scale=node.scalar("min_scale_ratio", float, 0.5), max_scale=node.scalar("max_scale_ratio", float, 2.0)
    )


def _pixel_scale(node):
    return RandomPixelScale(min_factor=node.scalar("minval", float, 0.9), max_factor=node.scalar("maxval", float, 1.1))


_HUE = "hue and saturation change in YIQ and not in HSV"

#: step -> (builder, how ours differs; None where it does not)
STEPS = {
    "random_horizontal_flip": (_flip(RandomHorizontalFlip), None),
    "random_vertical_flip": (_flip(RandomVerticalFlip), None),
    "random_rotation90": (_turn, None),
    "random_adjust_brightness": (lambda node: _color(brightness=node.scalar("max_delta", float, 0.2)), None),
    "random_adjust_contrast": (_factor("contrast"), None),
    "random_adjust_saturation": (_factor("saturation"), _HUE),
    "random_adjust_hue": (lambda node: _color(hue=node.scalar("max_delta", float, 0.02)), _HUE),
    "random_distort_color": (_distort_color, f"one order of the changes; {_HUE}"),
    "random_crop_image": (_crop, None),
    "ssd_random_crop": (_ssd_crop, None),
    "ssd_random_crop_fixed_aspect_ratio": (_ssd_crop_fixed, None),
    "ssd_random_crop_pad": (_ssd_crop_pad, None),
    "random_crop_pad_image": (_crop_pad, None),
    "random_crop_to_aspect_ratio": (
        lambda node: RandomAspectRatioCrop(
            aspect_ratio=node.scalar("aspect_ratio", float, 1.0),
            overlap_threshold=node.scalar("overlap_thresh", float, 0.3),
        ),
        None,
    ),
    "random_pad_image": (_zoom_out, None),
    "random_absolute_pad_image": (_pad, None),
    "random_image_scale": (_resize, None),
    "random_square_crop_by_scale": (_square_crop, None),
    "random_scale_crop_and_pad_to_square": (_scale_jitter, None),
    "random_jitter_boxes": (lambda node: RandomBoxJitter(ratio=node.scalar("ratio", float, 0.05)), None),
    "random_rgb_to_gray": (lambda node: RandomGray(probability=node.scalar("probability", float, 0.1)), None),
    "rgb_to_gray": (lambda node: RandomGray(probability=1.0), None),
    "random_black_patches": (_black_patches, None),
    "random_patch_gaussian": (_patch_noise, None),
    "random_pixel_value_scale": (_pixel_scale, None),
    "random_jpeg_quality": (_jpeg, None),
    "adjust_gamma": (_gamma, None),
}
