"""One whole training run: data, model, recipe, evaluation, and the best model with its history on disk."""

import contextlib
import dataclasses
import json
import math
import numbers
import os
import pathlib

import keras

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.load import load_dataset
from keras_detect.data.record import REFUSED
from keras_detect.evaluation.callback import COCOEvaluation, evaluate_coco
from keras_detect.evaluation.thresholds import ScoreThresholds
from keras_detect.files import replacing_file, write_json
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.registry import unknown_name
from keras_detect.training.best_model import BestModel
from keras_detect.training.divergence import TrainingDiverged
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.recipe import Recipe
from keras_detect.training.resume import Resume
from keras_detect.training.run_folder import CURVE, HISTORY, METRICS, RunFolder, TrainingInterrupted, fingerprint
from keras_detect.training.start import DEFAULT_START, starting_model
from keras_detect.training.tensorboard_images import TensorBoardImages, require_tensorboard
from keras_detect.transforms import (
    RandomColor,
    RandomHorizontalFlip,
    RandomIoUCrop,
    RandomRotation90,
    RandomVerticalFlip,
)
from keras_detect.visualization import draw_learning_curve

_CROP = (RandomIoUCrop(probability=0.5), RandomColor())
# name -> augmentations for `DetectionDataset.batches`
AUGMENTATIONS = {
    "none": (),
    "flip": (RandomHorizontalFlip(),),
    "crop": (RandomHorizontalFlip(), *_CROP),
    "microscopy": (RandomHorizontalFlip(), RandomVerticalFlip(), RandomRotation90(), *_CROP),
}


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
    data: DetectionDataset | str | os.PathLike,
    output: str | os.PathLike,
    *,
    train_split: str | None = None,
    validation_split: str | None = None,
    validation_data: DetectionDataset | str | os.PathLike | None = None,
    model: DetectionModel | str | os.PathLike = DEFAULT_START,
    image_size: int | tuple[int, int] | None = None,
    epochs: int = 60,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    ema_momentum: float = 0.0,
    augment="crop",
    evaluate_every: int = 1,
    cache: bool = False,
    check: bool = True,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_every: int | None = None,
    tensorboard: bool = False,
    verbose: int = 1,
) -> TrainingResult:
    """Trains a detector; `keras-detect train` is this function.

    Args:
        data: a `DetectionDataset`, or a folder or file for `load_dataset`.
        output: folder for `model.keras` (of the best epoch), `history.csv`, `curve.png`, `run.json` (the settings)
            and, with validation data, `metrics.json`; created if absent. A running or interrupted run has its
            checkpoint there too.
        train_split: split of the folder to train on; None for everything.
        validation_split: split of the folder that chooses the best epoch; None for no validation.
        validation_data: a data set or folder for validation, in the place of `validation_split`.
        model: a detector; or the name of a preset or a backbone (a new SSD around it), or a `.keras` file. A model for
            other classes gets new class heads. Default: the packaged detector of everyday objects.
        image_size: side, or `(height, width)`, to which images are resized; default: the model's own, 320 for a new
            SSD.
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: peak of the cosine schedule (`Recipe`).
        ema_momentum: of averaged weights, such as 0.99; 0 for none.
        augment: a name out of "none", "flip", "crop", "microscopy", or a sequence of augmentations
            (`keras_detect.transforms`).
        evaluate_every: epochs between evaluations.
        cache: whether to keep the decoded images in memory.
        check: whether to decode every image before the first epoch, so that a damaged one ends the run there.
        seed: of weights, order and augmentation. Two runs with one seed are equal.
        resume: go on with an interrupted run in `output`, if there is one: it ends with the weights of an uninterrupted
            run, bit for bit on one device (`callbacks.Resume`). A finished run is returned as it is.
        overwrite: start anew in a folder that holds a model; it stays until the run has a better one than none.
        checkpoint_every: steps between checkpoints within an epoch; None for one per epoch.
        tensorboard: also write the curves, and four validation (or training) images with ground truth and detections,
            into the folder `tensorboard` of `output` after every epoch (`callbacks.TensorBoardImages`).
        verbose: as in Keras' `fit`: 0 silent, 1 a progress bar, 2 one line per epoch.

    Raises:
        FileNotFoundError: no such folder, file or image.
        FileExistsError: `output` holds a model or an interrupted run, and neither `resume` nor `overwrite` is given.
        ValueError: unusable data, an unknown model, split or augmentation, a setting out of its range, or other
            settings than the run that shall go on.
        TrainingDiverged: the loss or a weight became NaN or infinite, or the loss exploded (`callbacks.BestModel`); the
            best model before that stays.
        TrainingInterrupted: a `KeyboardInterrupt` that says what is saved.
    """
    recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, ema_momentum=ema_momentum)
    augmentations = _augmentations(augment)
    _check_options(tensorboard, evaluate_every=evaluate_every, checkpoint_every=checkpoint_every, seed=seed)
    folder = RunFolder(output, resume=resume, overwrite=overwrite)
    validated = validation_split is not None or validation_data is not None
    best = BestModel(folder.model, monitor="val_map" if validated else None)
    with _ending(folder, best):
        keras.utils.set_random_seed(seed)
        training = _dataset(data, train_split)
        validation = _validation(data, validation_split, validation_data, training.class_names)
        if check:
            _check({"training": training, "validation": validation}, verbose)
        detector = starting_model(model, training, image_size, verbose)
        if verbose:
            print(f"{training}\n{detector.count_params():,} parameters, classes: {', '.join(training.class_names)}")
        settings = {
            "model": os.fspath(model) if isinstance(model, str | os.PathLike) else type(detector).__name__,
            "parameters": detector.count_params(),
            "image_size": image_size,
            "augment": [_described(operation) for operation in augmentations],
            "evaluate_every": evaluate_every,
            "seed": seed,
            "data": fingerprint(training),
            "validation_data": fingerprint(validation),
        }
        finished = folder.begin({**dataclasses.asdict(recipe), **settings})
        if finished is None:
            drop = len(training) >= batch_size
            options: dict = {"augment": augmentations, "seed": seed, "drop_remainder": drop, "cache": cache}
            batches = training.batches(detector, batch_size, shuffle=True, **options)
            callbacks = _callbacks(recipe, validation, evaluate_every, best)
            drawn = validation or training
            callbacks += [TensorBoardImages(folder.path / "tensorboard", drawn)] if tensorboard else []
            callbacks.append(Resume(folder.checkpoint, every_n_steps=checkpoint_every, keep=True))
            finished = _fit(detector, recipe, batches, callbacks, validation, folder, verbose)
        return _result(folder, finished)


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


