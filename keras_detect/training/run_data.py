"""The images that a run trains on, and those that choose its best epoch."""

import dataclasses
import functools
import numbers
import os

from keras_detect.data.dataset import DetectionDataset
from keras_detect.data.load import dataset_splits, load_dataset
from keras_detect.data.record import REFUSED
from keras_detect.data.splits import random_split, split_for

#: share of the training images that is held out where there are no others for validation
VALIDATION_FRACTION = 0.2

Source = DetectionDataset | str | os.PathLike


@dataclasses.dataclass(frozen=True)
class RunData:
    """Which data a run reads, as `train` takes them.

    Args:
        train: a `DetectionDataset`, or a folder or file for `load_dataset`.
        validation: the same, for validation, or None.
        train_split: split of `train`; None: "train" where the data have such a split, else everything.
        validation_split: split of `validation`, or of `train` where that is None; None: "val" where there is one,
            and it is not part of "trainval".
        validation_fraction: share of the training images that is held out for validation; 0: no validation; None:
            0.2 where nothing else is there for validation.
        seed: decides which images are held out.

    Raises:
        ValueError: a fraction outside [0, 1), or one beside other data for validation.
    """

    train: Source
    validation: Source | None = None
    train_split: str | None = None
    validation_split: str | None = None
    validation_fraction: float | None = None
    seed: int = 0

    def __post_init__(self):
        fraction = self.validation_fraction
        if fraction is None:
            return
        if not (isinstance(fraction, numbers.Real) and 0 <= fraction < 1):
            raise ValueError(f"validation_fraction must be in [0, 1). Received: validation_fraction={fraction!r}")
        named = {"validation": self.validation, "validation_split": self.validation_split}
        given = [name for name, value in named.items() if value is not None]
        if given:
            raise ValueError(
                "Validation images are either given or held out from the training images. Received: "
                f"validation_fraction={fraction!r} and {given[0]}. Pass only one of them."
            )

    def read(self) -> tuple[DetectionDataset, DetectionDataset | None, str]:
        """`(training, validation or None, where the validation images come from in words)`.

        Raises:
            FileNotFoundError: no such folder, file or image.
            ValueError: unusable data, an unknown split, or splits among which none is for training.
        """
        train_split = self.train_split or _training_split(self.train, self._known)
        training = _dataset(self.train, train_split)
        names = training.class_names
        if self.validation is not None:
            split = self.validation_split or split_for("validation", self._splits(self.validation))
            return training, _dataset(self.validation, split, names), _of_split(split)
        split = self.validation_split
        if split is None and self.validation_fraction is None and train_split not in (None, "trainval"):
            split = split_for("validation", [name for name in self._known if name != train_split])
        if split is not None:
            return training, _dataset(self.train, split, names), _of_split(split)
        return self._held_back(training)

    def _held_back(self, training):
        fraction = VALIDATION_FRACTION if self.validation_fraction is None else self.validation_fraction
        if fraction == 0:
            return training, None, "none: the last epoch is kept"
        if len(training) < 2 and self.validation_fraction is None:
            return training, None, "none, since there is one image: the last epoch is kept"
        training, validation = random_split(training, fraction, self.seed)
        return training, validation, f"{fraction:g} of the images, held out at random (seed {self.seed})"

    @functools.cached_property
    def _known(self):
        """The splits of `train`; some formats read every annotation for it, so it waits until a split is not named."""
        return self._splits(self.train)

    def _splits(self, source):
        return [] if isinstance(source, DetectionDataset) else dataset_splits(source)

    def settings(self) -> dict:
        """What `run.json` says of it, beside the digests of the data."""
        names = ("train_split", "validation_split", "validation_fraction")
        return {name: getattr(self, name) for name in names}


def check(datasets: dict[str, DetectionDataset | None], verbose: int) -> None:
    """Prints what is repaired or dropped; raises `ValueError` where an epoch would end in an error."""
    for name, dataset in datasets.items():
        report = dataset.check() if dataset is not None else None
        if report is not None and verbose and report.defects.summary():
            print(f"{name} data: {report.defects.summary()}")
        if report is not None and not report.ok:
            refused = [
                f"{kind}: {count} ({places[0]})" for action, kind, count, places in report.rows() if action == REFUSED
            ]
            raise ValueError(
                f"{name} data: {'; '.join(refused)}. Remove or replace them; keras-detect check lists all."
            )


def _training_split(source, known):
    """The split to train on; None: everything."""
    found = split_for("train", known)
    if found is None and (split_for("validation", known) or split_for("test", known)):
        raise ValueError(
            f"{source} has the splits {', '.join(known)}, none of which is called train. Name the one to train on "
            "with train_split (--train_split)."
        )
    return found


def _of_split(split):
    return "all of them" if split is None else f"the split '{split}'"


def _dataset(data, split, class_names=None):
    if not isinstance(data, DetectionDataset):
        return load_dataset(data, split, class_names=class_names)
    if split is not None:
        raise ValueError(
            f"A split names a part of a folder. Received a DetectionDataset and the split '{split}': pass that part "
            "as the data set."
        )
    return data
