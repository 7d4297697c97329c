"""Times SSD MobileNetV2 (300 x 300, 1917 anchors, 90 classes) on TensorFlow and prints tables with ratios.

    python benchmarks/ssd_mobilenet_v2.py predict
    python benchmarks/ssd_mobilenet_v2.py predict --checkpoint <folder of the model's TF2 checkpoint>
    python benchmarks/ssd_mobilenet_v2.py train

`predict` compares post-processing with the network that it follows, `train` a whole `train_step` with the bare forward
and backward of the same network. What is compared runs alternately in one process, so that other work on the machine
slows all of it alike; a ratio is the median over the rounds of the ratio within a round.
"""

import argparse
import dataclasses
import os
import pathlib
import resource
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import tensorflow as tf

from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.ground_truth import clean_ground_truth

PASSING, THRESHOLD = 200, 0.05  # pairs of anchor and class that pass, an image
EVERYTHING = 1e-8  # upstream's threshold


def main(argv=None):
    """Parses arguments and runs one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("predict", "train"))
    parser.add_argument("--preset", default="ssd_mobilenet_v2_320x320_coco17_tpu-8")
    parser.add_argument("--checkpoint", help="TF2 checkpoint for the preset; without it the weights are random")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--truths", type=int, default=100, help="rows of ground truth per image, of which 8 are objects"
    )
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(0)
    model = DetectionModel.from_preset(arguments.preset, load_weights=False)
    if arguments.checkpoint:
        model.restore(arguments.checkpoint)
    size = model.resizer.resize_image(np.zeros((300, 300, 3), "uint8"))[0].shape[0]
    weights = "the checkpoint's" if arguments.checkpoint else "random"
    print(f"{arguments.preset}, {size} x {size}, {weights} weights, {arguments.rounds} rounds, {machine()}")
    compare = {"predict": compare_predict, "train": compare_train}[arguments.what]
    for batch_size in arguments.batch_sizes:
        compare(model, make_images(batch_size, size), arguments)


def machine():
    """Processors, load and versions, on one line."""
    return (
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    )


# ------------------------------------------------------------------------------------------------------------- predict


def compare_predict(model, images, arguments):
    """Times network and post-processing with few candidates, and with all of them."""
    if not arguments.checkpoint:
        settle_statistics(model, images)
        spread_logits(model, images)
    bias = [layer.bias.numpy() for layer in class_heads(model)]
    shift_class_bias(model, images)
    compare_postprocessing(model, images, "few", THRESHOLD, arguments.rounds)
    for layer, value in zip(class_heads(model), bias, strict=True):
        layer.bias.assign(value)
    compare_postprocessing(model, images, "all", EVERYTHING, arguments.rounds)


def compare_postprocessing(model, images, case, threshold, rounds):
    """Times network, post-processing and the whole of `predict` with a score threshold."""
    nms = dataclasses.replace(model.postprocessor.nms, score_threshold=threshold)
    model.postprocessor = dataclasses.replace(model.postprocessor, nms=nms)
    model.predict_function = None  # it remembers the post-processor it was traced with
    network, predict = tf.function(lambda x: model(x, training=False)), tf.function(model.predict_step)
    postprocess = tf.function(model.postprocess)
    both = tf.function(lambda x: model.postprocess(model(x, training=False), x["true_image_shapes"]))

    inputs, batch = model.preprocess(images), (tf.constant(images),)
    shapes, heads = inputs["true_image_shapes"], network(inputs)
    passing = (model.postprocessor.scores(heads["class_logits"]).numpy() > threshold).sum(axis=(1, 2))
    found = postprocess(heads, shapes)["num_detections"].numpy()
    report(
        f"predict, {len(images)} images, case '{case}': {passing.min()} to {passing.max()} pairs per image pass "
        f"{threshold} (mean {passing.mean():.0f}), {found.min()} to {found.max()} detections",
        {
            "network": lambda: network(inputs),
            "network, post-processing": lambda: both(inputs),
            "post-processing alone": lambda: postprocess(heads, shapes),
            "predict_step": lambda: predict(batch),
            "predict_on_batch": lambda: model.predict_on_batch(images),
        },
        rounds,
        len(images),
    )


def settle_statistics(model, images):
    """Sets every batch norm's moving statistics to those of the batch: random weights alone let activations vanish."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(model.preprocess(images), training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum


def class_heads(model):
    """The convolutions that give the class logits, one per feature map or one for all."""
    return [
        layer
        for layer in model.box_predictor._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.SeparableConv2D)
        and "class" in layer.name
        and layer.bias is not None
    ]


def spread_logits(model, images):
    """Scales random class kernels so that the logits spread as a trained network's do (deviation 2)."""
    logits = model(model.preprocess(images), training=False)["class_logits"].numpy()
    for layer in class_heads(model):
        separable = isinstance(layer, keras.layers.SeparableConv2D)
        kernel = layer.pointwise_kernel if separable else layer.kernel
        kernel.assign(kernel * (2.0 / logits.std()))


