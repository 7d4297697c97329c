"""`data.yaml` of strangers: texts, or one line, in bounded time and memory."""

import random
import resource
import time

import pytest

from keras_detect.data import load_dataset
from keras_detect.data.yaml_texts import MAX_BYTES, MAX_DEPTH, YAMLFileError, parse_yaml, read_yaml

# what once cost too much or broke, or is at the edge of it; findings of tests/fuzz/fuzz_yaml.py belong here
REGRESSIONS = ("&a [*a]", "a: *b", "{[a]: b}", "? {a: b}\n: c", "a\0b", "- a", "a: &x [*x]", "\ufeff\ufeff- [", "!<%")

M = MAX_BYTES
EXPENSIVE = {
    "open lists": "[" * M,
    "open mappings": "{" * M,
    "nested entries": "- " * (M // 2),
    "nested keys": "? " * (M // 2),
    "indented keys": "\n".join(" " * i + "a:" for i in range(1400)),
    "laughs": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 20)),
    "laughs in mappings": "a0: &a0 {x: y}\n"
    + "".join(f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}\n" for i in range(1, 20)),
    "one alias often": "k: &a [x]\nl: [" + "*a," * (M // 4) + "]",
    "an alias of itself": "names: &a [*a]",
    "an alias of nothing": "names: *a",
    "many mappings": "[" + "{a: b}," * (M // 8) + "]",
    "one key often": "a: b\n" * (M // 5),
    "too long": "a: " + "b" * M,
}


def peak_memory():
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("what", EXPENSIVE)
def test_what_would_cost_too_much(what, tmp_path):
    (tmp_path / "data.yaml").write_text(EXPENSIVE[what])
    memory, started = peak_memory(), time.process_time()
    with pytest.raises(YAMLFileError) as caught:
        read_yaml(tmp_path / "data.yaml")
    assert time.process_time() - started < 10
    assert peak_memory() - memory < 300 * 2**20
    assert str(caught.value).startswith(f"{tmp_path / 'data.yaml'} is not readable as data.yaml")
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    with open(tmp_path / "data.yaml", "wb") as file:
        file.truncate(2**30)
    started = time.process_time()
    with pytest.raises(ValueError, match=r"1073741824 bytes. Expected a text of at most 1048576"):
        load_dataset(tmp_path / "data.yaml")
    assert time.process_time() - started < 1


def test_what_users_write():
    assert parse_yaml("a: &x [b, c]\nd: *x\n") == {"a": ["b", "c"], "d": ["b", "c"]}
    deep = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    assert "a" in parse_yaml(f"a: {deep}")
    names = "names:\n" + "".join(f"  {i}: class {i}\n" for i in range(50_000))
    assert len(parse_yaml(names)["names"]) == 50_000


@pytest.mark.parametrize("text", REGRESSIONS)
def test_regressions(text):
    with pytest.raises(ValueError):
        parse_yaml(text)


def test_texts_that_were_generated(tmp_path):
    """400 seeded texts of YAML's own signs, and 200 corrupted good ones: a data set, or one line."""
    drawn = random.Random(0)
    signs = ["a", "names", "train", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "!t ", "|\n", ">\n"]
    signs += ['"', "'", "#", "---\n", "...\n", "? ", "%", "\t", "0", "\\", "\0", "é", "\u2028", "<<", "@", "`"]
    good = 'path: .\ntrain: images\nval: [a, b]\nnames:\n  0: cat # good\n  1: &x "dog"\n  2: *x\n'
    refused = 0
    for number in range(600):
        if number < 400:
            text = "".join(drawn.choice(signs) for _ in range(drawn.randrange(1, 60)))
        else:
            place = drawn.randrange(len(good))
            text = good[:place] + drawn.choice(signs) * drawn.randrange(1, 4) + good[place + drawn.randrange(4) :]
        (tmp_path / "data.yaml").write_text(text)
        try:
            load_dataset(tmp_path / "data.yaml")
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 1500 and "data.yaml" in str(error), text
    assert refused == 600  # there are no images
