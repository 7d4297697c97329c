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


def format_option():
    """The keywords of an option whose value is the name of a format."""
    load = sys.modules.get("keras_detect.data.load")  # a process that has registered a format has loaded it
    names = FORMATS if load is None else tuple(load.FORMATS)
    return {"type": choice(*names), "metavar": "|".join(names)}
