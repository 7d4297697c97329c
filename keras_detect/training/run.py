"""One whole training run: data, model, recipe, evaluation, and the best model with its history on disk."""

import contextlib
import dataclasses
import inspect
import json
import math
import numbers
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_detect import schema
from keras_detect.evaluation.callback import evaluate_coco
from keras_detect.evaluation.thresholds import ScoreThresholds
from keras_detect.files import replacing_file, write_json
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.registry import unknown_name
from keras_detect.training.architectures import architecture_of
from keras_detect.training.augmentations import augmentations
from keras_detect.training.best_model import BestModel
from keras_detect.training.divergence import TrainingDiverged
from keras_detect.training.early_stopping import EarlyStopping
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.recipe import Recipe
from keras_detect.training.resume import Resume
from keras_detect.training.run_data import RunData, Source
from keras_detect.training.run_data import check as check_data
from keras_detect.training.run_folder import CURVE, HISTORY, METRICS, RunFolder, TrainingInterrupted, fingerprint
from keras_detect.training.start import Start
from keras_detect.training.tensorboard_images import TensorBoardImages, require_tensorboard
from keras_detect.visualization import draw_learning_curve


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What `train` leaves.

    Attributes:
        model: the model of the best epoch, as `model.keras` holds it.
        output: the folder.
        history: `{name: [a float per epoch]}`, as Keras' `History.history`.
        best_epoch: from 0: of the largest `val_map`, or the last one where there is no validation data.
        metrics: COCO's metrics of `model` on the validation data (`evaluation.evaluate_coco`), or None.
        presentations: how many images went through the model, all epochs together.
        minutes: how long `fit` took.
    """

    model: DetectionModel
    output: pathlib.Path
    history: dict[str, list[float]]
    best_epoch: int
    metrics: dict | None
    presentations: int
    minutes: float


def train(
    model: DetectionModel | str | os.PathLike,
    train: Source,
    validation: Source | None = None,
    recipe: Recipe | None = None,
    *,
    output: str | os.PathLike,
    resume: bool = False,
    train_split: str | None = None,
    validation_split: str | None = None,
    validation_fraction: float | None = None,
    architecture: str | None = None,
    neck: object = None,
    image_size: int | tuple[int, int] | None = None,
    freeze: str | Sequence[str] = (),
    mixed_precision: str | None = None,
    evaluate_every: int | None = None,
    cache: bool = False,
    check: bool = True,
    seed: int = 0,
    overwrite: bool = False,
    checkpoint_every: int | None = None,
    tensorboard: bool = False,
    verbose: int = 1,
    **settings: Any,
) -> TrainingResult:
    """Trains a detector; `keras-detect train` is this function.

    Args:
        model: a detector; or the name of a preset or a backbone (a new detector around it), or a `.keras` file. A model
            for other classes gets new class heads. `DEFAULT_START`, a packaged detector of everyday objects, suits
            photos of any kind.
        train: a `DetectionDataset`, or a folder or file for `load_dataset`.
        validation: the same, for validation.
        recipe: how to train; default: `Recipe.for_model(model, number of training images, **settings)`.
        output: folder for `model.keras` (of the best epoch), `history.csv`, `curve.png`, `run.json` (the settings)
            and, with validation data, `metrics.json`; created if absent. A running or interrupted run has its
            checkpoint there too.
        resume: continue with an interrupted run in `output`, if there is one: it ends with the weights of an
            uninterrupted run, bit for bit on one device (`callbacks.Resume`). A finished run is returned as it is.
        train_split: split of `train`; default: "train" where the data have such a split, else everything.
        validation_split: split of `validation`, or of `train` where that is None; default: "val" where there is one,
            and it is not part of "trainval".
        validation_fraction: share of the training images that is held out for validation, chosen by `seed`; 0 for no
            validation: the last epoch is kept. Default: 0.2 where nothing else is there for validation.
        architecture: "ssd", "retinanet", "efficientdet", "faster_rcnn", "mask_rcnn" (data with masks) or "centernet"
            (keypoints too, where the data have some): a new detector around the backbone of `model`; default: `model`
            as it is, an SSD around a backbone.
        neck: of the new detector, a registered name or a part; default: the architecture's.
        image_size: side, or `(height, width)`, to which images are resized; default: the model's own, or the
            architecture's.
        freeze: patterns of the weights that do not train, as `DetectionModel.freeze` takes them.
        mixed_precision: "bfloat16" or "float16": computes in it and keeps the weights in float32.
        evaluate_every: epochs between evaluations; default: as many as make about 25 evaluations of the run.
        cache: whether to keep the decoded images in memory.
        check: whether to decode every image before the first epoch, so that a damaged one ends the run there.
        seed: of weights, order, augmentation and the images that are held out. Two runs with one seed are equal.
        overwrite: start over in a folder that holds a model; it stays until the run has a better one than none.
        checkpoint_every: steps between checkpoints within an epoch; None for one per epoch.
        tensorboard: also write the curves, and four validation (or training) images with ground truth and detections,
            into the folder `tensorboard` of `output` after every epoch (`callbacks.TensorBoardImages`).
        verbose: as in Keras' `fit`: 0 silent, 1 a progress bar, 2 one line per epoch.
        **settings: fields of `Recipe`, such as `epochs` and `batch_size`; the others are chosen.

    Raises:
        TypeError: an unknown setting; similar names are listed.
        FileNotFoundError: no such folder, file or image.
        FileExistsError: `output` holds a model or an interrupted run, and neither `resume` nor `overwrite` is given.
        ValueError: unusable data, an unknown model, split or augmentation, a setting out of its range, a recipe and
            settings, or other settings than the run that shall continue.
        TrainingDiverged: the loss or a weight became NaN or infinite, or the loss exploded (`callbacks.BestModel`); the
            best model before that stays.
        TrainingInterrupted: a `KeyboardInterrupt` that says what is saved.
    """
    _check_recipe(recipe, settings)
    _check_options(tensorboard, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every, seed=seed)
    start = Start(model, architecture, neck, image_size, freeze, mixed_precision)
    data = RunData(train, validation, train_split, validation_split, validation_fraction, seed)
    folder = RunFolder(output, resume=resume, overwrite=overwrite)
    best = BestModel(folder.model)
    with _ending(folder, best):
        keras.utils.set_random_seed(seed)
        training, validated, said = data.read()
        best.monitor = None if validated is None else "val_map"
        if check:
            check_data({"training": training, "validation": validated}, verbose)
        detector, trained = start.build(training, verbose)
        _check_fields(detector, training)
        recipe = recipe or Recipe.for_model(detector, len(training), start=trained, **settings)
        if verbose:
            print(_plan(detector, training, validated, said, recipe, trained))
        described = {**recipe.settings(), **start.settings(), **data.settings(), "start": trained}
        described |= {"parameters": detector.count_params(), "evaluate_every": evaluate_every, "seed": seed}
        described |= {"data": fingerprint(training), "validation_data": fingerprint(validated)}
        finished = folder.begin(described)
        if finished is None:
            batches = _batches(training, detector, recipe, seed, cache)
            callbacks = [*recipe.callbacks(validated, evaluate_every), best, HistoryFile(folder.path / HISTORY)]
            drawn = validated or training
            callbacks += [TensorBoardImages(folder.path / "tensorboard", drawn)] if tensorboard else []
            callbacks.append(Resume(folder.checkpoint, every_n_steps=checkpoint_every, keep=True))
            finished = _fit(detector, recipe, batches, callbacks, validated, folder, verbose)
        return _result(folder, finished)


def _check_fields(detector, training):
    """Raises `ValueError` where the detector learns something that no training image has."""
    for key in getattr(detector, "ground_truth_keys", ()):
        if all(record.get(key) is None for record in training.records):
            raise ValueError(
                f"A {type(detector).__name__} learns {key}, and none of the {len(training)} training images has any. "
                f"Annotate {key} ({_ANNOTATED.get(key, 'in the data set')}), or choose another architecture."
            )


_ANNOTATED = {
    schema.MASKS: "in COCO's files under 'segmentation', in YOLO's as polygons",
    schema.KEYPOINTS: "in COCO's files under 'keypoints'",
}


def _batches(training, detector, recipe, seed, cache):
    drop = len(training) >= recipe.batch_size
    options: dict = {"augment": augmentations(recipe.augment), "drop_remainder": drop, "cache": cache}
    return training.batches(detector, recipe.batch_size, shuffle=True, seed=seed, **options)


def _plan(detector, training, validation, said, recipe, start):
    """What a run is about to do, in lines."""
    where = {"detector": "a trained detector", "backbone": "a trained backbone", "random": "random weights"}[start]
    settings = ", ".join(f"{name} {_short(value)}" for name, value in recipe.settings().items())
    return (
        f"training: {training}\n"
        f"validation: {said}{'' if validation is None else f': {validation}'}\n"
        f"{detector.count_params():,} parameters, classes: {', '.join(training.class_names)}\n"
        f"recipe for {architecture_of(detector)} from {where}: {settings}"
    )


def _short(value):
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _ending(folder, best):
    """What a run that is stopped or diverges leaves, and says."""
    try:
        yield
    except TrainingDiverged:
        folder.abandon()
        raise
    except KeyboardInterrupt:
        raise TrainingInterrupted(folder.contents(best.best_epoch)) from None


def _fit(detector, recipe, batches, callbacks, validation, folder, verbose):
    """Trains, draws the curve, measures the best model, and marks the run as finished.

    Returns what `RunFolder.begin` would return from then on.
    """
    recipe.compile(detector, steps_per_epoch=len(batches))
    detector.score_threshold = None  # that of its earlier weights
    if verbose:
        print("the first step compiles the network, which may take a minute", flush=True)
    history = detector.fit(batches, epochs=recipe.epochs, callbacks=callbacks, verbose=verbose)
    best = next(callback for callback in callbacks if isinstance(callback, BestModel))
    _say_stopped(callbacks, verbose)
    if best.best_epoch is None:  # val_map stayed 0, and the folder holds a model to be overwritten
        best.save(history.epoch[-1])
    with replacing_file(folder.path / CURVE) as part:
        draw_learning_curve(folder.path / HISTORY, part)
    if validation is not None:
        write_json(folder.path / METRICS, _measured(folder.model, validation, verbose))
    columns = history.history.items()
    finished = {
        "history": {name: [value if math.isfinite(value) else None for value in column] for name, column in columns},
        "best_epoch": best.best_epoch,
        "presentations": len(history.epoch) * len(batches) * recipe.batch_size,
        "minutes": callbacks[-1].seconds / 60,
    }
    folder.finish(finished)
    return finished


def _say_stopped(callbacks, verbose):
    for callback in callbacks if verbose else ():
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch is not None:
            print(
                f"stopped early, after epoch {callback.stopped_epoch + 1}: {callback.monitor} is highest after epoch "
                f"{(callback.best_epoch or 0) + 1} and has not improved for {callback.patience} epochs"
            )


def _measured(path, validation, verbose):
    """COCO's metrics of the saved model, which gets the score threshold of the largest F1 as its default."""
    model = keras.saving.load_model(path)
    thresholds = ScoreThresholds(model.class_names or validation.class_names)
    metrics = evaluate_coco(model, validation, progress=verbose > 0, evaluators=[thresholds])
    best = thresholds.result()
    if best["f1"] > 0:
        model.score_threshold = best["score_threshold"]
        model.save(path)
        if verbose:
            print(f"score threshold of detect: {best['score_threshold']:.3f} (F1 {best['f1']:.3f})")
    return {name: value for name, value in metrics.items() if name not in best}


