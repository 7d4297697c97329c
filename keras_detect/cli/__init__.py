"""`keras-detect demo | train | evaluate | predict | convert | convert_data | check | statistics`."""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: its start-up notes are not for our users

from absl import app, logging
from absl.flags import argparse_flags

DEMO = "  keras-detect demo --output demo"
TRAIN = "  keras-detect train --data cells --train_split train --validation_split val --output runs/cells"
EVALUATE = "  keras-detect evaluate --model runs/cells/model.keras --data cells --split test --output runs/cells/test"
PREDICT = "  keras-detect predict --model runs/cells/model.keras --pictures photo.jpg folder/ --output drawn"
CONVERT = "  keras-detect convert --pipeline_config old/pipeline.config --checkpoint old --output model.keras"
CONVERT_DATA = "  keras-detect convert_data --data cells --to tfrecord --output cells_record --splits train val"
CHECK = "  keras-detect check --data cells --model runs/cells/model.keras"
STATISTICS = "  keras-detect statistics --data cells --split train --output cells_statistics"
_NAMES = "demo|train|evaluate|predict|convert|convert_data|check|statistics"


def main():
    """Entry point of the console script."""
    app.run(_run, flags_parser=_parse)


def _parse(arguments):
    parser = argparse_flags.ArgumentParser(
        prog="keras-detect",
        description="Train, evaluate and use object detectors.",
        epilog=f"examples:\n{DEMO}\n{TRAIN}\n{EVALUATE}\n{PREDICT}\n{CONVERT}\n{CONVERT_DATA}\n{CHECK}\n{STATISTICS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar=_NAMES)
    for name, add, run, text, example in (
        ("demo", _add_demo, _demo, "fine-tune the packaged detector on drawn shapes, offline, in two minutes", DEMO),
        ("train", _add_train, _train, "train a detector on a folder of annotated pictures", TRAIN),
        ("evaluate", _add_evaluate, _evaluate, "metrics of a model on annotated pictures, and a report", EVALUATE),
        ("predict", _add_predict, _predict, "detect in pictures: draws them and writes detections.json", PREDICT),
        ("convert", _add_convert, _convert, "a model of the TensorFlow Object Detection API as a .keras file", CONVERT),
        ("convert_data", _add_convert_data, _convert_data, "annotated pictures in another format", CONVERT_DATA),
        ("check", _add_check, _check, "everything that is wrong with annotated pictures", CHECK),
        ("statistics", _add_statistics, _statistics, "classes, sizes and anchors of a data set", STATISTICS),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(command)
        command.set_defaults(run=run)
    return parser.parse_args(arguments[1:])


def _run(arguments):
    """Bad input ends in one line on stderr and exit status 2; a defect of ours keeps its traceback."""
    logging.set_verbosity(logging.WARNING)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        print(f"keras-detect {arguments.command}: {message}", file=sys.stderr)
        return 2


def _add_demo(parser):
    parser.add_argument("--output", default="keras_detect_demo", help="folder for pictures and model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights (%(default)s)")


def _add_train(parser):
    parser.add_argument("--data", required=True, help="folder or file: COCO, VOC, YOLO, CSV or TFRecord")
    parser.add_argument("--train_split", help="split to train on; left out: everything")
    parser.add_argument("--validation_split", help="split to choose the best epoch on")
    parser.add_argument("--model", default="mobilenet_v2", help="backbone, preset or .keras file (%(default)s)")
    parser.add_argument("--image_size", type=int, nargs="+", default=[320], help="side, or height and width (320)")
    parser.add_argument("--epochs", type=int, default=60, help="(%(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="peak of the cosine (%(default)s)")
    parser.add_argument("--ema_momentum", type=float, default=0.0, help="average the weights, such as 0.99 (none)")
    parser.add_argument(
        "--augment", choices=("none", "flip", "crop", "microscopy"), default="crop", help="(%(default)s)"
    )
    parser.add_argument("--evaluate_every", type=int, default=1, help="epochs between evaluations (%(default)s)")
    parser.add_argument("--cache", action="store_true", help="keep the decoded pictures in memory")
    parser.add_argument("--skip_check", action="store_true", help="do not decode every picture before the first epoch")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (%(default)s)")
    parser.add_argument("--output", required=True, help="folder for model.keras, history.csv, curve.png, metrics.json")


def _add_evaluate(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--data", required=True, help="folder or file with annotated pictures")
    parser.add_argument("--split", help="split to evaluate; left out: everything")
    parser.add_argument("--batch_size", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--output", help="folder for a report (page, pictures, JSON), or a .json file for the numbers")
    parser.add_argument("--score_threshold", type=float, default=0.3, help="of the confusion matrix (%(default)s)")


def _add_predict(parser):
    parser.add_argument("--model", required=True, help=".keras file or preset")
    parser.add_argument("--pictures", required=True, nargs="+", help="pictures, or folders of pictures")
    parser.add_argument("--output", required=True, help="folder for the drawn pictures and detections.json")
    parser.add_argument("--score_threshold", type=float, default=0.3, help="leave out weaker detections (%(default)s)")


def _add_convert(parser):
    parser.add_argument("--pipeline_config", required=True, help="the model's pipeline.config, or its folder")
    parser.add_argument("--checkpoint", required=True, help="prefix, folder or .tar.gz of its TF2 checkpoint")
    parser.add_argument("--output", required=True, help="the .keras file to write")


_FORMATS = ("coco", "voc", "yolo", "csv", "tfrecord")


def _add_data(parser):
    parser.add_argument("--data", required=True, help="folder or file: COCO, VOC, YOLO, CSV or TFRecord")
    parser.add_argument("--from", dest="from_format", choices=_FORMATS, help="its format; left out: found out")


def _add_convert_data(parser):
    _add_data(parser)
    parser.add_argument("--to", required=True, choices=_FORMATS, help="the format to write")
    parser.add_argument("--output", required=True, help="folder to write; pictures keep their bytes")
    parser.add_argument("--splits", nargs="+", default=(), help="splits to write one by one; left out: everything")


def _add_check(parser):
    _add_data(parser)
    parser.add_argument("--split", help="split to check; left out: everything")
    parser.add_argument("--model", help=".keras file or preset whose anchors and classes shall fit")
    parser.add_argument("--output", help="write the table to this .json file too")


def _add_statistics(parser):
    _add_data(parser)
    parser.add_argument("--split", help="left out: everything")
    parser.add_argument("--model", help=".keras file or preset whose anchors are compared")
    parser.add_argument("--num_anchors", type=int, default=9, help="shapes to propose (%(default)s)")
    parser.add_argument("--output", required=True, help="folder for statistics.json, statistics.png, gallery.png")


def _demo(arguments):
    from keras_detect.demo import run_demo

    return run_demo(_folder(arguments.output), arguments.seed)


def _train(arguments):
    import keras

    import keras_detect
    from keras_detect.training.best_model import BestModel
    from keras_detect.training.history_file import HistoryFile
    from keras_detect.training.recipe import Recipe

    recipe = Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        ema_momentum=arguments.ema_momentum,
    )
    keras.utils.set_random_seed(arguments.seed)
    training, validation = _training_data(arguments)
    if not arguments.skip_check:
        _check_before_training({"training": training, "validation": validation})
    model = _model_to_train(arguments, training.class_names)
    output = _folder(arguments.output)
    print(f"{training}\n{model.count_params():,} parameters, classes: {', '.join(training.class_names)}")
    batches = training.batches(
        model,
        recipe.batch_size,
        augment=_augmentation(arguments.augment),
        shuffle=True,
        seed=arguments.seed,
        drop_remainder=len(training) >= recipe.batch_size,
        cache=arguments.cache,
    )
    recipe.compile(model, steps_per_epoch=len(batches))
    callbacks = recipe.callbacks()
    if validation is not None:
        callbacks.append(keras_detect.callbacks.COCOEvaluation(validation, every_n_epochs=arguments.evaluate_every))
    best = BestModel(output / "model.keras", monitor="val_map" if validation is not None else None)
    callbacks += [best, HistoryFile(output / "history.csv"), keras.callbacks.TerminateOnNaN()]
    started = time.monotonic()
    verbose = 1 if sys.stdout.isatty() else 2  # a bar for a person, a line an epoch for a log
    history = model.fit(batches, epochs=recipe.epochs, callbacks=callbacks, verbose=verbose)
    minutes = (time.monotonic() - started) / 60
    presentations = len(history.epoch) * len(batches) * recipe.batch_size
    print(f"{presentations:,} picture presentations in {minutes:.1f} minutes")
    return _report_training(output, best, validation)


def _training_data(arguments):
    import keras_detect

    training = keras_detect.load_dataset(arguments.data, arguments.train_split)
    if not arguments.validation_split:
        return training, None
    names = training.class_names
    return training, keras_detect.load_dataset(arguments.data, arguments.validation_split, class_names=names)


def _check_before_training(datasets):
    """Prints what is repaired or dropped; raises `ValueError` where an epoch would end in an error."""
    from keras_detect.data.record import REFUSED

    for name, dataset in datasets.items():
        report = dataset.check() if dataset is not None else None
        if report is not None and report.defects.summary():
            print(f"{name} data: {report.defects.summary()}")
        if report is not None and not report.ok:
            refused = [
                f"{count} {kind} ({places[0]})" for action, kind, count, places in report.rows() if action == REFUSED
            ]
            raise ValueError(
                f"{name} data: {'; '.join(refused)}. Remove or replace them; keras-detect check lists all."
            )


def _model_to_train(arguments, class_names):
    """A new SSD around a backbone, or a saved model, re-headed where its classes are others."""
    import keras_detect

    if arguments.model in keras_detect.backbone_names():
        size = arguments.image_size
        if len(size) > 2:
            raise ValueError(f"--image_size takes one side, or height and width. Received {len(size)} numbers.")
        size = size[0] if len(size) == 1 else tuple(size)
        return keras_detect.SSD.from_backbone(arguments.model, image_size=size, class_names=class_names)
    model = _load_model(arguments.model)
    return model if list(model.class_names or ()) == list(class_names) else model.re_head(class_names=class_names)


def _augmentation(name):
    """The named list of augmentations for `DetectionDataset.batches`."""
    from keras_detect.transforms import (
        RandomColor,
        RandomHorizontalFlip,
        RandomIoUCrop,
        RandomRotation90,
        RandomVerticalFlip,
    )

    crop = (RandomIoUCrop(probability=0.5), RandomColor())
    return {
        "none": (),
        "flip": (RandomHorizontalFlip(),),
        "crop": (RandomHorizontalFlip(), *crop),
        "microscopy": (RandomHorizontalFlip(), RandomVerticalFlip(), RandomRotation90(), *crop),
    }[name]


def _report_training(output, best, validation):
    from keras_detect.visualization import draw_learning_curve

    if best.best_epoch is None:
        raise ValueError("The loss became NaN in the first epoch: nothing was saved. Lower --learning_rate.")
    draw_learning_curve(output / "history.csv", output / "curve.png")
    print(f"model of epoch {best.best_epoch + 1}: {output / 'model.keras'}")
    if validation is not None:
        _measure(_load_model(output / "model.keras"), validation, 8, output / "metrics.json")
    return 0


def _evaluate(arguments):
    import keras_detect
    from keras_detect.evaluation.report import report_folder

    wants_report = arguments.output is not None and pathlib.Path(arguments.output).suffix != ".json"
    if wants_report:
        report_folder(arguments.output)  # refused before minutes of work
    model = _load_model(arguments.model)
    dataset = keras_detect.load_dataset(arguments.data, arguments.split, class_names=model.class_names)
    if wants_report:
        _write_report(arguments, model, dataset)
    else:
        _measure(model, dataset, arguments.batch_size, arguments.output)
    return 0


def _write_report(arguments, model, dataset):
    from keras_detect.evaluation import Collected, collect_detections, write_report

    collected = Collected(dataset.class_names)
    collect_detections(model, dataset, collected, batch_size=arguments.batch_size)
    details = {"model": arguments.model, "data": arguments.data, "split": arguments.split or "everything"}
    report = write_report(collected, arguments.output, "Evaluation", details, arguments.score_threshold)
    _print_metrics(report["coco"], {name: values["map"] for name, values in report["coco_per_class"].items()})
    print(f"report: {pathlib.Path(arguments.output) / 'index.html'}")


def _measure(model, dataset, batch_size, output):
    """Prints COCO's numbers and writes them to a JSON file, if one is wanted."""
    from keras_detect.evaluation.callback import evaluate_coco

    result = evaluate_coco(model, dataset, batch_size=batch_size)
    per_class = result.pop("map_per_class")
    _print_metrics(result, per_class)
    if output is not None:
        _write_json(output, {**result, "map_per_class": per_class})
    return {**result, "map_per_class": per_class}


def _print_metrics(metrics, per_class):
    for name, value in {**metrics, **{f"map of {name}": value for name, value in per_class.items()}}.items():
        print(f"{name:24s} {value:7.4f}" if value >= 0 else f"{name:24s}    none  (no such object)")


def _predict(arguments):
    from PIL import Image
    from tqdm import tqdm

    from keras_detect.data.image import read_picture
    from keras_detect.visualization import draw_boxes

    paths = _picture_paths(arguments.pictures)
    model = _load_model(arguments.model)
    output, found, unreadable = _folder(arguments.output), {}, []
    for path in tqdm(paths, desc="predict", unit="picture"):
        try:
            image = read_picture(path)
        except (OSError, ValueError) as error:  # the other pictures are not lost for it
            unreadable.append(error)
            continue
        result = model.detect(image, score_threshold=arguments.score_threshold)
        drawn = draw_boxes(image, result["boxes"], result["labels"], result["scores"], model.class_names)
        name = f"{path.stem}.jpg" if f"{path.stem}.jpg" not in found else f"{path.stem}_{len(found)}.jpg"
        Image.Image.save(drawn, output / name, quality=92)
        found[name] = {
            "picture": str(path),
            "boxes": [[round(float(side), 5) for side in box] for box in result["boxes"]],
            "scores": [round(float(score), 5) for score in result["scores"]],
            "labels": [int(label) for label in result["labels"]],
            "class_names": result["class_names"],
        }
    if not found:
        raise unreadable[0]
    _write_json(output / "detections.json", {"boxes": "ymin, xmin, ymax, xmax, 0 to 1", "pictures": found})
    print(f"{sum(len(entry['labels']) for entry in found.values())} detections in {len(found)} pictures: {output}")
    for error in unreadable:
        print(f"left out: {error}", file=sys.stderr)
    return 1 if unreadable else 0


def _convert(arguments):
    from keras_detect.tf_od_api.build import from_pipeline_config

    output = pathlib.Path(arguments.output).expanduser()
    if output.suffix != ".keras":
        raise ValueError(f"--output names a .keras file. Received: {arguments.output}")
    if output.is_dir():  # found out before the conversion, which takes a while
        raise ValueError(f"--output names a file, but {arguments.output} is a folder.")
    model = from_pipeline_config(arguments.pipeline_config)
    report = model.restore(arguments.checkpoint)
    part = _folder(output.parent) / f"part_of_{output.name}"
    try:
        model.save(part)
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
    classes = f"{model.num_classes} classes, {model.count_params():,} parameters"
    print(f"{len(report.restored)} variables restored, {classes}: {output}")
    return 0


def _convert_data(arguments):
    from keras_detect.data.commands import convert_data

    return convert_data(arguments.data, arguments.output, arguments.to, arguments.from_format, arguments.splits)


def _check(arguments):
    from keras_detect.data.commands import check

    model = _load_model(arguments.model) if arguments.model else None
    return check(arguments.data, arguments.split, arguments.from_format, model, arguments.output)


def _statistics(arguments):
    import numpy as np

    from keras_detect.data.load import load_dataset
    from keras_detect.data.statistics import dataset_statistics, statistics_table
    from keras_detect.visualization import draw_dataset, draw_statistics

    model = _load_model(arguments.model) if arguments.model else None
    names = getattr(model, "class_names", None)
    dataset = load_dataset(arguments.data, arguments.split, class_names=names, format=arguments.from_format)
    found = dataset_statistics(dataset, model=model, num_anchors=arguments.num_anchors)
    print(statistics_table(found))
    output = _folder(arguments.output)
    draw_statistics(found, output / "statistics.png")
    draw_dataset(dataset).save(output / "gallery.png")
    plain = {key: value for key, value in found.items() if not isinstance(value, np.ndarray)}
    _write_json(output / "statistics.json", plain)
    print(f"written: {', '.join(str(output / name) for name in ('statistics.json', 'statistics.png', 'gallery.png'))}")
    return 0


def _picture_paths(names):
    from keras_detect.data.image import is_picture_name

    paths = []
    for name in names:
        path = pathlib.Path(name).expanduser()
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if is_picture_name(entry.name))
            if not inside:
                raise ValueError(f"The folder {path} holds no picture.")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            raise FileNotFoundError(f"No such picture or folder: {path}")
    return paths


def _load_model(name):
    """A `.keras` file, or whatever `from_preset` takes."""
    import keras

    import keras_detect

    path = pathlib.Path(name).expanduser()
    if path.suffix != ".keras":
        return keras_detect.DetectionModel.from_preset(name)
    if not path.is_file():
        raise FileNotFoundError(f"No such model: {path}")
    model = keras.saving.load_model(path)
    if not isinstance(model, keras_detect.DetectionModel):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a detector of keras_detect.")
    return model


def _folder(name):
    path = pathlib.Path(name).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_json(path, content):
    path = pathlib.Path(path)
    part = path.with_name(f"part_of_{path.name}")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)
