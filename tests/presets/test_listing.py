"""Presets listed, described and cleared without a network, by the library and from the shell."""

import json
import os
import re

import pytest

from keras_detect import cli
from keras_detect.presets import clear, describe, descriptions, download, get, names
from tests.golden.parity_table import PAGE, archive_stem

NAME = "ssd_mobilenet_v2_320x320_coco17_tpu-8"
URL = "https://example.com/mine.tar.gz"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DETECT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "fetch", lambda *_, **__: pytest.fail("no network is needed"))
    return tmp_path / "home"


def run(*arguments):
    return cli.run(cli.parse(["keras-detect", "presets", *arguments]))


def cached(home, key, **metadata):
    (home / key).mkdir(parents=True)
    (home / key / "config.json").write_text("{}")
    (home / key / "metadata.json").write_text(json.dumps(metadata))


def test_every_preset_is_described():
    rows = {row["name"]: row for row in descriptions()}
    assert set(names()) < set(rows) and {"frcnn_inception_v100"} < set(rows)
    assert len({frozenset(row) for row in rows.values()}) == 1
    for name in names():
        assert rows[name]["addresses"] == list(get(name).addresses) and rows[name]["license"] == "Apache-2.0"
        published = rows[name]["published_map"]  # of boxes
        assert published is None or published > 10
        if get(name).tensorflow == 2:
            assert (published is None) == ("boxes" not in get(name).outputs)
        assert rows[name]["bytes"] is None
        assert (rows[name]["parameters"] is None) == (get(name).config is None)


def test_parity_and_parameters_are_those_of_the_page():
    table = {}
    for name, parameters, heads, scores in re.findall(
        r"^\| `(.*)` \| [\d,]+ \| ([\d,]+) \| [\d,]+ \| (\S+) \| (\S+) \|", PAGE.read_text(), re.M
    ):
        if not name.endswith("_img") and archive_stem(name) in names():
            table[archive_stem(name)] = (int(parameters.replace(",", "")), (float(heads), float(scores)))
    assert len(table) == 21
    for name in names():
        assert get(name).parity == table.get(name, (None, None))[1]
        assert name not in table or get(name).parameters == table[name][0]


def test_list_and_show(home, capsys):
    cached(home, NAME, parameters=5, coco_map=20.2)
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(descriptions()) + 2 and all(len(line) < 120 for line in lines)
    (line,) = [line for line in lines if line.startswith(NAME)]
    assert line.split() == [NAME, "zoo", "6,103,999", "20.2", "19", "0.0", "MiB"]
    assert run("show", NAME) == 0
    shown = capsys.readouterr().out
    for part in (get(NAME).url, "Apache-2.0", "6,103,999 parameters", "20.2 % mAP", "19 ms", "scores within 2.4e-07"):
        assert part in shown
    assert run("show", "frcnn_inception_v100") == 0
    assert "55.0 % mAP on BCCD test, 72 photos" in capsys.readouterr().out


def test_what_strangers_wrote_is_shown_on_one_line_each(home, capsys):
    cached(
        home, "mine-0123456789ab", source="https://x/\x1b[2J\nlicense: MIT", license=["x"], parameters="many", outputs=3
    )
    assert run("show", "mine-0123456789ab") == 0
    shown = capsys.readouterr().out
    assert (
        shown.replace("\n", "").isprintable()
        and "\nlicense: unknown\n" in shown
        and "address: https://x/\\x1b" in shown
    )
    (home / "mine-0123456789ab" / "metadata.json").write_text("{")
    assert describe("mine-0123456789ab")["kind"] == "damaged" and run("list") == 0


def test_clear(home, tmp_path, capsys):
    for key in (NAME, download.cache_key(URL), "other-0123456789ab"):
        cached(home, key)
    (home / "notes").mkdir()
    (home / "notes" / "mine.txt").write_text("mine")
    (home / ".work-deadbeef").mkdir()
    assert clear(URL) == {download.cache_key(URL): 4}
    assert run("clear", NAME) == 0
    assert f"removed {NAME}: 0.0 MiB" in capsys.readouterr().out
    for name in (NAME, "notes", "../home", ".", "", str(tmp_path), "frcnn_inception_v100"):
        assert run("clear", name) == 2
        assert "is not in the cache" in capsys.readouterr().err
    assert sorted(os.listdir(home)) == ["notes", "other-0123456789ab"]
    assert run("clear") == 0 and os.listdir(home) == ["notes"]
    assert clear() == {} and (home / "notes" / "mine.txt").read_text() == "mine"


def test_clear_of_no_cache(home):
    assert clear() == {} and not home.exists()


@pytest.mark.parametrize("arguments", [("show",), ("list", NAME), ("show", "nothing_like_it")])
def test_wrong_use_is_one_line(arguments, capsys):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
