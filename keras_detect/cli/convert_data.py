"""`keras-detect convert_data`: covers `keras_detect.data.convert_dataset`."""

from keras_detect.cli._data import add_data, format_option

HELP = "annotated images in another format"
EXAMPLE = "--data cells --to tfrecord --output cells_record --splits train val"


def add_arguments(parser):
    add_data(parser)
    parser.add_argument("--to", required=True, **format_option(), help="the format to write")
    parser.add_argument("--output", required=True, help="folder to write; images keep their bytes")
    parser.add_argument("--splits", nargs="+", default=(), help="splits to write one by one; default: everything")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set in --output; other files stay")


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
