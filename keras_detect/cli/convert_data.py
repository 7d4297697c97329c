"""`keras-detect convert_data`: wraps `keras_detect.data.convert_dataset`."""

from keras_detect.cli._data import FORMATS_HELP, add_data, format_option

HELP = "convert annotated images to another format"
EXAMPLE = "--data cells --to tfrecord --output cells_record --splits train val"


def add_arguments(parser):
    add_data(parser)
    parser.add_argument("--to", required=True, **format_option(), help=f"format to write: {FORMATS_HELP}")
    parser.add_argument("--output", required=True, help="folder to write; image files are copied unchanged")
    parser.add_argument(
        "--splits",
        nargs="+",
        default=(),
        help="splits to write, each under its own name; default: those of a folder with an annotation file per split, "
        "else all images as one set",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the data set in --output; other files are kept"
    )


def run(arguments):
    from keras_detect.data import convert_dataset

    datasets, lost = convert_dataset(
        arguments.data,
        arguments.output,
        arguments.to,
        arguments.from_format,
        arguments.splits,
        overwrite=arguments.overwrite,
    )
    for dataset in datasets:
        print(f"{dataset}: {arguments.output}")
    for what, count in lost.items():
        print(f"{arguments.to} cannot hold: {count} {what}")
    return 0
