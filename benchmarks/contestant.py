"""What all contestants of `race.py` have in common: how they answer, what they are shown, how they are made ready.

A contestant is a function `(task, images, ground_truth) -> (run, built)`: a call without arguments that does the work
once, and a dict that describes what was built. Its process answers a line of JSON when it is ready (`built`), then one
for every line it reads: seconds by the clock and of all processors, and its peak memory. It ends with its input.

Every contestant gets the same uint8 images of the size that it works at. Weights are random: batch statistics are
settled on the first image, class logits are spread and shifted, so that the same number of pairs of place and class
pass the score threshold everywhere.
"""

import ctypes
import gc
import json
import os
import pathlib
import resource
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

SIZE, CLASSES = 640, 90
PASSING, THRESHOLD, SPREAD = 200, 0.05, 2.0  # pairs per image above a score; deviation of the class logits
ROWS, OBJECTS = 100, 8  # of ground truth, per image


def serve(contestants):
    """Serves the contestant that the command line names (name, task, batch size) until the input ends."""
    name, task, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    run, built = contestants[name](task, make_images(batch_size), truths(batch_size))
    run()  # traces, and fails before the race if it fails
    forget_peak_memory()
    reply(answers, built)
    for _ in sys.stdin:
        clock, used = time.perf_counter(), processor_seconds()
        run()
        taken = time.perf_counter() - clock, processor_seconds() - used
        reply(answers, {"wall": taken[0], "processor": taken[1], "peak_gib": peak_memory()})


def reply(answers, message):
    """Writes a line of JSON."""
    print(json.dumps(message), file=answers, flush=True)


def forget_peak_memory():
    """Lets the peak start over (Linux), so that it is not the building's."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """Largest resident memory of this process since `forget_peak_memory`, GiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def processor_seconds():
    """Processor time of this process, all threads; unlike the clock it does not count waiting for others' work."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def make_images(batch_size):
    """`[B, SIZE, SIZE, 3]` uint8: blotches of many sizes, a different image in each place."""
    rng = np.random.default_rng(2)
    images = np.full((batch_size, SIZE, SIZE, 3), 128.0, "float32")
    for cells in (5, 20, 80, 320):
        blocks = rng.normal(0, 40, (batch_size, cells, cells, 3)).astype("float32")
        images += blocks.repeat(SIZE // cells, axis=1).repeat(SIZE // cells, axis=2)
    return np.clip(images, 0, 255).astype("uint8")


def truths(batch_size):
    """`boxes [B, ROWS, 4]` normalized yxyx, `labels [B, ROWS]`: `OBJECTS` boxes per image, the other rows padding."""
    rng = np.random.default_rng(1)
    corners, sizes = rng.uniform(0, 0.6, (batch_size, ROWS, 2)), rng.uniform(0.05, 0.4, (batch_size, ROWS, 2))
    labels = rng.integers(0, CLASSES, (batch_size, ROWS))
    labels[:, OBJECTS:] = -1
    return np.concatenate([corners, corners + sizes], axis=-1).astype("float32"), labels.astype("int32")


# --------------------------------------------------------------------------------------------------------------- Keras


def compiled(model, task, images, ground_truth, built, constants=False):
    """`(run, built)` of one of our models: `predict_on_batch`, that with its weights as constants, `train_on_batch`."""
    import keras
    import tensorflow as tf

    if task == "train":
        model.compile(keras.optimizers.SGD(0.0, momentum=0.9))
        y = dict(zip(("boxes", "labels", "masks"), ground_truth, strict=False))
        return lambda: model.train_on_batch(images, y), built
    run = (lambda: model.predict_on_batch(images)) if not constants else frozen_predict(model, images)
    found = run()
    built["found"] = None if constants else found["num_detections"].tolist()
    built["version"] = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return run, built


def frozen_predict(model, images):
    """`predict_step` with its weights as constants, which TensorFlow may fold and lay out once for all."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    step = tf.function(lambda x: model.predict_step((x,)))
    frozen = convert_variables_to_constants_v2(step.get_concrete_function(tf.TensorSpec(images.shape, tf.uint8)))
    x = tf.constant(images)
    return lambda: [tensor.numpy() for tensor in frozen(x)]


