"""What decoding costs CenterNet, as a share of `predict`: peaks, the best of them, boxes, and keypoints where asked.

    python benchmarks/center_net_decode.py
    KERAS_BACKEND=jax python benchmarks/center_net_decode.py --backbones resnet_v1_50_keras --batch-sizes 1 8
    python benchmarks/center_net_decode.py --tasks boxes keypoints

A row is one compiled function without and with `postprocess` behind the network, taking turns on the same images, both
from uint8 images on. "Added" is the median over the rounds of (with - without) / with, in time and in processor time;
"alone" is `postprocess` as a call of its own on the raw predictions, beside the whole. Weights are random: every cell
is looked at regardless of its score, so the time does not depend on them. Target: 3 %.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

TARGET = 0.03


def main(argv=None):
    """Parses arguments, times every network and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2", "resnet_v1_50_keras"])
    parser.add_argument("--tasks", nargs="+", default=["boxes"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args(argv)

    import keras

    print(
        f"{keras.backend.backend()}, {arguments.image_size} x {arguments.image_size}, {arguments.classes} classes, "
        f"{' + '.join(arguments.tasks)}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    columns = ("images", "network ms", "both ms", "added", "added, CPU", "alone ms", "alone")
    print(f"{'backbone':24}" + "".join(f"{column:>12}" for column in columns))
    for backbone in arguments.backbones:
        for batch_size in arguments.batch_sizes:
            cells = row(backbone, batch_size, arguments)
            print(f"{backbone:24}" + "".join(f"{cell:>12}" for cell in (batch_size, *cells)), flush=True)
    print(f"target: {TARGET:.0%} added")


def row(backbone, batch_size, arguments):
    """The cells of one network and batch size."""
    import numpy as np

    from keras_detect import CenterNet, schema

    model = CenterNet.from_backbone(
        backbone,
        num_classes=arguments.classes,
        image_size=arguments.image_size,
        tasks=tuple(arguments.tasks),
        weights=None,
    )
    side = arguments.image_size
    images = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3)).astype("uint8")

    def predicted(images):
        inputs = model.preprocess(images)
        return model(inputs, training=False) | {schema.TRUE_IMAGE_SHAPES: inputs[schema.TRUE_IMAGE_SHAPES]}

    def decoded(predictions):
        return model.postprocess(predictions, predictions[schema.TRUE_IMAGE_SHAPES])

    network, both, decode = (compiled(call) for call in (predicted, lambda images: decoded(predicted(images)), decoded))
    predictions = network(images)
    calls = ((network, images), (both, images), (decode, predictions))
    rounds = []
    for number in range(arguments.rounds + 1):
        times = [timed(*call) for call in calls]
        rounds += [times] if number else []  # the first round compiles
    wall, processor = ([[pair[kind] for pair in times] for times in rounds] for kind in (0, 1))
    without, whole, alone = (1e3 * statistics.median(column) for column in zip(*wall, strict=True))
    added, added_cpu = (statistics.median((b - a) / b for a, b, _ in times) for times in (wall, processor))
    share = statistics.median(c / b for _, b, c in wall)
    shares = (f"{added:.1%}", f"{added_cpu:.1%}")
    return (f"{without:.1f}", f"{whole:.1f}", *shares, f"{alone:.2f}", f"{share:.1%}")


def compiled(function):
    """`function` compiled by the running backend as `predict` would be."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.no_grad()(function)


def timed(function, inputs):
    """`(seconds, seconds of processor time)` of a call, until its results are there."""
    import keras

    start, processor = time.perf_counter(), time.process_time()
    for tensor in keras.tree.flatten(function(inputs)):
        keras.ops.convert_to_numpy(tensor)
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
