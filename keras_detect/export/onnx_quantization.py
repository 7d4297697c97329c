"""int8 for ONNX Runtime: the convolutions and what is between them.

The last convolutions, whose outputs are box codes and logits, stay float: 256 steps over the range of all logits are
too few for scores. So do pixels, decoding and suppression.
"""

import logging
import pathlib

import numpy as np

from keras_detect import schema
from keras_detect.data.image import as_uint8
from keras_detect.export.errors import ExportError
from keras_detect.export.fitted import fitting_resizer
from keras_detect.export.representative import CALIBRATION_IMAGES

_BETWEEN = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "GlobalAveragePool",
    "HardSigmoid",
    "MaxPool",
    "Mul",
    "Relu",
    "Resize",
    "Sigmoid",
)
_QUANTIZED = ("Conv", *(name for name in _BETWEEN if name != "HardSigmoid"))  # which ONNX Runtime has in float alone

_TOO_LARGE = (
    "int8 cannot hold the range of an activation: on the representative images the network's values are not finite or "
    "too large for float32, as with untrained weights. Train the model first, or export it in float32."
)


def quantized(model, representative, folder: pathlib.Path, resizer=None):
    """A float model as one whose convolutions compute in int8, with ranges from representative images.

    Args:
        model: `onnx.ModelProto`.
        representative: `RepresentativeImages`.
        folder: for temporary files.
        resizer: of the detector, which fits images to its canvas if that is the size of the input.

    Returns:
        `(onnx.ModelProto, what was quantized)`.

    Raises:
        ExportError: values of the network that are not finite, or too large.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    properties = list(model.metadata_props)
    names = _network(model)
    float_path, int8_path = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, float_path)
    root = logging.getLogger()
    root.addFilter(_without_advice)
    try:
        with np.errstate(invalid="ignore", divide="ignore"):  # the step of an activation that is 0 everywhere
            quantize_static(
                str(float_path),
                str(int8_path),
                _Calibration(model, representative, resizer),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_QUANTIZED),
                nodes_to_quantize=names,
            )
        result = onnx.load(int8_path)
    except AssertionError as error:  # of the step of a range that is not finite
        raise ExportError(_TOO_LARGE) from error
    finally:
        root.removeFilter(_without_advice)
        float_path.unlink(missing_ok=True)
        int8_path.unlink(missing_ok=True)
    if not all(np.isfinite(step).all() for step in _steps(result)):
        raise ExportError(_TOO_LARGE)
    del result.metadata_props[:]
    result.metadata_props.extend(properties)
    chosen = set(names)
    convolutions = sum(node.op_type == "Conv" and node.name in chosen for node in model.graph.node)
    return result, f"{convolutions} convolutions, activations uint8, weights int8 per channel"


def _steps(model):
    """Arrays: the step of every quantized tensor."""
    from onnx import numpy_helper

    kinds = ("QuantizeLinear", "DequantizeLinear")
    names = {node.input[1] for node in model.graph.node if node.op_type in kinds}
    return [numpy_helper.to_array(entry) for entry in model.graph.initializer if entry.name in names]


def _without_advice(record):
    """ONNX Runtime advises to fold batch norm first, which a frozen detector has done."""
    return "pre-processing before quantization" not in record.getMessage()


def _network(model):
    """Names of the convolutions that others follow, and of the nodes between."""
    nodes = list(model.graph.node)
    after, before = set(), set()
    for node in nodes:
        if node.op_type == "Conv" or (node.op_type in _BETWEEN and after.intersection(node.input)):
            after.update(node.output)
    for node in reversed(nodes):
        if node.op_type == "Conv" or (node.op_type in _BETWEEN and before.intersection(node.output)):
            before.update(node.input)
    return [
        node.name
        for node in nodes
        if node.op_type in ("Conv", *_BETWEEN) and after.intersection(node.output) and before.intersection(node.output)
    ]


class _Calibration:
    """Images for ONNX Runtime's calibration: `get_next` returns the inputs of one call, then `None`."""

    def __init__(self, model, representative, resizer):
        sides = model.graph.input[0].type.tensor_type.shape.dim
        batch, height, width = (side.dim_value or None for side in sides[:3])
        self._batch = batch or 1
        self._resizer, self._size = resizer, None if height is None else (height, width)
        self._pixels = representative.pixels(CALIBRATION_IMAGES)

    def get_next(self):
        image = next(self._pixels, None)
        if image is None:
            return None
        if self._size is not None:
            resizer = fitting_resizer(self._resizer, image.shape[:2], self._size)
            image = as_uint8(resizer.resize_image(image)[0])
        return {schema.IMAGES: np.repeat(image[None], self._batch, axis=0)}
