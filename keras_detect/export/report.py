"""What `export_model` tells about the file it has written."""

import dataclasses
from typing import Any

from keras_detect.export.verification import matching_tolerance


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """A written and compared file. `print` shows it as a table.

    Attributes:
        path: the file, or the folder of a SavedModel.
        format: name of the exporter.
        precision: of its numbers.
        signature: of its inputs and outputs.
        route: how it was made: "tensorflow", or "jax -> .keras -> tensorflow" for a model that lives elsewhere.
        images: how many it was compared on.
        detections: how many `predict` reports on them.
        matched: how many of those the file reports too, within the tolerance; where there is none, within 0.05.
        missing: how many one side reports and the other does not.
        box_difference: the largest of the matched ones, in shares of the image's side.
        score_difference: the largest of the matched ones.
        swapped: how many have an overlapping rival of the same class and score in their place.
        tied: how many have another candidate of the lowest reported score in their place, as in a model that is not
            trained.
        tolerance: of both; `None` where differences are reported only (int8).
        megabytes: size of all its files.
        milliseconds: median of a call with `batch_size` images.
        predict_milliseconds: of `predict_on_batch` with the same images.
        batch_size: images per call; `None`: any number.
        image_size: `(height, width)` of its input; `None`: any.
        weights_digest: SHA-256 of the weights inside.
        average_precision: COCO's AP of `predict` and of the file on annotated representative data, as
            `{"predict": ..., "file": ...}`; `None` where it was not measured.
        mask_average_precision: the same of masks, where data and detections have some.
        keypoint_average_precision: the same of keypoints.
        details: facts of the format, such as the opset.
    """

    path: str
    format: str
    precision: str
    signature: str
    route: str
    images: int
    detections: int
    matched: int
    missing: int
    box_difference: float
    score_difference: float
    swapped: int
    tied: int
    tolerance: float | None
    megabytes: float
    milliseconds: float
    predict_milliseconds: float
    batch_size: int | None
    image_size: tuple[int, int] | None
    weights_digest: str
    average_precision: dict[str, float] | None = None
    mask_average_precision: dict[str, float] | None = None
    keypoint_average_precision: dict[str, float] | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self):
        allowed = "" if self.tolerance is None else f" (allowed: {self.tolerance:g})"
        number = "any number of" if self.batch_size is None else self.batch_size
        size = "any" if self.image_size is None else " x ".join(map(str, self.image_size))
        rows = {
            "file": self.path,
            "format": f"{self.format}, {self.precision}, signature {self.signature}",
            "input": f"{number} image{'' if self.batch_size == 1 else 's'} per call, size {size}",
            "route": self.route,
            "compared": self._compared(),
            "boxes": f"differ by at most {self.box_difference:.1e} of the image's side{allowed}",
            "scores": f"differ by at most {self.score_difference:.1e}{allowed}",
            "size": f"{self.megabytes:.1f} MB",
            "time": f"{self.milliseconds:.1f} ms per call (predict: {self.predict_milliseconds:.1f} ms)",
            "weights": f"sha256 {self.weights_digest[:16]}",
            **{name: str(value) for name, value in self.details.items()},
        }
        precisions = (self.average_precision, self.mask_average_precision, self.keypoint_average_precision)
        for name, measured in zip(("AP", "mask AP", "keypoint AP"), precisions, strict=True):
            if measured is not None:
                before, after = measured["predict"], measured["file"]
                rows[name] = f"{after:.4f} (predict: {before:.4f}, difference {after - before:+.4f})"
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())

    def _compared(self):
        if not self.detections:
            return f"nothing: predict detects nothing in these {self.images} images; give some with objects (images)"
        equal = "equal" if self.tolerance is not None else f"lie within {matching_tolerance(self.precision):g} of"
        parts = [f"{self.matched} of {self.detections} detections in {self.images} images {equal} those of predict"]
        parts.append(f"{self.missing} missing")
        parts += [f"{self.swapped} swapped with a rival of the same score"] if self.swapped else []
        parts += [f"{self.tied} tied at the lowest score, where others are reported"] if self.tied else []
        return ", ".join(parts)