def settle(model, call):
    """Sets every batch norm's moving statistics to those of the batch: random weights alone let activations vanish."""
    import keras

    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    call(True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum


def describe(model, inputs, class_logits, batch_size=1):
    """Places that get a class, parameters, and the work of convolutions and dense layers of a Keras network."""
    return {
        "anchors": int(class_logits.shape[1]),
        "parameters": model.count_params(),
        "gflop": graph_work(network_graph(model, inputs), int(class_logits.shape[1]) * batch_size),
    }


def network_graph(model, inputs):
    """The graph of a network's call."""
    import tensorflow as tf

    return tf.function(lambda x: model(x, training=False)).get_concrete_function(inputs).graph


def graph_work(graph, rows=0):
    """GFLOP of a graph's convolutions and matrix products; `rows` stands for a size that the graph does not know."""
    work = 0.0
    for op in graph.get_operations():
        if op.type in ("Conv2D", "MatMul"):
            outputs = np.prod([rows if size is None else size for size in op.outputs[0].shape])
            work += 2e-9 * outputs * np.prod(op.inputs[1].shape[:-1])
    return float(work)


# --------------------------------------------------------------------------------------------------------- the floor


def convolutions(task, graph, constants):
    """`(run, built)` of a graph's convolutions one after the other, nothing else. For `train`, with both gradients."""
    import tensorflow as tf

    rows = [
        (tuple(op.inputs[0].shape), tuple(op.inputs[1].shape), op.get_attr("strides"), op.get_attr("padding").decode())
        for op in graph.get_operations()
        if op.type == "Conv2D"
    ]
    rng = np.random.default_rng(0)
    shapes = sorted({row[0] for row in rows})
    inputs = {shape: tf.constant(rng.standard_normal(shape, "float32")) for shape in shapes}
    kernels = [
        rng.standard_normal(kernel, "float32") * np.float32(np.prod(kernel[:3]) ** -0.5) for _, kernel, _, _ in rows
    ]
    if task == "train" or not constants:
        kernels = [tf.Variable(kernel) for kernel in kernels]

    def run(inputs):
        last, seen = [], []  # a number of each result is returned: TensorFlow leaves out what nobody asks for
        for number, ((shape, _, strides, padding), kernel) in enumerate(zip(rows, kernels, strict=True)):
            x, settings = inputs[shapes.index(shape)], {"strides": strides, "padding": padding}
            kernel = tf.convert_to_tensor(kernel)  # numpy: a constant of the graph, laid out once for all
            with tf.control_dependencies(last):  # in a network, too, each waits for the one before
                y = tf.raw_ops.Conv2D(input=x, filter=kernel, **settings)
            outputs = [y]
            if task == "train":
                with tf.control_dependencies([y]):
                    outputs.append(
                        tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=kernel.shape, out_backprop=y, **settings)
                    )
                if number:  # nothing before the first convolution is trained
                    with tf.control_dependencies(outputs[-1:]):
                        outputs.append(
                            tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=kernel, out_backprop=y, **settings)
                        )
            last = [output[0, 0, 0, 0] for output in outputs]
            seen.extend(last)
        return tf.stack(seen)

    run = tf.function(run)
    tensors = [inputs[shape] for shape in shapes]
    gflop = sum(
        2e-9 * np.prod(op.outputs[0].shape) * np.prod(op.inputs[1].shape[:3])
        for op in run.get_concrete_function(tensors).graph.get_operations()
        if op.type == "Conv2D"
    )
    return lambda: run(tensors).numpy(), {"gflop": gflop}


# --------------------------------------------------------------------------------------------------------- TorchVision


def torchvision_runs(model, task, images, ground_truth, built, memory="contiguous_format"):
    """`(run, built)` of a TorchVision detector, eager, as its documentation runs it: a list of images in 0...1.

    Its processor time tells less than the others': OpenMP's threads spin while they wait for one another.
    """
    import torch
    import torchvision

    model.to(memory_format=getattr(torch, memory))
    built["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    built["version"] = f"TorchVision {torchvision.__version__}, torch {torch.__version__}"
    if task == "train":
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        targets = torch_targets(ground_truth)

        def train():
            optimizer.zero_grad()
            loss = sum(model(torch_images(images), targets).values())
            loss.backward()
            optimizer.step()
            return loss.item()

        return train, built

    model.eval()

    @torch.inference_mode()
    def predict():
        return [{key: value.numpy() for key, value in found.items()} for found in model(torch_images(images))]

    built["found"] = [len(found["scores"]) for found in predict()]
    return predict, built


def torch_images(images):
    """uint8 `[B, H, W, 3]` -> list of float32 `[3, H, W]` in 0...1."""
    import torch

    return [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]


def torch_targets(ground_truth):
    """Ground truth, with masks or without, as TorchVision expects it: pixels, xyxy, labels from 1."""
    import torch

    targets = []
    for boxes, labels, *masks in zip(*ground_truth, strict=True):
        there = labels >= 0
        target = {
            "boxes": torch.from_numpy(boxes[there][:, [1, 0, 3, 2]] * SIZE),
            "labels": torch.from_numpy(labels[there].astype("int64") + 1),
        }
        targets.append(target | ({"masks": torch.from_numpy(masks[0][there])} if masks else {}))
    return targets


def torch_settle(model, call):
    """As `settle`, for the batch norms of a torch network; `call` runs it. Leaves it in `eval` mode."""
    import torch

    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    model.train()
    for layer in norms:
        layer.momentum = 1.0
    call()
    for layer in norms:
        layer.momentum = 0.1
    model.eval()


def torch_work(model, call):
    """GFLOP of the convolutions and dense layers that `call` runs."""
    import torch

    work = []

    def count(layer, inputs, output):
        work.append(2e-9 * output.numel() * np.prod(layer.weight.shape[1:]))

    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        call()
    for hook in hooks:
        hook.remove()
    return float(sum(work))
