"""`data_augmentation_options`: every step that real files have becomes an operation, none is ignored."""

import numpy as np
import pytest
import tensorflow as tf

from keras_detect import transforms as T
from keras_detect.text_proto import parser as text_proto
from keras_detect.tf_od_api.train_augmentations import augmentations
from tests import goldens

pytestmark = pytest.mark.backend_free
NO_COLOR = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "probability": 1.0}
THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def crops(low, high):
    return tuple(
        T.RandomObjectCrop(
            min_object_covered=share,
            min_aspect_ratio=low,
            max_aspect_ratio=high,
            overlap_threshold=share,
            probability=0.85,
        )
        for share in THRESHOLDS
    )


# what the 395 files of ../shared/data/configs_wild have, by how many have it, then the rest of the family
STEPS = {
    "random_horizontal_flip { }": [T.RandomHorizontalFlip()],
    "random_horizontal_flip { keypoint_flip_permutation: 1 keypoint_flip_permutation: 0 }": [
        T.RandomHorizontalFlip(keypoint_permutation=(1, 0))
    ],
    "random_crop_image { min_object_covered: 0.0 min_aspect_ratio: 0.75 max_aspect_ratio: 3.0 min_area: 0.75"
    " max_area: 1.0 overlap_thresh: 0.0 }": [
        T.RandomObjectCrop(min_object_covered=0.0, max_aspect_ratio=3.0, min_area=0.75, overlap_threshold=0.0)
    ],
    "random_crop_image { min_object_covered: 5.0 overlap_thresh: 0.1 random_coef: 0.25 }": [
        T.RandomObjectCrop(min_object_covered=5.0, overlap_threshold=0.1, probability=0.75)
    ],
    "ssd_random_crop { }": [T.RandomChoice(operations=crops(0.5, 2.0))],
    "ssd_random_crop { operations { min_object_covered: 0.2 min_aspect_ratio: 0.9 max_aspect_ratio: 1.1 min_area: 0.5"
    " max_area: 1.0 random_coef: 0.5 } }": [
        T.RandomChoice(
            operations=(
                T.RandomObjectCrop(
                    min_object_covered=0.2,
                    min_aspect_ratio=0.9,
                    max_aspect_ratio=1.1,
                    min_area=0.5,
                    overlap_threshold=0.0,
                    probability=0.5,
                ),
            )
        )
    ],
    "random_adjust_contrast { max_delta: 1.3 }": [T.RandomColor(**NO_COLOR | {"contrast": (0.8, 1.3)})],
    "random_adjust_saturation { }": [T.RandomColor(**NO_COLOR | {"saturation": (0.8, 1.25)})],
    "random_adjust_hue { max_delta: 0.04 }": [T.RandomColor(**NO_COLOR | {"hue": 0.04})],
    "random_adjust_brightness { }": [T.RandomColor(**NO_COLOR | {"brightness": 0.2})],
    "random_scale_crop_and_pad_to_square { output_size: 640 scale_min: 0.1 scale_max: 2.0 }": [
        T.LargeScaleJitter(output_size=640)
    ],
    "random_absolute_pad_image { max_height_padding: 200 max_width_padding: 200 pad_color: [0, 0, 0] }": [
        T.RandomPad(max_height=200, max_width=200, color=(0, 0, 0))
    ],
    "random_absolute_pad_image { }": [T.RandomPad()],
    "random_square_crop_by_scale { scale_min: 0.6 scale_max: 1.3 }": [T.RandomSquareCrop()],
    "random_image_scale { min_scale_ratio: 0.8 }": [T.RandomResize(min_scale=0.8)],
    "random_vertical_flip { probability : 0.25 }": [T.RandomVerticalFlip(probability=0.25)],
    "random_jitter_boxes { }": [T.RandomBoxJitter()],
    "random_rgb_to_gray { probability: .2 }": [T.RandomGray(probability=0.2)],
    "random_rotation90 { }": [T.RandomRotation90()],
    "random_black_patches { probability: 0.20, size_to_image_ratio: 0.05 }": [
        T.RandomCutout(patch_probability=0.2, size=0.05)
    ],
    "ssd_random_crop_fixed_aspect_ratio { }": [
        T.RandomChoice(operations=crops(1.0, 1.0)),
        T.RandomAspectRatioCrop(),
    ],
    "random_patch_gaussian { }": [T.RandomPatchNoise()],
    "adjust_gamma { }": [T.RandomGamma(min_gamma=1.0, max_gamma=1.0, probability=1.0)],
    "random_distort_color { }": [
        T.RandomColor(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.2, probability=1.0)
    ],
    "ssd_random_crop_pad { }": [
        T.RandomChoice(operations=tuple(T.RandomCropAndPad(crop=crop) for crop in crops(0.5, 2.0)[1:]))
    ],
    "random_crop_pad_image { max_padded_size_ratio: [1.5, 1.5] pad_color: [9, 8, 7] }": [
        T.RandomCropAndPad(max_ratio=(1.5, 1.5), color=(9, 8, 7))
    ],
    "random_crop_to_aspect_ratio { aspect_ratio: 2 }": [T.RandomAspectRatioCrop(aspect_ratio=2.0)],
    "random_pad_image { }": [T.RandomZoomOut(max_scale=2.0, same_for_both=False, probability=1.0)],
    "random_pixel_value_scale { }": [T.RandomPixelScale()],
    "random_jpeg_quality { min_jpeg_quality: 40 }": [T.RandomJpegQuality(min_quality=40, probability=1.0)],
    "rgb_to_gray { }": [T.RandomGray(probability=1.0)],
}


