"""ONNX: a file of the standard's operators, for ONNX Runtime, OpenCV and others."""

import json
import pathlib
from typing import Any

import numpy as np
from keras import ops

from keras_detect import schema
from keras_detect.boxes import box_ops
from keras_detect.boxes.nms import MulticlassNonMaxSuppression
from keras_detect.export import onnx_quantization
from keras_detect.export.errors import ExportError
from keras_detect.export.exporter import Exporter, ExportOptions, Runner
from keras_detect.export.frozen import is_one_stage
from keras_detect.export.onnx_functions import DOMAIN, OPSET
from keras_detect.export.onnx_graph import to_onnx
from keras_detect.registry import register_exporter

RAW = "raw"
_CLASS_NAMES, _SUPPRESSION = "class_names", "suppression"
_SETTINGS = (
    "score_threshold",
    "iou_threshold",
    "max_detections_per_class",
    "max_total_detections",
    "class_agnostic",
    "soft_nms_sigma",
    "clip_first",
    "keep_empty",
)


@register_exporter("onnx")
class ONNXExporter(Exporter):
    """A file of opset 17. Input `images [B, H, W, 3]` uint8; the outputs are those of `predict` (`schema`).

    The signature "raw", of one-stage detectors, ends before suppression, for runtimes without it: `boxes [B, A, 4]`
    normalized to the true image and not clipped, `scores [B, A, K]`. The suppression that `predict` would do is in
    the metadata. int8 is ONNX Runtime's static quantization, in nodes QuantizeLinear and DequantizeLinear.
    """

    suffix = ".onnx"
    requires = ("onnx", "onnxruntime", "tf2onnx")
    precisions = ("float32", "int8")
    signatures = ("default", RAW)
    static_image_size = False

    def check_model(self, model: Any, options: ExportOptions) -> None:
        check_signature(model, options)

    def write(self, frozen, path: pathlib.Path, options: ExportOptions) -> dict[str, Any]:
        import onnx

        model = detector_as_onnx(frozen, options)
        facts = {"opset": OPSET}
        if options.precision == "int8":
            model, facts["quantized"] = onnx_quantization.quantized(
                model, options.representative, path.parent, frozen.model.resizer
            )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return facts

    def open(self, path: pathlib.Path) -> Runner:
        return ONNXRunner(path)


class ONNXRunner(Runner):
    """A file in ONNX Runtime, on the CPU."""

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # not the names of constants that it has dropped
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common class but this one
            raise ValueError(f"ONNX Runtime cannot open {path}: {str(error).splitlines()[0]}") from error
        self._names = [output.name for output in self._session.get_outputs()]
        shape = [side if isinstance(side, int) else None for side in self._session.get_inputs()[0].shape]
        self.batch_size = shape[0]
        self.image_size = None if None in shape[1:3] else (shape[1], shape[2])
        self.metadata = json.loads(self._session.get_modelmeta().custom_metadata_map.get(DOMAIN, "{}"))

    def __call__(self, images):
        found = dict(zip(self._names, self._session.run(None, {schema.IMAGES: images}), strict=True))
        return suppressed(found, self.metadata)


def detector_as_onnx(frozen, options):
    """The detector as an `onnx.ModelProto` with its metadata; raises `ExportError` for what ONNX cannot express."""
    forward = frozen.deployable
    if options.signature == RAW:
        forward = _raw_forward(frozen)
    model = to_onnx(frozen, forward, frozen.images_spec("uint8"))
    _name_sides(model, frozen.batch_size)
    _describe(model, metadata_of(frozen, options))
    return model


def metadata_of(frozen, options):
    """What the file says about itself; a file without suppression also says what suppression belongs to it."""
    if options.signature != RAW:
        return frozen.metadata
    nms = frozen.model.final_suppression
    return {**frozen.metadata, _SUPPRESSION: {name: getattr(nms, name) for name in _SETTINGS}}


def suppressed(found, metadata):
    """Detections (`schema`) of a file's outputs: as they are, or after the suppression that a raw file leaves out."""
    if metadata.get("signature") != RAW:
        return found
    nms = MulticlassNonMaxSuppression(**metadata[_SUPPRESSION])
    kept = nms(found[schema.BOXES], found[schema.SCORES], np.asarray([0.0, 0.0, 1.0, 1.0], np.float32))
    keys = (schema.BOXES, schema.SCORES, schema.LABELS, schema.NUM_DETECTIONS)
    return {key: ops.convert_to_numpy(value) for key, value in zip(keys, kept[:4], strict=True)}


def check_signature(model, options) -> None:
    """Raises `ExportError` for a model whose suppression cannot be left to the client, where `options` ask for it."""
    if options.signature != RAW:
        return
    if not is_one_stage(model):
        raise ExportError(
            f"The signature 'raw' leaves NMS to the client, but a {type(model).__name__} suppresses between "
            "its stages, too. Pass signature='default', which includes all of the NMS."
        )
    postprocessor = model.postprocessor
    if postprocessor.candidates_per_level is not None or callable(postprocessor.nms.scheme):
        raise ExportError(
            "The signature 'raw' leaves NMS to the client, but this model chooses its candidates in another "
            f"way: candidates_per_level={postprocessor.candidates_per_level}, scheme={postprocessor.nms.scheme}. Pass "
            "signature='default'."
        )


def _raw_forward(frozen):
    model = frozen.model

    def forward(images):
        inputs = frozen.preprocess(images)
        stage = model.final_stage(model(inputs, training=False), inputs[schema.TRUE_IMAGE_SHAPES])
        boxes = ops.squeeze(stage.boxes(), axis=2)
        return {
            schema.BOXES: box_ops.change_coordinate_frame(boxes, stage.window),
            schema.SCORES: stage.postprocessor.scores(stage.class_logits),
        }

    return forward


def _name_sides(model, batch_size):
    """Names for the sides of inputs and outputs that are known at run time only."""
    names = ("batch", "height", "width", "channels")
    for value in model.graph.input:
        for side, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if not side.HasField("dim_value"):
                side.dim_param = name
    for value in model.graph.output:
        first, *others = value.type.tensor_type.shape.dim
        if batch_size is None:
            first.dim_param = names[0]
        else:
            first.dim_value = batch_size
        for side in others:
            if not side.HasField("dim_value"):
                side.dim_param = "anchors"


def _describe(model, metadata):
    import onnx.helper

    model.producer_name, model.producer_version = metadata["package"], metadata["version"]
    model.graph.name = metadata["name"]
    properties = {DOMAIN: json.dumps(metadata)}
    if metadata[_CLASS_NAMES] is not None:
        properties[_CLASS_NAMES] = json.dumps(metadata[_CLASS_NAMES])
    onnx.helper.set_model_props(model, properties)