def _result(folder, finished):
    metrics = folder.path / METRICS
    history = {
        name: [math.nan if value is None else value for value in row] for name, row in finished["history"].items()
    }
    return TrainingResult(
        model=keras.saving.load_model(folder.model),
        output=folder.path,
        history=history,
        best_epoch=finished["best_epoch"],
        metrics=json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else None,
        presentations=finished["presentations"],
        minutes=finished["minutes"],
    )


def _check_recipe(recipe, settings):
    """Raises where the settings are known to be wrong before there is a model."""
    if recipe is None:
        unknown = next((name for name in settings if name not in Recipe.__dataclass_fields__), None)
        if unknown is not None:
            raise TypeError(unknown_name("argument of train", unknown, [*_ARGUMENTS, *Recipe.__dataclass_fields__]))
        Recipe(**settings)
    elif settings:
        raise ValueError(
            f"A recipe already contains all settings. Received: a recipe and {', '.join(settings)}. Set them in it, "
            "or leave the recipe out."
        )


def _check_options(tensorboard, evaluate_every, checkpoint_every, seed):
    if tensorboard:
        require_tensorboard()
    for name, value in (("evaluate_every", evaluate_every), ("checkpoint_every", checkpoint_every)):
        if value is not None and not (isinstance(value, numbers.Integral) and value >= 1):
            raise ValueError(f"{name} must be an integer >= 1. Received: {name}={value!r}")
    if not (isinstance(seed, numbers.Integral) and 0 <= seed < 2**32):
        raise ValueError(f"seed must be an integer from 0 to {2**32 - 1}. Received: seed={seed!r}")


_ARGUMENTS = [name for name in inspect.signature(train).parameters if name != "settings"]
