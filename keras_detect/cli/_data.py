"""What the commands about data share: `--data` and its format."""

import sys

from keras_detect.cli._parser import choice

# of `data.image` and `data.load`, which load Keras
MAX_PIXELS = 2**26
FORMATS = ("coco", "voc", "yolo", "csv", "tfrecord")


def add_data(parser):
    """Adds `--data`, `--from` and `--max_pixels`."""
    parser.add_argument("--data", required=True, help="folder or file: COCO, VOC, YOLO, CSV or TFRecord")
    parser.add_argument("--from", dest="from_format", **format_option(), help="its format; default: auto-detected")
    add_max_pixels(parser)


def add_max_pixels(parser):
    """Adds `--max_pixels`, under which the command runs (`cli.run`)."""
    help = f"height x width of the largest image that is decoded ({MAX_PIXELS})"
    parser.add_argument("--max_pixels", type=int, help=help)


def format_option():
    """The keywords of an option whose value is the name of a format."""
    load = sys.modules.get("keras_detect.data.load")  # a process that has registered a format has loaded it
    names = FORMATS if load is None else tuple(load.FORMATS)
    return {"type": choice(*names), "metavar": "|".join(names)}
