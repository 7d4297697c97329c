import contextlib
import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.boxes.nms_candidates import Detections
from keras_detect.kernels import dispatch
from tests import goldens

# Every way to the same result: the backend's own kernels (JAX has none) or `keras.ops`, the first pool or (from a tiny
# pool, which rarely suffices) the complete way.
KERNELS = ("portable",) if goldens.BACKEND == "jax" else ("native", "portable")
WAYS = [(kernels, pool) for kernels in KERNELS for pool in (None, 16)]
# Without compilation JAX compiles every operation and loop by itself: where that is not the point it is compiled.
COMPILED = goldens.BACKEND == "jax"


def run(settings, boxes, scores, window=None, num_valid=None, compiled=False):
    tensors = [ops.convert_to_tensor(np.asarray(value, "float32")) for value in (boxes, scores)]

    def function(boxes, scores):
        return tuple(settings(boxes, scores, window, num_valid))

    function = goldens.compiled(function) if compiled else function
    return Detections(*(ops.convert_to_numpy(value) for value in function(*tensors)))


def kernels(name):
    return dispatch.portable_kernels() if name == "portable" else contextlib.nullcontext()


def settings_of(case):
    kwargs = case.info["kwargs"]
    return MulticlassNonMaxSuppression(
        score_threshold=kwargs["score_thresh"],
        iou_threshold=kwargs["iou_thresh"],
        max_detections_per_class=kwargs.get("max_size_per_class", 100),
        max_total_detections=kwargs["max_total_size"],
        class_agnostic="agnostic" in case.name,
        soft_nms_sigma=kwargs.get("soft_nms_sigma", 0.0),
        change_coordinate_frame=kwargs.get("change_coordinate_frame", False),
    )


def arrays_of(case):
    """Inputs, window and outputs of a case, always with a batch axis."""
    inputs, outputs = dict(case.inputs), dict(case.outputs)
    outputs["num"] = outputs.pop("num_valid", outputs.get("num"))
    window = case.info["kwargs"].get("clip_window")
    window = inputs["window"] if window == "window" else window
    if "batch" not in case.name:
        inputs, outputs = ({k: v[None] for k, v in arrays.items()} for arrays in (inputs, outputs))
    return inputs, None if window is None else np.asarray(window, "float32"), outputs


@pytest.mark.parametrize(("kernel", "pool"), WAYS)
@goldens.golden_cases("nms/*")
def test_golden(case, kernel, pool):
    inputs, window, expected = arrays_of(case)
    settings = dataclasses.replace(settings_of(case), pool_size=pool)
    num_valid = case.info["kwargs"].get("num_valid_boxes")
    plain = goldens.BACKEND == "tensorflow" and pool is None
    both = plain or (COMPILED and case.name in ("nms/batch_clip_frame", "nms/batch_soft"))
    for compiled in (False, True) if both else (goldens.BACKEND != "torch",):
        with kernels(kernel):
            found = run(settings, inputs["boxes"], inputs["scores"], window, num_valid, compiled)
        for image, count in enumerate(expected["num"]):
            check_image(case, image, count, found, expected, inputs)


def check_image(case, image, count, found, expected, inputs):
    boxes, scores, labels, indices = (found[i][image] for i in (0, 1, 2, 4))
    wanted = {key: expected[key][image][:count] for key in expected if key != "num"}
    if case.name == "nms/batch_combined":
        # Combined suppression leaves the boxes that clipping robs of their area among the total; they are dropped
        # here, and what follows moves up.
        size = wanted["boxes"][:, 2:] - wanted["boxes"][:, :2]
        wanted = {key: value[size.prod(axis=1) > 0] for key, value in wanted.items()}
        assert len(wanted["scores"]) == count - (image == 1)
        found_count, count = count, len(wanted["scores"])
    else:
        found_count = count
        assert np.all(boxes[count:] == 0) and np.all(scores[count:] == 0)
        assert np.all(labels[count:] == -1) and np.all(indices[count:] == 0)
    assert found.num_detections[image] == found_count
    goldens.assert_close(boxes[:count], wanted["boxes"])
    goldens.assert_close(scores[:count], wanted["scores"])
    np.testing.assert_array_equal(labels[:count], wanted["classes"])
    if "feat" in wanted:  # what goes with a detection is gathered by its anchor
        np.testing.assert_array_equal(inputs["feat"][image][indices[:count]], wanted["feat"])
        np.testing.assert_array_equal(inputs["masks"][image][indices[:count], 0], wanted["masks"])


