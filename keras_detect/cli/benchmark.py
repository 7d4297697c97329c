"""`keras-detect benchmark`: covers `keras_detect.inference.benchmark`."""

import dataclasses

from keras_detect.cli._data import add_max_pixels
from keras_detect.cli._parser import image_size

HELP = "latency, throughput, memory and parity of a detector under each runtime"
EXAMPLE = "--model ssd_mobilenet_v2_oidv4 --runtimes tensorflow onnxruntime --precisions float32"


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--runtimes", nargs="+", help="tensorflow, onnxruntime, litert, openvino; default: all")
    parser.add_argument("--precisions", nargs="+", default=["float32"], help="of each runtime (float32)")
    parser.add_argument("--batch_size", type=int, default=8, help="images per call for the throughput (%(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="calls for the latency (%(default)s)")
    parser.add_argument("--image_size", type=int, nargs="+", help="height and width of the images, or one side")
    parser.add_argument("--images", nargs="+", help="images or folders to run on; default: a packaged photo")
    parser.add_argument("--data", help="int8: images like those to come")
    add_max_pixels(parser)
    parser.add_argument("--output", help="a .json file for the rows")


def run(arguments):
    from keras_detect.files import write_json
    from keras_detect.inference import benchmark, benchmark_table, image_files
    from keras_detect.meta_architectures.detection_model import DetectionModel

    images = None if arguments.images is None else image_files(arguments.images)  # refused before the model is loaded
    rows = benchmark(
        DetectionModel.from_preset(arguments.model),
        arguments.runtimes,
        arguments.precisions,
        batch_size=arguments.batch_size,
        repeats=arguments.repeats,
        images=images,
        image_size=image_size(arguments.image_size),
        representative_data=arguments.data,
    )
    print(benchmark_table(rows))
    if arguments.output is not None:
        write_json(arguments.output, {"rows": [dataclasses.asdict(row) for row in rows]})
    return 0
