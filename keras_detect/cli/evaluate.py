"""`keras-detect evaluate`: wraps `keras_detect.evaluation.evaluate`."""

import pathlib

from keras_detect.cli._data import DATA_HELP, add_max_pixels
from keras_detect.cli._metrics import print_metrics

HELP = "evaluate a model on annotated images and write a report"
EXAMPLE = "--model runs/cells/model.keras --data cells --split test --output runs/cells/test"
_THRESHOLD = "minimum score counted in the confusion matrix; default: the model's own threshold, else 0.3"


def add_arguments(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--split", help="split to evaluate; default: all images")
    add_max_pixels(parser)
    parser.add_argument("--batch_size", type=int, default=8, help="images per batch; default: %(default)s")
    parser.add_argument(
        "--output", help="folder for the report (HTML, plots, JSON), or a .json file for the metrics alone"
    )
    parser.add_argument("--score_threshold", type=float, help=_THRESHOLD)


def run(arguments):
    from keras_detect.evaluation.run import check_output, evaluate
    from keras_detect.meta_architectures.detection_model import DetectionModel

    check_output(arguments.output)  # refused before the model is loaded
    metrics = evaluate(
        DetectionModel.from_preset(arguments.model),
        arguments.data,
        arguments.split,
        output=arguments.output,
        batch_size=arguments.batch_size,
        score_threshold=arguments.score_threshold,
        details={"model": arguments.model},
    )
    print_metrics(metrics)
    if arguments.output is not None and pathlib.Path(arguments.output).suffix != ".json":
        print(f"report: {pathlib.Path(arguments.output) / 'index.html'}")
    return 0
