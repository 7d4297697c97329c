"""The files that one eager `fit` step and one `detect` pass through: `python -m tests.flow [--files]`.

Counts the files of the package whose functions run, in the order of their first call, and how often two consecutive
calls lie in different files ("switches"): what somebody reads who follows the data. `docs/architecture.md` quotes it.
"""

import itertools
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

import keras_detect

PACKAGE = pathlib.Path(keras_detect.__file__).parent
CLASSES = {"SSD": keras_detect.SSD, "Faster R-CNN": keras_detect.FasterRCNN}
#: a layer and its kernel take turns once per batch norm, which a reader reads once
REPEATED = {"layers/batch_normalization.py", "kernels/batch_norm.py"}


def files_called(function):
    """The file, relative to the package, of every call of one of the package's functions while `function` runs."""
    prefix, found = f"{PACKAGE}{os.sep}", []

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            found.append(frame.f_code.co_filename.removeprefix(prefix))

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


def switches(files, left_out=()):
    """Consecutive calls in different files, without those between two files of `left_out`."""
    pairs = itertools.pairwise(files)
    return sum(before != after and not {before, after} <= set(left_out) for before, after in pairs)


def flows():
    """`{(meta-architecture, what): files called}` of a small detector, after one call that builds everything."""
    images = np.random.RandomState(0).randint(0, 256, (2, 80, 100, 3)).astype("uint8")
    ground_truth = {
        "boxes": np.tile(np.float32([[0.1, 0.1, 0.6, 0.6]]), (2, 1, 1)),
        "labels": np.zeros((2, 1), "int32"),
    }
    found = {}
    for name, cls in CLASSES.items():
        model = cls.from_backbone("mobilenet_v2", num_classes=2, image_size=(96, 96), weights=None)
        model.compile(run_eagerly=True)
        ways = {
            "fit": lambda model=model: model.fit(images, ground_truth, batch_size=2, verbose=0),
            "detect": lambda model=model: model.detect(images[0]),
        }
        for what, way in ways.items():
            way()
            found[name, what] = files_called(way)
    return found


def main(arguments):
    for (name, what), files in flows().items():
        rest = switches(files, REPEATED)
        print(f"{name} {what}: {len(set(files))} files, {switches(files)} switches, {rest} without batch norm's")
        if "--files" in arguments:
            print(*(f"  {file} ({files.count(file)} calls)" for file in dict.fromkeys(files)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
