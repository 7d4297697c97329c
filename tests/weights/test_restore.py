"""Strict restoring: one claim on either side, every complaint in one error, nothing half restored."""

import keras
import numpy as np
import pytest

from keras_detect.weights.restore import RestoreError, RestoreReport, match, restore
from keras_detect.weights.tf2_object_checkpoint import CheckpointError


class Reader:
    """A checkpoint in memory; reading a key of `broken` fails as a damaged file does."""

    source = "ckpt-0"

    def __init__(self, values, broken=()):
        self.values, self.broken = values, broken
        self.shapes = {key: value.shape for key, value in values.items()}
        self.ignored = {"save_counter": "counts the saves of the checkpoint"}

    def read(self, key):
        if key in self.broken:
            raise CheckpointError(f"ckpt-0: cannot read {key!r}")
        return self.values[key]


def variables():
    return {"body/kernel": keras.Variable(np.zeros((2, 3), "float32")), "head/bias": keras.Variable(np.zeros(3))}


VALUES = {"model/a": np.arange(6, dtype="float32").reshape(2, 3), "model/b": np.float32([7, 8, 9])}
NAMES = {"body/kernel": "model/a", "head/bias": "model/b"}


def test_everything_is_restored():
    ours = variables()
    report = restore(ours, NAMES, Reader(VALUES))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours["body/kernel"]), VALUES["model/a"])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours["head/bias"]), [7, 8, 9])
    assert (dict(report.restored), dict(report.kept)) == (NAMES, {})
    assert dict(report.ignored) == {"save_counter": "counts the saves of the checkpoint"}


def test_a_function_as_name_map():
    assert dict(match({"x": (2, 3), "y": (3,)}, {"x": "model/a", "y": "model/b"}.get, Reader(VALUES)).assignments) == {
        "x": "model/a",
        "y": "model/b",
    }


def test_every_complaint_stands_in_one_error_and_nothing_is_assigned():
    ours = {
        **variables(),  # body/kernel fits
        "head/bias": keras.Variable(np.zeros(4)),
        "again": keras.Variable(np.zeros((2, 3))),
        "nameless": keras.Variable(np.zeros(1)),
        "absent": keras.Variable(np.zeros(2)),
    }
    names = {**NAMES, "again": "model/a", "absent": "model/c"}
    with pytest.raises(RestoreError) as error:
        restore(ours, names, Reader({**VALUES, "model/left": np.zeros((5, 1))}))
    text = str(error.value)
    assert "The checkpoint ckpt-0 (3 variables) does not fit the model (5 variables); nothing was restored." in text
    assert "1 variables of the model have no corresponding name in the checkpoint:\n  nameless (1,)" in text
    assert "1 variables of the model are not in the checkpoint:\n  absent (2,): expected under 'model/c'" in text
    assert "1 variables of the checkpoint are used twice:\n  'model/a' is claimed by body/kernel and again" in text
    assert "head/bias: shape (4,) in the model, (3,) in the checkpoint ('model/b')" in text
    assert "1 variables of the checkpoint are not used by the model:\n  'model/left' (5, 1)" in text
    assert not np.any(keras.ops.convert_to_numpy(ours["body/kernel"]))


def test_a_damaged_value_leaves_the_model_as_it_was():
    ours = variables()
    with pytest.raises(CheckpointError, match="cannot read 'model/b'"):
        restore(ours, NAMES, Reader(VALUES, broken=("model/b",)))
    assert not np.any(keras.ops.convert_to_numpy(ours["body/kernel"]))


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (-np.inf, "infinite")])
def test_a_weight_that_is_no_number_leaves_the_model_as_it_was(value, what):
    ours = variables()
    message = rf"ckpt-0 holds a weight that is {what}, for head/bias: its training had diverged\. Nothing was restored"
    with pytest.raises(RestoreError, match=message):
        restore(ours, NAMES, Reader({**VALUES, "model/b": np.float32([7, value, 9])}))
    assert not keras.ops.convert_to_numpy(ours["body/kernel"]).any()


def test_rules_keep_and_ignore_with_their_reasons():
    reader = Reader({**VALUES, "model/unused/kernel": np.zeros(2)})
    matched = match(
        {"body/kernel": (2, 3), "head/bias": (3,), "seed": (2,)},
        NAMES,
        reader,
        skip=((r"head/.*", "left out"), (r"seed", "a random state")),
        ignore=((r"model/unused/.*", "never used"),),
    )
    assert dict(matched.assignments) == {"body/kernel": "model/a"}
    assert dict(matched.kept) == {"head/bias": "left out", "seed": "a random state"}
    assert dict(matched.ignored) == {
        "save_counter": "counts the saves of the checkpoint",
        "model/b": "left out",
        "model/unused/kernel": "never used",
    }
    with pytest.raises(RestoreError, match="not used by the model"):  # a rule matches a whole name, not a part
        match({"body/kernel": (2, 3), "head/bias": (3,)}, NAMES, reader, ignore=((r"model/unused", "never used"),))


def test_a_head_may_differ_in_shape_but_is_restored_where_it_does_not():
    rule = ((r"head/.*", "class head"),)
    same = match({"body/kernel": (2, 3), "head/bias": (3,)}, NAMES, Reader(VALUES), may_differ=rule)
    assert dict(same.assignments) == NAMES and not same.kept
    other = match({"body/kernel": (2, 3), "head/bias": (5,)}, NAMES, Reader(VALUES), may_differ=rule)
    assert dict(other.assignments) == {"body/kernel": "model/a"}
    assert dict(other.kept) == {"head/bias": "class head (shape (5,) here, (3,) in the checkpoint)"}
    with pytest.raises(RestoreError, match=r"body/kernel: shape \(9, 9\) in the model, \(2, 3\) in the checkpoint"):
        match({"body/kernel": (9, 9), "head/bias": (5,)}, NAMES, Reader(VALUES), may_differ=rule)


def test_a_long_list_is_cut():
    with pytest.raises(RestoreError) as error:
        match({}, {}, Reader({f"model/{index}": np.zeros(1) for index in range(1000)}))
    assert "1000 variables of the checkpoint are not used by the model" in str(error.value)
    assert str(error.value).endswith("... and 980 more")


def test_no_variables_at_all():
    matched = match({}, {}, Reader({}))
    assert not matched.assignments and not matched.kept


def test_the_summary():
    report = RestoreReport("ckpt-0", {"a": "x", "b": "y"}, {"c": "class head"}, {f"s{i}": "slot" for i in range(6)})
    assert report.summary() == (
        "ckpt-0: restored 2 variables\n"
        "  kept as they were, class head: c\n"
        "  ignored in the checkpoint, slot: s0, s1, s2, s3, ... (6 in all)"
    )
    assert report.one_line() == (
        "ckpt-0: restored 2 variables, 1 kept as they were (class head), 6 ignored in the checkpoint"
    )


def test_the_log_names_the_variables_for_those_who_look_for_a_defect(caplog):
    report = RestoreReport("ckpt-0", {}, {f"head/{i}": f"fresh (shape {i} here)" for i in range(2)})
    with caplog.at_level("DEBUG", logger="absl"):
        report.log()
    (brief, long) = caplog.records
    assert (brief.levelname, brief.message) == (
        "WARNING",
        "ckpt-0: restored 0 variables, 2 kept as they were (fresh)",
    )
    assert long.levelname == "DEBUG" and "head/1" in long.message
