"""The command line: the whole way on drawn shapes, and one line with the way out for bad input."""

import csv
import json
import signal

import keras
import numpy as np
import pytest

import keras_detect
from keras_detect import cli
from keras_detect.data import load_dataset, write_coco
from keras_detect.data.shapes import shapes_dataset
from keras_detect.evaluation import ScoreThresholds, evaluate_coco
from keras_detect.training import BestModel, Resume, TrainingInterrupted
from keras_detect.training.recipe_table import ROWS
from tests import tiny


def run(*arguments):
    """Exit status of `keras-detect` with these arguments, in this process."""
    return cli.run(cli.parse(["keras-detect", *(str(argument) for argument in arguments)])) or 0


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A COCO folder with a train and a val split of drawn shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    for split, count, seed in (("train", 9, 0), ("val", 4, 1)):
        dataset = shapes_dataset(count, seed=seed, image_size=64, class_names=["circle", "square"])
        write_coco(dataset, folder, split=split)
    return folder


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """The output folder of `keras-detect train` with the tiny backbone."""
    output = tmp_path_factory.mktemp("run") / "deep" / "output"
    status = run(
        *("train", "--data", shapes, "--output", output),
        *("--model", "tests_tiny", "--image_size", tiny.IMAGE_SIZE, "--epochs", 3, "--batch_size", 4),
        *("--evaluate_every", 2, "--ema_momentum", 0.9, "--augment", "microscopy"),
    )
    assert status == 0
    return output


def test_train_writes_model_history_curve_and_metrics(trained):
    assert {path.name for path in trained.iterdir()} == {
        *("model.keras", "history.csv", "curve.png", "metrics.json", "run.json")
    }
    with open(trained / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["val_map"] != "" for row in rows] == [False, True, True]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]  # as the console counts
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(metrics["map_per_class"]) == {"circle", "square"}


def test_train_stores_the_score_threshold_of_the_largest_f1(trained, shapes):
    model = keras_detect.Model.from_preset(trained / "model.keras")
    thresholds = ScoreThresholds(model.class_names)
    evaluate_coco(model, load_dataset(shapes, "val"), progress=False, evaluators=[thresholds])
    best = thresholds.result()
    assert model.score_threshold == (best["score_threshold"] if best["f1"] > 0 else None)


def test_evaluate_measures_what_training_measured(trained, shapes, tmp_path):
    metrics = tmp_path / "metrics.json"
    arguments = ("--model", trained / "model.keras", "--data", shapes, "--split", "val", "--output", metrics)
    assert run("evaluate", *arguments) == 0
    assert json.loads(metrics.read_text()) == json.loads((trained / "metrics.json").read_text())


def test_evaluate_writes_a_report(trained, shapes, tmp_path, capsys):
    arguments = (
        "--model",
        trained / "model.keras",
        "--data",
        shapes,
        "--split",
        "val",
        "--output",
        tmp_path / "report",
    )
    assert run("evaluate", *arguments) == 0
    assert f"report: {tmp_path / 'report' / 'index.html'}" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["coco"]["map"] == json.loads((trained / "metrics.json").read_text())["map"]
    assert report["details"]["split"] == "val"
    assert run("evaluate", *arguments[:-1], trained) == 2
    assert "not a report" in capsys.readouterr().err


def test_predict_draws_every_image_and_writes_the_boxes(trained, shapes, tmp_path):
    images = sorted(shapes.rglob("*.png"))[:4]
    assert run("predict", "--model", trained / "model.keras", "--output", tmp_path, "--images", *images) == 0
    found = json.loads((tmp_path / "detections.json").read_text())["images"]
    assert len(found) == len(images) == len(list(tmp_path.glob("*.jpg")))
    for entry in found.values():
        assert len(entry["boxes"]) == len(entry["scores"]) == len(entry["labels"]) == len(entry["class_names"])


def test_predict_leaves_out_what_it_cannot_read_and_says_so(trained, shapes, tmp_path, capsys):
    good = next((shapes / "images").rglob("*.png"))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(good.read_bytes()[:60])
    output = tmp_path / "drawn"
    assert run("predict", "--model", trained / "model.keras", "--output", output, "--images", bad, good) == 1
    found = json.loads((output / "detections.json").read_text())["images"]
    assert [entry["image"] for entry in found.values()] == [str(good)]
    assert "skipped" in (errors := capsys.readouterr().err)
    assert "bad.jpg" in errors


