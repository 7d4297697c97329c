"""Color changes against the same arithmetic in numpy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_detect.transforms import RandomColor

ONLY = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "probability": 1.0}


def run(operation, image, seed=(1, 2)):
    example = {"image": tf.constant(image), "boxes": tf.constant([[0.1, 0.2, 0.3, 0.4]])}
    result = operation(example, tf.constant(seed, tf.int64))
    np.testing.assert_array_equal(result["boxes"], example["boxes"])
    assert result["image"].dtype == tf.uint8 and result["image"].shape == image.shape
    return result["image"].numpy().astype(int)


def image(low=80, high=170):
    return np.random.default_rng(0).integers(low, high, (6, 7, 3)).astype(np.uint8)


def test_nothing_on_changes_nothing():
    """The hue matrix and its inverse multiply to the identity within a rounding."""
    np.testing.assert_array_equal(run(RandomColor(**ONLY), image(0, 256)), image(0, 256))


def test_brightness_shifts_all_pixels_alike():
    shifts = set()
    for seed in range(20):
        difference = run(RandomColor(**ONLY | {"brightness": 0.1}), image(), (seed, 0)) - image()
        assert np.ptp(difference) <= 1  # rounding
        shifts.add(int(np.rint(difference.mean())))
    assert max(shifts) <= 26 and min(shifts) >= -26 and len(shifts) > 8


def test_contrast_turns_about_the_mean():
    for seed in range(5):
        changed = run(RandomColor(**ONLY | {"contrast": 0.5}), image(), (seed, 0))
        deviation = image() - image().mean(axis=(0, 1))
        factor = np.polyfit(deviation.ravel(), (changed - changed.mean(axis=(0, 1))).ravel(), 1)[0]
        assert 0.49 <= factor <= 1.51
        np.testing.assert_allclose(changed, image().mean(axis=(0, 1)) + factor * deviation, atol=1.0)


@pytest.mark.parametrize("setting", [{"saturation": 0.9}, {"hue": 0.5}])
def test_saturation_and_hue_leave_luma_and_grays(setting):
    """Luma 0.299 R + 0.587 G + 0.114 B stays within a rounding; a gray pixel stays itself."""
    luma = np.array([0.299, 0.587, 0.114])
    gray = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(5):
        changed = run(RandomColor(**ONLY | setting), image(110, 140), (seed, 0))
        np.testing.assert_allclose(changed @ luma, image(110, 140) @ luma, atol=0.8)
        assert np.abs(run(RandomColor(**ONLY | setting), gray, (seed, 0)) - gray).max() <= 1
    assert not np.array_equal(changed, image(110, 140))


def test_values_are_clipped_and_the_seed_decides():
    operation = RandomColor(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5, probability=1.0)
    results = [run(operation, image(0, 256), (seed, 3)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    np.testing.assert_array_equal(run(RandomColor(probability=0.0), image()), image())
    assert RandomColor.from_config(operation.get_config()) == operation


def test_settings_out_of_range():
    with pytest.raises(ValueError, match=r"hue must be in \[0, 0.5\]. Received: hue=0.7"):
        RandomColor(hue=0.7)
    with pytest.raises(ValueError, match="contrast"):
        RandomColor(contrast=-0.1)
