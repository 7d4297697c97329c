"""`DetectionDataset` and its batches: what goes in comes out, padded, in order, the same under every seed."""

import keras
import numpy as np
import pytest
from absl import logging
from PIL import Image

from keras_detect.data import DetectionDataset, load_dataset, pipeline, write_coco
from keras_detect.data.image import PYTHON, TF_JPEG, TF_PNG, find_image
from keras_detect.transforms import RandomHorizontalFlip
from keras_detect.transforms.resizers import FixedShapeResizer, IdentityResizer, KeepAspectRatioResizer
from tests import goldens

SMALL = FixedShapeResizer(height=8, width=12)


def numbered(count=7, crowd=False, weights=False):
    """Images filled with their number; image i has i % 3 boxes, each with a corner that tells it apart."""
    rows = [i % 3 for i in range(count)]
    boxes = [[[0.1 * j, 0.05 * i, 0.5, 0.9] for j in range(n)] for i, n in enumerate(rows)]
    return DetectionDataset.from_arrays(
        images=[np.full((20, 30 + i, 3), i, np.uint8) for i in range(count)],
        boxes=boxes,
        labels=[[j % 2 for j in range(n)] for n in rows],
        class_names=["a", "b"],
        is_crowd=[[j == 1 for j in range(n)] for n in rows] if crowd else None,
        weights=[[0.5] * n for n in rows] if weights else None,
    )


def collect(batches):
    """All batches as numpy, `[(x, y), ...]`."""
    return [keras.tree.map_structure(np.asarray, batch) for batch in batches]


def order(batches):
    return [int(image[0, 0, 0]) for x, _ in collect(batches) for image in x]


def test_examples_and_subsets():
    data = numbered()
    assert (len(data), data.max_boxes, data[4]["image"][0, 0, 0], data[4]["boxes"].shape) == (7, 2, 4, (1, 4))
    assert [example["image_id"] for example in data[2:5]] == [2, 3, 4]
    assert [example["file_name"] for example in data.subset([5, 0])] == ["image_000005", "image_000000"]
    assert repr(data) == "<DetectionDataset: 7 images, 6 boxes, 2 classes>"


def test_batches_are_padded_and_in_order():
    data = numbered()
    batches = data.batches(SMALL, 3)
    assert int(batches.cardinality()) == len(batches) == 3
    (x, y), _, (last_x, last_y) = collect(batches)
    assert (x.shape, x.dtype, last_x.shape) == ((3, 8, 12, 3), np.uint8, (1, 8, 12, 3))
    assert set(y) == {"boxes", "labels", "image_size"}
    np.testing.assert_array_equal(y["labels"], [[-1, -1], [0, -1], [0, 1]])
    np.testing.assert_array_equal(y["boxes"][0], np.zeros((2, 4)))
    np.testing.assert_allclose(y["boxes"][2], [[0, 0.1, 0.5, 0.9], [0.1, 0.1, 0.5, 0.9]], atol=1e-7)
    np.testing.assert_array_equal(y["image_size"], [[20, 30], [20, 31], [20, 32]])
    assert (last_y["labels"].tolist(), order(batches)) == ([[-1, -1]], list(range(7)))
    assert len(collect(data.batches(SMALL, 3, drop_remainder=True))) == 2


def test_static_shapes():
    x, y = numbered(crowd=True, weights=True).batches(SMALL, 2, drop_remainder=True, max_boxes=5).element_spec
    assert x.shape == (2, 8, 12, 3)
    shapes = {key: tuple(spec.shape) for key, spec in y.items()}
    rows = (2, 5)
    assert shapes == {"boxes": (2, 5, 4), "labels": rows, "is_crowd": rows, "weights": rows, "image_size": (2, 2)}


def test_crowds_and_weights_travel():
    x_and_y = collect(numbered(crowd=True, weights=True).batches(SMALL, 3))
    np.testing.assert_array_equal(x_and_y[0][1]["is_crowd"], [[False, False], [False, False], [False, True]])
    np.testing.assert_array_equal(x_and_y[0][1]["weights"], [[0, 0], [0.5, 0], [0.5, 0.5]])


def test_areas_travel_unless_augmented():
    data = load_dataset(goldens.require_shared("data/bccd"), split="test")[:3]
    y = collect(data.batches(SMALL, 3))[0][1]
    expected = np.prod((y["boxes"][..., 2:] - y["boxes"][..., :2]) * [480, 640], axis=-1)
    np.testing.assert_allclose(y["areas"], expected, rtol=1e-4)
    assert "areas" not in collect(data.batches(SMALL, 3, augment=RandomHorizontalFlip()))[0][1]


