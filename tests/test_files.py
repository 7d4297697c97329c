"""Files and folders appear whole or not at all."""

import errno
import json
import os
import re

import pytest

from keras_detect import files
from keras_detect.files import replacing_file, replacing_folder, settle, write_file, write_json
from tests import kills


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


def no_exchange(*_):
    raise OSError(errno.ENOSYS, "the file system cannot")


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def put(folder, text):
    with replacing_folder(folder) as part:
        for name in "ab":
            write_file(part / name, text)


class Replaced(kills.Case):
    """A folder of two files over an older one."""

    def prepare(self, folder):
        put(folder / "out", "old")

    def act(self, folder):
        put(folder / "out", "new")

    def check(self, folder, error=None):
        settle(folder / "out")
        (found,) = set(content(folder / "out").values())
        assert set(content(folder / "out")) == {"a", "b"}
        put(folder / "out", "next")
        assert set(content(folder / "out").values()) == {"next"}
        assert os.listdir(folder) == ["out"]
        return found


class WithoutExchange(Replaced):
    """The same on a file system that cannot exchange two folders."""

    def act(self, folder):
        files.exchange = no_exchange
        super().act(folder)


class ReplacedFile(kills.Case):
    """A file over an older one."""

    def prepare(self, folder):
        write_file(folder / "out.txt", "old")

    def act(self, folder):
        write_file(folder / "out.txt", "new" * 100_000)

    def check(self, folder, error=None):
        found = (folder / "out.txt").read_text()
        assert found in ("old", "new" * 100_000)
        if error is not None:
            assert "File too large" in error and str(folder / "out.txt") in error and "part_of" not in error
            assert os.listdir(folder) == ["out.txt"]
        write_file(folder / "out.txt", "next")
        assert content(folder) == {"out.txt": "next"}
        return found[:3]


@pytest.mark.parametrize(("case", "renames"), [(Replaced, 1), (WithoutExchange, 2), (ReplacedFile, 1)])
def test_whoever_is_killed_leaves_the_old_or_the_new(tmp_path, case, renames):
    found = kills.at_every_rename(case, tmp_path)
    assert set(found) == {"old", "new"} and sum(found.values()) >= 2 + 2 * renames
    found = kills.at_random_moments(case, tmp_path)
    assert sum(found.values()) == 100 and set(found) <= {"old", "new"}


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    assert kills.on_a_full_disk(ReplacedFile, tmp_path, [0, 1, 4096, 299_999, 300_000]) == {"old": 4, "new": 1}


def test_both_renames_fail(tmp_path, monkeypatch):
    put(tmp_path / "out", "old")
    rename = os.rename

    def failing(one, other):
        if other == tmp_path / "out":
            raise OSError(errno.EIO, "broken", str(one))
        rename(one, other)

    monkeypatch.setattr(files, "exchange", no_exchange)
    monkeypatch.setattr(files.os, "rename", failing)
    with pytest.raises(OSError, match=rf"broken: '{tmp_path}/out'"):
        put(tmp_path / "out", "new")
    monkeypatch.setattr(files.os, "rename", rename)
    settle(tmp_path / "out")
    assert content(tmp_path / "out") in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"})
    put(tmp_path / "out", "next")
    assert os.listdir(tmp_path) == ["out"]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    with replacing_file(tmp_path / "a.txt") as one, replacing_folder(tmp_path / "out") as part:
        write_file(part / "a", "one")
        with replacing_file(tmp_path / "a.txt") as two:
            assert one != two
            two.write_text("two")
            put(tmp_path / "out", "two")
            assert one.exists() and part.exists()
        assert (tmp_path / "a.txt").read_text() == "two" and content(tmp_path / "out")["a"] == "two"
        one.write_text("one")
    assert (tmp_path / "a.txt").read_text() == "one" and content(tmp_path / "out") == {"a": "one"}
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "out"]


def test_what_nobody_holds_is_swept_and_nothing_else(tmp_path):
    for name in ("part_of_a.txt", "part_of_3_a.txt", "part_of_b.txt"):
        (tmp_path / name).write_text("half")
    for name in (".out.abcdefgh", ".out.x", ".out.with_own", ".other.abcdefgh"):
        (tmp_path / name / ("mine" if name == ".out.with_own" else "new")).mkdir(parents=True)
    (tmp_path / ".out.filefile").touch()
    write_file(tmp_path / "a.txt", "whole")
    put(tmp_path / "out", "whole")
    left = [".other.abcdefgh", ".out.filefile", ".out.with_own", ".out.x", "a.txt", "out", "part_of_b.txt"]
    assert sorted(os.listdir(tmp_path)) == left


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "part_of_a.txt").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "part_of_2_a.txt")
    write_file(tmp_path / "a.txt", "whole")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "a.txt").read_text() == "whole"
    assert not (tmp_path / "a.txt").is_symlink()


def test_errors_name_what_the_user_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(NotADirectoryError, match=re.escape(str(tmp_path / "file"))),
        replacing_folder(tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    for error in (OSError(28, "x", "y"), RuntimeError("Unable to flush (errno = 28: No space left on device)")):
        with pytest.raises(OSError) as caught, replacing_folder(tmp_path / "out"):
            raise error
        assert str(caught.value) == (
            "[Errno 28] No space left on device; nothing was written, and the previous content is unchanged: "
            f"'{tmp_path}/out'"
        )
    with pytest.raises(PermissionError) as caught, replacing_folder(tmp_path / "out") as part:
        raise PermissionError(errno.EACCES, "Permission denied", str(part / "weights.h5"))
    assert str(caught.value) == f"[Errno 13] Permission denied: '{tmp_path}/out'"
    assert os.listdir(tmp_path) == ["file"]
