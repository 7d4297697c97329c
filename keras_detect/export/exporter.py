"""What a format is: one file with a class that writes a frozen detector and opens what it has written."""

import abc
import dataclasses
import pathlib
from typing import Any

import numpy as np

from keras_detect.export.errors import ExportError, require_packages
from keras_detect.registry import unknown_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `export_model` was asked for, checked.

    Attributes:
        batch_size: images per call; `None`: any number, where the format can.
        image_size: `(height, width)` of the file's input; `None`: any size where the format can, else that of the
            model's resizer.
        precision: one of the exporter's `precisions`.
        signature: one of the exporter's `signatures`.
        representative: `export.representative.RepresentativeImages`, or `None`.
    """

    batch_size: int | None = 1
    image_size: tuple[int, int] | None = None
    precision: str = "float32"
    signature: str = "default"
    representative: Any = None


class Runner(abc.ABC):
    """An opened file: detections of a batch.

    Attributes:
        batch_size: how many images a call takes; `None`: any number.
        image_size: `(height, width)` of the images it takes; `None`: any size.
        metadata: what the file says about itself, as `export.metadata.model_metadata` wrote it.
        takes_float: whether images may also be float32 in 0...255, so that a client's resizing need not round them.
    """

    takes_float: bool = False
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    metadata: dict[str, Any]

    @abc.abstractmethod
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Detections of `images [B, H, W, 3]` uint8, in the model's own convention (`schema`).

        Returns:
            `{"boxes" [B, D, 4] float32 (normalized yxyx), "scores" [B, D] float32, "labels" [B, D] int32 (from 0),
            "num_detections" [B] int32}` and every further per-object field of the model's output.
        """


class Exporter(abc.ABC):
    """A format. A subclass is registered by `register_exporter(name)` and defines `write` and `open`; it may extend
    `check` and `check_model`.

    Attributes:
        suffix: of the file's name; "" for a folder.
        requires: distributions (as pip names them) that the format needs beyond the package's own.
        precisions: what `precision` may be.
        signatures: what `signature` may be; the first is "default".
        static_image_size: whether the file's input has a fixed height and width, even where the model's has not.
    """

    suffix: str = ""
    requires: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    signatures: tuple[str, ...] = ("default",)
    static_image_size: bool = True

    @abc.abstractmethod
    def write(self, frozen: Any, path: pathlib.Path, options: ExportOptions) -> dict[str, Any]:
        """Writes the file and returns facts for the report (`{"opset": 17}`), or an empty dict.

        Args:
            frozen: `export.frozen.FrozenDetector`.
            path: where to; the name is the final one, the folder is a temporary one. Further files that are written
                beside it (`.bin` beside `.xml`) are put in place with it.
            options: `ExportOptions`.

        Raises:
            ExportError: the format cannot express the model; it names the operation and an alternative.
        """

    @abc.abstractmethod
    def open(self, path: pathlib.Path) -> Runner:
        """Opens a file that `write` has written, without the model.

        Raises:
            ValueError: not such a file.
        """

    def has_static_size(self, model: Any, options: ExportOptions) -> bool:
        """Whether the file of this model has an input of a fixed height and width though `options` name none."""
        return self.static_image_size

    def check_model(self, model: Any, options: ExportOptions) -> None:  # noqa: B027 - not every format refuses one
        """Raises `ExportError` before any work is done for a model that the format cannot express with `options`."""

    def check(self, name: str, options: ExportOptions) -> None:
        """Raises `MissingPackageError` or `ValueError` before any work is done."""
        require_packages(name, self.requires)
        if options.precision not in self.precisions:
            raise ValueError(unknown_name(f"precision of {name}", options.precision, self.precisions))
        if options.signature not in self.signatures:
            raise ValueError(unknown_name(f"signature of {name}", options.signature, self.signatures))
        if options.precision == "int8" and options.representative is None:
            raise ExportError(
                "int8 needs images like those the detector will see, which set the ranges of its numbers. Received: "
                "representative_data=None. Pass a folder, a data set or a list of images (--data)."
            )
