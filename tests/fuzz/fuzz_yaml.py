"""Fuzzes the YAML entry point, `data.yaml` of YOLO's data sets: a dict of texts, or a `ValueError` of one line.

Not run in CI. In an environment of its own with atheris beside the package:

    pip install atheris
    mkdir -p corpus
    python -m tests.fuzz.fuzz_yaml corpus -max_total_time=600 -max_len=4096 -timeout=10 -rss_limit_mb=2048

What it finds is written to `crash-...`: shorten it with `-minimize_crash=1` and keep it in `REGRESSIONS` of
`tests/data/test_yaml_texts.py`.
"""

import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["keras_detect.data", "yaml"]):
    from keras_detect.data import yaml_texts, yolo_txt

FOLDER = pathlib.Path(tempfile.mkdtemp())
SEEDS = (
    b"path: .\ntrain: images/train\nval: [a, b]\nnc: 2\nnames: [cat, 'dog']\n",
    b'train: &a images\ntest: *a\nnames:\n  0: cat # good\n  1: "d\\u00e9g"\n--- {x: {y: [1, 2]}}\n...\n',
    b"names: {1: dog, 0: cat}\ndownload: |\n  text\n  more\nfolded: >-\n  a\n\n  b\n? key\n: !tag value\n",
)


def test_one_input(data):
    file = FOLDER / "data.yaml"
    file.write_bytes(data)
    try:
        yaml_texts.read_yaml(file)
        content = yolo_txt.places_and_names(file)
        yolo_txt.stored_names(FOLDER, content, file)
    except ValueError as error:
        assert len(str(error)) < 2500 and "\n" not in str(error), str(error)[:300]


def main():
    for folder in sys.argv[1:]:
        if pathlib.Path(folder).is_dir():
            for number, seed in enumerate(SEEDS):
                pathlib.Path(folder, f"seed{number}").write_bytes(seed)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
