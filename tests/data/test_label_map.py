"""Label maps in three forms, and what is wrong with others."""

import pytest

from keras_detect.data import read_label_map, write_label_map
from tests import goldens


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_pbtxt(tmp_path):
    text = """# made by hand
    item { id: 5 name: '/m/bird' display_name: "B\\303\\251b\\u00e9" unknown { a: 1 } }
    item: < name: "cat", id: 1; keypoints { id: 0 label: "nose" } keypoints { id: 1 label: "tail" } >
    item { id: 0 name: "background" }"""
    found = read_label_map(written(tmp_path, "a.pbtxt", text.replace("\\u00e9", "é")))
    assert found.names == {1: "cat", 5: "/m/bird"}
    assert found.class_names == ["cat", "Bébé"]
    assert found.keypoint_names == ("nose", "tail")
    assert found.ids_by_text() == {"cat": 1, "/m/bird": 5, "Bébé": 5}


def test_json_and_lines(tmp_path):
    assert read_label_map(written(tmp_path, "a.json", '{"2": "b", "1": "a"}')).class_names == ["a", "b"]
    assert read_label_map(written(tmp_path, "b.json", '["a", "b"]')).names == {1: "a", 2: "b"}
    assert read_label_map(written(tmp_path, "c.json", '{"class_names": ["a"]}')).names == {1: "a"}
    assert read_label_map(written(tmp_path, "c.txt", "a\n b c \n\n")).class_names == ["a", "b c"]


def test_text_format_under_another_name_with_adjacent_strings_and_keypoints_of_two_classes(tmp_path):
    text = """# a map
    item {
      id: 1 name: 'face'
      display_name: "a face, "
        'seen from ' # protobuf joins adjacent strings
        "ahead"
      keypoints { id: 0 label: "eye" } keypoints { id: 1 label: "mouth" }
    }
    item { id: 2 name: 'person' keypoints { id: 3 label: "FOOT" } keypoints { id: 2 label: "HAND" } }"""
    found = read_label_map(written(tmp_path, "label_map.txt", text))
    assert found.class_names == ["a face, seen from ahead", "person"]
    assert found.keypoint_names == ("eye", "mouth", "HAND", "FOOT")
    assert found.class_keypoints == {1: ("eye", "mouth"), 2: ("FOOT", "HAND")}
    assert read_label_map(written(tmp_path, "names.txt", "item\nitem 2\n")).class_names == ["item", "item 2"]


def test_label_maps_of_users():
    """20 files; the one with curly quotes is no text format, to protobuf either."""
    files = [path for path in goldens.require_shared("data/label_maps_wild").iterdir() if path.suffix != ".tsv"]
    found, refused = {}, []
    for file in files:
        try:
            found[file.name] = read_label_map(file)
        except ValueError:
            refused.append(file.name)
    assert [name.split("__")[-1] for name in refused] == ["number-plate-detection.pbtxt"] and len(found) == len(
        files
    ) - 1
    (hand,) = (names for file, names in found.items() if file.endswith(".txt"))
    assert hand.class_names == ["open", "closed", "pinch", "point", "face", "tip", "pinchtip"]
    (person,) = (names for file, names in found.items() if "face_person_with_keypoints" in file)
    assert len(person.class_keypoints[1]) == 6 and len(person.keypoint_names) > 20
    (material,) = (names for file, names in found.items() if file.endswith("material_labels.pbtxt"))
    assert material.class_names[2].endswith("gaskets and furniture")


@pytest.mark.parametrize("name", ["a.pbtxt", "a.json", "a.txt"])
def test_round_trip(tmp_path, name):
    names = ["cat", 'a "b" \\ c', "ü, # {"]
    assert read_label_map(write_label_map(tmp_path / name, names)).class_names == names


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.pbtxt", "item { id: 1\n name: 'a'", r"a.pbtxt:2: item: the text ends, but the message opened in line 1"),
        ("a.pbtxt", "item { id: 1 }", "an item needs an id and a name"),
        ("a.pbtxt", "item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "a unique integer"),
        ("a.pbtxt", "item {\n id: x name: 'a' }", "a.pbtxt:2: item.id: found x; supported: an integer"),
        ("a.pbtxt", "model { ssd { } }", "a.pbtxt:1: model: a label map consists of item"),
        ("a.pbtxt", "item { id: 1 name: 'a }", "a.pbtxt:1: "),
        ("a.pbtxt", "item { id: 1 name: '\\377' }", "a.pbtxt:1: item.name: the string's escapes do not form UTF-8"),
        ("a.pbtxt", "", "it lists no class"),
        ("a.pbtxt", "{" * 1000, "a.pbtxt:1: expected a field name"),
        ("a.pbtxt", "item { id: 1 name: 'a' } item { id: 2 name: 'a' }", "is used for two classes"),
        ("a.json", "[1]", 'expected {"1": "cat", ...}'),
        ("a.json", "[" * 100_000, "is not a label map"),
        ("a.json", '{"x": "a"}', "invalid literal"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_label_map(written(tmp_path, name, text))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such label map"):
        read_label_map(tmp_path / "a.json")


def test_a_broken_write_leaves_the_old_map(tmp_path, monkeypatch):
    path = write_label_map(tmp_path / "label_map.pbtxt", ["cat"])

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_label_map(path, ["dog", "bird"])
    assert read_label_map(path).class_names == ["cat"]
    assert [file.name for file in tmp_path.iterdir()] == ["label_map.pbtxt"]
