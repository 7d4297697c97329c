"""What messages show of ids, names and values of any length, size, depth and content."""

import pathlib
import random
import time

import numpy as np
import pytest

from keras_detect.messages import counted, one_line, shown


def test_counted():
    assert [counted(1, "image"), counted(0, "image"), counted(2000, "box")] == ["1 image", "0 images", "2,000 boxes"]
    assert [counted(1, "class"), counted(2, "class")] == ["1 class", "2 classes"]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def laughs(levels):
    """A list of 10 ** levels texts that takes little memory."""
    value = ["ha"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def own():
    value = [1]
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10**6,
        "\x1b[2J\x1b]0;title\x07" * 100,
        "\u202egnp.exe\ud800\0\n\r\t",
        b"x" * 10**6,
        10**5000,
        -(10**5000),
        [10**5000] * 3,
        {"a" * 10**5: "b" * 10**5},
        {i: i for i in range(10**5)},
        nested(10**4),
        laughs(30),
        own(),
        np.zeros(10**6),
        pathlib.Path("a" * 5000),
        float("nan"),
        None,
        True,
        {"id": [1, {"b": [2, {"c": [3, {"d": 4}]}]}]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_one_short_printable_line(value):
    started = time.perf_counter()
    text = shown(value)
    assert time.perf_counter() - started < 1
    assert 0 < len(text) <= 90
    assert text.isprintable() and text == " ".join(text.split())


def test_what_is_short_stays_as_it_is():
    assert shown("Katze, süß 猫") == "Katze, süß 猫"
    assert shown(17) == "17"
    assert shown(["a", 1, None]) == "['a', 1, None]"
    assert shown(pathlib.Path("a/b")) == "a/b"
    assert shown("x" * 80) == "x" * 80
    assert shown("x" * 81) == "x" * 53 + " ... " + "x" * 20
    assert one_line(" a\n b\t") == "a b"
    assert one_line("\x1b[31m") == "\\x1b[31m"


def test_texts_of_any_letters():
    """300 seeded texts of random code points."""
    drawn = random.Random(0)
    for _ in range(300):
        text = "".join(chr(drawn.choice((drawn.randrange(128), drawn.randrange(0x110000)))) for _ in range(200))
        short = shown(text)
        assert short.isprintable() and len(short) <= 90
        short.encode()
