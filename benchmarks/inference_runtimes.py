"""Times a detector under each runtime and precision beside its bare convolutions and TorchVision's network.

    torch/bin/python benchmarks/inference_runtimes.py torchvision --output peers
    python benchmarks/inference_runtimes.py run ssd_mobilenet_v2 --peer peers/ssd_mobilenet_v2.onnx --data blood_cells
    python benchmarks/inference_runtimes.py run retinanet_resnet50 --peer peers/retinanet_resnet50.onnx

One image per call, pixels in and detections out. All rows run alternately in one process; a ratio is the median over
the rounds of the ratio to `predict` within a round. Weights are random unless `--model` names a trained file: what a
runtime does to the average precision is measured by `export_ap.py`. `torchvision` writes the peers: the same backbone,
image size and classes, exported by torch.onnx with TorchVision's own post-processing inside.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

PRESETS = {
    "ssd_mobilenet_v2": ("ssd_mobilenet_v2_320x320_coco17_tpu-8", 300),
    "retinanet_resnet50": ("ssd_resnet50_v1_fpn_640x640_coco17_tpu-8", 640),
}
CLASSES, THRESHOLD = 90, 0.05


def main(argv=None):
    """Parses arguments and writes the peers or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    peers = commands.add_parser("torchvision")
    peers.add_argument("--output", required=True, type=pathlib.Path)
    run = commands.add_parser("run")
    run.add_argument("network", choices=sorted(PRESETS))
    run.add_argument("--model", help=".keras file or preset in place of random weights")
    run.add_argument("--peer", help="TorchVision's network as an ONNX file")
    run.add_argument("--data", help="images for int8; without them the packaged photo")
    run.add_argument("--runtimes", nargs="+", default=["tensorflow", "onnxruntime", "litert", "openvino"])
    run.add_argument("--precisions", nargs="+", default=["float32", "int8"])
    run.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args(argv)
    if arguments.what == "torchvision":
        write_peers(arguments.output)
    else:
        print_table(arguments)


# ---------------------------------------------------------------------------------------------------------------- ours


def print_table(arguments):
    """Builds all rows, runs them in turn and prints medians and ratios."""
    model, size = build(arguments.network, arguments.model)
    from keras_detect.export.verification import sample_images

    image = sample_images(None, (size, size))[0]
    rows, notes = contestants(model, image, arguments)
    times = {name: [] for name in rows}
    for run in rows.values():
        run()
    for _ in range(arguments.rounds):
        for name, run in rows.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    print(f"{arguments.network}, {size} x {size}, one image, {arguments.rounds} rounds, {machine()}\n")
    print("| | ms | ratio to predict | ratio to the convolutions |\n| --- | ---: | ---: | ---: |")
    for name, values in times.items():
        ratios = [ratio(values, times[other]) for other in ("predict", "convolutions alone")]
        print(f"| {name} | {statistics.median(values):.1f} | {ratios[0]:.3f} | {ratios[1]:.3f} |")
    for name, note in notes.items():
        print(f"| {name} | {note} | | |")
    print(f"\nPython and copies around the graph in `detect`: {overhead(rows, times):.2f} ms")


def build(network, name):
    """`(model, image size)`; random weights with batch statistics settled on a photo."""
    import dataclasses

    import keras

    from keras_detect import DetectionModel

    preset, size = PRESETS[network]
    keras.utils.set_random_seed(0)
    model = DetectionModel.from_preset(name or preset, load_weights=name is not None, image_size=None if name else size)
    nms = dataclasses.replace(model.postprocessor.nms, score_threshold=THRESHOLD)
    model.postprocessor = dataclasses.replace(model.postprocessor, nms=nms)
    size = model.resizer.output_shape(480, 640)[0]
    if name is None:
        settle_batch_norm(model, size)
    return model, size


def settle_batch_norm(model, size):
    """Statistics of one photo in every batch norm: from random weights alone activations grow too large for int8."""
    from keras_detect.export.verification import sample_images

    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_variance")]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(model.preprocess(np.stack(sample_images(None, (size, size))[:2])), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def contestants(model, image, arguments):
    """`({name: call}, {name: why it is absent})`."""
    from keras_detect.inference import compile

    rows = {"predict": lambda: model.predict_on_batch(image[None])}
    notes = {}
    for runtime in arguments.runtimes:
        for precision in arguments.precisions:
            name = f"{runtime} {precision}"
            data = arguments.data or [image]
            try:
                fast = compile(model, runtime, precision=precision, representative_data=data)
            except (ValueError, ImportError) as error:
                notes[name] = str(error)
                continue
            rows[name] = lambda fast=fast: fast.predict_on_batch(image[None])
            if (runtime, precision) == ("tensorflow", "float32"):
                rows["detect, tensorflow float32"] = lambda fast=fast: fast.detect(image)
                whole, network = fast.runner.functions_for(image[None].shape)
                rows["convolutions alone"] = convolutions(network)
                rows["graph alone, tensorflow float32"] = graph(whole, image)
    if arguments.peer:
        rows["TorchVision, onnxruntime float32"] = peer(arguments.peer, image)
    return rows, notes


