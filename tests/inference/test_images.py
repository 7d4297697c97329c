"""`detect`: every kind of source, batches, the fields that a model outputs, and the numbers of `predict`."""

import functools
import io
import types

import numpy as np
import pytest
from PIL import Image

from keras_detect import schema
from keras_detect.inference import detect, detect_each
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer
from tests import tiny


def image(height=50, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Echo:
    """A stand-in for a model: its one detection per image tells the image's mean in its score; it records batches."""

    class_names = ("cat", "dog")
    score_threshold = None

    def __init__(self, resizer, jit_compile=True, **more):
        self.resizer, self.jit_compile, self.more, self.batches = resizer, jit_compile, more, []

    def predict_on_batch(self, x):
        images = x[schema.IMAGES] if isinstance(x, dict) else x
        count = len(images)
        self.batches.append(images.shape)
        means = images.mean(axis=(1, 2, 3)) / 255.0
        return {
            "boxes": np.tile(np.float32([[0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0]]), (count, 1, 1)),
            "scores": np.stack([means, np.zeros(count)], axis=1).astype("float32"),
            "labels": np.tile(np.int32([1, -1]), (count, 1)),
            "num_detections": np.ones(count, np.int32),
            **{key: np.tile(rows, (count, *[1] * np.ndim(rows))) for key, rows in self.more.items()},
        }


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_ssd(class_names=["cat", "dog", "owl"])


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_every_kind_of_source_gives_the_same_detections(model, tmp_path):
    pixels = image()
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    wanted = detect(model, pixels, 0.0)
    assert len(wanted["boxes"]) > 5
    with open(path, "rb") as file:
        sources = [
            path,
            str(path),
            path.read_bytes(),
            io.BytesIO(path.read_bytes()),
            file,
            Image.fromarray(pixels),
            pixels.astype("float32"),
            pixels.astype("float64"),
        ]
        for source in sources:
            same(detect(model, source, 0.0), wanted)


def test_an_image_lies_upright_from_every_source(model, tmp_path):
    pixels = image()
    turned = Image.fromarray(np.rot90(pixels))  # by a quarter to the left; orientation 6: turn it to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        found = [detect(model, source, 0.0) for source in (tmp_path / "turned.png", opened)]
    wanted = detect(model, pixels, 0.0)
    assert not np.array_equal(wanted["boxes"], detect(model, np.rot90(pixels), 0.0)["boxes"])
    for result in found:
        same(result, wanted)


@pytest.mark.parametrize("build", [tiny.tiny_ssd, pytest.param(tiny.tiny_faster_rcnn, marks=pytest.mark.backend_free)])
def test_detect_and_predict_agree_bit_for_bit(build):
    model = build()
    for size in ((64, 64), (50, 90), (200, 150)):
        pixels = image(*size)
        predicted = model.predict(pixels[None], verbose=0)
        count = int(predicted["num_detections"][0])
        for source in (pixels, pixels.astype("float32")):
            found = detect(model, source, 0.0)
            # where XLA compiles, an image that is not resized: for every size, it would compile the whole network
            compare = np.testing.assert_array_equal
            if model.jit_compile and size != (64, 64):
                compare = functools.partial(np.testing.assert_allclose, atol=1e-4)
            for key in ("boxes", "scores", "labels"):
                compare(found[key], np.asarray(predicted[key])[0, :count], err_msg=key)


def test_images_of_several_sizes_are_found_as_one_by_one(model):
    images = [image(50, 90), image(64, 64, 1), image(200, 150, 2)]
    for found, single in zip(detect(model, images, 0.0), images, strict=True):
        wanted = detect(model, single, 0.0)
        for key in ("boxes", "scores"):
            np.testing.assert_allclose(found[key], wanted[key], atol=2e-7)


def test_large_images_are_resized_one_by_one():
    model = Echo(FixedShapeResizer(height=8, width=8), jit_compile=False)
    detect(model, [np.zeros((2048, 4096, 3), np.uint8)] * 3, batch_size=4)
    assert model.batches == [(3, 8, 8, 3)]
    detect(model, [np.zeros((16, 16, 3), np.uint8)] * 3, batch_size=4)
    assert model.batches[1:] == [(3, 16, 16, 3)]


def test_a_list_runs_as_batches():
    model = Echo(FixedShapeResizer(height=8, width=8))
    images = [np.full((8, 8, 3), value, np.uint8) for value in range(0, 210, 10)]
    found = detect(model, images, 0.0, batch_size=8)
    assert model.batches == [(8, 8, 8, 3)] * 3  # the last five are filled up: no other size is compiled
    np.testing.assert_allclose([result["scores"][0] for result in found], np.arange(0, 210, 10) / 255, atol=1e-6)
    assert isinstance(detect(model, images[0], 0.0), dict)
    assert detect(model, [], 0.0) == []


def test_images_of_other_canvases_are_batches_of_their_own_and_keep_their_order():
    model = Echo(KeepAspectRatioResizer(min_dimension=8, max_dimension=16))
    images = [np.full(shape, 10 * index, np.uint8) for index, shape in enumerate([(8, 8, 3), (8, 16, 3)] * 3)]
    found = detect(model, images, 0.0, batch_size=6)
    assert model.batches == [(3, 8, 8, 3), (3, 8, 16, 3)]
    np.testing.assert_allclose([result["scores"][0] for result in found], np.arange(0, 60, 10) / 255, atol=1e-6)


def test_no_more_than_a_batch_is_read_ahead():
    model, read = Echo(FixedShapeResizer(height=8, width=8)), []

    def images():
        while True:
            read.append(1)
            yield image(8, 8)

    stream = detect_each(model, images(), batch_size=4)
    next(stream)
    assert len(read) == 4


def test_every_field_of_the_table_travels_and_weak_rows_are_left_out():
    more = {"masks": np.ones((2, 8, 8), np.uint8), "track_ids": np.int32([7, -1])}
    model = Echo(FixedShapeResizer(height=8, width=8), **more)
    result = detect(model, np.full((8, 8, 3), 255, np.uint8))
    assert result.keys() == {"boxes", "scores", "labels", "masks", "track_ids", "class_names"}
    assert result["masks"].shape == (1, 8, 8)
    assert result["track_ids"].tolist() == [7]
    assert result["class_names"] == ["dog"]
    assert len(detect(model, np.zeros((8, 8, 3), np.uint8))["masks"]) == 0


def test_what_is_no_image_gets_its_own_message(tmp_path):
    model = Echo(FixedShapeResizer(height=8, width=8))
    (tmp_path / "text.jpg").write_text("no image at all")
    for source, kind, message in (
        (tmp_path / "nowhere.jpg", FileNotFoundError, "nowhere.jpg"),
        (tmp_path, IsADirectoryError, "folder"),
        ("https://example.org/photo.jpg", ValueError, "URLs are not supported"),
        (tmp_path / "text.jpg", ValueError, "text.jpg"),
        (b"no image at all", ValueError, "15 bytes"),
        (np.zeros((2, 8, 8, 3)), ValueError, "as a list"),
        (types.SimpleNamespace(), ValueError, "An image is"),
    ):
        with pytest.raises(kind, match=message):
            detect(model, source)
    with pytest.raises(ValueError, match="batch_size=0"):
        detect(model, [image()], batch_size=0)


def test_what_may_be_meant_otherwise_is_said(tmp_path, caplog):
    model = Echo(FixedShapeResizer(height=8, width=8))
    detect(model, np.full((8, 8, 3), 0.5))
    assert "0...1" in caplog.text
    caplog.clear()
    detect(model, np.zeros((8, 8, 3)))
    detect(model, np.ones((8, 8, 3), np.uint8))
    assert not caplog.text
    frames = [Image.new("RGB", (8, 8), color) for color in ("white", "black")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert detect(model, tmp_path / "two.gif")["scores"] == [1.0]
    assert "first" in caplog.text
