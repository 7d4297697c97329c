"""What a path of a data set may name: every odd thing in every place where a reader meets a path ends in one line."""

import contextlib
import itertools
import json
import os
import pathlib
import random
import signal
import socket

import pytest

from keras_detect.data import check_dataset, load_dataset, paths, read_label_map, shapes_dataset, write_dataset
from keras_detect.data.image import as_pixels
from keras_detect.data.paths import DataPathError, files_below, kind_of
from keras_detect.data.record import REFUSED
from keras_detect.inference import image_files

SECONDS = 10


class TooSlowError(BaseException):
    """Not an `Exception`, so that nothing takes it for bad input."""


@contextlib.contextmanager
def in_time():
    """Ends what hangs, such as opening a pipe that nobody writes to."""

    def stop(*_):
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make(kind, path, drawn):
    """Puts something odd at `path`; returns what a file that names it writes."""
    path = pathlib.Path(path)
    if os.path.lexists(path):
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    targets = {
        "link to zeros": "/dev/zero",
        "link to nothing": "/nowhere/at/all",
        "link to a process": "/proc/self/maps",
    }
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to("pipe")
    elif kind == "socket":
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    elif kind == "loop":
        path.symlink_to(path.with_name("loop"))
        path.with_name("loop").symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in targets:
        path.symlink_to(targets[kind])
    else:
        return {
            "device": drawn.choice(["/dev/zero", "/dev/urandom", "/dev/tty", "/dev/full"]),
            "system": drawn.choice(["/proc/kmsg", "/sys/kernel/notes", "/proc/self/mem"]),
            "zero byte": "a\0b.png",
            "long": "x" * drawn.choice([256, 5000, 100_000]) + ".png",
            "long way": "a/" * 5000 + "a.png",
            "up": "../" * drawn.randrange(3, 30) + "etc/passwd",
            "absent": f"absent_{drawn.randrange(10**6)}.png",
            "controls": "a\x1b[2J\x07.png",
        }[kind]
    return path.name


LYING = ("pipe", "link to a pipe", "socket", "loop", "folder", "link to zeros", "link to nothing", "link to a process")
NAMED = ("device", "system", "zero byte", "long", "long way", "up", "absent", "controls")

# place -> (format, file that lies there, or names it; how it names it)
FIRST = "shapes_0_00000"
PLACES = {
    "COCO's JSON": ("coco", "instances.json", None),
    "COCO's image": ("coco", f"images/{FIRST}.png", None),
    "VOC's annotation": ("voc", f"Annotations/{FIRST}.xml", None),
    "VOC's image": ("voc", f"JPEGImages/{FIRST}.png", None),
    "VOC's label map": ("voc", "label_map.json", None),
    "YOLO's data.yaml": ("yolo", "data.yaml", None),
    "YOLO's labels": ("yolo", f"labels/train/{FIRST}.txt", None),
    "YOLO's image": ("yolo", f"images/train/{FIRST}.png", None),
    "YOLO's orphan": ("yolo", "labels/train/orphan.txt", None),
    "CSV's table": ("csv", "annotations.csv", None),
    "CSV's second table": ("csv", "more.csv", None),
    "CSV's image": ("csv", f"images/{FIRST}.png", None),
    "TFRecord's file": ("tfrecord", "data.record-00000-of-00001", None),
    "TFRecord's label map": ("tfrecord", "label_map.pbtxt", None),
    "a split's list": ("voc", "ImageSets/Main/train.txt", None),
    "file_name": ("coco", "instances.json", (f'"{FIRST}.png"', "json")),
    "VOC's filename": ("voc", f"Annotations/{FIRST}.xml", (f"{FIRST}.png", "xml")),
    "a column": ("csv", "annotations.csv", (f"{FIRST}.png", "plain")),
    "path": ("yolo", "data.yaml", ("path: .", "path: {}")),
    "train": ("yolo", "data.yaml", ("train: images/train", "train: {}")),
    "a list of places": ("yolo", "data.yaml", ("train: images/train", "train: [{}]")),
    "a list of images": ("yolo", "list.txt", None),
    "a line of a list": ("yolo", "list.txt", (f"images/train/{FIRST}.png", "plain")),
}


def written(text, style):
    if style == "json":
        return json.dumps(text)
    if style == "plain":
        return text.replace("\n", " ")
    return (
        style.format(json.dumps(text))
        if "{}" in style
        else text.replace("\0", "").replace("\x1b", "").replace("\x07", "")
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    data = shapes_dataset(2, image_size=24, class_names=["circle", "star"], empty_share=0.0)
    for format in ("coco", "voc", "yolo", "csv", "tfrecord"):
        write_dataset(data, folder / format, format, split=None)
    (folder / "yolo" / "list.txt").write_text("".join(f"images/train/shapes_0_{i:05d}.png\n" for i in range(2)))
    (folder / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "voc" / "ImageSets" / "Main" / "train.txt").write_text(f"{FIRST}\nshapes_0_00001\n")
    return folder


def cases():
    """(place, kind, number) of all places and kinds, those of names drawn twice with other values."""
    made = []
    for place, (_, _, names) in PLACES.items():
        kinds = LYING if names is None else NAMED + LYING
        made += [(place, kind, number) for kind, number in itertools.product(kinds, range(1 if names is None else 2))]
    return made


def copy(source, target):
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.relative_to(source))


