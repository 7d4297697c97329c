import keras
import numpy as np
import pytest

from keras_detect.boxes import matchers
from tests.goldens import BACKEND, both_modes, compiled, golden_cases

host = keras.ops.convert_to_numpy
NAN, INF = np.nan, np.inf


def codes(match):
    """Upstream's way to write a match: a row, -1 for negative, -2 for ignored."""
    row, positive, ignored = (host(value) for value in match)
    assert row.dtype == np.int32
    assert not (positive & ignored).any()
    np.testing.assert_array_equal(row[~positive], 0)
    return np.where(positive, row, np.where(ignored, -2, -1))


def check(matcher, similarity, wanted, valid=None):
    similarity = np.array(similarity, "float32")
    valid = np.ones(similarity.shape[:-1], bool) if valid is None else np.array(valid)
    for function in both_modes(matcher):
        np.testing.assert_array_equal(codes(function(similarity, valid)), wanted)


@golden_cases("matcher/argmax/*")
def test_argmax_equals_upstream(case):
    settings = (
        "matched_threshold",
        "unmatched_threshold",
        "negatives_lower_than_unmatched",
        "force_match_for_each_row",
    )
    matcher = matchers.ArgMaxMatcher(**{name: case.info[name] for name in settings})
    check(matcher, case.inputs["sim"], case.outputs["match_results"], case.inputs["valid_rows"])


SIMILARITY = [
    [0.9, 0.4, 0.2, 0.5],
    [0.1, 0.4, 0.3, 0.7],
    [0.8, 0.1, 0.3, 0.6],
]


def test_thresholds_by_hand():
    # best per column: 0.9 (row 0), 0.4 (rows 0 and 1: 0), 0.3 (rows 1 and 2: 1), 0.7 (row 1)
    check(matchers.ArgMaxMatcher(matched_threshold=0.5), SIMILARITY, [0, -1, -1, 1])
    check(matchers.ArgMaxMatcher(matched_threshold=0.7, unmatched_threshold=0.4), SIMILARITY, [0, -2, -1, 1])
    swapped = matchers.ArgMaxMatcher(
        matched_threshold=0.7, unmatched_threshold=0.4, negatives_lower_than_unmatched=False
    )
    check(swapped, SIMILARITY, [0, -1, -2, 1])
    check(matchers.ArgMaxMatcher(matched_threshold=None), SIMILARITY, [0, 0, 1, 1])


def test_forcing_by_hand():
    # Rows 0 and 2 want column 0: row 0 has it. Row 1 wants column 3. Without row 0, row 2 gets column 0.
    forcing = matchers.ArgMaxMatcher(matched_threshold=0.95, unmatched_threshold=0.4, force_match_for_each_row=True)
    check(forcing, SIMILARITY, [0, -2, -1, 1])
    check(forcing, SIMILARITY, [2, -2, -1, 1], valid=[False, True, True])
    check(forcing, SIMILARITY, [-2, -2, -1, -2], valid=[False] * 3)


def test_rows_that_are_not_valid_still_match_by_threshold():
    check(matchers.ArgMaxMatcher(matched_threshold=0.5), SIMILARITY, [0, -1, -1, 1], valid=[False] * 3)


MATCHERS = {
    "threshold": matchers.ArgMaxMatcher(matched_threshold=0.5),
    "any": matchers.ArgMaxMatcher(matched_threshold=None),
    "forcing": matchers.ArgMaxMatcher(matched_threshold=0.5, unmatched_threshold=0.4, force_match_for_each_row=True),
    "swapped": matchers.ArgMaxMatcher(
        matched_threshold=0.5,
        unmatched_threshold=0.4,
        negatives_lower_than_unmatched=False,
        force_match_for_each_row=True,
    ),
    "bipartite": matchers.BipartiteMatcher(),
}


@pytest.mark.parametrize("name", MATCHERS)
def test_without_ground_truth_every_anchor_is_negative(name):
    check(MATCHERS[name], np.zeros((0, 3)), [-1, -1, -1])
    check(MATCHERS[name], np.zeros((2, 0, 3)), [[-1, -1, -1]] * 2)


