"""The tables of what belongs to an object and to an image, and the check of class names."""

import pytest

from keras_detect import schema


@pytest.fixture
def tables(monkeypatch):
    """Fields that a test adds are gone after it."""
    monkeypatch.setattr(schema, "_OBJECT_FIELDS", dict(schema._OBJECT_FIELDS))
    monkeypatch.setattr(schema, "_IMAGE_FIELDS", dict(schema._IMAGE_FIELDS))


def test_the_table_says_where_a_field_occurs():
    found = {field.key for field in schema.object_fields(schema.DETECTIONS)}
    annotated = {field.key for field in schema.object_fields(schema.GROUND_TRUTH)}
    assert found >= {"boxes", "labels", "scores", "masks", "keypoints", "keypoint_scores", "track_ids"}
    assert found.isdisjoint({"areas", "weights", "is_crowd"})
    assert annotated >= {"boxes", "labels", "areas", "weights", "is_crowd", "masks", "keypoint_visibility"}
    assert annotated.isdisjoint({"scores", "keypoint_scores"})
    assert {field.key for field in schema.object_fields()} == found | annotated


def test_padding_rows_are_zeros_with_label_minus_one():
    paddings = {field.key: field.padding for field in schema.object_fields()}
    assert {key for key, padding in paddings.items() if padding != 0} == {"labels", "track_ids"}
    assert paddings["labels"] == paddings["track_ids"] == -1


def test_a_key_has_one_row(tables):
    field = schema.ObjectField(key="heights", singular="height")
    assert schema.register_object_field(field) is schema.register_object_field(field)
    with pytest.raises(ValueError, match="'heights' is already used"):
        schema.register_object_field(schema.ObjectField(key="heights", singular="height", dtype="int32"))
    with pytest.raises(ValueError, match="singular='height' is already used by the field 'heights'"):
        schema.register_object_field(schema.ObjectField(key="statures", singular="height"))
    with pytest.raises(ValueError, match="'image_size' is already used"):
        schema.register_object_field(schema.ObjectField(key="image_size", singular="size"))


def test_a_row_must_make_sense():
    with pytest.raises(ValueError, match=r"ends in \(2,\)"):
        schema.ObjectField(key="corners", singular="corners", shape=(4, 3), moves=schema.AS_POINTS)
    with pytest.raises(ValueError, match="moves must be one of"):
        schema.ObjectField(key="corners", singular="corners", moves="away")
    with pytest.raises(ValueError, match="occurs is"):
        schema.ImageField(key="weather", occurs="ground_truth")


@pytest.mark.parametrize(
    "names, message",
    [
        ("cat", r"list of names.*\['cat'\]"),
        (7, "list of names"),
        ({0: "a", 1: "b"}, r"in label order. Received a dict: \{0: 'a'"),
        ({"a", "b"}, "in label order. Received a set"),
        (["a", "b", "a"], "repeated: a"),
        (["a\x00"], "can be written"),
        (["a"], r"each of the 2 classes.*num_classes=1"),
    ],
)
def test_class_names_that_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        schema.check_class_names(names, 2)


def test_class_names_become_a_tuple_of_strings():
    assert schema.check_class_names(["a", 2]) == ("a", "2")