def test_a_model_is_re_headed_for_other_classes(trained, tmp_path):
    write_coco(shapes_dataset(4, seed=2, image_size=64, class_names=["star", "ring", "circle"]), tmp_path / "data")
    output = tmp_path / "output"
    arguments = ("--model", trained / "model.keras", "--epochs", 1, "--batch_size", 4, "--output", output)
    assert run("train", "--data", tmp_path / "data", *arguments) == 0
    assert keras_detect.Model.from_preset(output / "model.keras").class_names == ("star", "ring", "circle")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--model", "nowhere.keras", "--data", "x"), "No such model: nowhere.keras"),
        (("evaluate", "--model", "ssd_mobilenet_v2_320", "--data", "x"), "Did you mean"),
        (("train", "--data", "nowhere", "--output", "OUTPUT"), "No such file or folder: nowhere"),
        (("train", "--data", "EMPTY", "--output", "OUTPUT"), "is empty"),
        (("train", "--data", "SHAPES", "--train_split", "tain", "--output", "OUTPUT"), "tain"),
        (("train", "--data", "SHAPES", "--output", "OUTPUT", "--epochs", "0"), "epochs must be a positive integer"),
        (
            ("train", "--data", "SHAPES", "--train_split", "val", "--output", "OUTPUT", "--image_size", "1", "2", "3"),
            "height",
        ),
        (("predict", "--model", "TRAINED", "--images", "TEXT", "--output", "OUTPUT"), "text.jpg"),
        (("predict", "--model", "TRAINED", "--images", "nowhere.jpg", "--output", "OUTPUT"), "nowhere.jpg"),
        (("predict", "--model", "TRAINED", "--images", "EMPTY", "--output", "OUTPUT"), "holds no image"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, trained, shapes, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("no image at all")
    places = {
        "EMPTY": tmp_path / "empty",
        "TEXT": tmp_path / "text.jpg",
        "OUTPUT": tmp_path / "output",
        "SHAPES": shapes,
        "TRAINED": trained / "model.keras",
    }
    assert run(*(places.get(argument, argument) for argument in arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith(f"keras-detect {arguments[0]}: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), "keras-detect: unknown command 'trian'. Did you mean train?"),
        (("train", "--dta", "cells"), "keras-detect train: unknown option --dta. Did you mean --data"),
        (("train", "--data", "cells", "--output", "x", "--augment", "crp"), "unknown value 'crp'. Did you mean crop?"),
        (("convert_data", "--data", "cells", "--output", "x", "--to", "coco_json"), "Did you mean coco?"),
        (("train",), "required: --data, --output"),
    ],
)
def test_an_unknown_name_gets_the_near_one(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.keras"):
        run("evaluate", "--model", "nowhere.keras", "--data", "x", "--debug")


def test_train_is_the_function_and_goes_on_after_an_interruption(trained, shapes, tmp_path, monkeypatch):
    """The command, and `training.train` with the same settings stopped in its second epoch and called again, leave the
    same weights, history and metrics."""
    settings = {
        "model": "tests_tiny",
        "train": shapes,
        "output": tmp_path / "run",
        "image_size": tiny.IMAGE_SIZE,
        "epochs": 3,
        "batch_size": 4,
        "evaluate_every": 2,
        "ema_momentum": 0.9,
        "augment": "microscopy",
        "verbose": 0,
        "resume": True,
        "checkpoint_every": 1,
    }
    write = Resume._write

    def interrupted(self, epoch, step):
        write(self, epoch, step)
        if (epoch, step) == (1, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Resume, "_write", interrupted)
        with pytest.raises(TrainingInterrupted, match=r"No model is saved yet\. The same command with --resume"):
            keras_detect.training.train(**settings)
    result = keras_detect.training.train(**settings)
    assert (tmp_path / "run" / "history.csv").read_text() == (trained / "history.csv").read_text()
    assert result.metrics == json.loads((trained / "metrics.json").read_text())
    assert result.presentations == 3 * 2 * 4
    assert result.model.class_names == ("circle", "square")
    command = keras_detect.Model.from_preset(trained / "model.keras")
    for ours, theirs in zip(result.model.get_weights(), command.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    finished = keras_detect.training.train(**settings)  # nothing is left to do
    assert (finished.minutes, finished.history) == (result.minutes, result.history)
    with pytest.raises(ValueError, match=r"epochs=4 \(3 before\)"):
        keras_detect.training.train(**{**settings, "epochs": 4})


def train_command(shapes, output, *further):
    arguments = (
        "--train_split",
        "train",
        "--model",
        "tests_tiny",
        "--image_size",
        64,
        "--batch_size",
        4,
        "--epochs",
        2,
    )
    return run("train", "--data", shapes, "--output", output, *arguments, *further)


def test_an_earlier_model_is_not_replaced(trained, shapes, capsys):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    assert train_command(shapes, trained) == 2
    assert "holds the model of an earlier run (model.keras). Choose another output" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before
    assert train_command(shapes, trained, "--overwrite", "--resume") == 2
    assert train_command(shapes, trained, "--resume") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


@pytest.mark.parametrize(
    "validation", [("--validation_split", "val"), ("--validation_fraction", 0.12), ("--validation_fraction", 0)]
)
def test_a_run_that_diverges_ends_with_status_1(validation, shapes, tmp_path, capsys, monkeypatch):
    """NaN weights after the first epoch, whose model stays; `--overwrite` starts over, and loses no model doing so."""
    look, steps = BestModel.on_train_batch_begin, iter(range(10))

    def spoiled(self, batch, logs=None):
        if next(steps) == 2:  # the first of the second epoch
            variable = self.model.trainable_variables[0]
            variable.assign(np.full(variable.shape, np.nan))
        look(self, batch, logs)

    monkeypatch.setattr(BestModel, "on_train_batch_begin", spoiled)
    assert train_command(shapes, tmp_path / "run", *validation) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("keras-detect train: ")]
    assert "Training diverged: " in line and "in epoch 2, step 1 (images " in line
    assert f"The model of epoch 1 stays in {tmp_path / 'run' / 'model.keras'}." in line
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["history.csv", "model.keras"]
    model = keras_detect.Model.from_preset(tmp_path / "run" / "model.keras")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert train_command(shapes, tmp_path / "run") == 2


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_ends_it_in_one_line(number, status, name, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_detect.training.run_data.load_dataset", lambda *_, **__: signal.raise_signal(number))
    before = signal.getsignal(number)
    assert train_command(shapes, tmp_path / "run") == status
    assert capsys.readouterr().err == f"keras-detect train: stopped by {name}. No model is saved yet.\n"
    assert signal.getsignal(number) is before


def test_help_shows_an_example(capsys):
    for command in ("demo", "train", "evaluate", "predict"):
        with pytest.raises(SystemExit):
            run(command, "--help")
        assert f"example:\n  keras-detect {command}" in capsys.readouterr().out


def test_the_public_names_are_what_the_readme_uses():
    for name in ("SSD", "DetectionModel", "Model", "load_dataset", "callbacks", "from_pipeline_config"):
        assert hasattr(keras_detect, name)


def test_what_was_chosen_is_printed_and_kept(shapes, tmp_path, capsys):
    """With no option but the model's: the folder's splits, every setting, and how many weights are frozen."""
    options = ("--model", "tests_tiny", "--image_size", 64, "--epochs", 1, "--freeze", "backbone/conv_[12]_*")
    assert run("train", "--data", shapes, "--output", tmp_path / "run", *options) == 0
    printed = capsys.readouterr().out
    assert "training: <DetectionDataset: 9 images" in printed
    assert "validation: the split 'val': <DetectionDataset: 4 images" in printed
    assert "frozen: 6 of " in printed
    assert "recipe for ssd from random weights: epochs 1, batch_size 8, learning_rate 0.001, " in printed
    row = ROWS["ssd"]
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    chosen = {"batch_size": row.batch_size, "learning_rate": row.learning_rate[2], "ema_momentum": row.ema_momentum}
    assert {name: kept[name] for name in ("epochs", *chosen)} == {"epochs": 1, **chosen}
    assert (kept["start"], kept["freeze"], kept["mixed_precision"]) == ("random", ["backbone/conv_[12]_*"], None)
    model = keras_detect.Model.from_preset(tmp_path / "run" / "model.keras")
    assert model.freeze() == 6
    keras.utils.set_random_seed(0)
    fresh = keras_detect.SSD.from_backbone("tests_tiny", image_size=64, class_names=["circle", "square"], weights=None)
    ours, theirs = tiny.weights_of(model), tiny.weights_of(fresh)
    frozen = [name for name in ours if name.startswith(("backbone/conv_1_", "backbone/conv_2_"))]
    assert len(frozen) == 10  # statistics as well
    assert all(np.array_equal(ours[name], theirs[name]) for name in frozen)
    assert not np.array_equal(ours["backbone/conv_3_conv/kernel"], theirs["backbone/conv_3_conv/kernel"])


def test_unknown_settings_and_a_recipe_with_settings_are_refused(shapes, tmp_path):
    with pytest.raises(TypeError, match=r"Unknown argument 'epoch' of train\. Did you mean epochs"):
        keras_detect.training.train("tests_tiny", shapes, output=tmp_path / "run", epoch=3)
    recipe = keras_detect.training.Recipe(epochs=1)
    with pytest.raises(ValueError, match="A recipe already contains all settings"):
        keras_detect.training.train("tests_tiny", shapes, None, recipe, output=tmp_path / "run", epochs=3)
    assert not (tmp_path / "run").exists()
