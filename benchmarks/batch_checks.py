"""What checking every batch of `fit` costs, as a share of a training step of SSD MobileNetV2 at 320 x 320.

    python benchmarks/batch_checks.py
    KERAS_BACKEND=jax python benchmarks/batch_checks.py

A row is a kind of data that `fit` takes, with uint8 or float32 images: the processor time that a batch takes to read as
`fit` reads it, with the checks of `keras_detect.meta_architectures.batch_checks` less without them, both taking turns.
The step is `train_on_batch` less the check that it makes itself.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import tensorflow as tf

import keras_detect
from keras_detect.meta_architectures.batch_checks import BatchCheck, checked

SIZE, CLASSES, ROWS = 320, 90, 100


class Batches(keras.utils.PyDataset):
    """The same batch `count` times."""

    def __init__(self, batch, count):
        super().__init__()
        self.batch, self.count = batch, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.batch


def batch_of(size, dtype):
    """`(images [B, 320, 320, 3], y)` with 100 rows of ground truth per image, ten of them objects."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0.0, 0.5, (size, ROWS, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.1, 0.5, corners.shape)], axis=-1).astype("float32")
    labels = np.where(np.arange(ROWS) < 10, rng.integers(0, CLASSES, (size, ROWS)), -1).astype("int32")
    images = rng.integers(0, 256, (size, SIZE, SIZE, 3)).astype(dtype)
    return images, {"boxes": boxes, "labels": labels}


def kinds(batch, count):
    """`{name: function that makes the data}`; each call makes them anew, since a generator is read once."""
    made = {
        "tf.data": lambda: tf.data.Dataset.from_tensors(batch).cache().repeat(count),
        "PyDataset": lambda: Batches(batch, count),
        "generator": lambda: (batch for _ in range(count)),
    }
    if keras.backend.backend() == "torch":
        import torch

        made["DataLoader"] = lambda: torch.utils.data.DataLoader([batch] * count, batch_size=None)
    return made


def read(data):
    for _ in range(len(data)) if isinstance(data, Batches) else data:
        if isinstance(data, Batches):
            data[0]


def milliseconds(function):
    """Processor time of all threads."""
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


def step_of(batch, rounds):
    """Milliseconds of a training step without the check that `train_on_batch` makes."""
    model = keras_detect.SSD.from_backbone("mobilenet_v2", num_classes=CLASSES, image_size=SIZE, weights=None)
    model.compile(keras.optimizers.SGD(1e-3))
    model.train_on_batch(*batch)
    whole = np.median([milliseconds(lambda: model.train_on_batch(*batch)) for _ in range(rounds)])
    return whole - np.median([milliseconds(lambda: BatchCheck(CLASSES)(None, batch)) for _ in range(rounds)])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args(argv)
    step = step_of(batch_of(arguments.batch_size, "uint8"), arguments.rounds)
    print(f"{keras.backend.backend()}, batches of {arguments.batch_size}: a step {step:.0f} ms of processor time")
    for dtype in ("uint8", "float32"):
        batch = batch_of(arguments.batch_size, dtype)
        rows = {"arrays": arrays(batch, arguments)}
        for name, make in kinds(batch, arguments.batches).items():
            rows[name] = streams(make, arguments)
        for name, cost in rows.items():
            print(f"{dtype:>8} {name:<10}{cost:8.3f} ms a batch{cost / step:9.2%} of a step")


def arrays(batch, arguments):
    """Arrays are looked at once, when `fit` begins: what a batch of them takes then, be it one epoch or many."""
    times = [milliseconds(lambda: checked(BatchCheck(CLASSES), *batch)) for _ in range(arguments.rounds)]
    return np.median(times)


def streams(make, arguments):
    """Milliseconds per batch with the checks less without."""
    differences = []
    for number in range(arguments.rounds + 1):
        with_checks = checked(BatchCheck(CLASSES), make())
        without = make()
        difference = milliseconds(lambda data=with_checks: read(data)) - milliseconds(lambda data=without: read(data))
        if number:
            differences.append(difference / arguments.batches)
    return np.median(differences)


if __name__ == "__main__":
    main()
