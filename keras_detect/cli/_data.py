"""What the commands about data share: `--data` and its format."""

from keras_detect.cli._parser import choice
from keras_detect.data.load import FORMATS


def add_data(parser):
    """Adds `--data` and `--from`."""
    parser.add_argument("--data", required=True, help="folder or file: COCO, VOC, YOLO, CSV or TFRecord")
    parser.add_argument("--from", dest="from_format", **format_option(), help="its format; default: auto-detected")


def format_option():
    """The keywords of an option whose value is the name of a format."""
    return {"type": choice(*FORMATS), "metavar": "|".join(FORMATS)}
