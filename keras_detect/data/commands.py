"""The sub-commands `convert_data` and `check` of the command line; `keras_detect.cli` declares them."""

import json
import pathlib

from keras_detect.data.check import check_dataset
from keras_detect.data.convert import write_dataset
from keras_detect.data.load import load_dataset
from keras_detect.data.writing import replace_file


def convert_data(data, output, to, from_format=None, splits=()):
    """Writes a data set, or some of its splits, in another format and prints what that cannot hold."""
    output = pathlib.Path(output).expanduser()
    source = pathlib.Path(data).expanduser()
    if output.exists() and source.exists() and output.samefile(source if source.is_dir() else source.parent):
        raise ValueError(f"--output must differ from the folder that is read. Received twice: {output}")
    names, total, counts = None, 0, {}
    for split in splits or (None,):
        # The label order of the first split holds for all: one list of classes a folder.
        dataset = load_dataset(source, split, class_names=names, format=from_format)
        names, total = dataset.class_names, total + len(dataset)
        for what, count in write_dataset(dataset, output, to, split=split).items():
            counts[what] = counts.get(what, 0) + count
        print(f"{dataset}: {output}")
    for what, count in counts.items():
        print(f"{to} cannot hold: {count} {what}")
    return 0


def check(data, split=None, from_format=None, model=None, output=None):
    """Prints the table of a check; 0 if a training would start, else 1."""
    report = check_dataset(
        data, split=split, format=from_format, model=model, class_names=getattr(model, "class_names", None)
    )
    print(report)
    if output:
        replace_file(pathlib.Path(output).expanduser(), json.dumps(report.to_dict(), indent=1) + "\n")
    return 0 if report.ok else 1
