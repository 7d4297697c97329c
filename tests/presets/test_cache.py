"""The cache: a folder under its own name is whole, whoever fails or races on the way."""

import os
import threading

import pytest

from keras_detect.presets import cache
from keras_detect.presets.cache import CacheError, cached


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_where_it_lies(monkeypatch, tmp_path, home):
    assert cache.home() == home
    monkeypatch.delenv("KERAS_DETECT_HOME")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert cache.home() == tmp_path / "keras" / "keras_detect"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.home() == tmp_path / ".keras" / "keras_detect"


def test_built_once(home):
    calls = []

    def build(folder):
        calls.append(folder)
        assert not list(folder.iterdir())
        (folder / "file").write_text("whole")

    assert cached("a", build) == cached("a", build) == home / "a"
    assert len(calls) == 1 and (home / "a" / "file").read_text() == "whole"
    assert os.listdir(home) == ["a"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_nothing_and_can_be_repeated(home, failure):
    def build(folder):
        (folder / "half").write_text("half")
        raise failure

    with pytest.raises(failure):
        cached("a", build)
    assert not os.listdir(home)
    cached("a", lambda folder: (folder / "file").touch())
    assert os.listdir(home / "a") == ["file"]


def test_two_at_once_leave_one_whole_folder(home):
    barrier = threading.Barrier(4)

    def build(folder):
        barrier.wait()  # all four build before any is done
        for index in range(20):
            (folder / str(index)).write_text(threading.current_thread().name)

    threads = [threading.Thread(target=cached, args=("a", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.listdir(home) == ["a"]
    assert len({file.read_text() for file in (home / "a").iterdir()}) == 1 and len(os.listdir(home / "a")) == 20


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "file" / "home"))  # below a file: also root cannot
    with pytest.raises(CacheError) as error:
        cached("a", lambda folder: None)
    assert "file/home" in str(error.value) and "KERAS_DETECT_HOME" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "/a", ".hidden"])
def test_a_key_is_a_plain_name(key):
    with pytest.raises(ValueError, match="plain file name"):
        cached(key, lambda folder: None)


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_holds_is_not(home):
    for name in (".work-deadbeef", "preset"):
        (home / name / "half").mkdir(parents=True)
    with cache.work_folder() as folder, cache.work_folder() as other:
        assert folder.parent == other.parent == home
        assert sorted(os.listdir(home)) == sorted(["preset", folder.name, other.name])
    assert os.listdir(home) == ["preset"]


def test_a_full_disk_is_one_line(home):
    def build(folder):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("a library's own words") from error

    with pytest.raises(CacheError, match=r"home' \(No space left on device\)\. Set the environment variable KERAS_DET"):
        cached("a", build)
    assert not os.listdir(home)


def test_only_what_the_cache_wrote_is_listed_and_removed(home, tmp_path):
    for name in ("row", "a-0123456789ab", "other", "b-0123456789ab", "c-0123456789ab"):
        (home / name).mkdir(parents=True)
        (home / name / "config.json").write_text("12345")
    (home / "b-0123456789ab" / "diary.txt").touch()
    (home / "d-0123456789ab").symlink_to(home / "other")
    (home / "e-0123456789ab").write_text("a file")
    found = cache.entries(("row",), ("config.json", "weights.h5"))
    assert found == {"a-0123456789ab": 5, "c-0123456789ab": 5, "row": 5}
    cache.remove("row")
    assert "row" not in os.listdir(home) and len(os.listdir(home)) == 6
    for key in ("", "..", "a/b", ".work-deadbeef"):
        with pytest.raises(ValueError, match="plain file name"):
            cache.remove(key)
