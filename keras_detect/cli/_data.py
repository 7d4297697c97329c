"""Options shared by the data commands: `--data` and its format."""

import sys

from keras_detect.cli._parser import choice

# of `data.image` and `data.load`, which load Keras
MAX_PIXELS = 2**26
FORMATS = ("coco", "voc", "yolo", "csv", "tfrecord")
DATA_HELP = "folder or file with annotated images: COCO, VOC, YOLO, CSV or TFRecord"
FORMATS_HELP = (
    "coco (one JSON file), voc (Pascal VOC, one XML file per image), yolo (one text file per image), csv (one box per "
    "row) or tfrecord (tf.Example records)"
)


def add_data(parser):
    """Adds `--data`, `--from` and `--max_pixels`."""
    parser.add_argument("--data", required=True, help=DATA_HELP)
    help = f"format of --data: {FORMATS_HELP}; default: auto-detected"
    parser.add_argument("--from", dest="from_format", **format_option(), help=help)
    add_max_pixels(parser)


def add_max_pixels(parser):
    """Adds `--max_pixels`, under which the command runs (`cli.run`)."""
    help = f"refuse to decode images with more pixels (height x width) than this; default: {MAX_PIXELS}"
    parser.add_argument("--max_pixels", type=int, help=help)


def add_calibration(parser):
    """Adds `--data` and `--split`, the images that set the ranges of an int8 file."""
    parser.add_argument(
        "--data",
        help="calibration images for int8: a folder of images, or annotated images, on which AP is measured too",
    )
    parser.add_argument("--split", help="split of --data for calibration; default: all images")


def calibration_data(arguments, class_names):
    """What `representative_data` is for `--data` and `--split`; `class_names` of the model."""
    if arguments.split is None:
        return arguments.data
    if arguments.data is None:
        raise ValueError(f"--split names a part of --data. Received: --split {arguments.split} without --data.")
    from keras_detect.data import load_dataset

    return load_dataset(arguments.data, arguments.split, class_names=class_names)


def format_option():
    """The keywords of an option whose value is the name of a format."""
    load = sys.modules.get("keras_detect.data.load")  # a process that has registered a format has loaded it
    names = FORMATS if load is None else tuple(load.FORMATS)
    return {"type": choice(*names), "metavar": "|".join(names)}
