"""TFRecord files of strangers: a data set, or one line that names the record."""

import random

import pytest

from keras_detect.data import shapes_dataset, tf_record
from keras_detect.data.record import Defects
from keras_detect.data.tf_example import build_example
from tests.data.mutations import framed_record

NAMES = ["circle", "star"]
# serialized examples at the edge of what is one; findings of tests/fuzz/fuzz_tfrecord.py belong here
REGRESSIONS = (b"", b"\n", b"\n\x00", b"\n\x02\n\x00", b"\x0b\x0c", b"\n\xff\xff\xff\xff\x0f", b"\x0a" * 40)


def example():
    drawn = shapes_dataset(1, image_size=16, class_names=NAMES, empty_share=0.0, max_objects=1)
    return build_example(drawn.records[0], NAMES)


def read(file, serialized, defects):
    parsed = [tf_record.parsed_record(file, 0, serialized, "record 0")]
    return tf_record.dataset_of(parsed, None, NAMES, None, defects)


def spoiled(content, drawn):
    """The bytes with one to six changes: bytes drawn anew, skipped, doubled, or flipped."""
    changed = bytearray(content)
    for _ in range(drawn.randrange(1, 7)):
        place, length = drawn.randrange(len(changed)), drawn.randrange(1, 12)
        what = drawn.randrange(4)
        if what == 0:
            changed[place] = drawn.randrange(256)
        elif what == 1:
            del changed[place : place + length]
        elif what == 2:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place] ^= 1 << drawn.randrange(8)
    return bytes(changed)


def check(file, serialized):
    """Whether the example is refused; anything but a data set or one line fails."""
    file.write_bytes(serialized)
    refused = False
    for defects in (Defects(), Defects(collect=True)):
        try:
            for entry in read(file, serialized, defects):
                assert entry["image"].dtype == "uint8" and len(entry["boxes"]) == len(entry["labels"])
        except (ValueError, OSError) as error:
            refused = True
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 1500 and str(error).isprintable()
    return refused


def test_examples_that_were_generated(tmp_path):
    """300 seeded ones."""
    drawn, good = random.Random(0), example()
    assert not check(tmp_path / "a.record", good)
    refused = [check(tmp_path / "a.record", spoiled(good, drawn)) for _ in range(300)]
    assert 50 < sum(refused) < 300


@pytest.mark.parametrize("serialized", REGRESSIONS)
def test_regressions(tmp_path, serialized):
    assert check(tmp_path / "a.record", serialized)


def test_a_record_of_a_file_stands_where_it_says(tmp_path):
    good = example()
    (tmp_path / "a.record").write_bytes(framed_record(good) * 2)
    data = tf_record.read(tmp_path / "a.record", class_names=NAMES)
    assert [entry["image"].shape for entry in data] == [(16, 16, 3)] * 2
