"""From images to detections: what `DetectionModel` inherits for prediction."""

import numbers
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_detect import registry, schema
from keras_detect.meta_architectures.ground_truth import split_images
from keras_detect.meta_architectures.model_mixin import ModelMixin

DEFAULT_SCORE_THRESHOLD = 0.3  # of a model that has none of its own


def threshold_of(detector, score_threshold: float | None = None) -> float:
    """`score_threshold`; if that is None the detector's own, and if it has none 0.3."""
    if score_threshold is not None:
        return score_threshold
    return DEFAULT_SCORE_THRESHOLD if detector.score_threshold is None else detector.score_threshold


class Detection(ModelMixin):
    """What `DetectionModel` inherits for `predict`, `detect` and export."""

    _score_threshold: float | None = None

    @property
    def score_threshold(self) -> float | None:
        """The score from which on `detect` reports a detection by default; None: 0.3.

        `train` sets it to the one of the largest F1 on the validation data; the model's file holds it.
        """
        return self._score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float | None) -> None:
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1
        ):
            raise ValueError(f"score_threshold must be a number from 0 to 1, or None. Received: {value!r}")
        self._score_threshold = None if value is None else float(value)

    def deployable(self, images: Any, true_image_shapes: Any = None, resized: bool = False) -> dict[str, Any]:
        """From pixels to detections: the one forward path, which `predict`, `detect` and export take.

        Args:
            images: `[B, H, W, 3]` uint8 or float in 0...255.
            true_image_shapes: `[B, 3]` int32 where images are padded at the right and the bottom, else `None`.
            resized: whether the data pipeline has resized them for this model already.

        Returns:
            Detections (`schema`), normalized to the true image.
        """
        inputs = self._preprocess(images, true_image_shapes, resized)
        return self.postprocess(self(inputs, training=False), inputs[schema.TRUE_IMAGE_SHAPES])

    def _preprocess(self, images, true_image_shapes, resized):
        """`resized` is passed for marked batches only, so that a `preprocess` of two arguments takes all others."""
        marks = {"resized": True} if resized else {}
        return self.preprocess(images, true_image_shapes, **marks)

    def predict_step(self, *args: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(args[-1])
        images = split_images(x)
        with self._kernels():
            if len(args) == 1:
                return self.deployable(*images)
            trainable, non_trainable = args[0]  # JAX: values of the variables, and what changed of them in return
            values = zip(
                (*self.trainable_variables, *self.non_trainable_variables), (*trainable, *non_trainable), strict=True
            )
            with keras.StatelessScope(state_mapping=list(values)) as scope:
                detections = self.deployable(*images)
            return detections, [scope.get_current_value(variable) for variable in self.non_trainable_variables]

    def export(self, path: str | os.PathLike, format: str | None = None, **options: Any) -> dict[str, Any]:
        """Writes the detector for another runtime, pixels in and detections out, and compares the file with `predict`.

        Args:
            path: the file, or the folder of a SavedModel.
            format: "saved_model", "litert", "onnx", "openvino" or what `register_exporter` added; `None`: by the
                suffix of `path`.
            **options: as in `keras_detect.export.export_model`, which this calls.

        Returns:
            `ExportReport`: how far the file's detections lie from those of `predict`, its size and its speed.

        Raises:
            ValueError: an unknown format or option value; `ExportError` for what the format cannot express, and for
                answers beyond the tolerance.
        """
        return registry.provided("export")(self, path, format, **options)

    def detect(
        self,
        images: Any,
        score_threshold: float | None = None,
        batch_size: int = 8,
        max_pixels: int | None = None,
        *,
        tile: int | Sequence[int] | None = None,
        overlap: float = 0.2,
        whole_image: bool = True,
    ) -> Any:
        """Detects in an image, or in a list of images, of any size.

        Args:
            images: a path, the bytes of an image file, an open binary file, a Pillow image, an array `[H, W, 3]`
                (uint8, or float in 0...255) or `[H, W]` (gray), or a list or tuple of these.
            score_threshold: detections below it are skipped; None for `self.score_threshold`, 0.3 if that is None.
            batch_size: how many images of a list the network sees at once, at most.
            max_pixels: height times width of the largest image that is decoded; None for that of
                `keras_detect.data.pixel_limit`, 2**26 (8192 x 8192) unless it says otherwise.
            tile: pixels, an int or `(height, width)`: small objects in large images are found in overlapping tiles of
                this size, whose detections the model's own suppression merges; None for the image as a whole.
            overlap: least share of a tile that its neighbor has too, from 0 to below 1.
            whole_image: with `tile`: whether the image is also seen as a whole, where objects larger than a tile are
                found.

        Returns:
            For one image `keras_detect.inference.Detections`, a dict of numpy arrays, best first: `{"boxes" [n, 4]
            float32, normalized yxyx, "scores" [n] float32, "labels" [n] int32, "class_names"}`, and every further
            per-object field of `schema` that the model outputs; for a list, a list of such dicts. `"class_names"` is a
            list of n strings, `None` if the model has no class names.

        Raises:
            FileNotFoundError: no such file.
            IsADirectoryError: the path of a folder.
            ValueError: not an image or too large a one, a URL, an array of another shape, a `batch_size` below 1, or a
                `tile` or an `overlap` out of its range.
        """
        return registry.provided("detect")(
            self,
            images,
            score_threshold,
            batch_size,
            max_pixels,
            tile=tile,
            overlap=overlap,
            whole_image=whole_image,
        )
