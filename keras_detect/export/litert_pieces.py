"""A detector as LiteRT pieces: pixel scaling, network and post-processing, each converted by itself.

Only the network is quantized or stored in float16: anchors, overlaps and scores stay float32.
"""

import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_detect import schema
from keras_detect.export.errors import ExportError
from keras_detect.export.fitted import fitting_resizer
from keras_detect.export.frozen import canvas_of
from keras_detect.export.litert_graph import FLOAT32, SIGNATURE, LiteRTGraph
from keras_detect.export.litert_heads import split_before_heads
from keras_detect.export.representative import CALIBRATION_IMAGES
from keras_detect.kernels import dispatch
from keras_detect.messages import one_line
from keras_detect.transforms.resizers import FixedShapeResizer

_PIXELS = np.linspace(0.0, 255.0, 48, dtype=np.float32).reshape(1, 4, 4, 3)
_UNSUPPORTED = re.compile(r"(?:Flex|Select|TF|Custom|custom)[ \w-]*ops: *([^\n]+)")


@dataclasses.dataclass(frozen=True)
class Network:
    """What runs between `preprocess` and `postprocess`, traced.

    Attributes:
        function: `images [B, h, w, 3]` float32, in network units -> the predictions that depend on them.
        constants: the other predictions: anchors and sizes, numpy arrays.
        true_image_shapes: `[B, 3]` int32 of the preprocessed images, the same for every batch.
        outputs: names of what `function` gives.
        origins: of each name, the prediction that it is, and its place where that is a list.
    """

    function: Any
    constants: dict[str, np.ndarray]
    true_image_shapes: np.ndarray
    outputs: tuple[str, ...]
    origins: dict[str, tuple[str, int | None]]

    def specs(self) -> list[Any]:
        """`TensorSpec` of each output."""
        import tensorflow as tf

        tensors = self.function.structured_outputs
        return [tf.TensorSpec(tensors[name].shape, tensors[name].dtype, name) for name in self.outputs]

    def predictions(self, values) -> dict[str, Any]:
        """All predictions, from tensors for `outputs`."""
        found: dict[str, Any] = {}
        for key, value in {**self.constants, **dict(zip(self.outputs, values, strict=True))}.items():
            name, index = self.origins[key]
            if index is None:
                found[name] = value
            else:
                found.setdefault(name, {})[index] = value
        return {
            name: [value[index] for index in sorted(value)] if isinstance(value, dict) else value
            for name, value in found.items()
        }


def network_of(frozen) -> Network:
    """The `Network` of a `FrozenDetector`."""
    import tensorflow as tf

    model, pixels = frozen.model, np.zeros((frozen.batch_size, *_given_size(frozen), 3), np.float32)
    inputs = model.preprocess(pixels)
    shapes = np.asarray(inputs[schema.TRUE_IMAGE_SHAPES])

    origins: dict[str, tuple[str, int | None]] = {}

    def call(images):
        predictions = model({schema.IMAGES: images, schema.TRUE_IMAGE_SHAPES: tf.constant(shapes)}, training=False)
        flat = {}
        for name, value in predictions.items():
            if isinstance(value, list | tuple):  # one entry per feature map
                keys = [f"map_{len(flat) + index}" for index in range(len(value))]
                origins.update({key: (name, index) for index, key in enumerate(keys)})
                flat.update(zip(keys, value, strict=True))
            else:
                origins[name], flat[name] = (name, None), value
        return flat

    spec = tf.TensorSpec(inputs[schema.IMAGES].shape, tf.float32, schema.IMAGES)
    traced = trace(call, spec)
    outputs = tuple(sorted(name for name, value in traced.structured_outputs.items() if _depends_on_inputs(value)))
    values = traced(tf.convert_to_tensor(inputs[schema.IMAGES]))
    constants = {name: value.numpy() for name, value in values.items() if name not in outputs}
    function = trace(lambda images: {name: value for name, value in call(images).items() if name in outputs}, spec)
    return Network(function, constants, shapes, outputs, origins)


def resizes_any_size(resizer) -> bool:
    """Whether LiteRT has an operator that brings images of any size to the canvas of this resizer."""
    return isinstance(resizer, FixedShapeResizer) and resizer.method == "bilinear"


def pixels_graph(frozen) -> LiteRTGraph:
    """uint8 pixels to what the network takes."""
    preprocess = frozen.model.preprocess
    function = trace(lambda images: {schema.IMAGES: preprocess(images)[schema.IMAGES]}, frozen.images_spec("uint8"))
    graph = LiteRTGraph(converted(function))
    # of an input of any size, the shape that it has until a client resizes it
    shape = (frozen.batch_size, *_given_size(frozen), 3)
    graph.main.tensors[graph.inputs[schema.IMAGES]].shape = np.asarray(shape, np.int32)
    return graph


def scaled_graph(frozen) -> LiteRTGraph | None:
    """Pixels scaled to -1...1 to what the network takes; `None` where that is the same."""
    model = frozen.model
    given = np.broadcast_to(np.resize(_PIXELS, (*frozen.image_size, 3)), (1, *frozen.image_size, 3))
    taken = model.preprocess(given)[schema.IMAGES]
    if tuple(taken.shape) == given.shape and np.allclose(taken, given / 127.5 - 1.0, atol=1e-6):
        return None
    function = trace(
        lambda images: {schema.IMAGES: model.preprocess((images + 1.0) * 127.5)[schema.IMAGES]},
        frozen.images_spec("float32"),
    )
    return LiteRTGraph(converted(function))