def reference(settings, boxes, scores, window):
    """One image by the book: class by class, greedily, in plain loops over float32 numpy."""
    boxes, scores = np.asarray(boxes, "float32"), np.asarray(scores, "float32")
    if settings.class_agnostic:
        best = np.where(scores > settings.score_threshold, scores, -np.inf).argmax(1)
        masked = np.where(np.arange(scores.shape[1]) == best[:, None], scores, -np.inf)
        groups, cap = [masked], settings.max_total_detections
    else:
        groups, cap = list(scores.T[:, :, None]), settings.max_detections_per_class
    found = []
    for number, group in enumerate(groups):
        pairs = np.argwhere(group > settings.score_threshold)
        pairs = [(-group[a, k], a, k if settings.class_agnostic else number) for a, k in pairs]
        kept = []
        for score, anchor, label in sorted(pairs):
            box = boxes[anchor, label if boxes.shape[1] > 1 else 0]
            if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
                continue
            if len(kept) < cap and all(overlap(box, other) <= settings.iou_threshold for *_, other in kept):
                kept.append((score, anchor, label, box))
        found += kept
    found.sort(key=lambda item: item[:3])
    result = []
    for score, anchor, label, box in found:
        box = box if window is None else np.clip(box, np.tile(window[:2], 2), np.tile(window[2:], 2))
        if (box[2:] - box[:2]).min() > 0:
            result.append((anchor, label, -score))
    return result[: settings.max_total_detections]


def overlap(box, other):
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = np.prod(np.maximum(high - low, np.float32(0)))
    union = np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared
    return shared / union if shared > 0 else np.float32(0)


def crowd(rng, batch, num_anchors, num_boxes):
    """Boxes around a few centers, so that many overlap; some outside of the window."""
    centers = rng.uniform(-0.1, 1.1, (batch, 8, 2))
    centers = centers[:, rng.integers(8, size=num_anchors)] + rng.normal(0, 0.05, (batch, num_anchors, 2))
    centers = centers[:, :, None] + rng.normal(0, 0.02, (batch, num_anchors, num_boxes, 2))
    sizes = rng.uniform(0.1, 0.3, centers.shape)
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=-1).astype("float32")


RANDOM = {
    "plain": {},
    "boxes per class": {"per_class": True},
    "class agnostic": {"class_agnostic": True},
    "class agnostic, boxes per class": {"class_agnostic": True, "per_class": True},
    "few per class": {"max_detections_per_class": 3},
    "many wanted": {"max_total_detections": 200},
    "no overlap allowed": {"iou_threshold": 0.0},
    "equal scores": {"rounded": True},
    "one class": {"num_classes": 1, "max_detections_per_class": 40},
    "corrupted": {"corrupted": True},
}


