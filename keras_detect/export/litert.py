"""LiteRT (TensorFlow Lite): one `.tflite` file for phones, browsers and edge boards, suppression inside."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from keras_detect.export import litert_metadata, litert_postprocess
from keras_detect.export import litert_pieces as pieces
from keras_detect.export.errors import ExportError
from keras_detect.export.exporter import Exporter, ExportOptions, Runner
from keras_detect.export.frozen import is_one_stage
from keras_detect.export.metadata import METADATA_NAME
from keras_detect.meta_architectures.detection import threshold_of
from keras_detect.registry import register_exporter
from keras_detect.weights.flatbuffer import FlatBufferError, root

_UPSTREAMS = "tf_od_api"
_INTEGER_INPUTS = {f"{_UPSTREAMS}_uint8": "uint8", f"{_UPSTREAMS}_int8": "int8"}
_MEAN = _STD = 127.5  # of pixels scaled to -1...1


@register_exporter("litert")
class LiteRTExporter(Exporter):
    """A file for LiteRT's stock interpreter, without TensorFlow's operators.

    The signature "default" takes uint8 pixels and gives what `predict` gives, by built-in operators alone. Where the
    model's resizer is a `FixedShapeResizer`, its input has the size of the canvas and can be resized to any other.
    "tf_od_api" is upstream's contract: float32 pixels scaled to -1...1; boxes that are not clipped, classes from 0 (as
    float32), scores and their number, by the operator TFLite_Detection_PostProcess, with metadata for MediaPipe Tasks.
    "tf_od_api_uint8" and "tf_od_api_int8" are the same with an integer input, for int8 files.
    """

    suffix = ".tflite"
    precisions = ("float32", "float16", "dynamic", "int8")
    signatures = ("default", _UPSTREAMS, *_INTEGER_INPUTS)

    def check(self, name: str, options: ExportOptions) -> None:
        super().check(name, options)
        if options.batch_size is None:
            raise ExportError(
                "A LiteRT file takes a fixed number of images per call. Received: batch_size=None. Pass batch_size=1."
            )
        if options.signature != "default" and options.batch_size != 1:
            raise ExportError(
                f"The operator {litert_postprocess.OPERATOR} takes one image. Received: "
                f"batch_size={options.batch_size}. Pass batch_size=1, or signature='default'."
            )
        if _input_type(options) != "float32" and options.precision != "int8":
            raise ExportError(
                f"An integer input belongs to an int8 file. Received: signature={options.signature!r}, "
                f"precision={options.precision!r}. Pass precision='int8', or signature='{_UPSTREAMS}'."
            )

    def check_model(self, model: Any, options: ExportOptions) -> None:
        if options.precision == "int8" and hasattr(model, "proposal_stage"):
            raise ExportError(
                "int8 quantizes what `call` computes, and here that includes the suppression of proposals, which must "
                f"not be rounded. Received: precision='int8' for a {type(model).__name__}. Pass precision='dynamic', "
                "whose kernels are int8, or 'float16'."
            )
        if options.signature != "default" and not is_one_stage(model):
            raise litert_postprocess.needs_one_stage(model)

    def has_static_size(self, model, options: ExportOptions) -> bool:
        return options.signature != "default" or not pieces.resizes_any_size(model.resizer)

    def write(self, frozen, path: pathlib.Path, options: ExportOptions) -> dict[str, Any]:
        network = pieces.network_of(frozen)
        quantized, facts = pieces.network_graph(
            network,
            options.precision,
            lambda: pieces.calibration_batches(frozen, options.representative),
            _input_type(options),
        )
        if options.signature == "default":
            content = _default_file(frozen, network, quantized)
        else:
            content = _upstreams_file(frozen, network, quantized)
        path.write_bytes(content)
        return facts

    def open(self, path: pathlib.Path) -> Runner:
        return LiteRTRunner(path)


class LiteRTRunner(Runner):
    """A LiteRT file in the interpreter."""

    def __init__(self, path):
        self.metadata = json.loads(_entry(path, METADATA_NAME))
        self.takes_float = self.metadata["signature"] != "default"
        # with two threads, the kernel of upstream's operator forgets classes (LiteRT 2.3, TensorFlow 2.21)
        threads = 1 if self.takes_float else os.cpu_count()
        self._interpreter = interpreter_class()(model_path=os.fspath(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self._shape = tuple(self._input["shape"])
        self.batch_size = int(self._input["shape"][0])
        size = tuple(int(side) for side in self._input["shape_signature"][1:3])
        self.image_size = None if -1 in size else size

    def __call__(self, images):
        given = self._quantized((images.astype(np.float32) - _MEAN) / _STD) if self.takes_float else images
        if given.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input["index"], given.shape)
            self._interpreter.allocate_tensors()
            self._shape = given.shape
        self._interpreter.set_tensor(self._input["index"], given)
        self._interpreter.invoke()
        found = [self._interpreter.get_tensor(output["index"]) for output in self._outputs]
        if self.takes_float:
            return litert_postprocess.as_detections(*found)
        return {output["name"]: value for output, value in zip(self._outputs, found, strict=True)}

    def _quantized(self, images):
        dtype = self._input["dtype"]
        if dtype == np.float32:
            return images
        scale, zero_point = self._input["quantization"]
        limits = np.iinfo(dtype)
        return np.clip(np.rint(images / scale + zero_point), limits.min, limits.max).astype(dtype)


def interpreter_class() -> Any:
    """LiteRT's interpreter from the package `ai-edge-litert`, or the one that TensorFlow brings."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter


def _input_type(options):
    return _INTEGER_INPUTS.get(options.signature, "float32")


def _default_file(frozen, network, quantized):
    graph = pieces.pixels_graph(frozen)
    graph.append(quantized)
    graph.append(pieces.detections_graph(frozen, network))
    _describe(graph, frozen)
    return litert_metadata.with_labels(graph.finish(_description(frozen)), frozen.model.class_names)


def _upstreams_file(frozen, network, graph):
    scaled = pieces.scaled_graph(frozen)
    if scaled is not None:
        scaled.append(graph)
        graph = scaled
    litert_postprocess.append_postprocess(graph, frozen, network)
    _describe(graph, frozen)
    model, description = frozen.model, _description(frozen)
    metadata = litert_metadata.detector_metadata(
        model.name,
        description,
        mean=_MEAN,
        std=_STD,
        class_names=model.class_names,
        score_threshold=threshold_of(model),
    )
    graph.add_metadata(litert_metadata.ENTRY, metadata)
    content = graph.finish(description, litert_postprocess.TENSOR_NAMES)
    return litert_metadata.with_labels(content, model.class_names)


def _describe(graph, frozen):
    graph.add_metadata(METADATA_NAME, json.dumps(frozen.metadata).encode())


def _description(frozen):
    return f"{frozen.metadata['model']} {frozen.metadata['name']}, written by keras_detect {frozen.metadata['version']}"


def _entry(path, name):
    """The metadata entry `name` of a LiteRT file. Raises `ValueError` for a file that has none."""
    content = pathlib.Path(path).read_bytes()
    try:
        model = root(content)
        buffers = model.tables(4)
        for entry in model.tables(6):
            if entry.string(0) == name:
                return bytes(buffers[int(entry.scalar(1, "<I"))].bytes(0) or b"")
    except (FlatBufferError, IndexError) as error:
        raise ValueError(f"{path}: a damaged or truncated LiteRT file ({error})") from error
    raise ValueError(f"{path}: no LiteRT file that keras_detect has written")
