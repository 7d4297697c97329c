"""Writes the table of docs/parity.md: `python -m tests.golden.parity_table [part of a model's name ...]`.

Each model goes through the tests of `test_whole_model.py` or `test_faster_rcnn.py` first; a row is written only if all
of them pass. Rows of the models that are not named stay as they are. Runs on the backend of KERAS_BACKEND; the table is
TensorFlow's.
"""

import gc
import os
import pathlib
import re
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

from keras_detect import schema
from tests import goldens, two_stage_models, whole_models
from tests.golden import test_faster_rcnn, test_whole_model

ONE_STAGE = (*whole_models.QUICK, *whole_models.LARGE, *whole_models.TF1_QUICK, *whole_models.TF1_LARGE)
TWO_STAGES = (*two_stage_models.QUICK, *two_stage_models.LARGE)
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "parity.md"
START, END = "<!-- table: tests/golden/parity_table.py -->", "<!-- end of table -->"
HEAD = (
    "| Model | Parameters: upstream | ours | ignored | Raw heads | Scores | Published mAP | Published ms |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)
UNPUBLISHED = ("—", "—")
#: the repository's config, which is not the one of the zoo's archive of that name
ANOTHER_CONFIG = ("ssd_mobilenet_v2_coco",)


def published():
    """`{archive stem: (COCO17 mAP, ms)}` as the authors published them; TF1's stems end before their date."""
    text = goldens.require_shared("zoo.md").read_text()
    rows = re.findall(r"^\| \d+ \| [^|]+ \| ([^|]+) \| ([^|]+) \| [^|]+ \| `\d+/(.+)\.tar\.gz` \|$", text, re.M)
    rows += re.findall(
        r"^\| [^|]+ \| ([^|]+) \| ([\d.]+) \| [^|]+ \| `([a-z]\S+?)_\d{4}_\d\d_\d\d\.tar\.gz` \|$", text, re.M
    )
    return {stem: (average_precision.strip(), speed.strip()) for speed, average_precision, stem in rows}


def archive_stem(name):
    """Stem of the zoo's archive of the golden `name`; EfficientDets have no size in theirs, and one TPU count."""
    if name in ANOTHER_CONFIG:
        return None
    name = re.sub(r"^zoo_(.*)_\d{4}_\d\d_\d\d$", r"\1", name)
    return re.sub(r"^ssd_(efficientdet_d\d)_.*", r"\1_coco17_tpu-32", name.removesuffix("_img"))


def row(name, folder):
    """The cells of one model behind its name, once it passed every test."""
    models, tests = (two_stage_models, test_faster_rcnn) if name in TWO_STAGES else (whole_models, test_whole_model)
    run = models.Run(name, folder)
    for key, test in vars(tests).items():
        if key.startswith("test_"):
            try:
                test(run)
            except pytest.skip.Exception:
                continue
    upstream = sum(value.size for value in run.weights.values())
    ignored = sum(run.weights[key].size for key in run.report.ignored if key in run.weights)
    ours = sum(int(np.prod(weight.shape)) for weight in run.model.named_weights().values())
    heads = max(run.error(key, ours) for key, ours in run.heads().items())
    scores = np.abs(run.detections[schema.SCORES] - run.golden["post/detection_scores"]).max()
    return (
        *(f"{count:,}" for count in (upstream, ours, ignored)),
        *(f"{error:.1e}" for error in (heads, scores)),
        *published().get(archive_stem(name), UNPUBLISHED),
    )


def main(parts):
    page = PAGE.read_text()
    before, table, after = re.split(f"{re.escape(START)}|{re.escape(END)}", page)
    rows = {line.split("|")[1].strip().strip("`"): line for line in table.strip().splitlines()[2:]}
    names = (*ONE_STAGE, *TWO_STAGES)
    for name in names:
        if parts and not any(part in name for part in parts):
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                cells = row(name, folder)
        except AssertionError as error:
            print(f"{name} keeps its row: {error}", flush=True)
            continue
        rows[name] = f"| `{name}` | {' | '.join(cells)} |"
        print(rows[name], flush=True)
        table = "\n".join([*HEAD, *(rows[known] for known in names if known in rows)])
        PAGE.write_text(f"{before}{START}\n{table}\n{END}{after}")
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
