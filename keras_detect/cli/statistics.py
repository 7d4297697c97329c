"""`keras-detect statistics`: wraps `keras_detect.data.write_statistics`."""

import pathlib

from keras_detect.cli._data import add_data

HELP = "summarize the classes, object sizes and matching anchors of a data set"
EXAMPLE = "--data cells --split train --output cells_statistics"


def add_arguments(parser):
    add_data(parser)
    parser.add_argument("--split", help="split to summarize; default: all splits, each stated")
    parser.add_argument("--model", help=".keras file or preset whose anchors are compared with the boxes")
    parser.add_argument(
        "--num_anchors", type=int, default=9, help="number of anchor shapes to propose; default: %(default)s"
    )
    parser.add_argument("--output", required=True, help="folder for statistics.json, statistics.png, gallery.png")


def run(arguments):
    from keras_detect.data import load_dataset, write_statistics
    from keras_detect.data.check import splits_in_words
    from keras_detect.data.load import load_every_split
    from keras_detect.data.statistics import statistics_table
    from keras_detect.messages import counted
    from keras_detect.meta_architectures.detection_model import DetectionModel

    model = DetectionModel.from_preset(arguments.model) if arguments.model else None
    # without the model's class names: its anchors are compared with the boxes of any classes
    if arguments.split is None:
        dataset, counts = load_every_split(arguments.data, format=arguments.from_format)
        print(f"{arguments.data}{splits_in_words(counts)}: {counted(len(dataset), 'image')}")
    else:
        dataset = load_dataset(arguments.data, arguments.split, format=arguments.from_format)
    print(statistics_table(write_statistics(dataset, arguments.output, model, arguments.num_anchors)))
    files = ("statistics.json", "statistics.png", "gallery.png")
    print(f"written: {', '.join(str(pathlib.Path(arguments.output) / name) for name in files)}")
    return 0
