"""Times the data pipeline: images per second of `batches`, beside JPEG decoding alone and beside `train_step`.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --side 640 480 --rounds 10

Images are drawn, 640 x 480, and stored as JPEG; the model is SSD MobileNetV2 at 320 x 320. Decoding is TensorFlow's,
in parallel, without anything after it: no pipeline over the same files can be faster. What is compared runs alternately
in one process, so that other work on the machine slows all of it alike; a ratio is the median over the rounds of the
ratio within a round.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from ssd_mobilenet_v2 import machine, processor_seconds, truths

import keras_detect
from keras_detect.data import load_dataset, write_dataset
from keras_detect.data.dataset import DetectionDataset
from keras_detect.transforms import RandomColor, RandomHorizontalFlip, RandomIoUCrop


def main(argv=None):
    """Parses arguments, times everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args(argv)
    keras.utils.set_random_seed(0)
    model = keras_detect.SSD.from_backbone("mobilenet_v2", num_classes=4, image_size=320)
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
    with tempfile.TemporaryDirectory() as folder:
        records, files = drawn(pathlib.Path(folder), arguments)
        report(contestants(records, files, model, arguments), arguments)


def drawn(folder, arguments):
    """The data set as TFRecord and as COCO with JPEG files: blotches with eight boxes each."""
    width, height = arguments.side
    rng = np.random.default_rng(0)
    (folder / "drawn").mkdir()
    examples = []
    for number in range(arguments.images):
        small = rng.normal(128, 60, (height // 16, width // 16, 3)).clip(0, 255).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        path = folder / "drawn" / f"{number:05d}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        ground_truth = truths(1, 8, 4)
        examples.append({"image": path, "boxes": ground_truth["boxes"][0], "labels": ground_truth["labels"][0]})
    data = DetectionDataset.from_examples(examples, [str(label) for label in range(4)])
    for format in ("tfrecord", "coco"):
        write_dataset(data, folder / format, format)
    return load_dataset(folder / "tfrecord"), load_dataset(folder / "coco")


def contestants(records, files, model, arguments):
    """`{name: a function that takes one step and returns its number of images}`; the first is the limit."""
    augment = (RandomHorizontalFlip(), RandomIoUCrop(probability=0.5), RandomColor())
    paths = [record.image.path for record in files.records]

    def decoded(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), 3, dct_method="INTEGER_ACCURATE")

    bare = tf.data.Dataset.from_tensor_slices(paths).map(decoded, tf.data.AUTOTUNE, deterministic=True)
    streams = {
        "JPEG decoding alone": bare.repeat().prefetch(tf.data.AUTOTUNE),
        "batches": files.batches(model.resizer, arguments.batch_size).repeat(),
        "batches, augmented": files.batches(
            model.resizer, arguments.batch_size, augment, shuffle=True, seed=0
        ).repeat(),
        "the same from TFRecord": records.batches(
            model.resizer, arguments.batch_size, augment, shuffle=True, seed=0
        ).repeat(),
        "augmented, cached": files.batches(
            model.resizer, arguments.batch_size, augment, shuffle=True, seed=0, cache=True
        ).repeat(),
    }
    images, ground_truth = next(iter(streams["batches"]))
    train = {"train_step": lambda: model.train_on_batch(images, ground_truth)}
    return streams, train


def report(found, arguments):
    """Runs the contestants alternately and prints a row for each."""
    streams, train = found
    speed = {name: [] for name in (*streams, *train)}
    cost = {name: [] for name in speed}
    for round_ in range(-1, arguments.rounds):
        for name in speed:
            clock, used = time.perf_counter(), processor_seconds()
            images = _one_epoch(streams[name], name, arguments) if name in streams else _steps(train[name], arguments)
            if round_ >= 0:
                speed[name].append(images / (time.perf_counter() - clock))
                cost[name].append(1e3 * (processor_seconds() - used) / images)
    width, height = arguments.side
    print(f"{arguments.images} images of {width} x {height}, batches of {arguments.batch_size}, {machine()}\n")
    print(f"{'':>24}{'images/s':>10}{'of decoding':>13}{'of train_step':>15}{'CPU ms per image':>17}{'CPU ratio':>11}")
    first, last = (np.array(speed[name]) for name in (next(iter(streams)), "train_step"))
    for name in speed:
        rates = np.array(speed[name])
        print(
            f"{name:>24}{np.median(rates):10.0f}{np.median(rates / first):13.2f}{np.median(rates / last):15.1f}"
            f"{np.median(cost[name]):17.2f}{np.median(np.array(cost['train_step']) / np.array(cost[name])):11.1f}"
        )


def _one_epoch(stream, name, arguments):
    """Takes one epoch's images; the iterator is new, so its start counts."""
    single = name == "JPEG decoding alone"
    steps = arguments.images if single else -(-arguments.images // arguments.batch_size)
    for _ in stream.take(steps):
        pass
    return arguments.images


def _steps(step, arguments, count=3):
    for _ in range(count):
        step()
    return count * arguments.batch_size


if __name__ == "__main__":
    main()