@pytest.mark.parametrize("step", STEPS)
def test_one_step(step):
    train = text_proto.parse(f"data_augmentation_options {{ {step} }}")
    assert list(augmentations(train, [])) == STEPS[step]
    assert train.unread() == []


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("random_crop_image { clip_boxes: false }", "clip_boxes: supported: true"),
        ("random_crop_image { min_area: 2 }", "random_crop_image: cannot be built: min_area and max_area"),
        ("random_distort_color { color_ordering: 2 }", "color_ordering: supported: 0 or 1"),
    ],
)
def test_refused(step, message):
    with pytest.raises(text_proto.PipelineConfigError, match=message):
        augmentations(text_proto.parse(f"data_augmentation_options {{ {step} }}"), [])


@pytest.mark.slow
def test_no_step_of_real_files_is_ignored():
    """395 files: each step is built, and of each every field is read. Files that are no text format are not counted."""
    folder = goldens.require_shared("data/configs_wild")
    files, read = sorted(folder.glob("*.config")), 0
    assert len(files) == 395
    for file in files:
        try:
            train = text_proto.read(file).message("train_config")
        except text_proto.PipelineConfigError:
            continue
        read += 1
        augmentations(train, [])
        left = [entry for option in train.repeated("data_augmentation_options") for entry in option.unread()]
        assert left == [], f"{file.name}: {left}"
    assert read >= 387  # eight are refused by upstream's own parser or builders


def test_a_crop_is_never_the_whole_image_where_upstream_crops():
    """As 93 of the 395 files have it: 0.75 to 1 of the area, aspect ratio 0.75 to 3; of 200 none is whole."""
    train = text_proto.parse(f"data_augmentation_options {{ {list(STEPS)[2]} }}")
    (crop,) = augmentations(train, [])
    example = {"image": tf.zeros((200, 300, 3), tf.uint8), "boxes": tf.constant([[0.1, 0.1, 0.3, 0.3]])}
    apply = tf.function(crop)
    shapes = np.array([apply(example, tf.constant([seed, 1], tf.int64))["image"].shape[:2] for seed in range(200)])
    areas = shapes.prod(axis=1) / 60000
    assert areas.min() >= 0.745 and areas.max() < 1.0
    assert (np.diff(np.quantile(areas, (0.1, 0.9))) > 0.1).all()
    never = T.RandomObjectCrop(min_object_covered=5.0)
    assert never(example, tf.constant([1, 1], tf.int64))["image"].shape == (200, 300, 3)
