import keras
import numpy as np
import pytest

from keras_detect.boxes import box_coders, matchers, similarity
from keras_detect.boxes.target_assigner import TargetAssigner
from tests.boxes.gradients import gradient
from tests.goldens import BACKEND, assert_close, both_modes, golden_cases

host = keras.ops.convert_to_numpy
NAN, INF = np.nan, np.inf


def assigner(matched, unmatched=None, force=True, **settings):
    parts = {
        "similarity": similarity.IouSimilarity(),
        "matcher": matchers.ArgMaxMatcher(
            matched_threshold=matched, unmatched_threshold=unmatched, force_match_for_each_row=force
        ),
        "box_coder": box_coders.FasterRcnnBoxCoder(scale_factors=(10, 10, 5, 5)),
    }
    return TargetAssigner(**{**parts, **settings})


def setting_of(name):
    """Upstream's assigner: `assign/<matched>_<unmatched>_<force>_bg<unmatched target>`, or one by name."""
    if name == "FasterRCNN_proposal":
        return assigner(0.7, 0.3)
    if name == "FasterRCNN_detection":
        return assigner(0.5, 0.5, force=False)
    if name == "empty_gt":
        return assigner(0.5, 0.5)
    matched, unmatched, force, _ = name.split("_")
    return assigner(float(matched), float(unmatched), force == "1")


def flat(targets):
    """Every tensor of `Targets` as numpy, by name."""
    arrays = {**targets._asdict(), **targets.match._asdict()}
    del arrays["match"]
    return {name: host(value) for name, value in arrays.items()}


def assert_same(targets, wanted):
    targets, wanted = flat(targets), flat(wanted)
    for name in targets:
        np.testing.assert_array_equal(targets[name], wanted[name], err_msg=name)


