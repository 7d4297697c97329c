"""Counts the operations of the zoo's models: `python tools/zoo_gflop.py [part of a name ...]` writes `zoo_gflop.json`.

A model is built from its packaged config, its network is traced for one square image, and the convolutions and matrix
products of the graph are counted, a multiplication and an addition as two operations. Nothing is computed, so a laptop
counts EfficientDet D7. Without a name, the models that have no count yet are counted; a model whose config is only in
its archive has none. `tools/zoo_page.py` writes the page that shows the numbers.
"""

import json
import math
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf

from keras_detect import schema
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.presets import directory, packaged, preset

COUNTS = pathlib.Path(__file__).with_name("zoo_gflop.json")
#: operation of the graph -> axes of its second argument over which it sums
SUMMED = {
    "Conv2D": lambda kernel: kernel[:3],
    "DepthwiseConv2dNative": lambda kernel: kernel[:2],
    "MatMul": lambda matrix: matrix[:1],
    "BatchMatMulV2": lambda matrix: matrix[-2:-1],
}


def operations(model):
    """`(side in pixels, number of operations)` for one square image of the model's size.

    They are those of `preprocess` and `call`, and of `postprocess` where a third stage runs on the detections.
    """
    side = max(model.resizer.output_shape(4096, 4096))

    @tf.function
    def network(images):
        inputs = model.preprocess(images)
        predictions = model(inputs, training=False)
        if not getattr(model, "crops_detections", False):
            return predictions
        return model.postprocess(predictions, inputs[schema.TRUE_IMAGE_SHAPES])

    graph = network.get_concrete_function(tf.TensorSpec((1, side, side, 3), tf.float32)).graph
    return side, sum(_operations(operation) for operation in graph.get_operations())


def _operations(operation):
    if operation.type not in SUMMED:
        return 0
    result, argument = operation.outputs[0].shape, operation.inputs[1].shape
    if not (result.is_fully_defined() and argument.is_fully_defined()):
        raise ValueError(f"{operation.name} has no static shape: {result}, {argument}. It cannot be counted.")
    return 2 * math.prod(result) * math.prod(SUMMED[operation.type](tuple(argument)))


def build(name):
    """The model of a preset, without its weights."""
    if name in packaged.names():
        return DetectionModel.from_preset(name, load_weights=False)
    return directory.build_model(preset.get(name).config)[0]


def buildable():
    """Names of the presets that can be built without network."""
    return sorted({*packaged.names(), *(name for name in preset.names() if preset.get(name).config)})


def main(parts):
    counts = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    for name in buildable():
        if any(part in name for part in parts) or (not parts and name not in counts):
            side, number = operations(build(name))
            counts[name] = {"image_side": side, "gflop": round(number / 1e9, 2)}
            print(name, counts[name], flush=True)
            keras.utils.clear_session(free_memory=True)
            COUNTS.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
