"""What a training run starts from: a preset, a backbone or a file, with heads for the classes of the data."""

import dataclasses
import os
from collections.abc import Sequence

import keras

from keras_detect import schema
from keras_detect.data.dataset import DetectionDataset
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.meta_architectures.starting_weights import start_of
from keras_detect.registry import opens, unknown_name
from keras_detect.training.architectures import ARCHITECTURES
from keras_detect.weights.folded_batch_norm import unfold_batchnorm

#: the packaged preset that `train` starts from by default
DEFAULT_START = "ssd_mobilenet_v2_oidv4"
#: what `mixed_precision` may be
PRECISIONS = ("bfloat16", "float16")
_CALIBRATION_IMAGES = 64


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run trains, in the terms of its command line.

    Args:
        model: a detector, or by name a preset, a `.keras` file, or a backbone for a new detector.
        architecture: name of the new detector (`architectures.ARCHITECTURES`) that is built around the backbone of
            `model`; None for the model as it is, and for an SSD around a backbone.
        neck: of the new detector, a registered name or a part; None for the architecture's own.
        image_size: side or `(height, width)` to which images are resized; None for the model's own, or that of
            the new detector's `from_backbone`.
        freeze: patterns of weights that shall not train (`DetectionModel.freeze`).
        mixed_precision: "bfloat16" or "float16": computes in it and keeps the weights in float32; None: as the model.

    Raises:
        ValueError: an unknown architecture or precision, or a neck for a model that has its own.
    """

    model: DetectionModel | str | os.PathLike = DEFAULT_START
    architecture: str | None = None
    neck: object = None
    image_size: int | tuple[int, int] | None = None
    freeze: str | Sequence[str] = ()
    mixed_precision: str | None = None

    def __post_init__(self):
        if self.architecture is not None and self.architecture not in ARCHITECTURES:
            raise ValueError(unknown_name("architecture", self.architecture, ARCHITECTURES))
        if self.mixed_precision is not None and self.mixed_precision not in PRECISIONS:
            raise ValueError(
                f"mixed_precision must be one of {', '.join(PRECISIONS)}, or None. Received: {self.mixed_precision!r}"
            )
        if self.neck is not None and self.architecture is None and not self._is_backbone():
            raise ValueError(
                "A neck can only be chosen for a new detector. Received: "
                f"neck={self.neck!r} without an architecture, for a model that has its own neck. Add architecture "
                f"(--architecture), one of {', '.join(ARCHITECTURES)}."
            )

    def _is_backbone(self):
        return not isinstance(self.model, keras.Model) and opens("backbone", os.fspath(self.model))

    def settings(self) -> dict:
        """What `run.json` says of it."""
        named = isinstance(self.model, str | os.PathLike)
        return {
            "model": os.fspath(self.model) if named else type(self.model).__name__,
            "architecture": self.architecture,
            "neck": self.neck if self.neck is None or isinstance(self.neck, str) else type(self.neck).__name__,
            "image_size": self.image_size,
            "freeze": list(self._patterns()),
            "mixed_precision": self.mixed_precision,
        }

    def _patterns(self):
        return (self.freeze,) if isinstance(self.freeze, str) else tuple(self.freeze)

    def build(self, dataset: DetectionDataset, verbose: int = 1) -> tuple[DetectionModel, str]:
        """The detector, ready for a run, and what of it is trained already (`starting_weights.start_of`).

        Its class heads are for the data, its batch norm is not folded, and what is frozen is frozen.

        Args:
            dataset: the training data; folded batch norm is un-folded on some of its images.
            verbose: 0 prints nothing, else what the model starts from and how much of it is frozen.

        Raises:
            ValueError: an unknown name, an image size for a resizer that has none, or a pattern that matches nothing.
            FileNotFoundError: no such file.
        """
        detector, start = self._built(dataset)
        if self.mixed_precision is not None:
            detector = detector.with_dtype_policy(f"mixed_{self.mixed_precision}")
        unfolded = unfold_batchnorm(detector, _spread(dataset))
        frozen = detector.freeze(*self._patterns())
        if verbose:
            print(f"starts from {detector.started_from or 'the model as it was given'}")
            if unfolded:
                print(f"{unfolded} folded batch norms were given the statistics of training images")
            if frozen:
                print(f"frozen: {frozen} of {len(detector.named_weights())} weights")
        return detector, start

    def _built(self, dataset):
        class_names = dataset.class_names
        if self._is_backbone():
            new = ARCHITECTURES[self.architecture or "ssd"].from_backbone(self.model, **self._of_new(dataset))
            return new, start_of(new)
        model, start = self._loaded()
        if self.architecture is not None:
            return self._around_backbone(model, start, dataset)
        if list(model.class_names or ()) != list(class_names):
            model = model.re_head(class_names=class_names)
        if self.image_size is not None:
            model.resizer = model.resizer.with_size(self.image_size)
        return model, start

    def _loaded(self):
        if isinstance(self.model, keras.Model):
            return self.model, start_of(self.model)
        name, model = os.fspath(self.model), DetectionModel.from_preset(self.model)
        model.started_from = f"'{name}'"  # a local copy still says what it was trained from itself
        return model, "detector"

    def _around_backbone(self, model, start, dataset):
        """A new detector of the architecture around the backbone of another one."""
        backbone = getattr(getattr(model, "feature_extractor", None), "backbone", None)
        if backbone is None:
            raise ValueError(
                f"A {type(model).__name__} has no backbone to build another detector around. Received: "
                f"architecture={self.architecture!r}."
            )
        new = ARCHITECTURES[self.architecture].from_backbone(backbone, **self._of_new(dataset))
        new.started_from = f"backbone of the {model.started_from or type(model).__name__}"
        return new, "random" if start == "random" else "backbone"

    def _of_new(self, dataset):
        given = {"image_size": self.image_size, "neck": self.neck, "class_names": dataset.class_names}
        given |= _tasks_of(dataset) if self.architecture == "centernet" else {}
        return {name: value for name, value in given.items() if value is not None}


def _tasks_of(dataset):
    """What a CenterNet of the data finds beside boxes: the keypoints of the classes that have some."""
    labels = set()
    for record in dataset.records:
        seen = record.get(schema.KEYPOINT_VISIBILITY)
        if seen is not None:
            labels |= set(record.labels[(seen > 0).any(axis=1)].tolist())
    if not labels:
        return {}
    keypoints = {"num_keypoints": dataset.num_keypoints, "skeleton": dataset.skeleton or None}
    return {"tasks": ("boxes", "keypoints"), "keypoint_classes": sorted(labels), **keypoints}


def _spread(dataset):
    """Some images, from all over the data set."""
    step = max(1, len(dataset) // _CALIBRATION_IMAGES)
    return (dataset[index]["image"] for index in range(0, len(dataset), step))