def prepared(case, good, folder):
    """A good set of the place's format with something odd in the place; returns `(folder, split)`."""
    place, kind, number = case
    drawn = random.Random(str(case))
    format, file, names = PLACES[place]
    copy(good / format, folder)
    if names is None:
        if "images" in place:
            (folder / "data.yaml").write_text("train: list.txt\nnames: [circle, star]\n")
        make(kind, folder / file, drawn)
    else:
        if "line" in place:
            (folder / "data.yaml").write_text("train: list.txt\nnames: [circle, star]\n")
        odd = make(kind, folder / f"odd_{number}.png", drawn)
        odd = f"images/{odd}" if kind in LYING and place == "a line of a list" and number else odd
        text = (folder / file).read_text().replace(names[0], written(odd, names[1]))
        (folder / file).unlink()
        (folder / file).write_text(text)
    return folder, "train" if place == "a split's list" else None


def test_there_are_enough():
    assert len(cases()) >= 200


@pytest.mark.parametrize("place", PLACES)
def test_everything_odd_in_every_place(place, good, tmp_path):
    """Loading ends in a data set or in one line of a known error, in time; `check` ends in its table."""
    for number, case in enumerate(case for case in cases() if case[0] == place):
        folder, split = prepared(case, good, tmp_path / str(number))
        with in_time():
            try:
                data, error = load_dataset(folder, split), None
                assert len([example["image"] for example in data]) <= 2
            except (ValueError, FileNotFoundError) as caught:
                error = str(caught)
                assert len(error.splitlines()) == 1 and len(error) < 1500 and error.isprintable(), (case, error)
            report = check_dataset(folder, split)
        assert len(str(report)) < 5000
        if error is not None:
            assert not report.ok and any(row[0] == REFUSED for row in report.rows()), (case, error)


def test_kinds(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert [kind_of(tmp_path / name) for name in ("file", "link", ".", "absent", "file/absent")] == [
        "file",
        "file",
        "folder",
        None,
        None,
    ]
    wanted = {"pipe": "a named pipe", "socket": "a socket", "loop": "to itself", "link to nothing": "a broken link"}
    for kind, words in {**wanted, "link to zeros": "a device", "link to a process": "not a regular file"}.items():
        make(kind, tmp_path / "odd", None)
        with pytest.raises(DataPathError, match=f"odd.* {words}.*Expected a regular file or a folder"):
            kind_of(tmp_path / "odd")
        with in_time(), pytest.raises(DataPathError, match="odd"):
            read_label_map(tmp_path / "odd")
        with in_time(), pytest.raises(DataPathError, match="odd"):
            load_dataset(tmp_path / "odd")
        with in_time(), pytest.raises(DataPathError, match="odd"):
            as_pixels(tmp_path / "odd")
        with in_time(), pytest.raises(DataPathError, match="odd"):
            image_files([tmp_path / "odd"])
        for path in (tmp_path / "odd", tmp_path / "loop"):
            path.unlink(missing_ok=True)


def test_where_images_may_lie(good, tmp_path):
    """Inside the data set by any way; outside by a link in it, or by `data.yaml`."""
    copy(good / "coco", tmp_path / "in")
    (tmp_path / "outside").mkdir()
    os.link(good / "coco" / "images" / f"{FIRST}.png", tmp_path / "outside" / "a.png")
    content = json.loads((good / "coco" / "instances.json").read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] == 1]
    text = json.dumps(content)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "outside")

    def load(name, folder="in"):
        (tmp_path / folder / "annotations").mkdir(parents=True, exist_ok=True)
        file = tmp_path / folder / "annotations" / "instances.json"
        (tmp_path / "in" / "instances.json").unlink(missing_ok=True)
        file.write_text(text.replace(f'"{FIRST}.png"', f'"{name}"'))
        return load_dataset(tmp_path / folder)

    for name in (f"../images/{FIRST}.png", tmp_path / "in" / "images" / f"{FIRST}.png", "linked/a.png"):
        assert len(load(name)) == 1
    for name in (tmp_path / "outside" / "a.png", "../../outside/a.png", "/etc/passwd"):
        with pytest.raises(DataPathError, match=r"outside the data set's folder.*put a link to its folder there"):
            load(name)
    (tmp_path / "outside" / "classes.txt").write_text("c\n")
    for place in (tmp_path / "outside", "../outside"):
        (tmp_path / "yolo").mkdir(exist_ok=True)
        (tmp_path / "yolo" / "data.yaml").write_text(f"path: {place}\ntrain: .\nnames: [c]\n")
        assert len(load_dataset(tmp_path / "yolo")) == 1


def test_folders_of_images_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "data.yaml").write_text("train: /\nnames: [a]\n")
    for place in ("/", "/proc", "/sys", "/proc/self/fd"):
        (tmp_path / "data.yaml").write_text(f"train: {place}\nnames: [a]\n")
        with in_time(), pytest.raises(DataPathError, match="is not a folder of images"):
            load_dataset(tmp_path)
    monkeypatch.setattr(paths, "MOST_ENTRIES", 3)
    for number in range(4):
        (tmp_path / f"{number}.png").touch()
    with pytest.raises(DataPathError, match="more than 3 entries"):
        files_below(tmp_path, lambda name: True)
