"""`keras-detect check`: wraps `keras_detect.check_dataset`."""

import pathlib

from keras_detect.cli._data import add_data

HELP = "report everything that is wrong with annotated images"
EXAMPLE = "--data cells --model runs/cells/model.keras"


def add_arguments(parser):
    add_data(parser)
    parser.add_argument("--split", help="split to check; default: all splits, each stated")
    parser.add_argument("--model", help=".keras file or preset to check anchors and class names against")
    parser.add_argument("--output", help="also write the report to this .json file")


def run(arguments):
    """Prints the report; returns 0 if training could start, else 1."""
    from keras_detect.data.check import check_dataset
    from keras_detect.files import write_json
    from keras_detect.meta_architectures.detection_model import DetectionModel

    model = DetectionModel.from_preset(arguments.model) if arguments.model else None
    report = check_dataset(
        arguments.data,
        split=arguments.split,
        format=arguments.from_format,
        model=model,
        class_names=getattr(model, "class_names", None),
    )
    print(report)
    if arguments.output:
        write_json(pathlib.Path(arguments.output).expanduser(), report.to_dict())
    return 0 if report.ok else 1