@pytest.mark.parametrize(("kernel", "pool"), WAYS)
@pytest.mark.parametrize("name", RANDOM)
def test_every_way_equals_the_reference(name, kernel, pool):
    options = dict(RANDOM[name])
    rng = np.random.default_rng(len(name))
    num_classes, per_class = options.pop("num_classes", 12), options.pop("per_class", False)
    rounded, spoiled = options.pop("rounded", False), options.pop("corrupted", False)
    boxes = crowd(rng, 2, 60, num_classes if per_class else 1)
    scores = rng.uniform(0, 1, (2, 60, num_classes)).astype("float32")
    if rounded:
        scores = np.round(scores, 1)
    if spoiled:
        scores[0, ::3, ::2], boxes[0, 1::5] = np.nan, np.nan
        boxes[1, ::4, 0, 3], boxes[1, 1::4, 0, :2] = np.inf, -np.inf
        boxes[1, 2::4] = boxes[1, 2::4, :, [2, 3, 0, 1]].transpose(1, 2, 0)
    settings = MulticlassNonMaxSuppression(
        **{"score_threshold": 0.2, "iou_threshold": 0.5, "max_total_detections": 30, "pool_size": pool, **options}
    )
    window = np.float32([[0, 0, 1, 1], [0, 0.2, 0.8, 1]])
    settings = dataclasses.replace(settings, change_coordinate_frame=False)
    with kernels(kernel):
        found = run(settings, boxes, scores, window, compiled=COMPILED)
    for image in range(2):
        expected = reference(settings, boxes[image], scores[image], window[image])
        count = len(expected)
        assert count > 5 and found.num_detections[image] == count
        anchors, labels, values = (np.array(column) for column in zip(*expected, strict=True))
        np.testing.assert_array_equal(found.indices[image, :count], anchors)
        np.testing.assert_array_equal(found.labels[image, :count], labels)
        np.testing.assert_array_equal(found.scores[image, :count], values)


@pytest.mark.parametrize(("kernel", "pool"), WAYS)
def test_hidden_boxes_do_not_end_the_search(kernel, pool):
    """What clipping drops counts for its class and suppresses, yet the search continues behind it."""
    # 300 boxes far outside the window have the best scores, one inside has the worst. A cap of 300 ends the class
    # before the one inside is reached; 301 does not.
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(5, 90, (300, 2)), np.full((1, 2), 0.25)])
    boxes = np.concatenate([boxes, boxes + 0.5], axis=1)[None].astype("float32")
    scores = np.linspace(0.9, 0.3, 301, dtype="float32")[None, :, None]
    for cap, count in ((300, 0), (301, 1)):
        settings = MulticlassNonMaxSuppression(
            iou_threshold=1.0, max_detections_per_class=cap, max_total_detections=5, pool_size=pool
        )
        with kernels(kernel):
            found = run(settings, boxes, scores, np.float32([0, 0, 1, 1]), compiled=COMPILED)
        assert found.num_detections[0] == count
        assert found.labels[0].tolist() == [0] * count + [-1] * (5 - count)


def test_by_hand():
    # IoU of boxes 0 and 1 is 8 / 12 = 2/3, of 1 and 2 as well, of 0 and 2 6 / 14 = 3/7. At 0.5, 0 (0.9) suppresses 1
    # (0.8), which therefore does not suppress 2 (0.7). In class 1 box 1 is best (0.6) and suppresses both others.
    boxes = [[[0, 0, 10, 1], [2, 0, 12, 1], [4, 0, 14, 1]]]
    scores = [[[0.9, 0.5], [0.8, 0.6], [0.7, 0.4]]]
    settings = MulticlassNonMaxSuppression(iou_threshold=0.5, max_total_detections=4)
    found = run(settings, boxes, scores)
    assert found.indices.tolist() == [[0, 2, 1, 0]] and found.labels.tolist() == [[0, 0, 1, -1]]
    np.testing.assert_array_equal(found.scores, np.float32([[0.9, 0.7, 0.6, 0]]))
    assert found.num_detections.tolist() == [3]
    # The window [2, 0, 12, 1] becomes the unit square: box 0 ends at (10 - 2) / 10, box 2 begins at (4 - 2) / 10.
    found = run(settings, boxes, scores, np.float32([2, 0, 12, 1]))
    np.testing.assert_allclose(found.boxes[0, :3], [[0, 0, 0.8, 1], [0.2, 0, 1, 1], [0, 0, 1, 1]], atol=1e-7)


