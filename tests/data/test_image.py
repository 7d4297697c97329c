"""One upright image for everybody: readers, pipeline, drawing, inference."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from keras_detect.data import DetectionDataset
from keras_detect.data.image import ImageError, as_pixels
from keras_detect.transforms.resizers import IdentityResizer
from keras_detect.visualization import draw_boxes


def rotated(path, orientation):
    """A PNG of 2 x 3 gray levels 0, 40, ..., 200 with an EXIF orientation; returns the stored pixels."""
    pixels = np.repeat(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3, 1), 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return pixels


# what turns the stored pixels upright, by the EXIF orientation
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_everybody_sees_the_same_upright_image(tmp_path, orientation):
    path = tmp_path / "a.png"
    expected = UPRIGHT[orientation](rotated(path, orientation))
    with Image.open(path) as image, open(path, "rb") as file:
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file, image):
            np.testing.assert_array_equal(as_pixels(source), expected)
        for source in (path, path.read_bytes(), image):
            np.testing.assert_array_equal(np.asarray(draw_boxes(source, [], [], enlarge=False)), expected)
    data = DetectionDataset.from_examples([{"image": str(path), "boxes": np.zeros((0, 4)), "labels": []}], ["a"])
    np.testing.assert_array_equal(data[0]["image"], expected)
    images, _ = next(iter(data.batches(IdentityResizer(), 1)))
    images = images["images"] if isinstance(images, dict) else images
    np.testing.assert_array_equal(images[0], expected)


def test_arrays_of_other_channels_and_dtypes():
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for pixels in (gray, gray[..., None]):
        np.testing.assert_array_equal(as_pixels(pixels), np.repeat(gray[..., None], 3, axis=2))
    alpha = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    assert as_pixels(alpha).dtype == np.float32
    np.testing.assert_array_equal(as_pixels(alpha), alpha[..., :3])


def test_of_several_frames_the_first_is_used_and_named(tmp_path, caplog):
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (255, 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(as_pixels(tmp_path / "a.gif")[0, 0], [255, 0, 0])
    assert "a.gif has 2 frames; the first one is used" in caplog.text


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("https://example.org/a.jpg", ValueError, "URLs are not supported.*Download"),
        ("absent.jpg", FileNotFoundError, "absent.jpg"),
        ("", FileNotFoundError, "not found"),
        (b"no image", ValueError, "Not a readable image: 8 bytes"),
        (np.zeros((1, 4, 4, 3)), ValueError, r"shape \(1, 4, 4, 3\). Pass several images as a list"),
        (np.zeros((4, 4, 2)), ValueError, r"shape \(4, 4, 2\)"),
        (None, ValueError, "Received: None"),
    ],
)
def test_what_is_no_image(source, error, message):
    with pytest.raises(error, match=message):
        as_pixels(source)


def test_a_pillow_image_is_refused_in_our_words(tmp_path):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(content, "PNG")
    (tmp_path / "half.png").write_bytes(content.getvalue()[:2000])
    for source, name in (
        (Image.open(tmp_path / "half.png"), "half.png"),
        (Image.open(io.BytesIO(content.getvalue()[:2000])), "the Pillow image"),
    ):
        with pytest.raises(ImageError, match=f"Not a readable image: .*{name} .*Replace or remove the file"):
            as_pixels(source)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"Received a folder.*as a list"):
        as_pixels(tmp_path)
