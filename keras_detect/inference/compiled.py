"""A detector frozen for speed, behind one interface: TensorFlow, ONNX Runtime, LiteRT or OpenVINO."""

import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_detect import schema
from keras_detect.data.image import as_uint8
from keras_detect.export.exporter import ExportOptions, Runner
from keras_detect.export.fitted import FittedRunner
from keras_detect.export.frozen import FrozenDetector, has_one_canvas
from keras_detect.export.metadata import RESIZER, SUPPRESSION
from keras_detect.export.report import ExportReport
from keras_detect.export.run import export_model, format_of, open_exported
from keras_detect.inference.detections import Detections, detections_of
from keras_detect.inference.images import ImageLike
from keras_detect.inference.images import detect as detect_images
from keras_detect.inference.images import detect_each as detect_each_image
from keras_detect.messages import one_line
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.registry import EXPORTERS, deserialize, unknown_name

#: runtime -> the format whose file it runs
RUNTIMES = {"tensorflow": "saved_model", "onnxruntime": "onnx", "litert": "litert", "openvino": "openvino"}


def compile(
    model: Any,
    runtime: str = "tensorflow",
    *,
    precision: str = "float32",
    batch_size: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    representative_data: Any = None,
) -> "CompiledDetector":
    """Freezes a detector for inference: weights become constants and batch norm goes into the convolutions.

    `model.detect` and `predict` keep using the model's live weights; what is compiled keeps those of this moment.

    Args:
        model: a `DetectionModel`, on any backend.
        runtime: "tensorflow", or a runtime of the extra `export`: "onnxruntime", "litert" or "openvino".
        precision: "float32", or another one that `export_model` offers for the runtime's format.
        batch_size: images per call of the runtime; `None`: any number with TensorFlow, 1 with the others.
        image_size: as in `export_model`, for runtimes whose input has a fixed size.
        representative_data: as in `export_model`, for int8.

    Returns:
        `CompiledDetector`.

    Raises:
        ValueError: an unknown runtime or precision.
        ExportError: the runtime's format cannot express the model, or its detections differ from those of `predict`.
        MissingPackageError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise ValueError(unknown_name("runtime", runtime, RUNTIMES))
    if runtime == "tensorflow" and keras.backend.backend() == "tensorflow":
        EXPORTERS.get("saved_model")().check("saved_model", ExportOptions(precision=precision))
        return CompiledDetector(model, TensorFlowRunner(model, batch_size, precision), runtime, precision)
    if batch_size is None and runtime != "tensorflow":
        batch_size = 1
    name = RUNTIMES[runtime]
    folder = tempfile.TemporaryDirectory(prefix="keras_detect_compiled_")
    path = pathlib.Path(folder.name) / f"detector{EXPORTERS.get(name).suffix}"
    report = export_model(
        model,
        path,
        name,
        batch_size=batch_size,
        image_size=image_size,
        precision=precision,
        representative_data=representative_data,
        verbose=0,
    )
    return CompiledDetector(model, open_exported(path, name), runtime, precision, report, folder)


def open_detector(path: str | os.PathLike, format: str | None = None) -> "CompiledDetector":
    """Opens an exported file for detection, without the model: what `compile` returns, from a file.

    Args:
        path: a `.tflite`, `.onnx` or OpenVINO (`.xml`) file, or the folder of a SavedModel, that `model.export` wrote.
        format: a name of `export_formats()`; `None`: by the suffix of `path`.

    Raises:
        FileNotFoundError: no such file or folder.
        MissingPackageError: the format's packages are not installed.
        ValueError: not such a file, or one that something else than this package has written.
    """
    runner = open_exported(path, format)
    metadata = runner.metadata
    if RESIZER not in metadata:
        raise ValueError(
            f"{path} does not say how its detector resizes images: keras_detect's export has not written it. Export "
            "the model again: model.export(path), or keras-detect export."
        )
    name = format_of(pathlib.Path(path), format)
    try:
        resizer, suppression = (deserialize(metadata[key]) for key in (RESIZER, SUPPRESSION))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds a part that this process does not know. Import the module that defines it. Received: "
            f"{one_line(error, 200)}"
        ) from None
    skeleton = tuple(tuple(pair) for pair in metadata.get("skeleton", ()))
    model = _OpenedModel(metadata["class_names"], metadata["score_threshold"], resizer, suppression, skeleton)
    runtime = next((runtime for runtime, known in RUNTIMES.items() if known == name), name)
    return CompiledDetector(model, runner, runtime, metadata["precision"])


def load_detector(source: str | os.PathLike) -> Any:
    """A detector to detect with, from any file that holds one.

    Args:
        source: what `open_detector` opens; or what `DetectionModel.from_preset` takes, a `.keras` file, or the name,
            folder or address of a preset.

    Returns:
        `CompiledDetector`, or `DetectionModel`. Both have `detect`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown name, or a file that holds no detector; `MissingPackageError` where its packages are not
            installed.
    """
    path = pathlib.Path(source).expanduser()
    suffixes = {EXPORTERS.get(name).suffix for name in EXPORTERS.names()} - {""}
    if path.suffix in suffixes or ((path / "saved_model.pb").is_file() and not (path / "config.json").is_file()):
        return open_detector(path)
    return DetectionModel.from_preset(source)


class _OpenedModel(NamedTuple):
    """What detection needs to know of the model in a file."""

    class_names: tuple[str, ...] | None
    score_threshold: float | None
    resizer: Any
    final_suppression: Any
    skeleton: Any


class CompiledDetector:
    """A frozen detector; `compile` and `open_detector` make it.

    Attributes:
        runtime: its name.
        precision: of its numbers.
        weights_digest: SHA-256 of the weights that were frozen, as `export.weights_digest` computes it of a model.
        class_names: of the model.
        score_threshold: of the model: what `detect` leaves out by default.
        skeleton: of the model: the lines between keypoints in drawings.
        final_suppression: of the model, which merges the detections of tiles; `None` if it has none.
        report: `ExportReport` of the runtime's file; `None` for TensorFlow, which needs no file, and for one that
            `open_detector` has opened.
    """

    def __init__(
        self,
        model: Any,
        runner: Runner,
        runtime: str,
        precision: str = "float32",
        report: ExportReport | None = None,
        folder: Any = None,
    ):
        self.runtime, self.precision, self.report = runtime, precision, report
        self.weights_digest = runner.metadata["weights_digest"]
        self.class_names, self.score_threshold = model.class_names, model.score_threshold
        self.final_suppression = getattr(model, "final_suppression", None)
        self.skeleton = getattr(model, "skeleton", ())
        self.runner = runner
        self._fitted = FittedRunner(runner, model.resizer)
        self._folder = folder  # the file lives as long as this

    def predict_on_batch(self, x: Any) -> dict[str, np.ndarray]:
        """The detections that `model.predict_on_batch` returns, as numpy arrays.

        Args:
            x: `[B, H, W, 3]` uint8, or float in 0...255, which is rounded; or a dict of `"images"` and
                `"true_image_shapes"` or `"resized_image_shapes"` `[B, 3]`: the true region of each image then goes
                through the runtime by itself.

        Returns:
            `{"boxes" [B, D, 4] (yxyx, normalized to the true image), "scores" [B, D], "labels" [B, D] (from 0, -1 in
            padding rows), "num_detections" [B]}` and every further per-object field of the model's output.
        """
        if not isinstance(x, dict):
            return self._fitted(as_uint8(np.asarray(x)))
        images = as_uint8(np.asarray(x[schema.IMAGES]))
        shapes = x.get(schema.RESIZED_IMAGE_SHAPES, x.get(schema.TRUE_IMAGE_SHAPES))
        if shapes is None:
            return self._fitted(images)
        parts = [
            self._fitted(image[None, : int(shape[0]), : int(shape[1])])
            for image, shape in zip(images, np.asarray(shapes), strict=True)
        ]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def detect(
        self,
        images: ImageLike | Sequence[ImageLike],
        score_threshold: float | None = None,
        batch_size: int = 8,
        max_pixels: int | None = None,
        *,
        tile: int | tuple[int, int] | None = None,
        overlap: float = 0.2,
        whole_image: bool = True,
    ) -> Detections | list[Detections]:
        """Detects in an image, or in a list of images; arguments and results are those of `model.detect`.

        Neighbors in a list, and tiles, that have one size share a call of at most `batch_size` images.
        """
        tiling: dict[str, Any] = {"tile": tile, "overlap": overlap, "whole_image": whole_image}
        return detect_images(self, images, score_threshold, batch_size, max_pixels, **tiling)

    def detect_each(
        self,
        images: Iterable[ImageLike],
        score_threshold: float | None = None,
        batch_size: int = 8,
        max_pixels: int | None = None,
        *,
        tile: int | tuple[int, int] | None = None,
        overlap: float = 0.2,
        whole_image: bool = True,
    ) -> Iterator[Detections]:
        """The detections of each image in turn; any iterable will do, also an endless one. See `detect`."""
        tiling: dict[str, Any] = {"tile": tile, "overlap": overlap, "whole_image": whole_image}
        return detect_each_image(self, images, score_threshold, batch_size, max_pixels, **tiling)

    def detect_pixels(self, images: Iterable[np.ndarray], threshold: float, batch_size: int) -> Iterator[Detections]:
        """The detections, with scores from `threshold` on, of each array of pixels `[H, W, 3]` in turn."""
        waiting = list[np.ndarray]()
        for pixels in map(as_uint8, images):
            if waiting and waiting[0].shape != pixels.shape:
                yield from self._results(waiting, threshold)
                waiting = []
            waiting.append(pixels)
            if len(waiting) >= batch_size:
                yield from self._results(waiting, threshold)
                waiting = []
        if waiting:
            yield from self._results(waiting, threshold)

    def _results(self, images, threshold):
        found = self._fitted(np.stack(images))
        return [detections_of(self, found, row, threshold, image.shape[:2]) for row, image in enumerate(images)]

    def __repr__(self):
        return f"<CompiledDetector: {self.runtime}, {self.precision}, weights {self.weights_digest[:16]}>"


class TensorFlowRunner(Runner):
    """Frozen functions in this process, one per number of images.

    Where the model's resizer brings all images to one size, a function takes images of any size; otherwise there is
    one per size, too.
    """

    def __init__(self, model, batch_size=None, precision="float32"):
        self.batch_size = batch_size
        copy = model.with_parts()  # what is traced later has the weights of now
        copy.score_threshold = model.score_threshold
        self._frozen = FrozenDetector(copy, ExportOptions(batch_size=batch_size, precision=precision), False)
        self.metadata = self._frozen.metadata
        self._any_size = has_one_canvas(copy)
        self._functions: dict[tuple, tuple[Any, Any]] = {}

    def __call__(self, images):
        import tensorflow as tf

        found = self.functions_for(images.shape)[0](tf.constant(images))
        return {key: value.numpy() for key, value in found.items()}

    def functions_for(self, shape: tuple[int | None, ...]) -> tuple[Any, Any]:
        """`(whole, network)` for images of this shape: pixels to detections, and its part behind the resizing."""
        if self._any_size:
            shape = (shape[0], None, None, 3)
        if shape not in self._functions:
            self._functions[shape] = self._traced(shape)
        return self._functions[shape]

    def _traced(self, shape):
        import tensorflow as tf

        model, keys = self._frozen.model, (schema.IMAGES, schema.TRUE_IMAGE_SHAPES)
        pixels = tf.TensorSpec(shape, tf.uint8, name=schema.IMAGES)
        preprocess = self._frozen.trace(self._frozen.preprocess, pixels)
        outputs = [(key, preprocess.structured_outputs[key]) for key in keys]
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype, key) for key, tensor in outputs]

        def detect(*inputs):
            return model.postprocess(model(dict(zip(keys, inputs, strict=True)), training=False), inputs[1])

        network = self._frozen.trace(detect, *specs)

        def whole(images):
            inputs = preprocess(images)
            return network(*(inputs[key] for key in keys))

        return tf.function(whole, input_signature=[pixels], autograph=False).get_concrete_function(), network
