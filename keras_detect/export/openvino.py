"""OpenVINO's intermediate representation, converted from the ONNX model."""

import json
import pathlib
from typing import Any

from keras_detect.export.exporter import Exporter, ExportOptions, Runner
from keras_detect.export.onnx import RAW, check_signature, detector_as_onnx, metadata_of, suppressed
from keras_detect.export.onnx_functions import DOMAIN, OPSET
from keras_detect.registry import register_exporter


@register_exporter("openvino")
class OpenVINOExporter(Exporter):
    """Two files: the network (`.xml`) and its weights (`.bin`). Input, outputs and signatures as of "onnx".

    "float16" halves the weights on the disk. int8 is not offered; "onnx" has it.
    """

    suffix = ".xml"
    requires = ("onnx", "openvino", "tf2onnx")
    precisions = ("float32", "float16")
    signatures = ("default", RAW)
    static_image_size = False

    def check_model(self, model: Any, options: ExportOptions) -> None:
        check_signature(model, options)

    def write(self, frozen, path: pathlib.Path, options: ExportOptions) -> dict[str, Any]:
        import onnx
        import openvino

        source = path.with_suffix(".onnx")
        onnx.save(detector_as_onnx(frozen, options), source)
        try:
            model = openvino.Core().read_model(source)  # `convert_model` would report its use to OpenVINO's makers
            model.set_rt_info(json.dumps(metadata_of(frozen, options)), [DOMAIN])
            openvino.save_model(model, path, compress_to_fp16=options.precision == "float16")
        finally:
            source.unlink()
        return {"opset of the ONNX model": OPSET}

    def open(self, path: pathlib.Path) -> Runner:
        return OpenVINORunner(path)


class OpenVINORunner(Runner):
    """A pair of files on the CPU, in float32."""

    def __init__(self, path):
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot open {path}: {str(error).splitlines()[-1]}") from error
        self._compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._names = [output.get_any_name() for output in self._compiled.outputs]
        shape = [side.get_length() if side.is_static else None for side in model.inputs[0].partial_shape]
        self.batch_size = shape[0]
        self.image_size = None if None in shape[1:3] else (shape[1], shape[2])
        self.metadata = json.loads(model.get_rt_info([DOMAIN]).astype(str)) if model.has_rt_info([DOMAIN]) else {}

    def __call__(self, images):
        found = self._compiled([images])
        return suppressed({name: found[name] for name in self._names}, self.metadata)
