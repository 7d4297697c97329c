"""`keras-detect export`: covers `keras_detect.export.export_model`."""

from keras_detect.cli._data import add_max_pixels
from keras_detect.cli._parser import image_size

HELP = "a detector for another runtime: SavedModel, LiteRT, ONNX, OpenVINO; compared with predict"
EXAMPLE = "--model runs/cells/model.keras --output cells.tflite --precision int8 --data cells"


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--output", required=True, help="file to write (SavedModel: the folder)")
    parser.add_argument("--format", help="saved_model, litert, onnx or openvino; default: by the suffix of --output")
    parser.add_argument("--precision", default="float32", help="float32, or what the format offers (%(default)s)")
    parser.add_argument("--signature", default="default", help="inputs and outputs of the file (%(default)s)")
    parser.add_argument("--batch_size", type=batch_size, default=1, help="images per call, or any (%(default)s)")
    parser.add_argument("--image_size", type=int, nargs="+", help="height and width of the file's input, or one side")
    parser.add_argument("--data", help="int8: images like those to come, annotated or a folder of bare images")
    parser.add_argument("--images", nargs="+", help="images or folders to compare on; default: a packaged photo")
    add_max_pixels(parser)


def batch_size(text):
    """A number, or `None` for "any"."""
    return None if text == "any" else int(text)


def run(arguments):
    from keras_detect.export import export_model
    from keras_detect.inference import image_files
    from keras_detect.meta_architectures.detection_model import DetectionModel

    images = None if arguments.images is None else image_files(arguments.images)  # refused before the model is loaded
    export_model(
        DetectionModel.from_preset(arguments.model),
        arguments.output,
        arguments.format,
        batch_size=arguments.batch_size,
        image_size=image_size(arguments.image_size),
        precision=arguments.precision,
        signature=arguments.signature,
        representative_data=arguments.data,
        images=images,
    )
    return 0
