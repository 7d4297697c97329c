"""Weights from elsewhere: presets, checkpoints, and the same model for other classes."""

import os
from collections.abc import Sequence
from typing import Any, Self

from keras_detect import registry, schema
from keras_detect.meta_architectures.class_prior import set_class_prior
from keras_detect.meta_architectures.model_mixin import ModelMixin
from keras_detect.meta_architectures.starting_weights import ALONE
from keras_detect.weights import keras_sources, torch_state_dict  # noqa: F401 - they register their readers
from keras_detect.weights.named_weights import ModelWeights, copy_weights
from keras_detect.weights.sources import restore_model


class Pretrained(ModelMixin):
    """What `DetectionModel` inherits for presets and checkpoints. Higher levels know their formats."""

    started_from: str | None

    def save_to_preset(self, directory: str | os.PathLike, metadata: dict[str, Any] | None = None) -> None:
        """Writes the preset directory `config.json`, `weights.h5`, `label_map.json`, `metadata.json`.

        Args:
            directory: the folder to write; it appears whole or not at all.
            metadata: dict added to `metadata.json` (source, license, measured metric, ...).
        """
        registry.provided("save_preset")(self, directory, metadata)

    @classmethod
    def from_preset(
        cls,
        name: str | os.PathLike,
        num_classes: int | None = None,
        load_weights: bool = True,
        class_names: Sequence[str] | None = None,
        image_size: int | Sequence[int] | None = None,
    ) -> Any:
        """A model from a built-in name, a preset directory, a URI or a `.keras` file.

        Args:
            name: built-in name, directory, `hf://`, `kaggle://`, `https://`, `file://` address, archive or `.keras`
                file of a detector.
            num_classes: re-head for another number of classes: all other weights are kept, and the log says how
                many were not.
            load_weights: `False` builds the architecture only, without network.
            class_names: names for the new head; sets `num_classes`.
            image_size: another size than the preset's to which images are resized: an int or `(height, width)`; see
                `with_size` of the model's resizer. Weights fit any size; accuracy is best near the trained one.

        Raises:
            ValueError: an unknown name (similar names of all kinds are listed), a resizer without a size, a preset of
                another model class.
        """
        if class_names is not None:
            num_classes = len(class_names) if num_classes is None else num_classes
        model = registry.provided("load_preset")(name, num_classes=num_classes, load_weights=load_weights)
        if not isinstance(model, cls):
            raise ValueError(
                f"The preset '{name}' holds a {type(model).__name__}. Received a call of {cls.__name__}.from_preset; "
                f"use {type(model).__name__}.from_preset or DetectionModel.from_preset."
            )
        if class_names is not None:
            model.class_names = schema.check_class_names(class_names, model.num_classes)
        if image_size is not None:
            model.resizer = model.resizer.with_size(image_size)
        if load_weights and not os.path.exists(name):  # a local copy says itself what it was trained from
            model.started_from = f"'{name}'"
        return model

    def re_head(self, num_classes: int | None = None, class_names: Sequence[str] | None = None) -> Self:
        """A new model for other classes: the same architecture, every weight but the class head's copied.

        Args:
            num_classes: K of the new model; may be omitted when `class_names` is given.
            class_names: sequence of K strings.

        Returns:
            The new, uncompiled model; the log says how many weights are new, and at level DEBUG which.
        """
        if num_classes is None:
            if class_names is None:
                raise ValueError("re_head needs num_classes or class_names. Received neither.")
            num_classes = len(class_names)
        config = self.with_num_classes(self.get_config(), num_classes)
        model = type(self).from_config({**config, "class_names": class_names})
        report = copy_weights(ModelWeights(self), model, other_classes=True)
        named = model.named_weights()
        set_class_prior(model, [named[name] for name in report.kept])
        report.log()
        return model

    def restore(
        self,
        checkpoint: str | os.PathLike,
        kind: str = "detection",
        calibration_images: Any = None,
        moving_averages: bool = False,
    ) -> Any:
        """Restores weights, strictly: of another detector, a preset, a checkpoint, or a classifier.

        Args:
            checkpoint: a detector or its `.keras` file; a preset's name,
                folder or address; a LiteRT file (`.tflite`); prefix, folder or `.tar.gz` of a checkpoint of the
                TensorFlow Object Detection API, of TensorFlow 2 or 1, or a frozen graph or SavedModel of the latter;
                with `kind="classification"` also a network of keras.applications, or a
                classifier around the same backbone, as a Keras model, or as a `.keras`, `.h5` or `.weights.h5` file.
            kind: "detection" (everything, or all but the class head where the number of classes differs) or
                "classification" (the backbone alone).
            calibration_images: training images, as `weights.unfold_batchnorm` takes them: run it where the source
                holds folded batch norm (a LiteRT file), so that the model can be fine-tuned.
            moving_averages: take the exponential moving averages of the weights where a checkpoint holds them, as
                upstream does with `use_moving_averages: true` in `eval_config`; the log says where there are none.

        Returns:
            `RestoreReport`: what was restored, kept and ignored, and why.

        Raises:
            ValueError: model and checkpoint do not fit; every leftover is listed and nothing was restored. Weights of
                keras.applications do not fit a backbone that computes something else (`weights.keras_applications`).
            FileNotFoundError: no such file or folder.
        """
        report = restore_model(self, checkpoint, kind, calibration_images, moving_averages)
        self.quantization_ranges = {scope: list(ends) for scope, ends in report.ranges.items()} or None
        self.started_from = report.source if kind == "detection" else f"{report.source}, {ALONE}"
        return report


def from_torchvision(cls, architecture, name, num_classes, class_names, weights, parts):
    """A `cls` with the parts of torchvision's detector `name`; arguments as of its `from_torchvision`."""
    if num_classes is None and class_names is not None:
        num_classes = len(class_names)
    settings, names = registry.provided("torchvision_parts")(name, architecture, num_classes)
    given = {"num_classes": num_classes, "class_names": class_names or names, "weights": None, **settings, **parts}
    model = cls.from_backbone(**given)
    if weights is not None:
        model.restore(weights)
    return model
