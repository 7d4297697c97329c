"""One whole training run: data, model, recipe, evaluation, and the best model with its history on disk."""

import dataclasses
import os
import pathlib
import time

import keras

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.load import load_dataset
from keras_detect.data.record import REFUSED
from keras_detect.evaluation.callback import COCOEvaluation, evaluate_coco
from keras_detect.files import write_json
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.registry import unknown_name
from keras_detect.training.best_model import BestModel
from keras_detect.training.history_file import HistoryFile
from keras_detect.training.recipe import Recipe
from keras_detect.training.start import DEFAULT_START, starting_model
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
    verbose: int = 1,
) -> TrainingResult:
    """Trains a detector; `keras-detect train` is this function.

    Args:
        data: a `DetectionDataset`, or a folder or file for `load_dataset`.
        output: folder for `model.keras` (of the best epoch), `history.csv`, `curve.png` and, with validation data,
            `metrics.json`; created if absent.
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
        seed: of weights, order and augmentation.
        verbose: as in Keras' `fit`: 0 silent, 1 a progress bar, 2 one line per epoch.

    Raises:
        FileNotFoundError: no such folder, file or image.
        ValueError: unusable data, an unknown model, split or augmentation, a setting out of its range, or a loss that
            was NaN in the first epoch.
    """
    recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, ema_momentum=ema_momentum)
    augmentations = _augmentations(augment)
    keras.utils.set_random_seed(seed)
    training = _dataset(data, train_split)
    validation = _validation(data, validation_split, validation_data, training.class_names)
    if check:
        _check({"training": training, "validation": validation}, verbose)
    detector = starting_model(model, training, image_size, verbose)
    output = pathlib.Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    if verbose:
        print(f"{training}\n{detector.count_params():,} parameters, classes: {', '.join(training.class_names)}")
    batches = training.batches(
        detector,
        batch_size,
        augment=augmentations,
        shuffle=True,
        seed=seed,
        drop_remainder=len(training) >= batch_size,
        cache=cache,
    )
    recipe.compile(detector, steps_per_epoch=len(batches))
    best = BestModel(output / "model.keras", monitor="val_map" if validation is not None else None)
    callbacks = _callbacks(recipe, validation, evaluate_every, best)
    started = time.monotonic()
    history = detector.fit(batches, epochs=epochs, callbacks=callbacks, verbose=verbose)
    minutes = (time.monotonic() - started) / 60
    if best.best_epoch is None:
        raise ValueError("The loss became NaN in the first epoch: nothing was saved. Lower learning_rate.")
    draw_learning_curve(output / "history.csv", output / "curve.png")
    detector = keras.saving.load_model(best.path)
    return TrainingResult(
        model=detector,
        output=output,
        history=history.history,
        best_epoch=best.best_epoch,
        metrics=None if validation is None else _measure(detector, validation, output / "metrics.json", verbose),
        presentations=len(history.epoch) * len(batches) * batch_size,
        minutes=minutes,
    )


def _callbacks(recipe, validation, evaluate_every, best):
    callbacks = recipe.callbacks()
    if validation is not None:
        callbacks.append(COCOEvaluation(validation, every_n_epochs=evaluate_every))
    return [*callbacks, best, HistoryFile(best.path.with_name("history.csv")), keras.callbacks.TerminateOnNaN()]


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


def _measure(model, validation, path, verbose):
    metrics = evaluate_coco(model, validation, progress=verbose > 0)
    write_json(path, metrics)
    return metrics
