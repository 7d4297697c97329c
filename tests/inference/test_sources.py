"""What files, folders, globs and cameras a user's names stand for."""

import pathlib

import pytest

from keras_detect.inference import find_sources, image_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "notes.txt", "clip.mp4", "deep/a.png", "deep/deeper/c.PNG", "deep/.thumbs/x.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "in" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return pathlib.Path("in")


def names(paths, tree):
    return [path.relative_to(tree).as_posix() for path in paths]


def test_folders(tree):
    sources = find_sources(tree)
    assert names(sources.images, tree) == ["a.png", "b.jpg"] and names(sources.videos, tree) == ["clip.mp4"]
    assert sources.camera is None
    sources = find_sources([str(tree)], recursive=True)
    assert names(sources.images, tree) == ["a.png", "b.jpg", "deep/a.png", "deep/deeper/c.PNG"]
    assert names(image_files(tree, recursive=True), tree) == names(sources.images, tree)


def test_globs(tree):
    assert names(find_sources("in/*.png").images, tree) == ["a.png"]
    assert names(find_sources("in/**/a.*").images, tree) == ["a.png", "deep/a.png"]
    assert names(find_sources("in/*").videos, tree) == ["clip.mp4"]
    (tree / "b[1].png").write_bytes(b"")
    assert names(find_sources("in/b[1].png").images, tree) == ["b[1].png"]  # a file of that name comes first


def test_several_inputs_of_several_kinds(tree):
    sources = find_sources([tree / "b.jpg", "in/deep", "in/clip.mp4", "0"])
    assert names(sources.images, tree) == ["b.jpg", "deep/a.png"]
    assert names(sources.videos, tree) == ["clip.mp4"] and sources.camera == 0
    assert find_sources(2).camera == 2
    pathlib.Path("7").write_bytes(b"")
    assert find_sources("7").images == [pathlib.Path("7")]  # a file of that name comes first


def test_what_an_earlier_run_has_drawn_is_no_input(tree):
    (tree / "deep" / "drawn").mkdir()
    (tree / "deep" / "drawn" / "a.jpg").write_bytes(b"")
    drawn = tree / "deep" / "drawn"
    assert len(find_sources(tree, recursive=True).images) == 5
    assert len(find_sources(tree, recursive=True, leave_out=drawn).images) == 4
    assert len(find_sources("in/**/*.jpg", leave_out=drawn).images) == 1
    assert len(find_sources(drawn, leave_out=drawn).images) == 1  # named itself


def test_what_is_refused(tree):
    for name, kind, message in (
        ("nowhere.jpg", FileNotFoundError, r"No such image or folder: nowhere\.jpg"),
        ("in/*.gif", FileNotFoundError, r"No image or video matches in/\*\.gif"),
        ("in/empty", ValueError, "holds no image or video.*--recursive"),
        ([], ValueError, "No image, video or camera"),
        ([0, 1], ValueError, "One camera at a time. Received: 0 and 1"),
    ):
        with pytest.raises(kind, match=message):
            find_sources(name)
    with pytest.raises(ValueError, match=r"holds no image or video\.$"):
        find_sources("in/empty", recursive=True)
