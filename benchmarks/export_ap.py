"""COCO's AP of a detector through the files of every export format, beside that of `predict`.

    python benchmarks/export_ap.py --model trained.keras --data path/to/bccd --split test \
        --formats saved_model litert litert:float16 litert:dynamic litert:int8 litert:float32:tf_od_api onnx openvino

A format is `name[:precision[:signature]]`. The file is written to a temporary folder, opened as its users open it, and
sees the images one by one. Where a format refuses the model, its words are in the table. Classes of the data set and
of the model are matched by name, ignoring case; annotations of classes that the model lacks are skipped.
"""

import argparse
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

import keras_detect
from keras_detect import export, schema
from keras_detect.data import load_dataset
from keras_detect.data.dataset import DetectionDataset
from keras_detect.export.average_precision import average_precisions
from keras_detect.export.fitted import FittedRunner
from keras_detect.registry import EXPORTERS

FORMATS = ("saved_model", "litert", "litert:float16", "litert:int8", "litert:float32:tf_od_api", "onnx", "openvino")


def main(argv=None):
    """Prints a table in Markdown: AP, its difference, differences on the compared images, size and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ssd_mobilenet_v2_oidv4", help="a .keras file or a preset")
    parser.add_argument("--data", required=True, help="annotated images, as load_dataset reads them")
    parser.add_argument("--split", default=None)
    parser.add_argument("--representative", default=None, help="data that sets the ranges of int8; default: --data")
    parser.add_argument("--representative-split", default=None, help="of --representative, or of --data")
    parser.add_argument("--image-size", type=int, nargs=2, default=None, help="height and width of the files' input")
    parser.add_argument("--formats", nargs="+", default=FORMATS, metavar="NAME[:PRECISION[:SIGNATURE]]")
    arguments = parser.parse_args(argv)
    model = keras_detect.DetectionModel.from_preset(arguments.model)
    data = in_classes_of(model, load_dataset(arguments.data, split=arguments.split))
    given = arguments.representative or arguments.data
    representative = in_classes_of(model, load_dataset(given, split=arguments.representative_split or arguments.split))
    before = average_precisions(model.predict_on_batch, data)["boxes"]
    print(f"{arguments.model} on {len(data)} images; AP of predict: {before:.4f}\n")
    print("| file | AP | difference | boxes, scores differ by | MB | ms per call (predict) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.formats:
        print(row(model, name, data, representative, before, arguments.image_size), flush=True)


def in_classes_of(model, dataset):
    """The images of a data set with those annotations whose classes the model has, under the model's numbers."""
    numbers = {name.casefold(): number for number, name in enumerate(model.class_names)}
    labels = np.asarray([numbers.get(name.casefold(), schema.PADDING_LABEL) for name in dataset.class_names])
    examples = []
    for example in dataset:
        mapped = labels[np.asarray(example[schema.LABELS], int)]
        rows = {field.key for field in schema.object_fields(schema.GROUND_TRUTH)} & set(example)
        kept = {key: np.asarray(example[key])[mapped >= 0] for key in rows if example[key] is not None}
        examples.append({"image": example["image"], **kept, schema.LABELS: mapped[mapped >= 0]})
    return DetectionDataset.from_examples(examples, class_names=model.class_names)


def row(model, name, data, representative, before, image_size):
    """One row of the table: `name` is `format[:precision[:signature]]`."""
    given = name.split(":")
    format, precision, signature = (*given, *("", "float32", "default")[len(given) :])
    options = {"precision": precision, "signature": signature, "image_size": image_size, "verbose": 0}
    if precision == "int8":
        options["representative_data"] = representative
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"detector{EXPORTERS.get(format).suffix}"
        try:
            report = export.export_model(model, path, format, **options)
        except export.ExportError as error:
            return f"| {name} | {error} | | | | |"
        after = average_precisions(FittedRunner(export.open_exported(path, format), model.resizer), data)["boxes"]
    return (
        f"| {name} | {after:.4f} | {after - before:+.4f} | {report.box_difference:.0e}, {report.score_difference:.0e} "
        f"| {report.megabytes:.1f} | {report.milliseconds:.0f} ({report.predict_milliseconds:.0f}) |"
    )


if __name__ == "__main__":
    main()
