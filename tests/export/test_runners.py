"""Images of any size through a file of one size, representative images, AP: without a model."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_detect import DetectionDataset, schema
from keras_detect.data.shapes import shapes_dataset
from keras_detect.export import ExportOptions, MissingPackageError, Runner
from keras_detect.export.average_precision import average_precisions
from keras_detect.export.errors import require_packages
from keras_detect.export.fitted import FittedRunner
from keras_detect.export.representative import RepresentativeImages
from keras_detect.export.saved_model import SavedModelExporter
from keras_detect.transforms.resizers import FixedShapeResizer, KeepAspectRatioResizer


class Bright(Runner):
    """Finds one object: the box around the pixels that are not 0."""

    def __init__(self, image_size=None, batch_size=None):
        self.image_size, self.batch_size, self.metadata = image_size, batch_size, {}
        self.shapes, self.dtypes = [], []

    def __call__(self, images):
        self.shapes.append(images.shape)
        self.dtypes.append(images.dtype)
        boxes = []
        for image in images:
            rows, columns = (np.flatnonzero(image.max(axis=(axis, 2)) > 60) for axis in (1, 0))
            box = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            boxes.append([np.asarray(box) / np.tile(image.shape[:2], 2)])
        count = len(images)
        return {
            schema.BOXES: np.asarray(boxes, np.float32),
            schema.SCORES: np.ones((count, 1), np.float32),
            schema.LABELS: np.zeros((count, 1), np.int32),
            schema.NUM_DETECTIONS: np.ones(count, np.int32),
        }


def square(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 4 : height // 2, width // 2 : 3 * width // 4] = 200
    return image


def test_any_size_is_stretched_to_that_of_the_file():
    runner = Bright((32, 32))
    found = FittedRunner(runner)(np.stack([square(64, 128)] * 3))
    np.testing.assert_allclose(found[schema.BOXES][:, 0], [[0.25, 0.5, 0.5, 0.75]] * 3, atol=0.05)
    assert runner.shapes == [(3, 32, 32, 3)]


def test_the_canvas_of_the_resizer_is_padded_and_taken_back():
    resizer = KeepAspectRatioResizer(min_dimension=32, max_dimension=64, pad_to_max_dimension=True)
    runner = Bright((64, 64), batch_size=2)
    found = FittedRunner(runner, resizer)(np.stack([square(64, 128)] * 3))
    assert runner.shapes == [(2, 64, 64, 3)] * 2  # the short batch is filled up
    assert len(found[schema.BOXES]) == 3
    np.testing.assert_allclose(found[schema.BOXES][:, 0], [[0.25, 0.5, 0.5, 0.75]] * 3, atol=0.05)


def test_a_runner_that_takes_floats_gets_what_the_model_would_see():
    seen = []

    class Floats(Bright):
        takes_float = True

        def __call__(self, images):
            seen.append(images)
            return super().__call__(images)

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    resizer = FixedShapeResizer(height=32, width=32, kernel="legacy")
    FittedRunner(Floats((32, 32)), resizer)(image[None])
    expected = keras.ops.convert_to_numpy(resizer(image[None].astype(np.float32))[0])
    assert np.abs(expected - np.rint(expected)).max() > 0.4
    np.testing.assert_allclose(seen[0], expected, atol=1e-4)
    rounded = Bright((32, 32))
    FittedRunner(rounded, resizer)(image[None])
    assert rounded.dtypes == [np.uint8]


def test_average_precision_of_a_runner():
    images = [square(64, 96), square(80, 64)]
    boxes, labels = [np.asarray([[0.25, 0.5, 0.5, 0.75]], np.float32)] * 2, [np.zeros(1, int)] * 2
    dataset = DetectionDataset.from_arrays(images, boxes, labels, ["square"])
    assert average_precisions(FittedRunner(Bright()), dataset) == {"boxes": pytest.approx(1.0)}


def test_representative_images(tmp_path):
    for index in range(3):
        Image.fromarray(square(20, 30)).save(tmp_path / f"{index}.png")
    (tmp_path / ".DS_Store").write_bytes(b"")
    bare = RepresentativeImages(tmp_path)
    assert bare.dataset is None and len(bare) == 3
    assert [pixels.shape for pixels in bare.pixels(2)] == [(20, 30, 3)] * 2
    dataset = shapes_dataset(4, image_size=(32, 33), seed=0)
    annotated = RepresentativeImages(dataset)
    assert annotated.dataset is dataset and len(list(annotated.pixels(100))) == 4
    with pytest.raises(ValueError, match="holds no image"):
        RepresentativeImages([])


def test_a_missing_package_is_named_with_the_way_out():
    require_packages("saved_model", ("numpy",))
    with pytest.raises(MissingPackageError, match=r"'onnx' needs no-such-thing, which is not installed\. Install"):
        require_packages("onnx", ("numpy", "no-such-thing"))
    with pytest.raises(MissingPackageError, match=r"needs no-a, no-b and no-c, which are.*'keras-detect\[export\]'"):
        require_packages("onnx", ("no-a", "numpy", "no-b", "no-c"))


def test_int8_asks_for_images():
    class Int8(SavedModelExporter):
        precisions = ("float32", "int8")

    with pytest.raises(ValueError, match="needs images like those"):
        Int8().check("saved_model", ExportOptions(precision="int8"))
