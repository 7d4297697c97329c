"""One whole export: freeze, write, open again, compare with `predict`, put in place."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_detect import files
from keras_detect.export import other_backends, verification
from keras_detect.export.average_precision import average_precisions
from keras_detect.export.errors import ExportError
from keras_detect.export.exporter import Exporter, ExportOptions
from keras_detect.export.fitted import FittedRunner
from keras_detect.export.frozen import FrozenDetector, input_size
from keras_detect.export.report import ExportReport
from keras_detect.export.representative import RepresentativeImages
from keras_detect.registry import EXPORTERS, provide
from keras_detect.transforms.resizers import two_sides
from keras_detect.weights.finite import require_finite


def export_formats() -> list[str]:
    """Names of the formats that `export_model` writes, sorted."""
    return EXPORTERS.names()


@provide("export")
def export_model(
    model: Any,
    path: str | os.PathLike,
    format: str | None = None,
    *,
    batch_size: int | None = 1,
    image_size: int | tuple[int, int] | None = None,
    precision: str = "float32",
    signature: str = "default",
    representative_data: Any = None,
    images: Sequence[Any] | None = None,
    verbose: int = 1,
) -> ExportReport:
    """Writes a detector for another runtime: pixels in, detections out; `DetectionModel.export` is this function.

    The file is written under a temporary name, opened as its users open it, run on real images and compared with
    `predict`. It is put at `path` only if its detections are equal within the tolerance of its precision ("dynamic"
    and "int8" have none: the differences are reported).

    Args:
        model: a `DetectionModel`, on any backend. One that lives under JAX or torch is saved to a temporary `.keras`
            file, which a second process exports under TensorFlow; the comparison is with the `predict` of this one.
        path: the file, or the folder of a SavedModel.
        format: a name of `export_formats()`; `None`: by the suffix of `path` (none: "saved_model").
        batch_size: images per call of the file; `None`: any number, where the format can.
        image_size: an int or `(height, width)` of the images that the file takes; `None`: any size where the format
            can, else that of the model's resizer. The model still resizes to its own size.
        precision: "float32"; LiteRT also has "float16", "dynamic" and "int8", ONNX "int8", OpenVINO "float16".
        signature: inputs and outputs of the file, "default" or what the format offers beside it.
        representative_data: for int8: a `DetectionDataset`, a folder or file of annotated images, a folder of bare
            images, or a list of images. Where they are annotated, the report of every precision holds the AP of
            `predict` and of the file, that of masks and keypoints too where there are some.
        images: to compare on, as `model.detect` takes them; `None`: the photo that ships with the package, mirrored
            and cut out too.
        verbose: 0 to print nothing, 1 for the report.

    Returns:
        `ExportReport`.

    Raises:
        ExportError: the format cannot express the model, or the file's detections differ by more than the tolerance.
        MissingPackageError: the format's packages are not installed.
        ValueError: an unknown format, precision or signature.
        OSError: the file cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    name = format_of(path, format)
    exporter = EXPORTERS.get(name)()
    options = ExportOptions(
        batch_size=_checked_batch_size(batch_size),
        image_size=None if image_size is None else two_sides(image_size),
        precision=precision,
        signature=signature,
        representative=_representative(representative_data, model),
    )
    exporter.check(name, options)
    exporter.check_model(model, options)
    _check_place(exporter, path)
    require_finite(model)
    size = input_size(model, options, exporter.has_static_size(model, options))
    reference = verification.reference_of(model, images, size, batch_size)
    if keras.backend.backend() == "tensorflow":
        report = write_and_compare(exporter, name, model, path, options, reference)
    else:
        report = other_backends.export_in_tensorflow(model, path, name, options, representative_data, reference)
    if verbose:
        print(report)
    return report


def format_of(path: pathlib.Path, format: str | None = None) -> str:
    """The name of the format: `format`, or what the suffix of `path` says. Raises `ValueError` for an unknown one."""
    if format is not None:
        EXPORTERS.get(format)
        return format
    suffixes = {EXPORTERS.get(name).suffix: name for name in EXPORTERS.names()}
    if path.suffix not in suffixes:
        known = ", ".join(f"'{suffix}' ({name})" if suffix else f"none ({name})" for suffix, name in suffixes.items())
        raise ValueError(
            f"The format is determined by the file suffix: {known}. Received: {path}. Give format (--format)."
        )
    return suffixes[path.suffix]


