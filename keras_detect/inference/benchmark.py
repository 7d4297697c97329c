"""How fast a detector is under each runtime and precision, and whether it still detects the same."""

import dataclasses
import importlib.metadata
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_detect.export import verification
from keras_detect.export.errors import ExportError
from keras_detect.export.frozen import canvas_of, has_one_canvas
from keras_detect.inference.compiled import RUNTIMES, compile
from keras_detect.registry import unknown_name
from keras_detect.transforms.resizers import two_sides

PREDICT = "predict"  # the row of the model itself
_PACKAGES = {
    "tensorflow": "tensorflow",
    "onnxruntime": "onnxruntime",
    "litert": "ai-edge-litert",
    "openvino": "openvino",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One runtime with one precision.

    Attributes:
        runtime: its name, "predict" for `model.predict_on_batch`.
        precision: of its weights and activations, such as "float32".
        latency: median time of a call with one image, from pixels to detections, in milliseconds.
        throughput: images per second in calls of `batch_size` images.
        megabytes: how much the process has grown by building it and running it; `None` where the system does not say.
        box_difference: the largest difference of a matched box from that of `predict`, in shares of the image's side.
        score_difference: the largest difference of a score, likewise.
        equal: whether it detects what `predict` detects: boxes and scores within 1e-3 (float16: 1e-2; dynamic and
            int8: 5e-2).
        note: why there are no numbers; empty otherwise.
    """

    runtime: str
    precision: str
    latency: float | None = None
    throughput: float | None = None
    megabytes: float | None = None
    box_difference: float | None = None
    score_difference: float | None = None
    equal: bool | None = None
    note: str = ""


def benchmark(
    model: Any,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] = ("float32",),
    *,
    batch_size: int = 8,
    repeats: int = 20,
    images: Sequence[Any] | None = None,
    image_size: int | tuple[int, int] | None = None,
    representative_data: Any = None,
) -> list[BenchmarkRow]:
    """Times a detector under several runtimes; `keras-detect benchmark` is this function.

    Args:
        model: a `DetectionModel`.
        runtimes: names of `compile`'s; `None`: all. `predict` is always the first row.
        precisions: of each runtime; a pair that does not exist becomes a row with a note.
        batch_size: images per call for the throughput.
        repeats: calls for the latency; the throughput takes a quarter as many.
        images: to run on, as `model.detect` takes them; `None`: the photo that ships with the package.
        image_size: an int or `(height, width)` to which they are resized; `None`: the size to which the model's
            resizer brings every image; where there is no such size, images keep their own.
        representative_data: as in `export_model`, for int8.

    Raises:
        ValueError: an unknown runtime.
    """
    for name in runtimes or ():
        if name not in RUNTIMES:
            raise ValueError(unknown_name("runtime", name, RUNTIMES))
    for argument, value in (("repeats", repeats), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{argument} must be a positive integer. Received: {argument}={value}")
    pixels = verification.sample_images(images, _measured_size(model, image_size))
    pixels = [image for image in pixels if image.shape == pixels[0].shape]  # one batch needs one size
    singles = [image[None] for image in pixels]
    batch = np.stack([pixels[index % len(pixels)] for index in range(batch_size)])
    measure = _Measurement(singles, batch, repeats)
    reference = [verification.predicted(model, single) for single in singles]
    rows = [
        BenchmarkRow(runtime=PREDICT, precision=str(model.dtype_policy.name), **measure(lambda: model.predict_on_batch))
    ]
    for runtime in runtimes or RUNTIMES:
        for precision in precisions:
            rows.append(_row(model, runtime, precision, measure, reference, representative_data, image_size))
    return rows


def _measured_size(model, image_size):
    """`(height, width)` of the images that are measured; `None`: as they are."""
    if image_size is not None:
        return two_sides(image_size)
    return canvas_of(model) if has_one_canvas(model) else None


def _row(model, runtime, precision, measure, reference, representative_data, image_size):
    built = []

    def build():
        built.append(
            compile(model, runtime, precision=precision, image_size=image_size, representative_data=representative_data)
        )
        return built[0].predict_on_batch

    try:
        numbers = measure(build)
    except (ExportError, ImportError, ValueError) as error:
        return BenchmarkRow(runtime=runtime, precision=precision, note=str(error))
    tolerance = verification.matching_tolerance(precision)
    compared = verification.compare_batches(built[0].predict_on_batch, measure.singles, reference, model, tolerance)
    return BenchmarkRow(
        runtime=runtime,
        precision=precision,
        box_difference=compared.box_difference,
        score_difference=compared.score_difference,
        equal=compared.equal,
        **numbers,
    )


class _Measurement:
    """Times what a function builds, always on the same images."""

    def __init__(self, singles, batch, repeats):
        self.singles, self.batch, self.repeats = singles, batch, repeats

    def __call__(self, build: Callable[[], Callable]) -> dict[str, Any]:
        before = resident_megabytes()
        run = build()
        for warm_up in (self.singles[0], self.batch):
            run(warm_up)
        latencies = [_milliseconds(run, self.singles[index % len(self.singles)]) for index in range(self.repeats)]
        batches = [_milliseconds(run, self.batch) for _ in range(max(self.repeats // 4, 1))]
        after = resident_megabytes()
        return {
            "latency": statistics.median(latencies),
            "throughput": 1000 * len(self.batch) / statistics.median(batches),
            "megabytes": None if before is None or after is None else max(after - before, 0.0),
        }


def _milliseconds(run, x):
    start = time.perf_counter()
    run(x)
    return 1000 * (time.perf_counter() - start)


def resident_megabytes() -> float | None:
    """Resident memory of this process in 10**6 bytes; `None` where the system does not say (outside Linux)."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def benchmark_table(rows: Sequence[BenchmarkRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| runtime | precision | ms | images/s | MB | boxes | scores | equal |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        name = f"{row.runtime} {_version(row.runtime)}".strip()
        if row.note:
            lines.append(f"| {name} | {row.precision} | {row.note} | | | | | |")
            continue
        cells = (
            _shown(row.latency, ".1f"),
            _shown(row.throughput, ".1f"),
            _shown(row.megabytes, ".0f"),
            _shown(row.box_difference, ".1e"),
            _shown(row.score_difference, ".1e"),
            {None: "", True: "yes", False: "no"}[row.equal],
        )
        lines.append(f"| {name} | {row.precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value, form):
    return "" if value is None else format(value, form)


def _version(runtime):
    try:
        return importlib.metadata.version(_PACKAGES[runtime])
    except (KeyError, importlib.metadata.PackageNotFoundError):
        return ""
