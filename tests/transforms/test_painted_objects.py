"""Every augmentation on painted objects with known masks: image, boxes, masks, keypoints and labels move together."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_detect import transforms
from keras_detect.transforms.augmentation import num_examples
from keras_detect.transforms.resizers import ImageResizer

#: label -> color of its objects; a keypoint's dot is white
COLORS = np.array([[200, 30, 30], [30, 190, 40], [40, 60, 220], [200, 190, 20]], np.uint8)
DOT = 4  # pixels of a dot to each side of its keypoint
SIZES = ((96, 128), (120, 80), (64, 64))

ALWAYS = {"probability": 1.0}
T = transforms
#: name -> the operation, and what of it differs: "colors" False where it changes or hides colors, "slack" of boxes as a
#: part of their sides, "dots" False where keypoints may be hidden, "same" where objects do not move
OPERATIONS = {
    "CopyPaste": (T.CopyPaste(**ALWAYS), {"dots": False}),
    "CutMix": (T.CutMix(**ALWAYS), {"dots": False}),
    "GridMask": (T.GridMask(**ALWAYS), {"same": True}),
    "LargeScaleJitter": (T.LargeScaleJitter(output_size=100, min_scale=0.6), {}),
    "MixUp": (T.MixUp(**ALWAYS), {"colors": False}),
    "Mosaic": (T.Mosaic(grid=2), {}),
    "RandAugment": (T.RandAugment(magnitude=4.0), {"colors": False}),
    "RandomAspectRatioCrop": (T.RandomAspectRatioCrop(aspect_ratio=1.3), {}),
    "RandomBlur": (T.RandomBlur(**ALWAYS), {"same": True}),
    "RandomBoxJitter": (T.RandomBoxJitter(ratio=0.05), {"slack": 0.05}),
    "RandomChoice": (T.RandomChoice(operations=(T.RandomObjectCrop(), T.RandomRotation90(**ALWAYS))), {}),
    "RandomColor": (T.RandomColor(**ALWAYS), {"same": True}),
    "RandomCropAndPad": (T.RandomCropAndPad(), {}),
    "RandomCutout": (T.RandomCutout(), {"same": True}),
    "RandomEqualize": (T.RandomEqualize(**ALWAYS), {"same": True}),
    "RandomGamma": (T.RandomGamma(**ALWAYS), {"same": True}),
    "RandomGray": (T.RandomGray(**ALWAYS), {"same": True}),
    "RandomHorizontalFlip": (T.RandomHorizontalFlip(**ALWAYS), {}),
    "RandomIoUCrop": (T.RandomIoUCrop(), {}),
    "RandomJpegQuality": (T.RandomJpegQuality(**ALWAYS), {"same": True}),
    "RandomNoise": (T.RandomNoise(**ALWAYS), {"same": True}),
    "RandomObjectCrop": (T.RandomObjectCrop(min_object_covered=0.5), {}),
    "RandomPad": (T.RandomPad(max_height=40, max_width=40), {}),
    "RandomPatchNoise": (T.RandomPatchNoise(), {"same": True}),
    "RandomPerspective": (T.RandomPerspective(max_tilt=0.2, **ALWAYS), {}),
    "RandomPixelScale": (T.RandomPixelScale(), {"same": True}),
    "RandomPosterize": (T.RandomPosterize(**ALWAYS), {"same": True}),
    "RandomResize": (T.RandomResize(min_scale=0.6), {}),
    "RandomRotation": (T.RandomRotation(max_angle=180.0, **ALWAYS), {}),
    "RandomRotation90": (T.RandomRotation90(**ALWAYS), {}),
    "RandomScale": (T.RandomScale(**ALWAYS), {}),
    "RandomShear": (T.RandomShear(max_angle=20.0, **ALWAYS), {}),
    "RandomShortestSide": (T.RandomShortestSide(sizes=(60, 100), max_size=150), {}),
    "RandomSolarize": (T.RandomSolarize(**ALWAYS), {"same": True}),
    "RandomSquareCrop": (T.RandomSquareCrop(), {}),
    "RandomTranslation": (T.RandomTranslation(max_shift=0.3, **ALWAYS), {}),
    "RandomVerticalFlip": (T.RandomVerticalFlip(**ALWAYS), {}),
    "RandomZoomOut": (T.RandomZoomOut(max_scale=1.6, **ALWAYS), {}),
}
#: further settings of operations above
VARIANTS = {
    "Mosaic9": (T.Mosaic(grid=3, size=(150, 180), min_cell=1.0), {}),
    "RandomZoomOutOfBothSides": (T.RandomZoomOut(max_scale=1.6, same_for_both=False, **ALWAYS), {}),
}
NAMES = [name for name in transforms.__all__ if not issubclass(getattr(transforms, name), ImageResizer)] + list(
    VARIANTS
)


def painted(rng, height, width, ellipses=False):
    """Objects in quarters of a dark image, each with a dot on its keypoint; rectangles fill their boxes."""
    image, boxes, masks, points = np.full((height, width, 3), 60, np.uint8), [], [], []
    rows, columns = np.mgrid[:height, :width] + 0.5
    labels = rng.permutation(4)
    for quarter, label in enumerate(labels):
        top, left = quarter // 2 * height // 2, quarter % 2 * width // 2
        size = [rng.integers(20, side // 2 - 2) for side in (height, width)]
        y0, x0 = (
            at + rng.integers(1, side // 2 - s) for at, side, s in zip((top, left), (height, width), size, strict=True)
        )
        y1, x1 = y0 + size[0], x0 + size[1]
        middle = [(y0 + y1) / 2, (x0 + x1) / 2]
        mask = (rows > y0) & (rows < y1) & (columns > x0) & (columns < x1)
        if ellipses:
            mask = ((rows - middle[0]) / (y1 - y0)) ** 2 + ((columns - middle[1]) / (x1 - x0)) ** 2 <= 0.25
        image[mask] = COLORS[label]
        dot = (abs(rows - middle[0]) <= DOT) & (abs(columns - middle[1]) <= DOT)
        image[dot] = 255
        inside = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
        boxes.append(
            [inside[0][0] / height, inside[1][0] / width, (inside[0][-1] + 1) / height, (inside[1][-1] + 1) / width]
        )
        masks.append(mask)
        points.append([[middle[0] / height, middle[1] / width]])
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes, tf.float32),
        "labels": tf.constant(labels, tf.int32),
        "weights": tf.constant(labels / 10, tf.float32),
        "masks": tf.constant(np.array(masks), tf.uint8),
        "keypoints": tf.constant(points, tf.float32),
        "keypoint_visibility": tf.fill((4, 1), 2),
        "image_id": tf.constant("an id"),
    }


def without(example, *keys):
    return {key: value for key, value in example.items() if key not in keys}


def operands(operation, rng, **options):
    """What `operation` is called with: an example, or a tuple of several."""
    examples = [painted(rng, *SIZES[rng.integers(len(SIZES))], **options) for _ in range(num_examples(operation))]
    return tuple(examples) if num_examples(operation) > 1 else examples[0]


def outcome(apply, examples, seed):
    return {key: value.numpy() for key, value in apply(examples, tf.constant([seed, 3], tf.int64)).items()}


def tight(mask):
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], float)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("draws", [8, pytest.param(500, marks=pytest.mark.slow)])
def test_painted_objects(name, draws):
    """Boxes are those of the moved masks to 1.5 pixels, keypoints lie on their dots, labels keep their colors."""
    operation, facts = (OPERATIONS | VARIANTS)[name]
    rng, seen = np.random.default_rng(0), 0
    for seed in range(draws):
        examples = operands(operation, rng)
        result = outcome(operation, examples, seed)
        if facts.get("same"):
            for key in set(examples) - {"image"}:
                np.testing.assert_array_equal(result[key], examples[key])
            assert result["image"].shape == examples["image"].shape
            seen += (result["image"] != examples["image"].numpy()).any()
            continue
        seen += check(result, facts)
    assert seen >= draws / 2, "objects are lost, or nothing changes"


def check(result, facts):
    """Compares the objects of one result with its pixels; returns how many there are."""
    height, width = result["image"].shape[:2]
    sides = np.array([height, width, height, width])
    assert result["image"].dtype == np.uint8 and result["masks"].shape[1:] == (height, width)
    assert result["image_id"] == b"an id"
    assert ((result["boxes"] >= 0) & (result["boxes"] <= 1)).all()
    for row, label in enumerate(result["labels"]):
        assert result["weights"][row] == pytest.approx(label / 10)
        mask, box = result["masks"][row] > 0, result["boxes"][row] * sides
        if not mask.any():  # a sliver thinner than half a pixel
            assert min(box[2] - box[0], box[3] - box[1]) <= 1.0
            continue
        slack = 1.5 + facts.get("slack", 0.0) * np.tile(box[2:] - box[:2], 2)
        assert (abs(box - tight(mask)) <= slack).all(), f"box {box}, mask {tight(mask)}"
        if not facts.get("colors", True):
            continue
        pixels = result["image"][mask].astype(int)
        right = abs(pixels - COLORS[label]).max(axis=1) <= 60
        white = pixels.min(axis=1) > 150
        if len(pixels) >= 60:
            assert (right | white).mean() > 0.6, f"{(right | white).mean()} of label {label}"
        y, x = np.nan_to_num(result["keypoints"][row, 0] * (height, width), nan=-1.0).astype(int)
        dots = facts.get("dots", True) or result["keypoint_visibility"][row, 0] == 2
        if dots and 1 <= y < height - 1 and 1 <= x < width - 1:
            # a point on the edge between two images of a mosaic: its dot is within a pixel
            around = result["image"][y - 1 : y + 2, x - 1 : x + 2].min(axis=-1)
            assert around.max() > 130, f"no dot at {y}, {x}"
    return len(result["labels"])


MOVING = ("RandomRotation", "RandomShear", "RandomPerspective")


@pytest.mark.parametrize("name", MOVING)
def test_boxes_without_masks_contain_the_object(name):
    """Of ellipses: the box around the turned box, which holds the object and is at most the stated slack larger."""
    operation = OPERATIONS[name][0]
    rng = np.random.default_rng(1)
    for seed in range(15):
        example = painted(rng, 96, 128, ellipses=True)
        with_masks, alone = outcome(operation, example, seed), outcome(operation, without(example, "masks"), seed)
        assert alone["labels"].tolist() == with_masks["labels"].tolist()
        sides = np.array([96, 128, 96, 128])
        for box, mask in zip(alone["boxes"] * sides, with_masks["masks"] > 0, strict=True):
            inner = tight(mask) if mask.any() else None
            if inner is not None:
                assert (box[:2] <= inner[:2] + 1.5).all() and (box[2:] >= inner[2:] - 1.5).all()
                longest = max(box[2:] - box[:2])
                assert (inner[:2] - box[:2] <= 0.5 * longest + 1.5).all()
                assert (box[2:] - inner[2:] <= 0.5 * longest + 1.5).all()


@pytest.mark.parametrize("name", MOVING)
def test_rectangles_without_masks_have_tight_boxes(name):
    operation = OPERATIONS[name][0]
    rng = np.random.default_rng(2)
    for seed in range(15):
        example = painted(rng, 96, 128)
        with_masks, alone = outcome(operation, example, seed), outcome(operation, without(example, "masks"), seed)
        np.testing.assert_allclose(alone["boxes"], with_masks["boxes"], atol=2.0 / 96)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_and_the_settings_are_saved(name):
    operation, rng = (OPERATIONS | VARIANTS)[name][0], np.random.default_rng(3)
    examples = operands(operation, rng)
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(operation))
    assert revived == operation
    first, again = (outcome(one, examples, 7) for one in (operation, revived))
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_without_objects(name):
    operation, rng = (OPERATIONS | VARIANTS)[name][0], np.random.default_rng(4)
    objects = ("boxes", "labels", "weights", "masks", "keypoints", "keypoint_visibility")

    def empty(example):
        return example | {key: example[key][:0] for key in objects}

    examples = operands(operation, rng)
    examples = tuple(map(empty, examples)) if isinstance(examples, tuple) else empty(examples)
    result = outcome(operation, examples, 5)
    assert result["boxes"].shape == (0, 4) and result["masks"].shape[1:] == result["image"].shape[:2]
    assert min(result["image"].shape) >= 1


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr((OPERATIONS | VARIANTS)[name][0], "largest_size")])
def test_the_largest_size_is_not_exceeded(name):
    operation, rng = (OPERATIONS | VARIANTS)[name][0], np.random.default_rng(6)
    height, width = (max(sides) for sides in zip(*SIZES, strict=True))
    bound = operation.largest_size(height, width)
    for seed in range(6):
        shape = outcome(operation, operands(operation, rng), seed)["image"].shape
        assert shape[0] <= bound[0] and shape[1] <= bound[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_in_a_graph(name):
    """Inside `tf.data` images of any size pass through one graph, with the same result."""
    operation, rng = (OPERATIONS | VARIANTS)[name][0], np.random.default_rng(8)
    examples = [painted(rng, *SIZES[number % len(SIZES)]) for number in range(num_examples(operation))]
    shapes = {"image": [None, None, 3], "boxes": [None, 4], "masks": [None] * 3, "keypoints": [None, 1, 2]}
    shapes |= {"keypoint_visibility": [None, 1], "image_id": []}
    spec = {key: tf.TensorSpec(shapes.get(key, [None]), value.dtype) for key, value in examples[0].items()}
    several = num_examples(operation) > 1
    graph = tf.function(
        operation, input_signature=[(spec,) * len(examples) if several else spec, tf.TensorSpec([2], tf.int64)]
    )
    operand = tuple(examples) if several else examples[0]
    eager, traced = outcome(operation, operand, 9), outcome(graph, operand, 9)
    assert eager.keys() == traced.keys()
    for key, value in eager.items():
        assert value.dtype == traced[key].dtype and value.shape == traced[key].shape
    np.testing.assert_allclose(traced["boxes"], eager["boxes"], atol=1e-4)
    assert abs(traced["image"].astype(int) - eager["image"]).mean() < 1.0