@pytest.mark.parametrize("name", MATCHERS)
def test_nan_and_minus_infinity_never_match(name):
    check(MATCHERS[name], [[NAN, NAN, -INF]], [-1, -1, -1])
    # Row 1 is the only one possible for columns 0 and 2, and no row is for column 1.
    wanted = [-1, -1, 1] if name == "bipartite" else [1, -1, 1]
    check(MATCHERS[name], [[NAN, NAN, -INF], [0.6, -INF, 0.9]], wanted)


@pytest.mark.parametrize("name", MATCHERS)
def test_a_batch_equals_its_images(name):
    rng = np.random.default_rng(0)
    similarity, valid = rng.uniform(size=(2, 3, 5, 7)).astype("float32"), rng.uniform(size=(2, 3, 5)) < 0.7
    matcher = compiled(MATCHERS[name].__call__)
    together = codes(matcher(similarity, valid))
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(together[index], codes(matcher(similarity[index], valid[index])))


def test_more_truths_than_anchors():
    # Rows want columns 0, 0, 1, 1: forcing gives them to rows 0 and 2; greedily 0.9 (row 1) and then 0.8 (row 2) win.
    similarity = [[0.6, 0.1], [0.9, 0.2], [0.1, 0.8], [0.3, 0.7]]
    check(MATCHERS["forcing"], similarity, [0, 2])
    check(MATCHERS["threshold"], similarity, [1, 2])
    check(MATCHERS["bipartite"], similarity, [1, 2])


def test_bipartite_by_hand():
    # 0.9 (row 0, column 0) first; then 0.7 (row 1, column 3); row 2 is left with 0.3 in column 2.
    check(matchers.BipartiteMatcher(), SIMILARITY, [0, -1, 2, 1])
    # Without row 1: 0.9, and then row 2 has its 0.6 in column 3.
    check(matchers.BipartiteMatcher(), SIMILARITY, [0, -1, -1, 2], valid=[True, False, True])
    check(matchers.BipartiteMatcher(), SIMILARITY, [-1, -1, -1, -1], valid=[False] * 3)
    check(matchers.BipartiteMatcher(), [[-4.0, -1.0], [-3.0, -2.0]], [1, 0])  # distances are negative


def greedy(similarity):
    similarity, result = similarity.copy(), np.full(similarity.shape[1], -1)
    for _ in range(min(similarity.shape)):
        row, column = np.unravel_index(np.argmax(similarity), similarity.shape)
        result[column] = row
        similarity[row], similarity[:, column] = -INF, -INF
    return result


@pytest.mark.parametrize("shape", [(6, 40), (12, 9), (1, 1), (8, 8)])
def test_bipartite_equals_a_plain_loop(shape):
    similarity = np.random.default_rng(1).uniform(-1, 1, size=shape).astype("float32")
    check(matchers.BipartiteMatcher(), similarity, greedy(similarity))


def test_bipartite_ties():
    check(matchers.BipartiteMatcher(), np.full((2, 3), 0.5), [0, 1, -1])


def test_unknown_batch_size():
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has unknown sizes")
    import tensorflow as tf

    similarity = np.random.default_rng(2).uniform(size=(3, 4, 6)).astype("float32")
    valid = np.ones((3, 4), bool)
    for matcher in MATCHERS.values():
        signature = [tf.TensorSpec((None, 4, None), "float32"), tf.TensorSpec((None, 4), "bool")]
        if isinstance(matcher, matchers.BipartiteMatcher):  # its number of steps needs the number of anchors
            signature[0] = tf.TensorSpec((None, 4, 6), "float32")
        function = tf.function(matcher.__call__, input_signature=signature)
        np.testing.assert_array_equal(codes(function(similarity, valid)), codes(matcher(similarity, valid)))


def test_wrong_thresholds_are_named():
    with pytest.raises(ValueError, match=r"unmatched_threshold <= matched_threshold.*0.5.*0.6"):
        matchers.ArgMaxMatcher(matched_threshold=0.5, unmatched_threshold=0.6)
    with pytest.raises(ValueError, match="unmatched_threshold <= matched_threshold"):
        matchers.ArgMaxMatcher(matched_threshold=None, unmatched_threshold=0.6)
    with pytest.raises(ValueError, match="must differ"):
        matchers.ArgMaxMatcher(matched_threshold=0.5, negatives_lower_than_unmatched=False)


@pytest.mark.parametrize("name", MATCHERS)
def test_config_round_trip(name):
    config = keras.saving.serialize_keras_object(MATCHERS[name])
    assert keras.saving.deserialize_keras_object(config) == MATCHERS[name]
