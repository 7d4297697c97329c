"""`keras-detect check`: covers `keras_detect.check_dataset`."""

import pathlib

from keras_detect.cli._data import add_data

HELP = "everything that is wrong with annotated images"
EXAMPLE = "--data cells --model runs/cells/model.keras"


def add_arguments(parser):
    add_data(parser)
    parser.add_argument("--split", help="split to check; default: everything")
    parser.add_argument("--model", help=".keras file or preset whose anchors and classes must fit")
    parser.add_argument("--output", help="write the table to this .json file too")


def run(arguments):
    """Prints the table of a check; 0 if a training would start, else 1."""
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