def graph(function, image):
    """A call of a frozen function with a tensor that is there already."""
    import tensorflow as tf

    x = tf.constant(image[None])
    return lambda: [value.numpy() for value in function(x).values()]


def convolutions(function):
    """The convolutions of a frozen graph one after the other, depthwise ones too, nothing else."""
    import tensorflow as tf

    kinds = {"Conv2D": tf.raw_ops.Conv2D, "DepthwiseConv2dNative": tf.raw_ops.DepthwiseConv2dNative}
    rng = np.random.default_rng(0)
    rows = [
        (
            kinds[op.type],
            tf.constant(rng.standard_normal(op.inputs[0].shape, "float32")),
            rng.standard_normal(op.inputs[1].shape, "float32"),
            {"strides": op.get_attr("strides"), "padding": op.get_attr("padding").decode()},
        )
        for op in function.graph.get_operations()
        if op.type in kinds
    ]

    def run(inputs):
        last, seen = [], []
        for (kind, _, kernel, settings), x in zip(rows, inputs, strict=True):
            with tf.control_dependencies(last):  # in a network, too, each waits for the one before
                last = [kind(input=x, filter=tf.constant(kernel), **settings)[0, 0, 0, 0]]
            seen += last  # TensorFlow leaves out what nobody asks for
        return tf.stack(seen)

    run, inputs = tf.function(run), [x for _, x, _, _ in rows]
    return lambda: run(inputs).numpy()


def ratio(values, others):
    """Median over the rounds."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def overhead(rows, times):
    """Median over the rounds of what `detect` takes beyond the graph, in milliseconds."""
    names = ("detect, tensorflow float32", "graph alone, tensorflow float32")
    if any(name not in rows for name in names):
        return float("nan")
    return statistics.median(whole - graph for whole, graph in zip(*(times[name] for name in names), strict=True))


def machine():
    """Processors, load, versions, and whether int8 has instructions of its own, on one line."""
    import keras
    import tensorflow as tf

    flags = pathlib.Path("/proc/cpuinfo")
    vnni = "vnni" in flags.read_text() if flags.exists() else "unknown"
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, VNNI {vnni}, {versions}"


# --------------------------------------------------------------------------------------------------------- TorchVision


def peer(path, image):
    """A call of TorchVision's ONNX file on one image, scaled to 0...1 as it expects it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: image.transpose(2, 0, 1).astype("float32") / 255})


def write_peers(folder):
    """TorchVision's RetinaNet ResNet50, and its SSD around its MobileNetV2, as ONNX files."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for network, build_peer in (("ssd_mobilenet_v2", torchvision_ssd), ("retinanet_resnet50", torchvision_retinanet)):
        torch.manual_seed(0)
        size = PRESETS[network][1]
        model, example = build_peer(size).eval(), torch.rand(1, 3, size, size)
        path = folder / f"{network}.onnx"
        torch.onnx.export(model, (list(example),), str(path), opset_version=17, dynamo=False)
        print(path)


def torchvision_retinanet(size):
    """RetinaNet ResNet50 FPN, P3 to P7, 90 classes."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    return retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=size,
        max_size=size,
        detections_per_img=100,
    )


def torchvision_ssd(size):
    """SSD on MobileNetV2: the expansion of block 13, the last features, and four coarser maps."""
    import collections

    import torch
    from torchvision.models import mobilenet_v2
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.ops import Conv2dNormActivation

    class Features(torch.nn.Module):
        out_channels = (576, 1280, 512, 256, 256, 128)

        def __init__(self):
            super().__init__()
            blocks = mobilenet_v2(weights=None).features
            self.first = torch.nn.Sequential(*blocks[:14], blocks[14].conv[0])
            self.second = torch.nn.Sequential(*blocks[14].conv[1:], *blocks[15:])
            pairs = zip(self.out_channels[1:], self.out_channels[2:], strict=False)
            self.extra = torch.nn.ModuleList(
                torch.nn.Sequential(
                    Conv2dNormActivation(before, after // 2, kernel_size=1),
                    Conv2dNormActivation(after // 2, after, kernel_size=3, stride=2),
                )
                for before, after in pairs
            )

        def forward(self, x):
            maps = [self.first(x)]
            maps.append(self.second(maps[0]))
            for layer in self.extra:
                maps.append(layer(maps[-1]))
            return collections.OrderedDict((str(index), entry) for index, entry in enumerate(maps))

    anchors = DefaultBoxGenerator([[2], *[[2, 3]] * 5], min_ratio=20, max_ratio=95)
    return SSD(Features(), anchors, (size, size), CLASSES + 1, score_thresh=THRESHOLD, detections_per_img=100)


if __name__ == "__main__":
    main()