def network_graph(
    network: Network, precision: str, images: Callable[[], Iterator[Any]], input_type: str
) -> tuple[LiteRTGraph, dict[str, Any]]:
    """The network in a precision, and facts for the report.

    Args:
        network: a `Network`.
        precision: "float32", "float16", "dynamic" or "int8", which leaves the last convolutions of the heads float32.
        images: for int8: preprocessed batches, which set the ranges.
        input_type: "float32"; for int8 also "uint8" or "int8".
    """
    import tensorflow as tf

    settings: dict[str, Any] = {}
    body, heads = network.function, None
    if precision != "float32":
        settings["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        settings["types"] = [tf.float16]
    if precision == "int8":
        settings["representative_dataset"] = lambda: ([batch] for batch in images())
        settings["operators"] = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        settings["inference_input_type"] = tf.as_dtype(input_type)
        body, heads = split_before_heads(network.function) or (body, heads)
    graph = LiteRTGraph(converted(body, **settings))
    facts = _integer_facts(graph) if precision == "int8" else {}
    if heads is not None:
        graph.append(LiteRTGraph(converted(heads)))
        facts["in float32"] = "the last convolutions of the heads, decoding and suppression"
    return graph, facts


def detections_graph(frozen, network: Network) -> LiteRTGraph:
    """The network's predictions to detections (`schema`)."""

    def postprocess(*values):
        return frozen.model.postprocess(network.predictions(values), network.true_image_shapes)

    function = trace(postprocess, *network.specs())
    return LiteRTGraph(converted(function))


def calibration_batches(frozen, representative) -> Iterator[np.ndarray]:
    """Preprocessed batches of representative images."""
    import tensorflow as tf

    preprocess = trace(
        lambda images: {schema.IMAGES: frozen.model.preprocess(images)[schema.IMAGES]}, frozen.images_spec("uint8")
    )
    for image in representative.pixels(CALIBRATION_IMAGES):
        if frozen.image_size is not None:
            image = fitting_resizer(frozen.model.resizer, image.shape[:2], frozen.image_size).resize_image(image)[0]
        batch = np.broadcast_to(image, (frozen.batch_size, *image.shape))
        yield preprocess(tf.constant(batch, tf.uint8))[schema.IMAGES]


def _integer_facts(graph):
    """How many operators of a quantized graph are computed in integers, and which are not."""
    types = [tensor.type for tensor in graph.main.tensors]
    counted = [
        (name, any(types[number] == FLOAT32 for number in operator.outputs))
        for name, operator in graph.operators()
        if name not in ("QUANTIZE", "DEQUANTIZE")
    ]
    left = sorted({name for name, is_float in counted if is_float})
    whole = f"{sum(not is_float for _, is_float in counted)} of {len(counted)} operators of the network"
    return {"in integers": whole + (f" (not: {', '.join(left)})" if left else "")}


def _given_size(frozen):
    """The size of the input, or of the canvas where the input can have any."""
    return frozen.image_size or canvas_of(frozen.model)


def trace(forward: Callable[..., dict[str, Any]], *specs) -> Any:
    """A concrete function of a detector's, with the kernels that LiteRT's converter knows.

    The converter freezes the weights and folds batch norm itself.

    Args:
        forward: takes a tensor for each of `specs` and returns a dict of tensors.
        *specs: `TensorSpec`s with names.
    """
    import tensorflow as tf

    with dispatch.portable_kernels(), dispatch.never_compiled():
        return tf.function(forward, input_signature=list(specs), autograph=False).get_concrete_function()


def converted(function, *, types=(), operators=None, **settings) -> bytes:
    """A concrete function as a LiteRT file of built-in operators.

    Raises:
        ExportError: an operation that no built-in operator stands for.
    """
    import tensorflow as tf

    holder = tf.Module()
    holder.weights = list(function.variables)
    with tempfile.TemporaryDirectory(prefix="keras_detect_export_") as folder:
        tf.saved_model.save(holder, folder, signatures={SIGNATURE: function})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.target_spec.supported_ops = operators or [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.target_spec.supported_types = list(types)
        for name, value in settings.items():
            setattr(converter, name, value)
        return _convert(converter)


def _convert(converter):
    try:
        return converter.convert()
    except Exception as error:
        found = sorted({name.strip() for names in _UNSUPPORTED.findall(str(error)) for name in names.split(",")})
        reason = (
            f"has no built-in operator for {', '.join(found)}" if found else f"failed: {one_line(str(error))[:300]}"
        )
        raise ExportError(
            f"LiteRT's converter {reason}. Expected: operations of keras.ops, such as those of this package's parts. "
            "Replace the part, or export to another format: 'saved_model' or 'onnx'."
        ) from error


def _depends_on_inputs(tensor):
    """Whether a tensor of a traced function is computed from its inputs."""
    seen, left = set(), [tensor.op]
    while left:
        operation = left.pop()
        if operation.type == "Placeholder":
            return True
        if operation.name not in seen:
            seen.add(operation.name)
            left.extend(source.op for source in operation.inputs)
    return False
