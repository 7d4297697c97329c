"""Fuzzes the TFRecord entry point: a data set, or an error of one line, for any file and any record in it.

The first byte of an input says what the rest is: a whole file (0), or the serialized `tf.Example` of one record, which
needs no right lengths and checksums. Opening a file takes TensorFlow a tenth of a second, a record less than one
thousandth.

Not run in CI. In an environment of its own with atheris beside the package:

    pip install atheris
    mkdir -p corpus
    python -m tests.fuzz.fuzz_tfrecord corpus -max_total_time=600 -max_len=8192 -timeout=20 -rss_limit_mb=4096

What it finds is written to `crash-...`: shorten it with `-minimize_crash=1` and keep it in `REGRESSIONS` of
`tests/data/test_tf_record.py`.
"""

import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["keras_detect.data"]):
    from keras_detect.data import shapes_dataset, tf_record
    from keras_detect.data.record import Defects
    from keras_detect.data.tf_example import build_example

from tests.data.mutations import framed_record

FILE = pathlib.Path(tempfile.mkdtemp()) / "fuzz.record"
NAMES = ["circle", "star"]


def test_one_input(data):
    if not data:
        return
    FILE.write_bytes(data[1:])
    for defects in (Defects(), Defects(collect=True)):
        try:
            if data[0] == 0:
                dataset = tf_record.read(FILE, class_names=NAMES, defects=defects)
            else:
                parsed = [tf_record.parsed_record(FILE, 0, data[1:], "record 0")]
                dataset = tf_record.dataset_of(parsed, None, NAMES, None, defects)
            for example in dataset:
                assert example["image"].dtype == "uint8"
        except (ValueError, OSError) as error:
            assert len(str(error)) < 2500 and "\n" not in str(error), str(error)[:300]


def seeds():
    """One drawn image with all that an example may hold, as a record and as a file."""
    drawn = shapes_dataset(1, image_size=16, class_names=NAMES, empty_share=0.0, max_objects=1)
    example = build_example(drawn.records[0], NAMES)
    return b"\1" + example, b"\0" + framed_record(example)


def main():
    for folder in sys.argv[1:]:
        if pathlib.Path(folder).is_dir():
            for number, seed in enumerate(seeds()):
                pathlib.Path(folder, f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