def random_ground_truth(batch, rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    centers, sizes = rng.uniform(size=(batch, rows, 2)), rng.uniform(0.1, 0.5, size=(batch, rows, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=-1).astype("float32")
    labels = np.eye(classes, dtype="float32")[rng.integers(classes, size=(batch, rows))]
    return boxes, labels, rng.uniform(0.2, 1, size=(batch, rows)).astype("float32")


def grid(side=6, size=0.3):
    """Anchors `[side * side, 4]` on a grid over the image."""
    y, x = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2, indexing="ij")
    centers = np.stack([y, x], axis=-1).reshape(-1, 2)
    return np.concatenate([centers - size / 2, centers + size / 2], axis=-1).astype("float32")


@golden_cases("assign/*")
def test_targets_equal_upstream(case):
    unmatched = case.inputs["unmatched_class_label"]
    boxes = case.inputs.get("gt_boxes", np.zeros((0, 4), "float32"))
    labels = case.inputs.get("gt_labels", np.zeros((0, len(unmatched)), "float32"))
    weights = case.inputs.get("gt_weights", np.ones(len(boxes), "float32"))
    part = setting_of(case.name.removeprefix("assign/"))
    for function in both_modes(lambda *inputs: part(*inputs)):
        found = flat(function(case.inputs["anchors"], boxes[None], labels[None], unmatched, weights[None]))
        assert_close(found["class_targets"][0], case.outputs["cls_targets"])
        assert_close(found["class_weights"][0], case.outputs["cls_weights"])
        assert_close(found["box_targets"][0], case.outputs["reg_targets"])
        assert_close(found["box_weights"][0], case.outputs["reg_weights"])
        code = np.where(found["positive"], found["matched_row"], np.where(found["ignored"], -2, -1))[0]
        np.testing.assert_array_equal(code, case.outputs["match"])


def test_by_hand():
    # Anchor 0 is the first ground truth (IoU 1); anchor 1 shares half of a hull of 1.5 units with the second (IoU 1/3:
    # ignored between 0.3 and 0.5); anchor 2 is far from both.
    anchors = [[0.0, 0.0, 1.0, 1.0], [4.0, 0.0, 5.0, 1.0], [9.0, 0.0, 10.0, 1.0]]
    boxes = [[[0.0, 0.0, 1.0, 1.0], [4.0, 0.5, 5.0, 1.5]]]
    labels, unmatched = [[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], [1.0, 0.0, 0.0]
    part = assigner(0.5, 0.3, force=False, negative_class_weight=0.25)
    targets = part(anchors, boxes, labels, unmatched, weights=[[0.5, 1.0]])
    assert_close(targets.class_targets, [[[0, 1, 0], unmatched, unmatched]])
    assert_close(targets.class_weights, [[[0.5] * 3, [0] * 3, [0.25] * 3]])
    assert_close(targets.box_targets, np.zeros((1, 3, 4)))
    assert_close(targets.box_weights, [[0.5, 0, 0]])
    # Forced, anchor 1 belongs to the second ground truth, half an anchor to its right: 10 x 0.5.
    targets = assigner(0.5, 0.3)(anchors, boxes, labels, unmatched)
    assert_close(targets.box_targets, [[[0] * 4, [0, 5, 0, 0], [0] * 4]])
    assert_close(targets.box_weights, [[1, 1, 0]])
    # With weight 0 it is not forced.
    targets = assigner(0.5, 0.3)(anchors, boxes, labels, unmatched, weights=[[1.0, 0.0]])
    assert_close(targets.box_weights, [[1, 0, 0]])
    np.testing.assert_array_equal(host(targets.match.ignored), [[False, True, False]])


PARTS = {
    "forcing": assigner(0.5, 0.4),
    "threshold": assigner(0.5, force=False),
    "any": assigner(None, force=False),
    "swapped": assigner(
        0.5,
        matcher=matchers.ArgMaxMatcher(
            matched_threshold=0.5, unmatched_threshold=0.3, negatives_lower_than_unmatched=False
        ),
    ),
    "bipartite": assigner(0.5, matcher=matchers.BipartiteMatcher()),
    "distance": assigner(
        0.5,
        similarity=similarity.NegSquaredDistanceSimilarity(),
        matcher=matchers.BipartiteMatcher(),
        box_coder=box_coders.MeanStddevBoxCoder(stddev=0.1),
    ),
}
UNMATCHED = np.array([1, 0, 0], "float32")


@pytest.mark.parametrize("name", PARTS)
def test_padding_changes_nothing(name):
    boxes, labels, weights = random_ground_truth(2, 4, 3)
    padding = np.array([[0] * 4, [NAN] * 4, [-INF, -INF, INF, INF], [0.1, 0.1, 0.6, 0.6], [0.9, 0.9, 0.1, 0.1]])
    padded = np.concatenate([boxes, np.stack([padding, padding])], axis=1).astype("float32")
    padded_labels = np.concatenate([labels, np.full((2, 5, 3), NAN, "float32")], axis=1)
    padded_weights = np.concatenate([weights, [[NAN, 1, INF, 1, 0]] * 2], axis=1).astype("float32")
    valid = np.broadcast_to(np.arange(9) < 4, (2, 9))
    for function in both_modes(lambda *inputs: PARTS[name](*inputs)):
        wanted = function(grid(), boxes, labels, UNMATCHED, weights)
        found = function(grid(), padded, padded_labels, UNMATCHED, padded_weights, valid)
        assert_same(found, wanted)
    assert host(wanted.match.positive).any()


@pytest.mark.parametrize("name", PARTS)
def test_without_ground_truth_all_anchors_are_negative(name):
    boxes, labels, weights = random_ground_truth(2, 4, 3)
    for rows, valid in ((0, None), (4, np.zeros((2, 4), bool))):
        ground_truth = (boxes[:, :rows], labels[:, :rows], UNMATCHED, weights[:, :rows])
        for function in both_modes(lambda *inputs: PARTS[name](*inputs)):
            found = flat(function(grid(), *ground_truth) if valid is None else function(grid(), *ground_truth, valid))
            assert not found["positive"].any() and not found["ignored"].any()
            np.testing.assert_array_equal(found["class_targets"], np.broadcast_to(UNMATCHED, (2, 36, 3)))
            np.testing.assert_array_equal(found["class_weights"], 1)
            np.testing.assert_array_equal(found["box_targets"], 0)
            np.testing.assert_array_equal(found["box_weights"], 0)


@pytest.mark.parametrize("name", PARTS)
def test_degenerate_ground_truth_is_padding(name):
    boxes, labels, weights = random_ground_truth(2, 9, 3)
    boxes[:, 4:7] = [[0.2, 0.1, 0.2, 0.5], [0.6, 0.5, 0.2, 0.1], [0.1, NAN, 0.3, 0.3]]
    boxes[:, 7:] = [[0.2, 0.2, INF, 0.3], [0.3, 0.3, 0.3, 0.3]]
    wanted = PARTS[name](grid(), boxes[:, :4], labels[:, :4], UNMATCHED, weights[:, :4])
    assert_same(PARTS[name](grid(), boxes, labels, UNMATCHED, weights), wanted)


def test_ground_truth_outside_every_anchor_is_not_forced():
    boxes, labels, weights = random_ground_truth(2, 9, 3)
    boxes[:, 4:] = [3, 3, 4, 4]
    wanted = PARTS["forcing"](grid(), boxes[:, :4], labels[:, :4], UNMATCHED, weights[:, :4])
    assert_same(PARTS["forcing"](grid(), boxes, labels, UNMATCHED, weights), wanted)


@pytest.mark.parametrize("name", ["forcing", "bipartite"])
def test_more_truths_than_anchors(name):
    boxes, labels, weights = random_ground_truth(2, 9, 3)
    found = flat(PARTS[name](grid(2, 0.6), boxes, labels, UNMATCHED, weights))
    wanted_anchors = host(similarity.IouSimilarity()(boxes, grid(2, 0.6))).argmax(-1)
    for image in range(2):
        if name == "forcing":
            assert found["positive"][image, wanted_anchors[image]].all()
        else:
            assert found["positive"].all() and len(set(found["matched_row"][image])) == 4
        positive, rows = found["positive"][image], found["matched_row"][image]
        np.testing.assert_array_equal(found["class_targets"][image, positive], labels[image, rows[positive]])
        np.testing.assert_array_equal(found["box_weights"][image, positive], weights[image, rows[positive]])


def test_order_of_truths_changes_only_their_numbers():
    boxes, labels, weights = random_ground_truth(2, 4, 3)
    order = np.array([3, 1, 0, 2])
    part = PARTS["threshold"]
    found = flat(part(grid(), boxes[:, order], labels[:, order], UNMATCHED, weights[:, order]))
    wanted = flat(part(grid(), boxes, labels, UNMATCHED, weights))
    np.testing.assert_array_equal(
        np.where(found["positive"], order[found.pop("matched_row")], 0), wanted["matched_row"]
    )
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_a_batch_equals_its_images_and_anchors_may_differ_per_image():
    boxes, labels, weights = random_ground_truth(2, 4, 3)
    anchors = np.stack([grid(), grid(size=0.2)])
    part = PARTS["forcing"]
    together = flat(part(anchors, boxes, labels, UNMATCHED, weights))
    for image in range(2):
        one = slice(image, image + 1)
        alone = flat(part(anchors[image], boxes[one], labels[one], UNMATCHED, weights[one]))
        for name, value in alone.items():
            np.testing.assert_array_equal(together[name][one], value, err_msg=name)


def test_keypoints_are_encoded_with_their_box():
    anchors = [[0.0, 0.0, 1.0, 1.0], [4.0, 0.0, 5.0, 1.0]]
    boxes = [[[0.0, 0.0, 1.0, 1.0, 0.75, 0.25]]]  # the keypoint is a quarter below and left of the center
    part = assigner(0.5, box_coder=box_coders.KeypointBoxCoder(num_keypoints=1, scale_factors=(10, 10, 5, 5)))
    targets = part(anchors, boxes, [[[1.0]]], [0.0])
    assert_close(targets.box_targets, [[[0, 0, 0, 0, 2.5, -2.5], [0] * 6]])


def test_no_gradient_flows_through_targets():
    boxes, labels, weights = random_ground_truth(2, 4, 3)

    def total(anchors):
        targets = PARTS["forcing"](anchors, boxes, labels, UNMATCHED, weights)
        return keras.ops.sum(targets.box_targets) + keras.ops.sum(targets.class_targets)

    np.testing.assert_array_equal(gradient(total, grid()), 0)


def test_unknown_batch_size_and_number_of_anchors():
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has unknown sizes")
    import tensorflow as tf

    boxes, labels, weights = random_ground_truth(2, 4, 3)
    shapes = ((None, 4), (None, 4, 4), (None, 4, 3), (3,), (None, 4))
    function = tf.function(
        lambda *inputs: PARTS["forcing"](*inputs), input_signature=[tf.TensorSpec(s, "float32") for s in shapes]
    )
    inputs = (grid(), boxes, labels, UNMATCHED, weights)
    assert_same(function(*inputs), PARTS["forcing"](*inputs))


@pytest.mark.parametrize("name", PARTS)
def test_config_round_trip(name):
    config = keras.saving.serialize_keras_object(PARTS[name])
    assert keras.saving.deserialize_keras_object(config) == PARTS[name]