def test_a_smaller_max_boxes_warns(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    batches = numbered().batches(SMALL, 7, max_boxes=1)
    assert collect(batches)[0][1]["labels"].tolist() == [[-1], [0], [0], [-1], [0], [0], [-1]]
    assert lines == ["max_boxes=1 drops 2 boxes of crowded images."]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("augment", [None, [RandomHorizontalFlip()]])
def test_order_is_new_every_epoch_and_the_same_every_run(cache, augment):
    data = numbered(30)

    def epochs(seed):
        batches = data.batches(SMALL, 4, shuffle=True, seed=seed, cache=cache, augment=augment)
        return [collect(batches) for _ in range(3)]

    first, second, other = epochs(1), epochs(1), epochs(2)
    numbers = [[int(image[0, 0, 0]) for x, _ in epoch for image in x] for epoch in first]
    assert all(sorted(epoch) == list(range(30)) for epoch in numbers)
    assert numbers[0] != numbers[1] != numbers[2] and numbers[0] != list(range(30))
    for ours, theirs in zip(keras.tree.flatten(first), keras.tree.flatten(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert numbers[0] != [int(image[0, 0, 0]) for x, _ in other[0] for image in x]


def test_augmentation_differs_between_epochs_without_shuffling():
    """Twenty coin flips agree by chance once in a million."""
    batches = numbered(60).batches(SMALL, 60, seed=3, augment=RandomHorizontalFlip())
    first, second = (collect(batches)[0][1]["boxes"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_cache_reads_each_image_once(monkeypatch):
    data = numbered(6)
    reads = []
    monkeypatch.setattr(
        "keras_detect.data.image.ArrayImage.read", lambda self: reads.append(1) or self.pixels, raising=True
    )
    plain, cached = data.batches(SMALL, 2), data.batches(SMALL, 2, cache=True)
    for batches, expected in ((plain, 18), (cached, 6)):
        reads.clear()
        results = [collect(batches) for _ in range(3)]
        assert len(reads) == expected
        np.testing.assert_array_equal(results[0][0][0], results[2][0][0])
    monkeypatch.setattr(pipeline, "CACHE_LIMIT_BYTES", 100)
    reads.clear()
    too_large = data.batches(SMALL, 2, cache=True)
    [collect(too_large) for _ in range(2)]
    assert len(reads) == 12


def test_images_are_what_the_models_resizer_makes_of_them():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + 5 * i, 33, 3)).astype(np.uint8) for i in range(3)]
    data = DetectionDataset.from_arrays(images, [[]] * 3, [[]] * 3, ["a"])
    for resizer in (SMALL, FixedShapeResizer(height=24, width=40, kernel="legacy")):
        (x, _) = collect(data.batches(resizer, 3))[0]
        for resized, image in zip(x, images, strict=True):
            assert np.abs(resized.astype(int) - resizer.resize_image(image)[0]).max() <= 1


@pytest.mark.parametrize("pad", [True, False])
def test_padded_images_come_with_their_true_shapes(pad):
    """Sides 20 x 40 and 40 x 20 at 16...24: factor min(16/20, 24/40) = 0.6: 12 x 24 and 24 x 12 on 24 x 24."""
    images = [np.full((20, 40, 3), 9, np.uint8), np.full((40, 20, 3), 9, np.uint8)]
    data = DetectionDataset.from_arrays(images, [[]] * 2, [[]] * 2, ["a"])
    resizer = KeepAspectRatioResizer(min_dimension=16, max_dimension=24, pad_to_max_dimension=pad)
    x, _ = collect(data.batches(resizer, 2))[0]
    assert x["images"].shape == (2, 24, 24, 3)
    np.testing.assert_array_equal(x["resized_image_shapes"], [[12, 24, 3], [24, 12, 3]])
    assert (x["images"][0, :12] == 9).all() and (x["images"][0, 12:] == 0).all()
    x, _ = collect(data.batches(IdentityResizer(), 2))[0]
    assert x["images"].shape == (2, 40, 40, 3)


def test_no_object_anywhere():
    data = DetectionDataset.from_arrays([np.zeros((9, 9, 3), np.uint8)], [[]], [[]], ["a"])
    y = collect(data.batches(SMALL, 1, augment=RandomHorizontalFlip()))[0][1]
    assert (y["boxes"].shape, y["labels"].tolist()) == ((1, 1, 4), [[-1]])


@pytest.mark.parametrize("kind", ["jpeg", "gray jpeg", "png", "gray png", "palette png", "turned jpeg", "cut jpeg"])
def test_tensorflow_decodes_what_pillow_does(tmp_path, kind):
    """The fast decoders are taken where they are right; their pixels equal Pillow's."""
    smooth = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3)
    noise = np.random.default_rng(0).normal(0, 20, smooth.shape)
    image = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    image = image.convert("L") if "gray" in kind else image.convert("P") if "palette" in kind else image
    file = tmp_path / f"a.{kind.split()[-1]}"
    exif = Image.Exif()
    exif[0x0112] = 3 if "turned" in kind else 1
    image.save(file, **({"exif": exif} if "jpeg" in kind else {}))
    if "cut" in kind:
        file.write_bytes(file.read_bytes()[:-200])
    decoder = {"jpeg": TF_JPEG, "gray jpeg": TF_JPEG, "png": TF_PNG, "gray png": TF_PNG}.get(kind, PYTHON)
    image = find_image(file)
    assert image.decoder == decoder
    if "cut" in kind:
        with pytest.raises(ValueError, match=r"Not a readable image: .*a.jpeg"):
            image.read()
        return
    record = DetectionDataset.from_arrays([image.read()], [[]], [[]], ["a"]).records[0]
    data = DetectionDataset([type(record)(**{**vars(record), "image": image})], ["a"])
    x, _ = collect(data.batches(FixedShapeResizer(height=48, width=64), 1))[0]
    assert np.abs(x[0].astype(int) - image.read()).max() <= 1


def test_decoders_may_differ_within_a_data_set(tmp_path):
    data = numbered(3)
    write_coco(data, tmp_path)
    Image.new("CMYK", (30, 20), (0, 0, 0, 0)).save(tmp_path / "images" / "image_000000.png", format="JPEG")
    Image.fromarray(np.full((20, 31, 3), 200, np.uint8)).save(tmp_path / "images" / "image_000001.png", format="JPEG")
    mixed = load_dataset(tmp_path)
    assert [record.image.decoder for record in mixed.records] == [PYTHON, TF_JPEG, TF_PNG]
    assert order(mixed.batches(SMALL, 2)) == [255, 200, 2]


def test_a_damaged_image_is_named_while_training(tmp_path):
    write_coco(numbered(3), tmp_path)
    file = tmp_path / "images" / "image_000001.png"
    file.write_bytes(file.read_bytes()[:50])  # the header and the beginning of the pixels
    with pytest.raises(Exception, match=r"Not a readable image: .*image_000001.png"):
        collect(load_dataset(tmp_path).batches(SMALL, 2))


def test_errors_say_what_is_wanted():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"label 2 in image_000000"):
        DetectionDataset.from_arrays([image], [[[0, 0, 1, 1]]], [[2]], ["a", "b"])
    with pytest.raises(ValueError, match="at least one image"):
        DetectionDataset([], ["a"])
    with pytest.raises(ValueError, match="repeated: a"):
        DetectionDataset.from_arrays([image], [[]], [[]], ["a", "a"])
    with pytest.raises(ValueError, match=r"images\[0\] float64"):
        DetectionDataset.from_arrays([np.zeros((4, 4, 3))], [[]], [[]], ["a"])
    with pytest.raises(ValueError, match="1 boxes and 0 labels"):
        DetectionDataset.from_arrays([image], [[[0, 0, 1, 1]]], [[]], ["a"])
    with pytest.raises(ValueError, match="1 images, 2 boxes"):
        DetectionDataset.from_arrays([image], [[], []], [[]], ["a"])

    class Other:
        class_names = ("x", "y")
        resizer = SMALL

    data = numbered()
    with pytest.raises(ValueError, match=r"same class names.*model x, y; data set a, b"):
        data.batches(Other(), 2)
    with pytest.raises(ValueError, match="model's resizer"):
        data.batches(object(), 2)
    with pytest.raises(ValueError, match="batch_size"):
        data.batches(SMALL, 0)
    with pytest.raises(ValueError, match="augment"):
        data.batches(SMALL, 1, augment="flip")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"keypoints": np.zeros((1, 4, 3))}, r"keypoints of an example are \[n, N, 2\].*example 0: \[1, 4, 3\]"),
        ({"keypoints": np.zeros((1, 4, 2)), "keypoint_visibility": np.zeros((1, 3))}, r"example 0: \[1, 3\]"),
        ({"keypoint_visibility": np.zeros((1, 3))}, r"beside keypoints"),
        ({"labels": [0.7]}, r"integers or class names. Received in example 0: \[0.7\]"),
        ({"labels": [float("nan")]}, r"integers"),
        ({"boxes": [[0, 0, 1, 1, 1]]}, r"boxes of an example are \[n, 4\]. Received in example 0: \[1, 5\]"),
        ({"boxes": [0, 0, 1, 1]}, r"Received in example 0: \[4\]"),
        ({"boxes": [["x", 0, 1, 1]]}, r"are numbers \[n, 4\]"),
        ({"boxes": [[0, 0, 80, 40]]}, r'Received up to 80 in example 0. Give boxes in pixels as "boxes_abs"'),
        ({"weights": 1.0}, r"The weights of an example have one row per box"),
    ],
)
def test_rows_of_an_example_that_are_none(rows, message):
    example = {"image": np.zeros((8, 8, 3), np.uint8), "boxes": [[0, 0, 1, 1]], "labels": [0]}
    with pytest.raises(ValueError, match=message):
        DetectionDataset.from_examples([example | rows], ["a"])


def test_an_empty_image_with_an_empty_list_of_keypoints():
    image = np.zeros((8, 8, 3), np.uint8)
    empty = {"image": image, "boxes": [], "labels": [], "keypoints": [], "keypoint_visibility": []}
    one = {"image": image, "boxes": [[0, 0, 1, 1]], "labels": [0.0], "keypoints": [[[0.5, 0.25]]]}
    data = DetectionDataset.from_examples([empty, one], ["a"])
    ((_, y),) = collect(data.batches(SMALL, 2))
    np.testing.assert_array_equal(y["keypoints"], [[[[0, 0]]], [[[0.5, 0.25]]]])
    np.testing.assert_array_equal(y["keypoint_visibility"], [[[0]], [[2]]])
