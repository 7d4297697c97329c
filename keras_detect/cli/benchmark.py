"""`keras-detect benchmark`: wraps `keras_detect.inference.benchmark`."""

import dataclasses

from keras_detect.cli._data import add_calibration, add_max_pixels, calibration_data
from keras_detect.cli._parser import image_size

_RUNTIMES = (
    "runtimes to compare with predict(): tensorflow (frozen graph), onnxruntime, litert, openvino; default: all of them"
)
_PRECISIONS = "precisions to measure: float32, float16, dynamic (int8 weights), int8, where supported; default: float32"
HELP = "measure latency, throughput, memory and parity of a detector under each runtime"
EXAMPLE = "--model ssd_mobilenet_v2_oidv4 --runtimes tensorflow onnxruntime --precisions float32"


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--runtimes", nargs="+", help=_RUNTIMES)
    parser.add_argument("--precisions", nargs="+", default=["float32"], help=_PRECISIONS)
    parser.add_argument(
        "--batch_size", type=int, default=8, help="images per call when measuring throughput; default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=20, help="number of calls to measure; default: %(default)s")
    parser.add_argument(
        "--image_size", type=int, nargs="+", help="height and width of the input, or one number for a square"
    )
    parser.add_argument("--images", nargs="+", help="images or folders to run on; default: a photo in the package")
    add_calibration(parser)
    add_max_pixels(parser)
    parser.add_argument("--output", help="also write the results to this .json file")


def run(arguments):
    from keras_detect.files import write_json
    from keras_detect.inference import benchmark, benchmark_table, image_files
    from keras_detect.meta_architectures.detection_model import DetectionModel

    images = None if arguments.images is None else image_files(arguments.images)  # refused before the model is loaded
    model = DetectionModel.from_preset(arguments.model)
    rows = benchmark(
        model,
        arguments.runtimes,
        arguments.precisions,
        batch_size=arguments.batch_size,
        repeats=arguments.repeats,
        images=images,
        image_size=image_size(arguments.image_size),
        representative_data=calibration_data(arguments, model.class_names),
    )
    print(benchmark_table(rows))
    if arguments.output is not None:
        write_json(arguments.output, {"rows": [dataclasses.asdict(row) for row in rows]})
    return 0