def shift_class_bias(model, images):
    """Shifts the class bias so that `PASSING` pairs per image have a score above `THRESHOLD`, on average."""
    logits = model(model.preprocess(images), training=False)["class_logits"].numpy()
    ranked = np.sort(logits[..., int(model.box_predictor.background) :], axis=None)
    wanted = np.log(THRESHOLD / (1.0 - THRESHOLD)) - ranked[-PASSING * len(images) - 1]
    for layer in class_heads(model):
        layer.bias.assign_add(np.full(layer.bias.shape, wanted, "float32"))


# --------------------------------------------------------------------------------------------------------------- train


def compare_train(model, images, arguments):
    """Times `train_step` against forward, backward and update of the bare network."""
    # Weights that stay as they are keep every round's work the same, and a learning rate of 0 saves none of it.
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    ground_truth = truths(len(images), arguments.truths, model.num_classes)
    inputs = model.preprocess(images)
    batch = tf.nest.map_structure(tf.constant, (images, ground_truth))

    def bare(inputs):
        with tf.GradientTape() as tape:
            heads = model(inputs, training=True)
            loss = tf.reduce_sum(heads["box_encodings"] ** 2) + tf.reduce_sum(heads["class_logits"] ** 2)
        variables = model.trainable_weights
        model.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss

    targets = tf.function(model.assign_targets)
    losses = tf.function(model.compute_loss)
    heads = model(inputs, training=True)
    bare, train_step = tf.function(bare), tf.function(model.train_step)
    report(
        f"train, {len(images)} images, {arguments.truths} rows of ground truth",
        {
            "forward, backward, update": lambda: bare(inputs),
            "train_step": lambda: train_step(batch),
            "train_on_batch": lambda: model.train_on_batch(images, ground_truth),
            "assign_targets alone": lambda: targets(clean_ground_truth(batch[1]), heads, inputs),
            "compute_loss alone": lambda: losses(inputs, batch[1], heads),
        },
        arguments.rounds,
        len(images),
    )


def truths(batch_size, rows, num_classes, objects=8):
    """Random ground truth, `objects` boxes in each image, the other rows padding."""
    rng = np.random.default_rng(1)
    corners, sizes = rng.uniform(0, 0.6, (batch_size, rows, 2)), rng.uniform(0.05, 0.4, (batch_size, rows, 2))
    labels = rng.integers(0, num_classes, (batch_size, rows))
    labels[:, objects:] = -1
    boxes = np.concatenate([corners, corners + sizes], axis=-1)
    return {"boxes": boxes.astype("float32"), "labels": labels.astype("int32")}


# -------------------------------------------------------------------------------------------------------------- timing


def make_images(batch_size, size):
    """`[B, size, size, 3]` uint8: colored blotches of many sizes, a different image in each place."""
    rng = np.random.default_rng(2)
    images = np.zeros((batch_size, size, size, 3), "float32")
    for cells in (3, 9, 27, 81):
        noise = rng.normal(0, 1, (batch_size, cells, cells, 3)).astype("float32")
        images += np.asarray(tf.image.resize(noise, (size, size), "bicubic"))
    return np.clip(128 + 40 * images, 0, 255).astype("uint8")


def report(title, functions, rounds, batch_size):
    """Runs the functions alternately and prints a row for each; the first one is what the ratios refer to."""
    wall, processor = interleaved(functions, rounds)
    print(f"\n{title}")
    print(f"{'':>28}{'median ms':>12}{'fastest ms':>12}{'ms per image':>13}{'ratio':>8}{'CPU ms':>9}{'CPU ratio':>11}")
    first = next(iter(functions))
    for name in functions:
        median = 1e3 * np.median(wall[name])
        print(
            f"{name:>28}{median:12.1f}{1e3 * np.min(wall[name]):12.1f}{median / batch_size:13.1f}"
            f"{np.median(wall[name] / wall[first]):8.3f}{1e3 * np.median(processor[name]):9.1f}"
            f"{np.median(processor[name] / processor[first]):11.3f}"
        )
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)


def interleaved(functions, rounds):
    """`{name: [rounds] seconds}`, by the clock and of all processors; two rounds go before, untimed."""
    wall, processor = ({name: [] for name in functions} for _ in range(2))
    for round_ in range(-2, rounds):
        for name, function in functions.items():
            clock, used = time.perf_counter(), processor_seconds()
            tf.nest.map_structure(np.asarray, function())
            if round_ >= 0:
                wall[name].append(time.perf_counter() - clock)
                processor[name].append(processor_seconds() - used)
    return tuple({name: np.array(values) for name, values in times.items()} for times in (wall, processor))


def processor_seconds():
    """Processor time of this process, all threads; unlike the clock it does not count waiting for others' work."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
