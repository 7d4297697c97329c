"""`keras-detect export`: wraps `keras_detect.export.export_model`."""

import argparse

from keras_detect.cli._data import add_calibration, add_max_pixels, calibration_data
from keras_detect.cli._parser import image_size

HELP = "export to SavedModel, LiteRT, ONNX or OpenVINO and compare the file with predict()"
EXAMPLE = "--model runs/cells/model.keras --output cells.tflite --precision int8 --data cells"
_FORMATS = (
    "saved_model (folder), litert (.tflite), onnx (.onnx) or openvino (.xml); default: from the suffix of --output"
)
_PRECISIONS = (
    "float32 (every format), float16 (litert, openvino), dynamic (litert: int8 weights, float computation) or int8 "
    "(litert, onnx: int8 weights and activations, needs --data); default: %(default)s"
)
_SIGNATURES = (
    "inputs and outputs: default (images in, detections out), raw (onnx, openvino: network outputs without "
    "post-processing), tf_od_api, tf_od_api_uint8 or tf_od_api_int8 (litert: as the TensorFlow Object Detection API "
    "exports), image_tensor, float_image_tensor, encoded_image_string_tensor or tf_example (saved_model: upstream's "
    "input types); default: %(default)s"
)


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--output", required=True, help="file to write; for a SavedModel, a folder")
    parser.add_argument("--format", help=_FORMATS)
    parser.add_argument("--precision", default="float32", help=_PRECISIONS)
    parser.add_argument("--signature", default="default", help=_SIGNATURES)
    parser.add_argument(
        "--batch_size",
        type=batch_size,
        default=1,
        help="images per call: a number, or any for a variable batch size; default: %(default)s",
    )
    parser.add_argument(
        "--image_size", type=int, nargs="+", help="height and width of the exported input, or one number for a square"
    )
    add_calibration(parser)
    parser.add_argument(
        "--images", nargs="+", help="images or folders for the comparison; default: a photo in the package"
    )
    add_max_pixels(parser)


def batch_size(text):
    """A number, or `None` for "any"."""
    if text != "any" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expects a number, or any. Received: '{text}'")
    return None if text == "any" else int(text)


def run(arguments):
    from keras_detect.export import export_model
    from keras_detect.inference import image_files
    from keras_detect.meta_architectures.detection_model import DetectionModel

    images = None if arguments.images is None else image_files(arguments.images)  # refused before the model is loaded
    model = DetectionModel.from_preset(arguments.model)
    export_model(
        model,
        arguments.output,
        arguments.format,
        batch_size=arguments.batch_size,
        image_size=image_size(arguments.image_size),
        precision=arguments.precision,
        signature=arguments.signature,
        representative_data=calibration_data(arguments, model.class_names),
        images=images,
    )
    return 0
