"""`DetectionModel`: a detector's five verbs on Keras' training and prediction hooks."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_detect import schema
from keras_detect.meta_architectures.batch_checks import ChecksBatches
from keras_detect.meta_architectures.detection import Detection
from keras_detect.meta_architectures.freezing import Freezing
from keras_detect.meta_architectures.pretrained import Pretrained
from keras_detect.meta_architectures.training_hooks import REGULARIZATION_LOSS, TrainingHooks


class DetectionModel(ChecksBatches, TrainingHooks, Detection, Pretrained, Freezing, keras.Model):
    """A detector that `compile`, `fit`, `evaluate`, `predict` and `save` treat like any Keras model.

    A meta-architecture defines the four methods `preprocess`, `call`, `compute_losses` and `postprocess`, the
    properties `num_classes` and `num_detections`, and declares its `parts` and `loss_names`. Everything else is
    inherited: `compile`, `fit`, `evaluate` and `predict` on TensorFlow, JAX and PyTorch; checks of every batch;
    `detect`; `save`, `get_config` and `with_parts`; `from_preset`, `re_head` and `restore`; `freeze`.
    `tests/contracts/test_own_architecture.py` is a complete one in one file.

    The constructor creates every variable, sets each part under its argument's name, and calls `self.finish_init()` in
    its last line: Keras would otherwise build the model on the raw batch.

    Args:
        resizer: an image resizer part; the data pipeline reads it too.
        class_names: sequence of K strings or `None`; travels with the model through `save`.
        **kwargs: Keras' own `name`, `dtype`, `trainable`.
    """

    #: names the architecture in the tables of checkpoints that restore into it ("ssd"); None: there is none
    checkpoint_family: str | None = None

    #: regex of the `named_weights` that depend on the number of classes
    class_head: str = r"box_predictor/.*(_class|class_head|box_head)/.*"

    #: names of the scalars that `compute_losses` returns; each becomes a column of the progress bar and of `History`
    loss_names: tuple[str, ...] = ()

    #: names of further scalars that `compute_losses` returns: shown beside the losses, not part of their sum
    reported_names: tuple[str, ...] = ()

    #: pairs of keypoints, counted from 0, that a line joins in drawings
    skeleton: tuple[tuple[int, int], ...] = ()

    def __init__(self, *, resizer: Any, class_names: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.resizer = resizer
        self.class_names = None if class_names is None else schema.check_class_names(class_names)

    def finish_init(self) -> None:
        """Checks that the parts agree and marks the model built. The last line of a subclass' `__init__`."""
        self._check_class_names()
        scalars = (*self.loss_names, REGULARIZATION_LOSS, *self.reported_names)
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in scalars}
        self.build((None, None, None, 3))
        super().finish_init()

    def build(self, input_shape: Any) -> None:
        self.built = True

    def _check_class_names(self):
        if self.class_names is not None:
            self.class_names = schema.check_class_names(self.class_names, self.num_classes)

    @property
    def num_classes(self) -> int:
        """K, background not counted."""
        raise AttributeError(f"{type(self).__name__} must define the property `num_classes`.")

    @property
    def num_detections(self) -> int:
        """D, the rows of `postprocess`."""
        raise AttributeError(f"{type(self).__name__} must define the property `num_detections`.")

    def preprocess(self, images: Any, true_image_shapes: Any = None) -> dict[str, Any]:
        """From pixels to what the network takes. Runs in training, evaluation, prediction and export.

        Scales and resizes, in the order that the architecture requires. A detector on which the data pipeline resizes
        takes a third argument, `resized=False`: whether the images come resized and padded by `self.resizer`.

        Args:
            images: `[B, H, W, 3]` uint8 or float in 0...255.
            true_image_shapes: `[B, 3]` int32 where images are padded at the right and the bottom, else `None`.

        Returns:
            `{"images" [B, h, w, 3] float32, "true_image_shapes" [B, 3] int32}`, the shapes in pixels of the
            preprocessed images.
        """
        raise TypeError(f"{type(self).__name__} must define `preprocess(images, true_image_shapes=None)`.")

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Raw predictions. Runs in training, evaluation, prediction and export.

        Args:
            inputs: what `preprocess` returned.
            training: whether batch norm and dropout train, as in Keras.

        Returns:
            dict of tensors with the batch axis first, or without one (anchors); what `compute_losses` and
            `postprocess` need. Boxes in it are normalized to the preprocessed image. Shapes are static, so that it
            compiles; under mixed precision, heads should end in float32.
        """
        raise TypeError(f"{type(self).__name__} must define `call(inputs, training=None)`.")

    def compute_losses(
        self, y: Any, predictions: dict[str, Any], inputs: Any, training: bool | None = True
    ) -> dict[str, Any]:
        """The losses of a batch. Runs in training and evaluation.

        Args:
            y: ground truth as `ground_truth.clean_ground_truth` returns it: `"boxes" [B, M, 4]`, `"labels"`,
                `"weights"` and `"valid"` `[B, M]`, padding rows with weight 0, and every other field that the data
                have. Normalized to the true image; `ground_truth.in_padded_frame` moves it to the preprocessed image.
            predictions: what `call` returned.
            inputs: what `preprocess` returned.
            training: False in evaluation, where random choices should be the same every time.

        Returns:
            dict of float32 scalars: each of `loss_names`, which are summed with the regularization losses, and each of
            `reported_names`, which are only shown. A mean over the images of the batch, or over its objects.
        """
        raise TypeError(f"{type(self).__name__} must define `compute_losses(y, predictions, inputs, training)`.")

    def postprocess(self, predictions: dict[str, Any], true_image_shapes: Any) -> dict[str, Any]:
        """From raw predictions to detections. Runs in prediction and export.

        Args:
            predictions: what `call` returned with `training=False`.
            true_image_shapes: `[B, 3]` int32, of the preprocessed images, as `preprocess` returned them.

        Returns:
            Detections (`schema`): `"boxes" [B, D, 4]` normalized to the true image, `"scores"`, `"labels"` `[B, D]`,
            best first, `"num_detections" [B]`; rows past it are zeros with label -1. D is `num_detections`.
        """
        raise TypeError(f"{type(self).__name__} must define `postprocess(predictions, true_image_shapes)`.")