def test_thresholds_are_exclusive():
    # IoU 1/2 exactly: 5 / 10. Score 0.5 exactly.
    boxes, scores = [[[0, 0, 10, 1], [0, 0, 5, 1]]], [[[0.75], [0.5]]]
    kept = {
        (iou, score): run(
            MulticlassNonMaxSuppression(iou_threshold=iou, score_threshold=score, max_total_detections=2), boxes, scores
        ).num_detections[0]
        for iou in (0.5, 0.4999)
        for score in (0.5, 0.4999)
    }
    assert kept == {(0.5, 0.4999): 2, (0.5, 0.5): 1, (0.4999, 0.4999): 1, (0.4999, 0.5): 1}


@pytest.mark.parametrize("kernel", KERNELS)
def test_soft_by_hand(kernel):
    # IoU 1/2: the second score becomes 0.8 exp(-0.25 / (2 x 0.5)) = 0.8 x 0.7788 = 0.62304; another class keeps its.
    boxes = [[[0, 0, 10, 1], [0, 0, 5, 1]]]
    scores = [[[0.9, 0.0], [0.8, 0.7]]]
    settings = MulticlassNonMaxSuppression(iou_threshold=0.9, max_total_detections=4, soft_nms_sigma=0.5)
    with kernels(kernel):
        found = run(settings, boxes, scores)
        np.testing.assert_allclose(found.scores[0], [0.9, 0.7, 0.8 * np.exp(-0.25), 0], rtol=1e-6)
        assert found.labels[0].tolist() == [0, 1, 0, -1] and found.indices[0].tolist() == [0, 1, 1, 0]
        # Lowered below the threshold, it goes.
        found = run(dataclasses.replace(settings, score_threshold=0.65), boxes, scores)
        assert found.num_detections.tolist() == [2]


@pytest.mark.parametrize("sigma", (0.3, 1.0))
@pytest.mark.parametrize("agnostic", (False, True))
@pytest.mark.parametrize("num_boxes", (1, 5))
def test_soft_ways_agree(sigma, agnostic, num_boxes):
    if goldens.BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has a second way")
    rng = np.random.default_rng(3)
    boxes, scores = crowd(rng, 2, 40, num_boxes), rng.uniform(0, 1, (2, 40, 5))
    settings = MulticlassNonMaxSuppression(
        score_threshold=0.1,
        iou_threshold=0.7,
        soft_nms_sigma=sigma,
        class_agnostic=agnostic,
        max_detections_per_class=9,
        max_total_detections=25,
    )
    found = []
    for kernel in ("native", "portable"):
        with kernels(kernel):
            found.append(run(settings, boxes, scores, np.float32([0, 0, 1, 1])))
    for first, second in zip(*found, strict=True):
        goldens.assert_close(first, second, tolerance=1e-6)


@pytest.mark.parametrize(("kernel", "pool"), WAYS)
@pytest.mark.parametrize("sigma", (0.0, 0.5))
def test_degenerate_inputs(kernel, pool, sigma):
    settings = MulticlassNonMaxSuppression(
        score_threshold=0.5, max_total_detections=3, soft_nms_sigma=sigma, pool_size=pool
    )
    window = np.float32([0, 0, 1, 1])
    good = np.float32([0.1, 0.1, 0.6, 0.6])
    images = {  # box and score of every anchor
        "at the threshold": (good, 0.5),
        "NaN scores": (good, np.nan),
        "NaN boxes": (np.full(4, np.nan), 0.9),
        "no area": (np.full(4, 0.5), 0.9),
        "reversed": (good[[2, 3, 0, 1]], 0.9),
        "outside": (good + 2, 0.9),
    }
    boxes = np.stack([np.tile(box, (20, 1)) for box, _ in images.values()])
    scores = np.stack([np.full((20, 3), score) for _, score in images.values()])
    for arrays in ((boxes, scores), (np.zeros((2, 0, 4)), np.zeros((2, 0, 3))), (boxes, np.zeros((6, 20, 0)))):
        with kernels(kernel):
            found = run(settings, *arrays, window, compiled=COMPILED)
        assert found.boxes.shape == (len(arrays[0]), 3, 4) and not found.boxes.any()
        assert not found.scores.any() and (found.labels == -1).all() and not found.indices.any()
        assert not found.num_detections.any()