def _callbacks(recipe, validation, evaluate_every, best):
    callbacks = recipe.callbacks()
    if validation is not None:
        callbacks.append(COCOEvaluation(validation, every_n_epochs=evaluate_every))
    return [*callbacks, best, HistoryFile(best.path.with_name(HISTORY))]


def _check_options(tensorboard, evaluate_every, checkpoint_every, seed):
    if tensorboard:
        require_tensorboard()
    for name, value in (("evaluate_every", evaluate_every), ("checkpoint_every", checkpoint_every)):
        if value is not None and not (isinstance(value, numbers.Integral) and value >= 1):
            raise ValueError(f"{name} is a whole number, 1 or more. Received: {name}={value!r}")
    if not (isinstance(seed, numbers.Integral) and 0 <= seed < 2**32):
        raise ValueError(f"seed is a whole number, 0 to {2**32 - 1}. Received: seed={seed!r}")


def _described(operation):
    """An augmentation as text that is the same in the next process."""
    return (
        repr(operation)
        if dataclasses.is_dataclass(operation)
        else getattr(operation, "__qualname__", type(operation).__qualname__)
    )


def _augmentations(augment):
    if not isinstance(augment, str):
        return tuple(augment)
    if augment not in AUGMENTATIONS:
        raise ValueError(unknown_name("augmentation", augment, AUGMENTATIONS))
    return AUGMENTATIONS[augment]


def _dataset(data, split, class_names=None):
    if not isinstance(data, DetectionDataset):
        return load_dataset(data, split, class_names=class_names)
    if split is not None:
        raise ValueError(
            f"A split names a part of a folder. Received a DetectionDataset and the split '{split}': pass that part "
            "as the data set."
        )
    return data


def _validation(data, split, validation_data, class_names):
    if validation_data is None:
        return None if split is None else _dataset(data, split, class_names)
    return _dataset(validation_data, split, class_names)


def _check(datasets, verbose):
    """Prints what is repaired or dropped; raises `ValueError` where an epoch would end in an error."""
    for name, dataset in datasets.items():
        report = dataset.check() if dataset is not None else None
        if report is not None and verbose and report.defects.summary():
            print(f"{name} data: {report.defects.summary()}")
        if report is not None and not report.ok:
            refused = [
                f"{count} {kind} ({places[0]})" for action, kind, count, places in report.rows() if action == REFUSED
            ]
            raise ValueError(
                f"{name} data: {'; '.join(refused)}. Remove or replace them; keras-detect check lists all."
            )