def open_exported(path: str | os.PathLike, format: str | None = None) -> Any:
    """Opens an exported file, without the model: a `Runner`, callable on `images [B, H, W, 3]` uint8.

    Args:
        path: the file, or the folder of a SavedModel.
        format: a name of `export_formats()`; `None`: by the suffix of `path`.

    Raises:
        MissingPackageError: the format's packages are not installed.
        ValueError: an unknown format, or not such a file.
    """
    path = pathlib.Path(path).expanduser()
    name = format_of(path, format)
    exporter = EXPORTERS.get(name)()
    exporter.check(name, ExportOptions())
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}")
    return exporter.open(path)


def write_and_compare(exporter, name, model, path, options, reference) -> ExportReport:
    """Writes under TensorFlow, compares and puts the file in its place; see `export_model`.

    Args:
        exporter: an `Exporter`.
        name: of its format.
        model: under the TensorFlow backend.
        path: where the file appears.
        options: `ExportOptions`, checked.
        reference: `verification.Reference`.
    """
    frozen = FrozenDetector(model, options, exporter.has_static_size(model, options))
    with _replacing(exporter, path) as part:
        facts = exporter.write(frozen, part, options)
        runner = exporter.open(part)
        tolerance = verification.TOLERANCES.get(options.precision)
        near = verification.matching_tolerance(options.precision)
        compared = verification.compare_batches(runner, reference.batches, reference.expected, model, near)
        if tolerance is not None and not compared.equal:
            raise _differs(compared, reference, model, tolerance, name, path)
        return ExportReport(
            path=str(path),
            format=name,
            precision=options.precision,
            signature=options.signature,
            route=reference.route,
            images=reference.images,
            **dataclasses.asdict(compared),
            tolerance=tolerance,
            megabytes=_megabytes(part),
            milliseconds=verification.milliseconds(runner, reference.batches[0]),
            predict_milliseconds=reference.milliseconds,
            batch_size=runner.batch_size,
            image_size=runner.image_size,
            weights_digest=frozen.metadata["weights_digest"],
            **_average_precisions(model, runner, options),
            details=facts,
        )


def _average_precisions(model, runner, options):
    """The report's fields of AP, before and after, on annotated representative data."""
    representative = options.representative
    if representative is None or representative.dataset is None:
        return {}
    before = average_precisions(model.predict_on_batch, representative.dataset)
    after = average_precisions(FittedRunner(runner, model.resizer), representative.dataset)
    fields = {
        "boxes": "average_precision",
        "masks": "mask_average_precision",
        "keypoints": "keypoint_average_precision",
    }
    return {fields[what]: {"predict": before[what], "file": after[what]} for what in before if what in after}


def _differs(compared, reference, model, tolerance, name, path) -> ExportError:
    """The error for a file whose detections are not those of `predict`."""
    threshold = verification.score_threshold_of(model)
    hint = ""
    if verification.share_at_cut(reference.expected, tolerance, threshold) > 0.5:
        hint = (
            f" Most scores of predict lie within {tolerance:g} of the lowest one reported, so that rounding decides "
            "which detections are reported; a model that is not trained scores everything alike. Train it or restore "
            "weights, or compare on images in which it detects something (images, --images)."
        )
    return ExportError(
        f"The {name} file does not detect what predict detects, and was not kept. Expected: the same detections, "
        f"boxes and scores within {tolerance:g}. Received: {compared.matched} of {compared.detections} equal, "
        f"{compared.missing} without a counterpart, {compared.swapped} with a rival of the same score in "
        f"their place, {compared.tied} tied at the lowest score.{hint} Nothing was written to {path}."
    )


def _replacing(exporter, path):
    """Context of the path to write to; what is there at the end takes the place of `path`."""
    if exporter.suffix == "":
        return files.replacing_folder(path)
    return _replacing_file(path)


@contextlib.contextmanager
def _replacing_file(path):
    with files.replacing_files(path.parent, last=path.name) as folder:
        yield folder / path.name


def _megabytes(part):
    """Size of a folder, or of all files beside and including `part`, in 10**6 bytes."""
    folder = part if part.is_dir() else part.parent
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _checked_batch_size(batch_size):
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive integer, or None for any number. Received: {batch_size!r}")
    return batch_size


def _representative(data, model):
    return None if data is None else RepresentativeImages(data, model.class_names)


def _check_place(exporter: Exporter, path: pathlib.Path):
    """Raises `ValueError` where the file's name has another suffix, or a folder is not a SavedModel's."""
    if path.suffix != exporter.suffix and exporter.suffix:
        raise ValueError(f"The file name must end in '{exporter.suffix}'. Received: {path}")
    if not exporter.suffix and path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").exists():
        raise ValueError(f"The folder {path} contains something other than a SavedModel, which would be overwritten.")