def test_spoiled_neighbors_change_nothing():
    # A NaN, an infinite and a reversed box with the best scores, and a NaN score: the good box is reported alone.
    good = [0.1, 0.1, 0.6, 0.6]
    boxes = [[[np.nan, 0, 1, 1], [0, 0, np.inf, 1], [0.6, 0.6, 0.1, 0.1], good, good]]
    settings = MulticlassNonMaxSuppression(max_total_detections=3)
    for kernel in KERNELS:
        with kernels(kernel):
            found = run(settings, boxes, [[[0.9], [0.8], [0.7], [np.nan], [0.5]]], np.float32([0, 0, 1, 1]))
        assert found.num_detections[0] == 1 and found.indices[0, 0] == 4
        assert np.isfinite(found.boxes).all()


def test_num_valid_hides_the_rest():
    boxes = [[[0, 0, 1, 1], [2, 2, 3, 3]]] * 2
    scores = [[[0.5], [0.9]]] * 2
    found = run(MulticlassNonMaxSuppression(max_total_detections=2), boxes, scores, num_valid=np.int32([1, 2]))
    assert found.num_detections.tolist() == [1, 2] and found.indices.tolist() == [[0, 0], [1, 0]]


def test_tensorflow_unknown_shapes_and_xla():
    tf = pytest.importorskip("tensorflow")
    if goldens.BACKEND != "tensorflow":
        pytest.skip("TensorFlow's own modes")
    rng = np.random.default_rng(1)
    boxes, scores = crowd(rng, 2, 50, 1), rng.uniform(0, 1, (2, 50, 4)).astype("float32")
    for pool in (None, 16):
        settings = MulticlassNonMaxSuppression(score_threshold=0.3, max_total_detections=30, pool_size=pool)
        expected = run(settings, boxes, scores)
        signature = [tf.TensorSpec([None, None, 1, 4]), tf.TensorSpec([None, None, 4])]
        unknown = tf.function(lambda b, s, settings=settings: settings(b, s), input_signature=signature)
        xla = tf.function(lambda b, s, settings=settings: settings(b, s), jit_compile=True)
        for function in (unknown, xla):
            for value, wanted in zip(function(tf.constant(boxes), tf.constant(scores)), expected, strict=True):
                goldens.assert_close(value, wanted, tolerance=1e-6)
    soft = dataclasses.replace(settings, soft_nms_sigma=0.5)
    with dispatch.portable_kernels():
        found = tf.function(lambda b, s: soft(b, s), jit_compile=True)(boxes, scores)
    goldens.assert_close(found.scores, run(soft, boxes, scores).scores)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="max_total_detections must be at least 1"):
        MulticlassNonMaxSuppression(max_total_detections=0)
    with pytest.raises(ValueError, match="iou_threshold must be in"):
        MulticlassNonMaxSuppression(iou_threshold=1.5)
    with pytest.raises(ValueError, match="soft_nms_sigma"):
        MulticlassNonMaxSuppression(soft_nms_sigma=-1.0)
    with pytest.raises(ValueError, match=r"takes boxes \[B, A, 4\]"):
        run(MulticlassNonMaxSuppression(), np.zeros((1, 2, 2, 4)), np.zeros((1, 2, 3)))


def test_config_round_trip():
    settings = MulticlassNonMaxSuppression(iou_threshold=0.4, class_agnostic=True)
    config = keras.saving.serialize_keras_object(settings)
    assert keras.saving.deserialize_keras_object(config) == settings
