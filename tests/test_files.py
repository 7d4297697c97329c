"""Files and folders appear whole or not at all."""

import json

import pytest

from keras_detect.files import replacing_file, replacing_folder, write_file, write_json


def test_text_and_bytes_are_written_as_given(tmp_path):
    assert write_file(tmp_path / "new" / "a.txt", "é\n") == tmp_path / "new" / "a.txt"
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa9\n"
    write_file(tmp_path / "new" / "a.txt", b"\x00\r\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\x00\r\n"
    write_json(tmp_path / "a.json", {"é": [1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"é": [1.5]}


def test_a_file_that_fails_leaves_the_older_one_and_nothing_else(tmp_path):
    write_file(tmp_path / "a.keras", "old")
    with pytest.raises(RuntimeError, match="stop"), replacing_file(tmp_path / "a.keras") as part:
        assert part.suffix == ".keras"
        part.write_text("half")
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.keras", float("nan"))
    assert (tmp_path / "a.keras").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


def test_a_folder_replaces_the_older_one_when_it_is_whole(tmp_path):
    for content in ("1", "2"):
        with replacing_folder(tmp_path / "new" / "folder") as part:
            assert not list(part.iterdir())
            (part / f"{content}.txt").write_text(content)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["2.txt"]
    with pytest.raises(RuntimeError, match="stop"), replacing_folder(tmp_path / "new" / "folder") as part:
        (part / "3.txt").write_text("3")
        raise RuntimeError("stop")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["2.txt"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
